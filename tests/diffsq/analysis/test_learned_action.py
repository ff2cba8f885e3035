"""The learned effective action of one variable: exact scores give exact actions, wrong ones are seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.integrate import quad
from torch import Tensor

from diffsq.analysis.learned_action import compare_action, learned_curve, noised_action, support, text
from diffsq.models.two_peak import TwoPeakScore
from diffsq.plots.learned_action import figure
from lattice.actions.one_variable import RealQuartic, TwoPeak
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.rng import normals

SINGLE, DOUBLE = RealQuartic(1.0, 0.4), RealQuartic(-1.0, 0.4)


class Exact:
    """The score of an action, or of its noised form, with an error of its own."""

    def __init__(self, action: RealQuartic, off: float = 0.0) -> None:
        self.action, self.off = action, off

    def score(self, x: Tensor, sigma: Tensor, frame: object = None) -> Tensor:
        return -self.action.grad(x) + self.off * x


class Energy(Exact):
    kind = "energy"

    def energy(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.action.action(x) + 3.0


@pytest.mark.parametrize("action", [SINGLE, DOUBLE])
def test_noised_action_is_the_quadrature(action: RealQuartic) -> None:
    sigma = 0.4
    phi = np.array([-3.0, -1.0, 0.0, 0.3, 2.5])

    def density(x: float) -> float:
        def inside(y: float) -> float:
            s = 0.5 * action.mu2 * y**2 + action.g / 24 * y**4
            return math.exp(-s - 0.5 * ((x - y) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))

        return float(quad(inside, x - 12 * sigma, x + 12 * sigma, epsabs=0, epsrel=1e-12, limit=400)[0])

    expected = [-math.log(density(x)) for x in phi]
    assert np.allclose(noised_action(action, phi, sigma), expected, rtol=1e-9, atol=1e-9)


def test_noised_action_at_small_noise_and_for_two_peaks() -> None:
    phi, sigma = support(DOUBLE), 0.02
    x = torch.from_numpy(phi)[:, None]
    s1, s2 = DOUBLE.grad(x)[:, 0].numpy(), DOUBLE.mu2 + DOUBLE.g / 2 * phi**2
    first_order = DOUBLE.action(x).numpy() + 0.5 * sigma**2 * (s2 - s1**2)
    assert np.abs(noised_action(DOUBLE, phi, sigma) - first_order).max() < 1e-4
    law, peak = TwoPeakScore(1.0, 0.25), TwoPeak(1.0, 0.25)
    grid = support(peak)
    exact = law.energy(torch.from_numpy(grid)[:, None], torch.full((1,), 0.3, dtype=torch.float64)).numpy()
    assert np.allclose(noised_action(peak, grid, 0.3), exact, atol=1e-9)


@pytest.mark.parametrize("action", [SINGLE, DOUBLE])
@pytest.mark.parametrize("model", [Exact, Energy])
def test_an_exact_model_gives_the_action(action: RealQuartic, model: type[Exact]) -> None:
    phi = support(action)
    assert np.abs(phi).min() < 1e-12
    curve = learned_curve(model(action), phi, 0.1)
    assert np.allclose(curve, action.action(torch.from_numpy(phi)[:, None]).numpy(), atol=1e-8)


def test_the_two_peak_score_integrates_to_its_energy() -> None:
    law, phi = TwoPeakScore(1.0, 0.25), support(TwoPeak(1.0, 0.25))
    found = compare_action([learned_curve(law, phi, 0.1)] * 2, TwoPeak(1.0, 0.25), phi, 0.1)
    assert found.off["noised"] < 1e-6
    assert found.off["action"] > 0.01  # sigma = 0.1 is not small against a peak of 0.25
    assert found.couplings == {}


def models(action: RealQuartic, k: int, size: float, bias: float = 0.0) -> list[Floats]:
    """Curves of k models whose couplings mu2 are off by independent errors, and a common one."""
    phi = support(action)
    off = size * normals(1, "test/models", np.arange(k), 0, 1)[:, 0]
    return [learned_curve(Exact(action, float(o) + bias), phi, 0.05) for o in off]


def test_couplings_and_the_band() -> None:
    phi = support(SINGLE)
    found = compare_action(models(SINGLE, 40, 0.05), SINGLE, phi, 0.05)
    learned = found.couplings["learned"]
    assert abs(learned["mu2"]["value"] - 1.0) < 4 * learned["mu2"]["error"]
    assert 0.5 < learned["mu2"]["error"] / (0.05 / math.sqrt(40)) < 1.6
    assert abs(learned["g"]["value"] - 0.4) < 1e-6
    assert np.allclose(found.spread, found.error * math.sqrt(40))
    assert (found.density @ (found.learned - found.action)) == pytest.approx(0, abs=1e-12)
    biased = compare_action(models(SINGLE, 40, 0.05, bias=0.2), SINGLE, phi, 0.05).couplings["learned"]
    assert abs(biased["mu2"]["value"] - 1.0) > 10 * biased["mu2"]["error"]


def test_jackknife_band() -> None:
    """Leave-one-out models of b blocks differ by 1/(b - 1) of what blocks do: the factor puts it back."""
    phi, b = support(SINGLE), 20
    off = normals(3, "test/jack", np.arange(b), 0, 1)[:, 0]
    left = (off.sum() - off) / (b - 1)
    direct, jack = (
        compare_action([learned_curve(Exact(SINGLE, 0.1 * o), phi, 0.05) for o in v], SINGLE, phi, 0.05, lo)
        for v, lo in ((off, False), (left, True))
    )
    assert np.allclose(direct.error, jack.error, rtol=1e-6, atol=1e-12)
    assert direct.couplings["learned"]["mu2"]["error"] == pytest.approx(
        jack.couplings["learned"]["mu2"]["error"], rel=1e-6
    )


def test_figure_text_and_bad_input() -> None:
    found = [compare_action(models(a, 4, 0.05), a, support(a), 0.05) for a in (SINGLE, DOUBLE)]
    assert isinstance(figure(found, ["one", "two"]), Figure)
    assert "mu2" in text(found[0])
    assert set(found[0].as_dict()) >= {"phi", "learned", "error", "noised"}
    phi = support(SINGLE)
    with pytest.raises(InputError, match="two or more"):
        compare_action([phi], SINGLE, phi, 0.1)
    with pytest.raises(InputError, match="on a grid"):
        compare_action([phi[1:], phi[1:]], SINGLE, phi, 0.1)
    with pytest.raises(InputError, match="must be positive"):
        noised_action(SINGLE, phi, 0.0)
    with pytest.raises(InputError, match="NaN or infinite"):
        learned_curve(Exact(SINGLE, math.inf), phi, 0.1)
