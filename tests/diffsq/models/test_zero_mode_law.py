"""The law of the zero mode as a function of rho: Gaussians and double wells between those it has seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsq.models.zero_mode_law import REACH, ZeroModeLaw, falling

ONE = torch.ones(1, dtype=torch.float64)


def wells(depth: float, n: int, seed: int) -> Tensor:
    """Draws of e^{-depth (s^2 - 1)^2}, in units of their size; a Gaussian for depth 0."""
    rng = np.random.default_rng([5, seed])
    if depth == 0:
        z = rng.normal(size=n)
    else:
        s = np.linspace(-4, 4, 40001)
        p = np.exp(-depth * (s**2 - 1) ** 2)
        z = np.interp(rng.random(n), np.cumsum(p) / p.sum(), s)
    return torch.from_numpy(z / np.sqrt((z**2).mean()))


def rho_of(z: Tensor) -> float:
    return float(z.abs().mean() ** 2 / (z**2).mean())


def fitted(symmetric: bool, depths: tuple[float, ...]) -> ZeroModeLaw:
    law, draws = ZeroModeLaw(symmetric, 1), [wells(d, 200_000, i) for i, d in enumerate(depths)]
    rho = [rho_of(z) for z in draws]
    if not symmetric:
        draws = [z.abs() - z.abs().mean() for z in draws]
        draws = [z / z.std() for z in draws]
    law.fit([law.counts(z) for z in draws], rho, [ONE] * len(draws))
    return law


@pytest.fixture(scope="module")
def both() -> ZeroModeLaw:
    return fitted(True, (0.0, 0.3, 0.7, 1.5, 3.0, 6.0))


def missed(law: ZeroModeLaw, z: Tensor) -> float:
    """KL of the law at their rho from the draws, in nats, less the noise of bins: against their histogram."""
    seen = law.counts(z) / len(z)
    seen = (seen + seen.flip(0)) / 2 if law.symmetric else seen
    log_p = law.log_p(rho_of(z), ONE)
    kept = seen > 0
    return float((seen[kept] * (seen[kept].log() - log_p[kept])).sum()) - int(kept.sum()) / (4 * len(z))


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_between_what_it_has_seen(both: ZeroModeLaw, depth: float) -> None:
    assert missed(both, wells(depth, 400_000, 99)) < 2e-3


def test_at_another_rho_it_is_another_law(both: ZeroModeLaw) -> None:
    z = wells(2.0, 400_000, 98)
    seen = both.counts(z) / len(z)
    wrong = both.log_p(0.7, ONE)
    kept = seen > 0
    assert float((seen[kept] * (seen[kept].log() - wrong[kept])).sum()) > 0.1


def test_one_sign_becomes_a_gaussian_where_the_peaks_are_sharp() -> None:
    law = fitted(False, (2.0, 4.0, 8.0, 16.0, 32.0))
    s = law.s
    for rho, most in ((0.99, 0.05), (0.996, 0.03)):
        p = law.log_p(rho, ONE).exp()
        mean = float((p * s).sum())
        assert abs(mean) < most
        assert float((p * s**2).sum()) == pytest.approx(1, abs=most)
    skew = [float((law.log_p(rho, ONE).exp() * s**3).sum()) for rho in (0.97, 0.996)]
    assert skew[0] < skew[1] < 0


def test_the_denoiser_is_the_mean_of_the_law(both: ZeroModeLaw) -> None:
    size, sigma = 3.0, 1.7
    rho = rho_of(wells(1.5, 400_000, 97))
    denoiser = both.denoiser(rho, ONE, size, 0.0)
    z = torch.linspace(-6, 6, 13, dtype=torch.float64)
    s, p = both.s, both.log_p(rho, ONE).exp()
    weight = p * torch.exp(-((z[:, None] - size * s) ** 2) / (2 * sigma**2))
    expected = (weight * size * s).sum(1) / weight.sum(1)
    found = denoiser(z, torch.full_like(z, sigma))
    assert float((found - expected).abs().max()) < 5e-3
    assert math.isclose(float((denoiser.log_p.exp() * denoiser.centre**2).sum()), size**2, rel_tol=0.02)


def test_tails_never_come_back() -> None:
    """A polynomial in rho and s that rises where no field was gives no weight there; a law that falls is left
    alone."""
    law = ZeroModeLaw(True, 1)
    with torch.no_grad():
        law.theta[0, 0, 0] = -0.25 * REACH[True] ** 2  # s^2/2 up to a constant
        law.theta[4, 0, 0] = 9.0  # T_10
    waves = torch.ones(1, dtype=torch.float64)
    raw = law.log_p(2 / math.pi, waves)
    assert float(raw[-1]) > float(raw[len(raw) // 2]) - 6  # it does come back
    found = law.denoiser(2 / math.pi, waves, 1.0, 1e-9)
    p, z = found.log_p.exp(), found.centre
    assert float(p[z.abs() > 4.5].sum()) < 1e-3
    gauss = ZeroModeLaw(True, 1)
    with torch.no_grad():
        gauss.theta[0, 0, 0] = -0.25 * REACH[True] ** 2
    own = gauss.log_p(2 / math.pi, waves)
    torch.testing.assert_close(falling(own, gauss.s, True), own)


def test_both_peaks_stay() -> None:
    """Between two sharp peaks P is as deep as in any tail: that is no tail."""
    s = ZeroModeLaw(True, 1).s
    wells = -20 * (s**2 - 1) ** 2
    torch.testing.assert_close(falling(wells, s, True), wells)
    assert float(falling(wells, s, False)[s < 0].max()) < -5  # the control: of one sign the other is a tail
