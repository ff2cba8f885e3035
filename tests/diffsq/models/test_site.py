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
from diffsq.models.site import N_CELLS, SitePosterior, SiteTable, neighbours
from diffsq.models.spline import cardinal
from lattice.actions.phi4 import ScalarPhi4
from lattice.exact.scalar import free_propagator

SIGMAS = torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64)
SPREAD = torch.tensor([0.03, 0.1, 0.2, 0.3], dtype=torch.float64)
FIELD_MAX = 2.5


def site_of(kappa: float, lam: float, spread: Tensor = SPREAD) -> SitePosterior:
    site = SitePosterior(len(SIGMAS))
    site.fit(kappa, lam, SIGMAS, spread, FIELD_MAX)
    return site


def table_of(
    site: SitePosterior, rows: Tensor, sigma: Tensor, dtype: torch.dtype = torch.float64
) -> SiteTable:
    """Rows of the tables, or mixtures of them, one for each sample."""
    own, pull = 1 / (site.scale(sigma) * sigma**2), site.coupling / site.scale(sigma)
    return SiteTable(rows.to(dtype), own.to(dtype), pull.to(dtype), N_CELLS / float(site.reach))


def features(table: SiteTable, x: Tensor, mu: Tensor) -> Tensor:
    """mu_3 - mu: (n, L0, L1)."""
    return table.iterate(x, mu)[0][:, -1]


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


@pytest.mark.parametrize(("kappa", "lam"), [(0.33, 0.5), (0.2, 0.022), (-0.1, 1.0)])
@pytest.mark.parametrize("node", range(4))
def test_mean_and_its_slope_against_quadrature(kappa: float, lam: float, node: int) -> None:
    """d<phi>/dh = Var phi: both exact at the tables' points, cubic between."""
    site = site_of(kappa, lam)
    sigma, v = SIGMAS[node : node + 1], float(SPREAD[node])
    scale, step = float(site.scale(sigma)), float(site.reach) / N_CELLS
    table = table_of(site, site.table[node : node + 1], sigma)
    for cells, tolerance in ((0, 1e-9), (1, 1e-9), (-17, 1e-9), (60, 1e-9), (33.5, 1e-5), (-50.6, 1e-5)):
        y = torch.full((1, 1, 1), cells * step, dtype=torch.float64)
        found, slope = (float(q) for q in table.look_up(y))
        mean, variance = by_quadrature(cells * step * scale, float(sigma), kappa, lam, v)
        assert found == pytest.approx(mean, rel=tolerance, abs=1e-12)
        assert slope == pytest.approx(variance * scale, rel=max(1e-6, 100 * tolerance))
        wrong, _ = by_quadrature(cells * step * scale, 1.05 * float(sigma), kappa, lam, v)
        assert cells == 0 or abs(found - wrong) > 1e-4 * abs(mean)


def test_mean_and_slope_are_continuous_and_one_is_the_derivative_of_the_other() -> None:
    site = site_of(0.33, 0.5)
    for row in site.table:
        value, slope = row[:-1].sum(1), row[:-1] @ torch.arange(4).double()
        torch.testing.assert_close(value, row[1:, 0], rtol=0, atol=1e-12)
        torch.testing.assert_close(slope[:-1], row[1:-1, 1], rtol=0, atol=1e-12)
    y = (2 * white((4, 6), 4, 1)).requires_grad_()
    mean, slope = table_of(site, site.table, SIGMAS).look_up(y)
    (derivative,) = torch.autograd.grad(mean.sum(), y)
    torch.testing.assert_close(slope, derivative, rtol=1e-12, atol=1e-12)
    assert (slope > 0).any()


