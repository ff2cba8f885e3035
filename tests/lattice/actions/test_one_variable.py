"""The one-variable models: holomorphic gradients, files, exact draws, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lattice.actions.complexified import Complexified
from lattice.actions.kinds import action_from_dict
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.actions.phi4 import ComplexPhi4, ScalarPhi4
from lattice.actions.protocol import as_phi4, complex_coupling
from lattice.actions.u1 import OneLink
from lattice.ensembles.ensemble import Ensemble, read_ensemble, write_ensemble
from lattice.errors import InputError
from lattice.exact.one_variable import toy_cumulants, toy_moments
from lattice.observables.measure import measure
from lattice.simulation.exact_draws import draw_toy

MODELS: list[Any] = [
    ComplexGaussian(1 + 0.5j), ComplexQuartic(1 + 1j, 1.0), OneLink(0.7 - 0.2j), RealQuartic(-1.0, 0.4),
    TwoPeak(1.0, 0.5), ComplexPhi4(0.1, 0.3, 1 + 0.5j),
]  # fmt: skip


def complex_fields(shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(5)
    return torch.from_numpy(rng.normal(size=shape) + 0.4j * rng.normal(size=shape))


def difference_quotient(action: Any, z: torch.Tensor, h: complex) -> torch.Tensor:
    """dS/dz_x of every site by central differences of step h (fourth order)."""
    flat, out = z.reshape(len(z), -1), torch.empty_like(z).reshape(len(z), -1)
    for x in range(flat.shape[1]):
        unit = torch.zeros_like(flat)
        unit[:, x] = h
        s = [action.action((flat + k * unit).reshape(z.shape)) for k in (-2, -1, 1, 2)]
        out[:, x] = (s[0] - 8 * s[1] + 8 * s[2] - s[3]) / (12 * h)
    return out.reshape(z.shape)


@pytest.mark.parametrize("action", MODELS, ids=lambda a: type(a).__name__)
def test_the_gradient_is_holomorphic(action: Any) -> None:
    z = complex_fields((6, 2, 3) if isinstance(action, ComplexPhi4) else (6, 3))
    for h in (1e-3, 1e-3j, (1 + 1j) * 1e-3):  # the derivative is the same in every direction
        assert torch.allclose(action.grad(z), difference_quotient(action, z, h), atol=1e-8)
    assert action.action(z).dtype == action.grad(z).dtype == torch.complex128
    conjugated = type("Conjugated", (), {"action": lambda _, w: action.action(w.conj())})()
    quotients = [difference_quotient(conjugated, z, h) for h in (1e-3, 1e-3j)]
    assert not torch.allclose(*quotients, atol=1e-2)  # negative control: not holomorphic


@pytest.mark.parametrize("action", MODELS[:-1], ids=lambda a: type(a).__name__)
def test_one_variable_needs_no_lattice_axis(action: Any) -> None:
    z = complex_fields((5,))
    assert action.action(z).shape == action.grad(z).shape == (5,)
    assert torch.allclose(action.action(z[:, None]), action.action(z))


def test_real_in_real_out_where_the_couplings_are_real() -> None:
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)
    for action in (ComplexQuartic(1.0, 1.0), OneLink(0.5), RealQuartic(1.0, 0.4), TwoPeak(1.0, 0.25)):
        assert action.action(x).dtype == action.grad(x).dtype == torch.float64
        assert torch.allclose(action.grad(x.to(torch.complex128)).real, action.grad(x))


def test_two_peaks_far_apart_do_not_overflow() -> None:
    action, x = TwoPeak(40.0, 0.1), torch.tensor([-40.0, 0.0, 41.0], dtype=torch.float64)
    assert torch.isfinite(action.action(x)).all()
    assert torch.allclose(action.grad(x), torch.tensor([0.0, 0.0, 100.0], dtype=torch.float64))


@pytest.mark.parametrize("action", MODELS, ids=lambda a: type(a).__name__)
def test_files_give_the_action_back(action: Any) -> None:
    assert action_from_dict(action.as_dict()) == action
    assert action_from_dict(Complexified(action).as_dict()) == Complexified(action)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ComplexGaussian(-1 + 1j), "positive real part"),
        (lambda: ComplexGaussian(complex(math.nan, 0)), "finite"),
        (lambda: ComplexQuartic(1 + 1j, -0.1), "lam must be >= 0"),
        (lambda: ComplexQuartic(1j, 0.0), "positive real part"),
        (lambda: OneLink("strong"), "finite number"),  # type: ignore[arg-type]
        (lambda: OneLink(complex(math.inf, 0)), "finite"),
        (lambda: RealQuartic(-1.0, 0.0), "not integrable"),
        (lambda: TwoPeak(1.0, 0.0), "must be positive"),
        (lambda: ComplexPhi4(0.1, -1.0, 1.0), "lam must be >= 0"),
        (lambda: ComplexPhi4(0.1, 0.0, -1.0), "positive real part"),
        (lambda: complex_coupling("beta", [1.0]), "pair"),
        (lambda: action_from_dict({"kind": "complex_quartic", "sigma0": [1, 1]}), "action.lam is missing"),
        (lambda: action_from_dict({"kind": "one_link", "beta": [1, 1], "lam": 1}), "unknown key action.lam"),
        (lambda: action_from_dict({"kind": "one_link", "beta": [1, 1], "field": "z"}), "x\\+iy"),
        (lambda: action_from_dict({"kind": "one_links", "beta": 1}), "did you mean 'one_link'"),
        (lambda: Complexified(OneLink(1.0)).action(torch.zeros(2, 3)), "are \\(n, 2, \\*shape\\)"),
        (
            lambda: as_phi4(RealQuartic(1.0, 1.0), "clusters know"),
            "know phi\\^4 only, not RealQuartic",
        ),
        (lambda: TwoPeak(-1.0, 0.5), "action.mu0 must be >= 0, got -1"),
        (lambda: draw_toy(ComplexGaussian(1 + 1j), 10, 1), "complex"),
    ],
)
def test_refusals_are_one_line(make: Any, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_complex_fields_as_pairs_of_real_ones(tmp_path: Any) -> None:
    action = Complexified(ComplexQuartic(1 + 1j, 1.0))
    phi = np.random.default_rng(1).normal(size=(40, 2))
    z = torch.complex(torch.from_numpy(phi[:, 0]), torch.from_numpy(phi[:, 1]))
    assert torch.equal(action.action(torch.from_numpy(phi)), action.inner.action(z).real)
    assert torch.equal(action.action_im(torch.from_numpy(phi)), action.inner.action(z).imag)
    drift = action.grad(torch.from_numpy(phi))
    assert torch.equal(torch.complex(drift[:, 0], drift[:, 1]), action.inner.grad(z))
    write_ensemble(Ensemble.from_fields(phi, action), tmp_path)
    back = read_ensemble(tmp_path)
    assert back.action == action
    assert np.array_equal(back.phi, phi)
    assert list(measure(back)["observables"])[:2] == ["Re m2", "Im m2"]


@pytest.mark.parametrize("action", [TwoPeak(1.0, 0.25), RealQuartic(-1.0, 0.4), RealQuartic(1.0, 0.4)])
def test_exact_draws_have_the_exact_moments(action: Any) -> None:
    n = 400_000
    phi = draw_toy(action, n, seed=3)[:, 0]
    for order in (1, 2, 4, 6, 8):
        power = phi**order
        exact = toy_moments(action, [order])[0].real
        assert abs(power.mean() - exact) < 4 * power.std() / math.sqrt(n)
    wrong = toy_moments(TwoPeak(1.02, 0.25) if isinstance(action, TwoPeak) else RealQuartic(-0.9, 0.4), [2])
    assert abs((phi**2).mean() - wrong[0].real) > 10 * (phi**2).std() / math.sqrt(n)  # negative control


def test_draws_depend_on_their_number_only() -> None:
    action = RealQuartic(-1.0, 0.4)
    assert np.array_equal(draw_toy(action, 9000, 3)[:100], draw_toy(action, 100, 3))
    assert not np.array_equal(draw_toy(action, 100, 4), draw_toy(action, 100, 3))


def test_the_inverse_cdf_is_that_of_the_density() -> None:
    """Draws of one well are ordered as their uniforms; the CDF at quantiles against fine quadrature."""
    action = RealQuartic(1.0, 0.4)
    phi = np.sort(draw_toy(action, 200_000, 1)[:, 0])
    grid = np.linspace(-8, 8, 200_001)
    p = np.exp(-action.action(torch.from_numpy(grid)).numpy())
    cdf = np.cumsum(p) / p.sum()
    u = np.interp(phi, grid, cdf)
    gap = np.abs(u - (np.arange(u.size) + 0.5) / u.size).max()
    assert gap < 1.95 / math.sqrt(u.size)  # Kolmogorov-Smirnov at 0.1 %


def test_phi4_is_a_special_case() -> None:
    phi = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 4, 2)))
    ours, theirs = ComplexPhi4(0.2, 0.3, 1 - 0.6), ScalarPhi4(0.2, 0.3)
    assert torch.allclose(ours.action(phi), theirs.action(phi))
    assert torch.allclose(ours.grad(phi), theirs.grad(phi))


def test_the_strip_closes_at_three_a_squared() -> None:
    strip = ComplexQuartic(1 + 1j, 1.0).strip
    assert strip is not None
    assert abs(strip - 0.302905) < 1e-6
    assert ComplexQuartic(1 + 1.73j, 1.0).strip is not None
    assert ComplexQuartic(1 + 1.74j, 1.0).strip is None
    x = np.linspace(-20, 20, 100_001) + 1j * strip
    drift = -ComplexQuartic(1 + 1j, 1.0).grad(torch.from_numpy(x)).numpy()
    assert drift.imag.max() <= 1e-12  # on the line y = y_- nothing flows outwards


def test_cumulants_of_two_peaks_are_those_of_their_moments() -> None:
    action = TwoPeak(0.8, 0.4)
    z = np.linspace(-6, 6, 4001)
    p = np.exp(-action.action(torch.from_numpy(z)).numpy()) * (z[1] - z[0])
    assert abs(p.sum() - 1) < 1e-12
    assert np.allclose(toy_moments(action, [2, 4]).real, [(p * z**2).sum(), (p * z**4).sum()])
    assert np.allclose(toy_cumulants(action, 2).real, [0.0, 0.8**2 + 0.4**2])
