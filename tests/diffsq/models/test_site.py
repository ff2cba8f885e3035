"""The site posterior against adaptive quadrature, its exact limits, and its bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fields import grid, white
from scipy.integrate import quad
from torch import Tensor

from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.models.site import N_POINTS, SitePosterior
from lattice.actions.phi4 import ScalarPhi4
from lattice.exact.scalar import free_propagator

SIGMAS = torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64)
SPREAD = torch.tensor([0.03, 0.1, 0.2, 0.3], dtype=torch.float64)
FIELD_MAX = 2.5


def site_of(kappa: float, lam: float, spread: Tensor = SPREAD) -> SitePosterior:
    site = SitePosterior(len(SIGMAS))
    site.fit(kappa, lam, SIGMAS, spread, FIELD_MAX)
    return site


def by_quadrature(h: float, sigma: float, kappa: float, lam: float, v: float) -> tuple[float, float]:
    """Mean and variance of exp[-a phi^2 - lam phi^4 + h phi]."""
    a = 1 - 2 * lam + 0.5 / sigma**2 - 0.5 * (2 * kappa) ** 2 * 4 * v

    def exponent(phi: float) -> float:
        return h * phi - a * phi**2 - lam * phi**4

    axis = np.linspace(-2 * FIELD_MAX, 2 * FIELD_MAX, 4001)
    peak = float(axis[np.argmax(h * axis - a * axis**2 - lam * axis**4)])
    width = 8 / math.sqrt(2 * abs(a) + 12 * lam * peak**2)
    points = sorted({-peak, peak, peak - width, peak + width})

    def moment(n: int, about: float = 0.0) -> float:
        def integrand(phi: float) -> float:
            return (phi - about) ** n * math.exp(exponent(phi) - exponent(peak))

        return float(quad(integrand, -3 * FIELD_MAX, 3 * FIELD_MAX, points=points, limit=400)[0])

    norm = moment(0)
    mean = moment(1) / norm
    return mean, moment(2, mean) / norm


def largest(site: SitePosterior, node: int) -> float:
    """The largest h of a table."""
    stiffness = float(site.stiffness)
    return (FIELD_MAX + 2 / math.sqrt(stiffness)) * (1 / float(SIGMAS[node]) ** 2 + stiffness)


def read_off(site: SitePosterior, h: float, node: int) -> tuple[float, float]:
    """Mean and log-variance at a field h and a noise level, straight from the tables."""
    axis = np.linspace(-1, 1, N_POINTS) * largest(site, node)
    return tuple(float(np.interp(h, axis, t[node].numpy())) for t in (site.mean, site.log_variance))  # type: ignore[return-value]


@pytest.mark.parametrize(("kappa", "lam"), [(0.33, 0.5), (0.2, 0.022), (-0.1, 1.0)])
@pytest.mark.parametrize("node", range(4))
def test_mean_and_variance_against_quadrature(kappa: float, lam: float, node: int) -> None:
    """On the table's own points to float32 rounding, between them to its second-order error."""
    site = site_of(kappa, lam)
    top, sigma, v = largest(site, node), float(SIGMAS[node]), float(SPREAD[node])
    step = 2 * top / (N_POINTS - 1)
    for h in (0.0, step, 40 * step, -200 * step):
        mean, variance = by_quadrature(h, sigma, kappa, lam, v)
        found, log_variance = read_off(site, h, node)
        assert found == pytest.approx(mean, rel=1e-6, abs=1e-7)
        assert log_variance == pytest.approx(math.log(variance), abs=1e-6)
        wrong, _ = by_quadrature(h, 1.05 * sigma, kappa, lam, v)
        assert h == 0 or abs(found - wrong) > 1e-4 * abs(mean)
    for h in (33.5 * step, 150.6 * step):
        mean, variance = by_quadrature(h, sigma, kappa, lam, v)
        found, log_variance = read_off(site, h, node)
        assert found == pytest.approx(mean, abs=2e-3 * math.sqrt(variance))
        assert log_variance == pytest.approx(math.log(variance), abs=2e-3)