@pytest.mark.parametrize("node", range(4))
def test_compiled_iteration_is_the_tensor_code(node: int) -> None:
    site, sigma = site_of(0.33, 0.5), SIGMAS[node : node + 1]
    x, mu = (1.5 * white((4, 6), 8, seed) for seed in (1, 2))
    x[1] *= 1e3  # beyond the tables
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        table = table_of(site, site.table[node : node + 1], sigma, dtype)
        fast = table.iterate(x.to(dtype), mu.to(dtype))
        slow = table.iterate(x.to(dtype).clone().requires_grad_(), mu.to(dtype))
        each = table_of(site, site.table[[node] * 8], sigma.expand(8), dtype)
        several = each.iterate(x.to(dtype), mu.to(dtype))
        for other in (slow, several):
            for found, known in zip(fast, other, strict=True):
                assert found.dtype == dtype
                assert (found - known).abs().max() < tolerance * known.abs().max()
    x[2, 1, 1] = torch.nan
    table = table_of(site, site.table[node : node + 1], sigma)
    for q in (x, x.clone().requires_grad_()):
        means, _ = table.iterate(q, mu)
        assert torch.isnan(means).sum() == 12  # up to two steps away, on 4 x 6
        assert not torch.isnan(means[[0, 1, 3]]).any()


def test_odd_mean() -> None:
    site = site_of(0.33, 0.5)
    x, mu = white((4, 6), 4, 1), white((4, 6), 4, 2)
    table = table_of(site, site.table, SIGMAS)
    f = features(table, x, mu)
    assert torch.equal(features(table, -x, -mu), -f)
    assert torch.equal(table.iterate(x, mu)[1], table.iterate(-x, -mu)[1])
    assert f.shape == (4, 4, 6)
    assert f.abs().amax((1, 2)).min() > 1e-3
    assert (features(table, -x, mu) + f).abs().max() > 0.1


def test_huge_fields_stay_bounded() -> None:
    site = site_of(0.33, 0.5)
    x, table = white((4, 4), 4, 3), table_of(site, site.table, SIGMAS)
    for size in (1e2, 1e6, 1e150):
        means, slopes = table.iterate(size * x, 0 * x)  # mu_3 - mu of mu = 0
        assert means.abs().max() <= 2 * FIELD_MAX
        assert slopes.abs().max() <= site.table[:, :, 1].max() * table.cell


def test_gaussian_action_is_linear() -> None:
    """lam = 0: <phi> = h/(2a) and Var = 1/(2a) exactly, so that the iteration is Jacobi's."""
    kappa = 0.2
    site = site_of(kappa, 0.0)
    a = 1 + 0.5 / SIGMAS**2 - 0.5 * (2 * kappa) ** 2 * 4 * SPREAD
    x, mu = 0.2 * white((4, 6), 4, 4), 0.2 * white((4, 6), 4, 5)
    table = table_of(site, site.table, SIGMAS)
    _, slopes = table.iterate(x, mu)
    flat = (site.scale(SIGMAS) / (2 * a))[:, None, None, None]
    assert (slopes - flat).abs().max() < 1e-6
    seen = [mu]
    for _ in range(3):
        near = sum(seen[-1].roll(s, d) for s in (1, -1) for d in (1, 2))
        seen.append((x / SIGMAS[:, None, None] ** 2 + 2 * kappa * near) / (2 * a)[:, None, None])
    f, expected = features(table, x, mu), seen[3] - mu
    torch.testing.assert_close(f, expected, rtol=0, atol=1e-6)
    assert (f - 1.01 * expected).abs().max() > 1e-3


