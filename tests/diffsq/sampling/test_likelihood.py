"""Probability-flow density: closed forms, solve_ivp and finite differences; Hutchinson's estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch
from fields import MU, WIDTH, two_peak_denoiser, two_peak_density
from scipy.integrate import solve_ivp
from small_models import equilibrium, free_model, geometric, levels_of, noise_of, phi4_model
from small_paths import SHAPE, TWO, smooth_model
from torch import Tensor

from diffsq.exactness.weights import ln_z
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.likelihood import (
    ProbabilityFlow,
    hutchinson_probes,
    log_normal,
)
from lattice.actions.phi4 import FreeScalar
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, small_lattice
from lattice.statistics.weights import effective_sample_size


class TwoPeak(LatticeScore):
    """The exact denoiser of independent sites with two peaks; `factor` spoils the score."""

    factor = 1.0

    def denoise(self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> Tensor:
        x = self.momenta.fields(xk)
        d = two_peak_denoiser(x, sigma[:, None, None])
        return self.momenta.modes(x + self.factor * (d - x))


def two_peak_model(low: float = 0.2, factor: float = 1.0) -> TwoPeak:
    momenta = Momenta(SHAPE)
    base = RegressionBase(momenta, 4)
    g = torch.full((momenta.n_class,), MU**2 + WIDTH**2, dtype=torch.float64)
    base.set_gaussian(g, low, 8.0)
    model = TwoPeak(base, None)
    model.factor = factor
    return model


def log_two_peak(x: Tensor, sigma: float) -> Tensor:
    return torch.log(two_peak_density(x, sigma)).flatten(1).sum(1)


@lru_cache(maxsize=1)
def full_model() -> LatticeScore:
    return phi4_model(TWO, equilibrium(TWO, SHAPE, 4096))


def sloped(errors: list[float], low: float = 1.6) -> bool:
    """Each halving of the step divides the error by 2^1.6 or more, 2^2 in the limit."""
    return all(math.log2(a / b) > low for a, b in zip(errors, errors[1:], strict=False))


# --- the free field: exact in one step ----------------------------------------------------------------------


@pytest.mark.parametrize("n_levels", [1, 2, 7])
def test_free_field_log_q_is_minus_s_minus_ln_z(n_levels: int) -> None:
    shape, action = (6, 4), FreeScalar(0.2)
    model, levels = free_model(shape, 0.2), geometric(n_levels, 0.05, 8.0)
    exact = 0.5 * np.log(2 * np.pi * free_propagator(0.2, shape)).sum()
    phi, log_q = ProbabilityFlow(model, levels).sample(noise_of("free", 16, shape)(0))
    assert (-action.action(phi) - log_q).numpy() == pytest.approx(exact, abs=1e-10)
    other = 2 * phi + 1
    probes = hutchinson_probes(1, "test", np.arange(16), 1, shape)
    # nothing is left for the probes to see
    found = ProbabilityFlow(model, levels).log_density(other, probes=probes)
    assert (-action.action(other) - found).numpy() == pytest.approx(exact, abs=1e-9)
    # negative control: without the Wiener part of the divergence
    g = torch.from_numpy(free_propagator(0.2, shape))
    wiener = 0.5 * float(torch.log((g + levels[-1] ** 2) / g).sum())
    assert abs((-action.action(other) - (found - wiener)).numpy() - exact).min() > 1


def test_a_level_above_zero_gives_the_noised_density() -> None:
    model = free_model((4, 4), 0.15)
    levels = geometric(5, 0.3, 6.0)[1:]
    x, log_q = ProbabilityFlow(model, levels).sample(noise_of("noised", 8, (4, 4))(0))
    g = model.base.g + 0.3**2
    assert torch.allclose(log_q, model.momenta.log_normal(model.momenta.modes(x), g), atol=1e-10)


# --- independent two-peak sites: the density of every level is known ----------------------------------------


def change_of_variables(model: TwoPeak, n: int) -> tuple[float, Tensor]:
    """Largest error of log p at sigma = 0.2 from the exact log p at sigma = 8 and the flow between."""
    levels = geometric(n, 0.2, 8.0)[1:]
    phi = 1.2 * noise_of("peaks", 40, SHAPE)(0)
    flow = ProbabilityFlow(model, levels)
    y, trace = flow.transport(flow.to_normal(phi, levels[0]), up=True)
    top = log_two_peak(flow.to_fields(y, levels[-1]), 8.0) + flow.log_volume(levels[-1])
    found = top - flow.log_volume(levels[0]) - trace
    return float((found - log_two_peak(phi, 0.2)).abs().max()), y


def test_second_order_and_exact_in_the_limit() -> None:
    errors = [change_of_variables(two_peak_model(), n)[0] for n in (16, 32, 64, 128)]
    assert errors[-1] < 1.2e-3
    assert sloped(errors)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_wrong_half_in_the_flow_is_caught(factor: float) -> None:
    """A score twice or half as large is dx/dt = -s or -s/4 instead of -s/2."""
    assert change_of_variables(two_peak_model(factor=factor), 64)[0] > 0.5


def test_below_the_smallest_sigma() -> None:
    """log q at sigma = 0 against the clean density; what the closing rule leaves goes away with sigma_1."""
    phi = 1.2 * noise_of("peaks", 40, SHAPE)(0)
    errors = []
    for low in (0.2, 0.1):
        inside = torch.linspace(0, low, 6, dtype=torch.float64)
        levels = torch.cat([inside, geometric(96, low, 8.0)[2:]])
        log_q = ProbabilityFlow(two_peak_model(low), levels).log_density(phi)
        errors.append(float((log_q - log_two_peak(phi, 0.0)).std()))
    assert errors[0] < 0.04
    assert errors[0] > 4 * errors[1]


def test_sample_and_density_are_the_same_flow() -> None:
    model, noise = two_peak_model(), noise_of("round", 32, SHAPE)(0)
    gaps = []
    for n in (16, 32, 64):
        levels = torch.cat([torch.linspace(0, 0.2, n // 4 + 1).double(), geometric(n, 0.2, 8.0)[2:]])
        phi, log_q = ProbabilityFlow(model, levels).sample(noise)
        gaps.append(float((ProbabilityFlow(model, levels).log_density(phi) - log_q).abs().max()))
    assert gaps[-1] < 0.02
    assert sloped(gaps, 1.4)
    # and it samples the right law: <phi^2>, <phi^4> of the two peaks
    blind = torch.zeros(1, 4000, *SHAPE, dtype=torch.float64)  # no divergence needed here
    phi, _ = ProbabilityFlow(model, levels).sample(noise_of("law", 4000, SHAPE)(0), probes=blind)
    for power in (2, 4):
        known = {2: MU**2 + WIDTH**2, 4: MU**4 + 6 * MU**2 * WIDTH**2 + 3 * WIDTH**4}[power]
        moments = (phi**power).mean((1, 2))
        assert abs(moments.mean() - known) < 4 * moments.std() / math.sqrt(4000) + 1e-2 * known


# --- scipy and finite differences ---------------------------------------------------------------------------


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor, step: float) -> np.ndarray:
    """Central differences of a batched map at one field: (V, V)."""
    shifts = step * torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape[1:])
    up, down = function(torch.cat([x + shifts, x - shifts])).flatten(1).chunk(2)
    return ((up - down).T / (2 * step)).numpy()


def oracle(model: LatticeScore, x: Tensor, low: float, high: float, half: float = 0.5) -> float:
    """log q at sigma = low by solve_ivp in t = sigma^2 with dx/dt = -s/2, div s by central differences."""
    v, step = x.numel(), 1e-3
    shifts = step * torch.eye(v, dtype=torch.float64).reshape(v, *x.shape[1:])

    def rhs(t: float, state: np.ndarray) -> np.ndarray:
        field = torch.from_numpy(state[:v]).reshape(x.shape)
        points = torch.cat([field, field + shifts, field - shifts])
        with torch.no_grad():
            s = model.score(points, torch.full((len(points),), math.sqrt(t), dtype=torch.float64))
        rows = s.reshape(-1, v)
        divergence = torch.diagonal(rows[1 : v + 1] - rows[v + 1 :]).sum() / (2 * step)
        return np.append(-half * rows[0].numpy(), half * float(divergence))

    start = np.append(x.numpy().reshape(-1), 0.0)
    end = solve_ivp(rhs, (low**2, high**2), start, rtol=1e-5, atol=1e-6).y[:, -1]
    variance = model.base.g + high**2
    top = model.momenta.log_normal(model.momenta.modes(torch.from_numpy(end[:v]).reshape(x.shape)), variance)
    return float(top) - float(end[v])


@pytest.mark.parametrize("channels", [0, 4])
def test_heun_converges_to_solve_ivp(channels: int) -> None:
    model = smooth_model(channels)
    low, high = (float(model.base.log_sigma[i].exp()) for i in (0, -1))
    x = equilibrium(TWO, SHAPE, 4096, 9)[:1] + low * noise_of("oracle", 1, SHAPE)(0)
    truth = np.array([oracle(model, x, low, high)])
    # levels that contain the nodes of the model's tables, where its slope jumps
    found = [
        ProbabilityFlow(model, geometric(9 * n + 1, low, high)[1:]).log_density(x).numpy() for n in (1, 2, 4)
    ]
    errors = [float(np.abs(q - truth).max()) for q in found]
    assert errors[-1] < 2e-3
    steps = [float(np.abs(a - b).max()) for a, b in zip(found, found[1:], strict=False)]
    assert math.log2(steps[0] / steps[1]) > 1.5
    # negative control: the drift without its 1/2
    assert channels or abs(oracle(model, x, low, high, half=1.0) - truth[0]) > 0.1


def test_exact_divergence_is_the_determinant_of_the_map() -> None:
    model, n = smooth_model(), 6
    low, high = (float(model.base.log_sigma[i].exp()) for i in (0, -1))
    inside = torch.linspace(0, low, n + 1, dtype=torch.float64)
    levels = torch.cat([inside, geometric(9 * n + 1, low, high)[2:]])
    noise = noise_of("map", 2, SHAPE)(0)
    _, log_q = ProbabilityFlow(model, levels).sample(noise)
    probe = torch.zeros(1, 8, *SHAPE, dtype=torch.float64)

    def carried(y: Tensor) -> Tensor:
        return ProbabilityFlow(model, levels).sample(y, probes=probe)[0]

    corrections = []
    for i in range(2):
        _, log_det = np.linalg.slogdet(jacobian(carried, noise[i : i + 1], 1e-2))
        assert float(log_q[i]) == pytest.approx(float(log_normal(noise[i : i + 1])) - log_det, abs=2e-3)
        corrections.append(log_det - float(ProbabilityFlow(model, levels).log_volume(levels[0])))
    assert max(map(abs, corrections)) > 0.02, "without a correction the divergence would not be tested"


@pytest.mark.parametrize("channels", [0, 4])
def test_traces_by_autograd_and_by_differences(channels: int) -> None:
    model, sigma = smooth_model(channels), torch.tensor(0.6, dtype=torch.float64)
    flow = ProbabilityFlow(model, levels_of(model, 3))
    y = noise_of("trace", 1, SHAPE)(0)
    dtheta = flow.angle(sigma)

    def weighted(field: Tensor) -> Tensor:
        with torch.no_grad():
            return flow.momenta.fields(
                flow.momenta.expand(dtheta) * flow.momenta.modes(flow.correction(field, sigma))
            )

    known = jacobian(weighted, y, 2e-3)  # float32: rounding goes like 1/step, truncation like step^2
    assert float(flow.divergence(y, sigma, dtheta, None)[1]) == pytest.approx(np.trace(known), abs=2e-4)
    probes = hutchinson_probes(4, "trace", np.arange(1), 3, SHAPE, "gaussian")
    by_hand = np.mean([p @ known @ p for p in probes.reshape(3, 4).numpy()])
    assert float(flow.divergence(y, sigma, dtheta, probes)[1]) == pytest.approx(by_hand, abs=2e-4)


# --- Hutchinson ---------------------------------------------------------------------------------------------


def test_hutchinson_is_unbiased_and_signs_beat_normal_numbers() -> None:
    model, n = smooth_model(), 4000
    levels, noise = levels_of(model, 4), noise_of("one", 1, SHAPE)(0).expand(n, *SHAPE)
    exact = float(ProbabilityFlow(model, levels).sample(noise[:1])[1])
    spread = {}
    for kind in ("rademacher", "gaussian"):
        probes = hutchinson_probes(2, f"test/{kind}", np.arange(n), 1, SHAPE, kind)  # type: ignore[arg-type]
        log_q = ProbabilityFlow(model, levels).sample(noise, probes=probes)[1]
        spread[kind] = float(log_q.std())
        assert abs(float(log_q.mean()) - exact) < 4 * spread[kind] / math.sqrt(n)
    assert spread["rademacher"] < 0.8 * spread["gaussian"]
    eight = hutchinson_probes(2, "test/eight", np.arange(500), 8, SHAPE)
    few = ProbabilityFlow(model, levels).sample(noise[:500], probes=eight)[1]
    assert float(few.std()) == pytest.approx(spread["rademacher"] / math.sqrt(8), rel=0.2)
    # taking the free part out in closed form is most of the variance: the probes would see 1/2 ln(G+t)/G too
    p = model.momenta
    share = 0.5 * torch.log((p.expand(model.base.g) + levels[-1] ** 2) / p.expand(model.base.g))
    signs = hutchinson_probes(2, "test/free", np.arange(n), 1, SHAPE)[0]
    free = (signs * p.fields(share * p.modes(signs))).flatten(1).sum(1)
    assert float(free.std()) > 3 * spread["rademacher"]


def test_new_probes_at_every_step_have_no_limit_of_small_steps() -> None:
    """One probe per solve: log q converges with the step. New ones: unbiased, but no limit."""
    model, n = smooth_model(), 1500
    noise = noise_of("one", 1, SHAPE)(0).expand(n, *SHAPE)
    flow_levels = [geometric(9 * k + 1, 0.2, float(model.base.log_sigma[-1].exp())) for k in (1, 2)]
    probes = hutchinson_probes(3, "test/fixed", np.arange(n), 1, SHAPE)
    fixed = [ProbabilityFlow(model, levels).sample(noise, probes=probes)[1] for levels in flow_levels]
    renewed = []
    for which, levels in enumerate(flow_levels):
        y, total = noise, torch.zeros(n, dtype=torch.float64)
        for step in reversed(range(len(levels) - 1)):
            fresh = hutchinson_probes(3, f"test/new{which}/{step}", np.arange(n), 1, SHAPE)
            y, trace = ProbabilityFlow(model, levels[step : step + 2]).transport(y, up=False, probes=fresh)
            total = total + trace
        renewed.append(total)
    exact = ProbabilityFlow(model, flow_levels[0]).sample(noise[:1])
    volume = ProbabilityFlow(model, flow_levels[0]).log_volume(torch.tensor(0.0))
    known = log_normal(noise[:1]) - volume - exact[1]
    assert abs(float(renewed[0].mean() - known)) < 4 * float(renewed[0].std()) / math.sqrt(n)
    assert float((fixed[0] - fixed[1]).std()) < 0.1 * float(fixed[0].std())
    assert float((renewed[0] - renewed[1]).std()) > float(renewed[1].std())


# --- agreement with the path weights ------------------------------------------------------------------------


def test_ln_z_by_flow_by_path_and_by_quadrature() -> None:
    truth, model, n = small_lattice(TWO, SHAPE, spacing=0.4).ln_z, full_model(), 2000
    flow = ProbabilityFlow(model, levels_of(model, 10))
    phi, log_q = flow.sample(noise_of("agree", n, SHAPE)(0))
    log_w = (-TWO.action(phi) - log_q).numpy()
    value, error = ln_z(log_w)
    assert error < 1e-3
    assert abs(value - truth) < 4 * error + 5e-4  # the step: 2e-4 at 10 levels
    assert effective_sample_size(log_w)[0] > 0.995
    path = ReversePath(model, levels_of(model, 10))
    from_path = ln_z(path.sample(TWO.action, noise_of("agree", n, SHAPE), lambda step: IDENTITY)[1].numpy())
    assert abs(value - from_path[0]) < 4 * math.hypot(error, from_path[1])
    # one Hutchinson probe: E[e^eta] > 1 lifts ln Z
    probes = hutchinson_probes(5, "test/z", np.arange(n), 1, SHAPE, "gaussian")
    noisy = -TWO.action(phi) - flow.sample(noise_of("agree", n, SHAPE)(0), probes=probes)[1]
    value, error = ln_z(noisy.numpy())
    assert value - truth > 4 * error


# --- bookkeeping --------------------------------------------------------------------------------------------


def test_results_do_not_depend_on_the_batch() -> None:
    model = smooth_model()
    levels, noise = levels_of(model, 3), noise_of("batch", 6, SHAPE)(0)
    probes = hutchinson_probes(1, "test/batch", np.arange(6), 2, SHAPE)
    assert torch.equal(hutchinson_probes(1, "test/batch", np.arange(4, 6), 2, SHAPE), probes[:, 4:])
    whole = ProbabilityFlow(model, levels).sample(noise, probes=probes)
    part = ProbabilityFlow(model, levels).sample(noise[4:], probes=probes[:, 4:])
    assert torch.allclose(whole[0][4:], part[0], atol=1e-6)
    assert torch.allclose(whole[1][4:], part[1], atol=1e-5)
    counted: list[int] = []
    ProbabilityFlow(model, levels).sample(noise, probes=probes, done=lambda: counted.append(1))
    assert len(counted) == 3


def test_bad_input_is_refused() -> None:
    model, noise = smooth_model(), noise_of("bad", 2, SHAPE)(0)
    for levels in (torch.tensor([0.0]), torch.tensor([0.0, 2.0, 1.0]), torch.tensor([-1.0, 1.0])):
        with pytest.raises(InputError, match="must increase from sigma_0 >= 0"):
            ProbabilityFlow(model, levels).sample(noise)
    with pytest.raises(InputError, match="1 of 2 fields are NaN or infinite"):
        ProbabilityFlow(model, levels_of(model, 2)).sample(torch.stack([noise[0], noise[1] * math.nan]))
    with pytest.raises(InputError, match="1 or more probes"):
        hutchinson_probes(1, "x", np.arange(2), 0, SHAPE)
    big = free_model((24, 24), 0.2)
    with pytest.raises(InputError, match="576 sites is too much"):
        ProbabilityFlow(big, geometric(2, 0.1, 4.0)).sample(noise_of("big", 1, (24, 24))(0))
