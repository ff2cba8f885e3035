"""The closed-form denoiser: control variate and regression, against exact conditional means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fields import free_fields, generator, grid, significance, white
from scipy.interpolate import make_interp_spline
from small_models import equilibrium, geometric, noise_of, still
from torch import Tensor

from diffsq.models.features import ODD
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import Momenta, chebyshev, propagator
from diffsq.models.regression import N_SMOOTH_K, RIDGE, RegressionBase, smooth_solution
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.exact.scalar import free_propagator

SHAPE, KAPPA, LAM = (8, 8), 0.27, 0.022
ACTION = ScalarPhi4(KAPPA, LAM)
N = 8192
N_LOCAL = len(ODD)  # features of the Wiener-filtered field


def fitted(
    action: ScalarPhi4, phi: Tensor, sigmas: tuple[float, float, int], n_fit: int, kind: type = RegressionBase
) -> RegressionBase:
    base: RegressionBase = kind(Momenta(tuple(phi.shape[1:])), sigmas[2])
    base.set_gaussian(propagator(base.momenta, phi), sigmas[0], sigmas[1])
    base.set_action(action, 1.2 * float(phi.abs().max()))
    base.fit(phi, action.grad, lambda node: white(tuple(phi.shape[1:]), n_fit, 100 + node))
    return base


@pytest.fixture(scope="module")
def phi4() -> tuple[RegressionBase, Tensor, Tensor]:
    """A base fitted to phi^4 near criticality, and held-out fields with their noise."""
    phi = equilibrium(ACTION, SHAPE, 2 * N, 11)
    return fitted(ACTION, phi[:N], (0.2, 12.0, 6), N), phi[N:], white(SHAPE, N, 12)


def correction(base: RegressionBase, xk: Tensor, sigma: Tensor) -> Tensor:
    return base(xk, sigma)


def squared_errors(base: RegressionBase, phi: Tensor, eps: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Per field and class, in units of C: error of the Wiener filter and of the fitted denoiser."""
    p = base.momenta
    xk, s = p.modes(phi + sigma * eps), torch.full((len(phi),), sigma, dtype=torch.float64)
    target, _ = base.target(p.modes(phi), xk, xk, s)
    return p.class_mean(target.abs() ** 2), p.class_mean((target - correction(base, xk, s)).abs() ** 2)