def test_gaussian_iteration_converges_to_the_wiener_filter() -> None:
    """lam = 0 and neighbours known exactly (v = 0): mu = W x is the fixed point, no feature is left."""
    shape, kappa = (6, 6), 0.2
    p = Momenta(shape)
    g = torch.from_numpy(free_propagator(kappa, shape))[..., : shape[-1] // 2 + 1]
    w = g / (g + SIGMAS[:, None, None] ** 2)
    x = 0.2 * white(shape, 4, 6)
    site = site_of(kappa, 0.0, torch.zeros(4).double())
    table, mu = table_of(site, site.table, SIGMAS), p.fields(w * p.modes(x))
    assert features(table, x, mu).abs().max() < 1e-6
    assert features(table, x, 0.9 * mu).abs().max() > 1e-3


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.5])
def test_decoupled_sites_are_exact(lam: float) -> None:
    """kappa = 0: first guess plus feature is E[phi|x] of the one-site model, without any fit."""
    action, shape = ScalarPhi4(0.0, lam), (4, 4)
    base = RegressionBase(Momenta(shape), 4)
    p = base.momenta
    base.set_gaussian(torch.full((p.n_class,), 0.6).double(), 0.2, 3.0)
    base.set_action(action, FIELD_MAX)
    sigma = base.log_sigma.exp()
    x = 1.2 * white(shape, 4, 7)
    phi, _ = grid(2 * FIELD_MAX, 20_001)
    log_p = -action.action(phi[:, None])
    rows = [
        torch.softmax(log_p - (q[..., None] - phi) ** 2 / (2 * s**2), -1)
        for q, s in zip(x, sigma, strict=True)
    ]
    exact = torch.stack([(row * phi).sum(-1) for row in rows])
    variance = torch.stack([(row * phi**2).sum(-1) for row in rows]) - exact**2
    xk = p.modes(x)
    w, _ = base.wiener(sigma)
    mu = p.fields(p.expand(w) * xk)
    table = base.filters(sigma, torch.float64).site
    assert table is not None
    f, slope = features(table, x, mu), table.iterate(x, mu)[1][:, 0]
    assert (mu + f - exact).abs().max() < 1e-5
    assert (slope / base.site.scale(sigma)[:, None, None] / variance - 1).abs().max() < 1e-3
    assert (mu - exact).abs().max() > 0.05
    # the same numbers are the last but one feature of the base
    torch.testing.assert_close(p.fields(base.features(xk, sigma)[:, -2]).double(), f, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kappa", "lam"), [(0.33, 0.5), (0.25, 0.022), (0.0, 0.1)])
def test_between_the_noise_levels(kappa: float, lam: float) -> None:
    """Midway between levels as close as by default (48 from 0.1 to 30) the mean is right to 2e-5.

    Linear between them it would be off by 1e-4, and interpolated at fixed h by 1e-2 at small sigma.
    """
    nodes = torch.logspace(-1, math.log10(30), 48, dtype=torch.float64)
    site, v = SitePosterior(len(nodes)), 0.1
    site.fit(kappa, lam, nodes, torch.full((48,), v).double(), FIELD_MAX)
    x, mu = white((2, 2), 1, 8), 0.7 * white((2, 2), 1, 9)
    near = neighbours(mu)
    torch.testing.assert_close(near, 2 * (mu.roll(1, -1) + mu.roll(1, -2)))
    worst, chord, at_fixed_h = 0.0, 0.0, 0.0
    for node in (2, 7, 14, 21, 28, 40):
        sigma = (nodes[node : node + 1] * nodes[node + 1 : node + 2]).sqrt()
        weights = cardinal(torch.tensor([node + 0.5]).double(), 48)
        own, pull = 1 / (site.scale(sigma) * sigma**2), site.coupling / site.scale(sigma)
        linear = 0.5 * (site.table[node] + site.table[node + 1])[None]
        first, straight = (
            table_of(site, rows, sigma).look_up(own * x + pull * near)[0].flatten()
            for rows in (torch.einsum("mn,n...->m...", weights, site.table), linear)
        )
        for i, h in enumerate((x / sigma**2 + 2 * kappa * near).flatten().tolist()):
            mean, _ = by_quadrature(h, float(sigma), kappa, lam, v)
            ends = [by_quadrature(h, float(nodes[k]), kappa, lam, v)[0] for k in (node, node + 1)]
            worst = max(worst, abs(float(first[i]) - mean))
            chord = max(chord, abs(float(straight[i]) - mean))
            at_fixed_h = max(at_fixed_h, abs(sum(ends) / 2 - mean))
    assert worst < 2e-5
    assert chord > 3 * worst
    assert at_fixed_h > 3e-3


def test_without_a_fit_it_says_nothing() -> None:
    """Its features are zero, also of a base fitted without them."""
    assert not SitePosterior(3).known
    assert site_of(0.2, 0.1).known
    base = RegressionBase(Momenta((4, 4)), 3)
    base.set_gaussian(torch.ones(base.momenta.n_class).double(), 0.2, 3.0)
    xk, sigma = base.momenta.modes(white((4, 4), 2, 10)), torch.ones(2).double()
    base.zero_mode.fit(white((), 100, 11))
    f = base.features(xk, sigma)
    assert not f[:, -2].any()
    assert f[:, :-2].abs().amax((0, 2, 3)).min() > 0
    base.set_action(ScalarPhi4(0.2, 0.1), FIELD_MAX)
    assert base.features(xk, sigma)[:, -2].any()