def test_variance_is_the_slope_of_the_mean() -> None:
    """d<phi>/dh = Var phi: an identity of any density, here between the two tables."""
    site = site_of(0.33, 0.5)
    h = torch.stack([largest(site, k) * torch.linspace(-1, 1, N_POINTS).double() for k in range(len(SIGMAS))])
    slope = (site.mean[:, 2:] - site.mean[:, :-2]) / (h[:, 2:] - h[:, :-2])
    inside = site.mean[:, 1:-1].abs() < FIELD_MAX  # beyond it the integration range cuts the density
    error = (slope.log() - site.log_variance[:, 1:-1])[inside].abs()
    assert error.max() < 2e-2
    assert error.median() < 1e-3


def test_odd_mean_and_even_variance() -> None:
    site = site_of(0.33, 0.5)
    torch.testing.assert_close(site.mean, -site.mean.flip(1), rtol=0, atol=1e-7)
    torch.testing.assert_close(site.log_variance, site.log_variance.flip(1), rtol=0, atol=1e-7)
    x, mu = white((4, 6), 8, 1), white((4, 6), 8, 2)
    sigma, position = torch.full((8,), 0.7).double(), torch.full((8,), 1.4).double()
    f, width = site(x, mu, sigma, position)
    g, same = site(-x, -mu, sigma, position)
    torch.testing.assert_close(g, -f, rtol=0, atol=1e-5)
    torch.testing.assert_close(same, width, rtol=0, atol=1e-5)
    assert f.shape == (8, 3, 4, 6)
    assert f.abs().amax((0, 2, 3)).min() > 1e-3
    assert (site(-x, mu, sigma, position)[0] + f).abs().max() > 0.1


def test_huge_fields_stay_bounded() -> None:
    site = site_of(0.33, 0.5)
    x = white((4, 4), 8, 3)
    for position in (0.0, 1.7, 3.0):
        for size in (1e2, 1e6, 1e150):
            p = torch.full((8,), position).double()
            f, width = site(size * x, size * x, torch.full((8,), 0.2).double(), p)
            assert torch.isfinite(f).all()
            assert torch.isfinite(width).all()
            assert f.abs().max() <= 4 * FIELD_MAX
            assert site.log_variance.min() - 1e-6 <= width.min()
            assert width.max() <= site.log_variance.max() + 1e-6


def test_gaussian_action_is_linear() -> None:
    """lam = 0: <phi> = h/(2a) and Var = 1/(2a) exactly, so that the iteration is Jacobi's."""
    kappa = 0.2
    site = site_of(kappa, 0.0)
    a = 1 + 0.5 / SIGMAS**2 - 0.5 * (2 * kappa) ** 2 * 4 * SPREAD
    x, mu = 0.2 * white((4, 6), 4, 4), 0.2 * white((4, 6), 4, 5)
    f, width = site(x, mu, SIGMAS, torch.arange(4).double())
    flat = -(2 * a).log()[:, None, None].expand_as(width).float()
    torch.testing.assert_close(width, flat, rtol=0, atol=1e-5)
    seen = [mu]
    for _ in range(3):
        near = sum(seen[-1].roll(s, d) for s in (1, -1) for d in (1, 2))
        seen.append((x / SIGMAS[:, None, None] ** 2 + 2 * kappa * near) / (2 * a)[:, None, None])
    expected = torch.stack([seen[3] - mu, seen[3] - seen[2], seen[2] - seen[1]], 1)
    torch.testing.assert_close(f, expected.float(), rtol=0, atol=1e-5)
    assert (f - 1.01 * expected).abs().max() > 1e-3