# free field -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kappa", "shape"), [(0.24, (8, 8)), (0.2, (12, 6)), (-0.15, (6, 6))])
def test_free_field_the_control_variate_is_the_whole_target(kappa: float, shape: tuple[int, ...]) -> None:
    base, action = RegressionBase(Momenta(shape), 3), FreeScalar(kappa)
    p = base.momenta
    truth = p.class_mean(torch.from_numpy(free_propagator(kappa, shape))[..., : shape[-1] // 2 + 1])
    base.set_gaussian(truth, 0.1, 10.0)
    phi, eps = free_fields(action, shape, 64, 1), white(shape, 64, 2)
    sigma = torch.logspace(-1, 1, 64, dtype=torch.float64)
    xk = p.modes(phi + sigma[:, None, None] * eps)
    t, z = base.target(p.modes(phi), p.modes(action.grad(phi)), xk, sigma)
    assert (t - z).abs().max() < 1e-11 * t.abs().max()
    _, wrong = base.target(p.modes(phi), p.modes(FreeScalar(0.9 * kappa).grad(phi)), xk, sigma)
    assert (t - wrong).abs().max() > 0.01 * t.abs().max()


def test_free_field_nothing_is_left_to_fit() -> None:
    """With the control variate the Wiener filter stands exactly; without it the fit chases noise."""
    action = FreeScalar(0.24)
    phi = free_fields(action, SHAPE, 2048, 3)
    truth = torch.from_numpy(free_propagator(0.24, SHAPE))[..., : SHAPE[-1] // 2 + 1]
    results = []
    for kind in (RegressionBase, Blind):
        base = kind(Momenta(SHAPE), 3)
        base.set_gaussian(base.momenta.class_mean(truth), 0.1, 10.0)
        base.set_action(action, 1.2 * float(phi.abs().max()))
        base.fit(phi, action.grad, lambda node: white(SHAPE, 2048, 5 + node))
        wiener, regression = squared_errors(
            base, free_fields(action, SHAPE, 2048, 9), white(SHAPE, 2048, 8), 1.0
        )
        results.append((base, (wiener - regression).mean(0).abs().max()))
    (good, good_gain), (blind, blind_gain) = results
    torch.testing.assert_close(good.beta, torch.ones_like(good.beta), rtol=0, atol=1e-9)
    assert good.coefficients.abs().max() < 1e-8
    assert good.explained.abs().max() < 1e-9
    assert good_gain < 1e-6  # float32 fields
    # an overfit explains (number of coefficients)/(number of data) on average, about half of it where the
    # noise levels share their data: the zero mode has n_feature of its own, all others N_SMOOTH_K times that
    overfit = (blind.explained * 2048 * good.momenta.multiplicity)[:2]
    assert 0.15 * blind.n_feature < overfit[:, 0].mean() < 3 * blind.n_feature
    ratio = float(overfit[:, 1:].sum(1).mean()) / (N_SMOOTH_K * blind.n_feature)
    assert 0.2 < ratio < 1
    assert blind_gain > 10 * good_gain
    # every path weighs the same
    path = ReversePath(LatticeScore(good, None), geometric(8, 0.1, 10.0))
    _, log_w = path.sample(action.action, noise_of("test/free", 256, SHAPE), still)
    assert log_w.std() < 1e-8  # the variance of a site is read off a table: equal for all sites to 1e-9
    good.coefficients.add_(1e-3)
    assert path.sample(action.action, noise_of("test/free", 256, SHAPE), still)[1].std() > 2e-2


class Blind(RegressionBase):
    """The same regression with a control variate of pure noise."""

    def target(self, phik: Tensor, gradk: Tensor, xk: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        t, _ = super().target(phik, gradk, xk, sigma)
        return t, self.momenta.modes(white(self.momenta.shape, len(t), 17))


# control variate -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_control_variate_has_no_conditional_mean(sigma: float) -> None:
    """E[z f(x)] = 0 for odd functions of x; (phi - x)/sigma^2 alone and a wrong coupling are seen at once."""
    phi, eps = equilibrium(ACTION, SHAPE, 2 * N, 11), white(SHAPE, 2 * N, 13)
    x = phi + sigma * eps
    m = x.mean((1, 2), keepdim=True)
    odd = torch.stack(
        [x, torch.tanh(x), x**3, m.expand_as(x), m**2 * x, torch.sign(m).expand_as(x),
         torch.sin(x.roll(1, 1)), x.roll((1, 2), (1, 2)) * x**2, torch.tanh(m) * torch.cos(x)]
    )  # fmt: skip
    tweedie = (phi - x) / sigma**2

    def deviations(grad: Tensor) -> Tensor:
        return significance(((tweedie + grad) * odd).mean((2, 3)).T)

    assert deviations(ACTION.grad(phi)).abs().max() < 4.5
    assert deviations(torch.zeros_like(phi)).abs().max() > 10
    assert deviations(ScalarPhi4(KAPPA, 1.5 * LAM).grad(phi)).abs().max() > 10
    assert deviations(-ACTION.grad(phi)).abs().max() > 10


def test_control_variate_changes_errors_and_not_the_fit() -> None:
    """16 independent fits each way (per noise level): the same mean correction, smaller spread.

    Compared on the same noisy fields: coefficients of features that are much alike are loose on their own.
    """
    phi, n_fit = equilibrium(ACTION, SHAPE, 2 * N, 11), N // 8
    g = propagator(Momenta(SHAPE), phi)
    biased = ScalarPhi4(KAPPA, 5 * LAM)  # negative control: the score of another theory
    seen = torch.tensor([0.7, 3.0], dtype=torch.float64).repeat(4)
    xk = Momenta(SHAPE).modes(phi[-8:] + seen[:, None, None] * white(SHAPE, 8, 49))
    blank = RegressionBase(Momenta(SHAPE), 2)
    blank.set_gaussian(g, 0.7, 3.0)
    blank.set_action(ACTION, 4.0)
    values: list[list[Tensor]] = []
    for kind, action in ((RegressionBase, ACTION), (Blind, ACTION), (RegressionBase, biased)):
        values.append([])
        for block in range(16):
            base = kind(blank.momenta, 2)
            base.load_state_dict(blank.state_dict())
            part = phi.roll(-block * n_fit, 0)  # all of them set the zero mode's law, n_fit are regressed on
            base.fit(part, action.grad, lambda node, b=block: white(SHAPE, n_fit, 50 + 2 * b + node))
            values[-1].append(base.momenta.fields(correction(base, xk, seen)))
    good, blind, wrong = (torch.stack(v) for v in values)
    # Student t of 15 degrees of freedom: 4 sigma over some 500 of them
    assert significance(good - blind).abs().max() < 7.5
    assert significance(wrong - blind).abs().max() > 12
    ratio = good.std(0) / blind.std(0)
    assert ratio.median() < 0.8
    assert ratio.quantile(0.9) < 1.2


def test_the_fields_of_these_tests_are_in_equilibrium() -> None:
    """Schwinger-Dyson identities <f dS/dphi> = <df/dphi>, the second for the slow mode M."""
    phi = equilibrium(ACTION, SHAPE, 2 * N, 11)
    grad = ACTION.grad(phi)
    m = phi.mean((1, 2))
    assert significance((phi * grad).mean((1, 2)) - 1).abs() < 4.5
    local = grad.sum((1, 2)) * torch.tanh(m) - (1 - torch.tanh(m) ** 2)
    assert significance(local).abs() < 4.5
    assert significance((1.1 * phi * grad).mean((1, 2)) - 1).abs() > 10


def test_a_feature_that_is_only_rounding_gets_no_coefficient(
    phi4: tuple[RegressionBase, Tensor, Tensor],
) -> None:
    """The zero-mode feature vanishes away from k = 0; any other with next to no power is left out."""
    base, phi, eps = phi4
    p, own = base.momenta, base.n_feature - 1
    rows = white((4,), 100, 1) * torch.tensor([1.0, 30.0, 1e-7, 1e-3], dtype=torch.float64)
    a, b = rows.T @ rows, rows.T @ (rows.sum(1) + white((), 100, 2))
    sums = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    sums[0, 0, :4, :4], sums[0, 0, :4, 4] = a, b
    one = torch.ones(1, 1, dtype=torch.float64)
    found = smooth_solution(sums, one, one, one)[0, 0]
    assert found[2] == 0
    known = torch.linalg.solve(a[[0, 1, 3]][:, [0, 1, 3]], b[[0, 1, 3]])
    size = a.diagonal()[[0, 1, 3]].sqrt()
    assert ((found[[0, 1, 3]] - known) * size).abs().max() < 2 * RIDGE * (known * size).abs().max()
    assert torch.linalg.solve(a, b)[2].abs() > 1e3
    assert (base.coefficients[:, p.khat2 > 0, own] == 0).all()
    assert (base.coefficients[:, 0, own] != 0).all()
    # so that the denoiser does not depend on how its float32 arithmetic is rounded
    x, s = phi[:32] + eps[:32], torch.ones(32, dtype=torch.float64)
    out = p.fields(correction(base, p.modes(x), s))
    rolled = p.fields(correction(base, p.modes(x.roll((3, 5), (1, 2))), s)).roll((-3, -5), (1, 2))
    assert (rolled - out).abs().max() < 1e-4 * out.abs().max()


# regression ------------------------------------------------------------------------------------------------


def test_nodes_and_modes_of_one_joint_fit() -> None:
    """Coefficients that are polynomials in both, in units of a feature's size at the node, are found exactly,
    and noise of the data is shared by all nodes: an own fit of each has more of it."""
    n_node, n_mode, n_r, n_t, n = 10, 7, 3, 2, 400
    r, t = (chebyshev(torch.linspace(-1, 1, m).double(), k) for m, k in ((n_node, n_r), (n_mode, n_t)))
    size = torch.logspace(0, -4, n_node).double()[:, None] * torch.tensor([1.0, 30.0])
    known = torch.einsum("as,pk,api->ski", r, t, white((n_r, n_t, 2), 1, 1)[0]) / size[:, None]
    x = white((n_node, n_mode, 2), n, 2)
    x = x / x.square().mean((0, 2), keepdim=True).sqrt() * size[:, None]
    errors = []
    for noise in (0.0, 0.5):
        y = (x * known).sum(-1) + noise * white((n_node, n_mode), n, 3)
        rows = torch.cat([x, y[..., None]], -1)
        sums = torch.einsum("nski,nskj->skij", rows, rows) / n
        for basis in ((r, t), (torch.eye(n_node).double(), torch.eye(n_mode).double())):
            found = smooth_solution(sums, torch.ones(n_node, n_mode).double(), *basis)
            errors.append(float(((found - known) * size[:, None]).square().mean()))
    assert errors[0] < 10 * RIDGE**2
    own, joint = errors[3], errors[2]
    # 6 numbers of a feature are fitted to 70 cells of them, instead of 70
    assert 0.5 < own / joint * 6 / 70 < 2
    wrong = smooth_solution(sums, torch.ones(n_node, n_mode).double(), r[:2], t)
    assert float(((wrong - known) * size[:, None]).square().mean()) > 10 * joint


def test_tables_are_splines_in_ln_sigma() -> None:
    """Exact at the levels, quintic between them, constant beyond both ends."""
    base = RegressionBase(Momenta((4, 4)), 7)
    base.set_gaussian(torch.ones(base.momenta.n_class, dtype=torch.float64), 0.1, 10.0)
    table, nodes = white((3, 2), 7, 41), base.log_sigma.exp()
    torch.testing.assert_close(base.at(table, nodes), table, rtol=0, atol=1e-12)
    ends = base.at(table, torch.tensor([1e-4, 0.1, 10.0, 1e5], dtype=torch.float64))
    torch.testing.assert_close(ends, table[[0, 0, 6, 6]], rtol=0, atol=1e-12)
    sigma = torch.logspace(-1, 1, 41, dtype=torch.float64)
    known = make_interp_spline(base.log_sigma, table, k=5)(sigma.log())
    torch.testing.assert_close(base.at(table, sigma), torch.from_numpy(known), rtol=0, atol=1e-12)
    assert base.at(table[:, 0, 0], nodes).shape == (7,)


def test_coefficients_are_polynomials_in_ln_k2(phi4: tuple[RegressionBase, Tensor, Tensor]) -> None:
    """Of degree N_SMOOTH_K - 1 in ln(1 + k^2), but for k = 0 which has coefficients of its own."""
    base, _, _ = phi4
    t = np.log1p(base.momenta.khat2.numpy())
    for table in (base.coefficients[..., :-1], base.beta[..., None]):
        a = table.movedim(1, 0).flatten(1).numpy()
        residuals = []
        for degree in (N_SMOOTH_K - 1, N_SMOOTH_K - 2):
            fit = np.polynomial.polynomial.polyfit(t[1:], a[1:], degree)
            off = np.abs(np.polynomial.polynomial.polyval(t, fit).T - a)
            residuals.append(off[1:].max() / np.abs(a).max())
        assert residuals[0] < 1e-9
        assert residuals[1] > 1e-4
    zero = base.coefficients[:, 0, :N_LOCAL]
    assert (zero - base.coefficients[:, 1, :N_LOCAL]).abs().max() > 0.1 * zero.abs().max()


def test_base_beats_wiener_on_held_out_fields(phi4: tuple[RegressionBase, Tensor, Tensor]) -> None:
    base, phi, eps = phi4
    p = base.momenta
    for node, sigma in enumerate(base.log_sigma.exp().tolist()):
        wiener, regression = squared_errors(base, phi, eps, sigma)
        assert significance(((wiener - regression) * p.multiplicity).sum(1)) > 5, sigma
        assert significance(wiener - regression).min() > -4.5, sigma  # in no class a loss
        # `explained` is the part it said it would explain
        gain = wiener - regression
        error = gain.std(0) / math.sqrt(len(phi))
        assert ((gain.mean(0) - base.explained[node]) / (math.sqrt(2) * error)).abs().max() < 5, sigma
    spoiled = RegressionBase(Momenta(SHAPE), len(base.log_sigma))
    spoiled.load_state_dict(base.state_dict())
    spoiled.coefficients.neg_()
    wiener, regression = squared_errors(spoiled, phi, eps, 1.0)
    assert significance(((wiener - regression) * p.multiplicity).sum(1)) < -10


def one_site_denoiser(action: ScalarPhi4, x: Tensor, sigma: float) -> Tensor:
    """E[phi|x] of a decoupled site, by quadrature over phi on a table of x, interpolated."""
    phi, _ = grid(4.0, 1201)
    nodes, step = grid(float(x.abs().max()) + 0.01, 1501)
    log_p = -action.action(phi[:, None])
    p = torch.softmax(log_p - (nodes[:, None] - phi) ** 2 / (2 * sigma**2), 1)
    table = (p * phi).sum(1)
    return torch.from_numpy(np.interp(x.numpy(), nodes.numpy(), table.numpy()))


@pytest.mark.parametrize("sigma", [0.3, 0.6, 1.2])
def test_decoupled_sites_approach_the_one_site_quadrature(sigma: float) -> None:
    """kappa = 0, two wells: the site posterior removes all of the Wiener filter's excess over the exact D."""
    action, shape, n = ScalarPhi4(0.0, 1.5), (6, 6), 4096
    axis, _ = grid(4.0)
    cdf = torch.cumsum(torch.exp(-action.action(axis[:, None])), 0)
    uniform = torch.rand(2 * n, *shape, generator=generator(21), dtype=torch.float64)
    phi = torch.from_numpy(np.interp(uniform.numpy(), (cdf / cdf[-1]).numpy(), axis.numpy()))
    base = fitted(action, phi[:n], (sigma, 2 * sigma, 2), n)
    p, held, eps = base.momenta, phi[n:], white(shape, n, 22)
    x = held + sigma * eps
    s = torch.full((n,), sigma, dtype=torch.float64)
    xk = p.modes(x)
    w, c = (p.expand(q) for q in base.wiener(s))
    exact = p.modes(one_site_denoiser(action, x, sigma))
    wiener = w * xk
    regression = wiener + c.sqrt() * correction(base, xk, s)
    # where M is beyond what training fields have the zero mode's own coefficients are continued, no more
    seen = xk[:, 0, 0].abs() < 3.5 * (base.g[0] + sigma**2).sqrt()
    assert seen.double().mean() > 0.998
    excess = [p.total((d - exact).abs() ** 2)[seen].mean() / p.volume for d in (wiener, regression)]
    # what is left of it: the noise of the fitted coefficients
    noise = float(c.mean()) * (1 + N_SMOOTH_K) * base.n_feature / (n * p.volume)
    assert excess[1] < 0.005 * excess[0] + noise
    # nothing beats the conditional mean
    least = p.total((exact - p.modes(held)).abs() ** 2)
    for d, floor in ((wiener, 5), (regression, -4)):
        assert significance(p.total((d - p.modes(held)).abs() ** 2) - least) > floor
    # what the fit says is left is the exact posterior variance plus its excess
    left = float((p.multiplicity * base.wiener(s[:1])[1][0] * (1 - base.explained[0])).sum())
    error = float(least.std()) / math.sqrt(n)
    assert abs(left - float(least.mean()) - float(excess[1]) * p.volume) < 5 * math.sqrt(2) * error


def test_correction_is_odd_and_needs_both_signs(phi4: tuple[RegressionBase, Tensor, Tensor]) -> None:
    base, phi, eps = phi4
    xk, s = base.momenta.modes(phi[:64] + eps[:64]), torch.ones(64, dtype=torch.float64)
    there, back = correction(base, xk, s), correction(base, -xk, s)
    assert (there + back).abs().max() < 1e-5 * there.abs().max()
    assert there.abs().max() > 0.1