def test_gaussian_iteration_converges_to_the_wiener_filter() -> None:
    """lam = 0 and neighbours known exactly (v = 0): mu = W x is the fixed point, no feature is left."""
    shape, kappa = (6, 6), 0.2
    p = Momenta(shape)
    g = torch.from_numpy(free_propagator(kappa, shape))[..., : shape[-1] // 2 + 1]
    w = g / (g + SIGMAS[:, None, None] ** 2)
    x = 0.2 * white(shape, 4, 6)
    site = site_of(kappa, 0.0, torch.zeros(4).double())
    f, _ = site(x, p.fields(w * p.modes(x)), SIGMAS, torch.arange(4).double())
    assert f.abs().max() < 1e-5
    assert site(x, 0.9 * p.fields(w * p.modes(x)), SIGMAS, torch.arange(4).double())[0].abs().max() > 1e-3


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.5])
def test_decoupled_sites_are_exact(lam: float) -> None:
    """kappa = 0: first guess plus first feature is E[phi|x] of the one-site model, without any fit."""
    action, shape = ScalarPhi4(0.0, lam), (4, 4)
    base = RegressionBase(Momenta(shape), 4)
    base.set_gaussian(torch.full((base.momenta.n_class,), 0.6).double(), 0.2, 3.0)
    base.set_action(action, FIELD_MAX)
    sigma = base.log_sigma.exp()
    x = 1.2 * white(shape, 4, 7)
    phi, _ = grid(2 * FIELD_MAX, 20_001)
    log_p = -action.action(phi[:, None])
    exact = torch.empty_like(x)
    variance = torch.empty_like(x)
    for i, s in enumerate(sigma):
        p = torch.softmax(log_p - (x[i][..., None] - phi) ** 2 / (2 * s**2), -1)
        exact[i] = (p * phi).sum(-1)
        variance[i] = (p * phi**2).sum(-1) - exact[i] ** 2
    xk = base.momenta.modes(x)
    w, _ = base.wiener(sigma)
    mu = base.momenta.fields(base.momenta.expand(w) * xk)
    f, log_variance = base.site(x, mu, sigma, base.position(sigma))
    for found, known, table in (
        (mu + f[:, 0], exact, base.site.mean), (log_variance, variance.log(), base.site.log_variance)
    ):  # fmt: skip
        interpolation = table.diff(n=2).abs().amax(1) / 8  # largest error of a chord
        assert ((found - known).abs().amax((1, 2)) < 1.1 * interpolation + 1e-5).all()
        assert (interpolation < 0.01).all()
    assert f[:, 1:].abs().max() == 0  # nothing to iterate
    assert (mu - exact).abs().max() > 0.05
    # the same numbers are the last but one features of the base
    features, same = base.features(xk, base.normalised(xk, sigma), sigma)
    torch.testing.assert_close(same, log_variance.to(same.dtype), rtol=0, atol=1e-5)
    torch.testing.assert_close(base.momenta.fields(features[:, -4]), f[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kappa", "lam"), [(0.33, 0.5), (0.25, 0.022), (0.0, 0.1)])
def test_between_the_noise_levels(kappa: float, lam: float) -> None:
    """Midway between levels as close as by default (48 from 0.1 to 30) the mean is right to 5e-4.

    Interpolated at fixed h it would be off by 1e-2 at small sigma, and the score with it.
    """
    nodes = torch.logspace(-1, math.log10(30), 48, dtype=torch.float64)
    site, v = SitePosterior(len(nodes)), 0.1
    site.fit(kappa, lam, nodes, torch.full((48,), v).double(), FIELD_MAX)
    x, mu = white((2, 2), 1, 8), 0.7 * white((2, 2), 1, 9)
    near = 2 * (mu.roll(1, -1) + mu.roll(1, -2))
    worst, at_fixed_h = 0.0, 0.0
    for node in (0, 7, 14, 21, 28, 40):
        sigma = (nodes[node : node + 1] * nodes[node + 1 : node + 2]).sqrt()
        f, _ = site(x, mu, sigma, torch.tensor([node + 0.5]).double())
        first = (mu + f[:, 0] - f[:, 1] - f[:, 2]).flatten()
        for i, h in enumerate((x / sigma**2 + 2 * kappa * near).flatten().tolist()):
            mean, _ = by_quadrature(h, float(sigma), kappa, lam, v)
            ends = [by_quadrature(h, float(nodes[k]), kappa, lam, v)[0] for k in (node, node + 1)]
            worst = max(worst, abs(float(first[i]) - mean))
            at_fixed_h = max(at_fixed_h, abs(sum(ends) / 2 - mean))
    assert worst < 5e-4
    assert at_fixed_h > 3e-3


def test_without_a_fit_it_says_nothing() -> None:
    site = SitePosterior(3)
    x = white((4, 4), 2, 10)
    f, width = site(x, x, torch.ones(2).double(), torch.zeros(2).double())
    assert f.abs().max() == 0
    assert width.abs().max() == 0
