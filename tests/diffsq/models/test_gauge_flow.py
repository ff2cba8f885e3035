"""The flow of lifted flux: its trace, its inverse, a density that sums to one, weights of wrong models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffsq.models.gauge import GaugeScore
from diffsq.models.gauge_flow import FluxVelocity, GaugeFlow, log_weight
from lattice.errors import InputError
from lattice.exact.u1 import charge_law, ln_z
from lattice.observables.gauge import wrapped
from lattice.simulation.gauge_draws import draw_links


def score_of(beta: float, shape: tuple[int, int], charges: tuple[Tensor, Tensor] | None = None) -> GaugeScore:
    return GaugeScore(shape, torch.tensor([beta], dtype=torch.float64), charges)


def white(shape: tuple[int, ...], seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sampled(flow: GaugeFlow, target: GaugeScore, n: int, seed: int = 7) -> tuple[Tensor, Tensor]:
    u = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return flow.sample(target, white((n, *flow.score.shape), seed), u)


def ess(log_w: Tensor) -> float:
    w = (log_w - log_w.max()).exp()
    return float(w.sum() ** 2 / (w**2).sum() / len(w))


def ln_mean(log_w: Tensor) -> tuple[float, float]:
    w = (log_w - log_w.max()).exp()
    return float(log_w.max() + w.mean().log()), float(w.std() / w.mean() / math.sqrt(len(w)))


def test_the_trace_is_that_of_the_jacobian() -> None:
    """By differences along every real coordinate of a field; a trace without its second sum is wrong."""
    score = score_of(1.2, (4, 6))
    p, rate = score.momenta, torch.ones(score.momenta.n_class, dtype=torch.float64)
    velocity, y, h = FluxVelocity(score, 0.5, rate), white((1, 4, 6)), 1e-5
    y = y - y.mean((-1, -2), keepdim=True)
    found = float(velocity(p.modes(y))[1])
    total = 0.0
    for i in range(24):
        step = torch.zeros(24, dtype=torch.float64)
        step[i] = 1.0
        step = (step - step.mean()).reshape(1, 4, 6)  # within k != 0, where the trace is taken
        up, down = (p.fields(velocity(p.modes(y + sign * h * step))[0]) for sign in (1, -1))
        total += float(((up - down) / (2 * h)).flatten()[i])
    assert abs(found - total) < 1e-6
    _, steep, _ = velocity.level.shifts(p.modes(y) * velocity.into)
    assert abs(float(steep.sum() * velocity.own) - total) > 1e-3 * abs(total)


def test_up_undoes_down_and_states_the_same_density() -> None:
    flow, charge = GaugeFlow(score_of(2.0, (6, 4)), 24), torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    noise = white((3, 6, 4))
    flux, log_q = flow.down(noise, charge)
    back, again = flow.up(flux)
    assert torch.allclose(flux.sum((-1, -2)), 2 * math.pi * charge)
    rest = back - noise
    assert (rest - rest.mean((-1, -2), keepdim=True)).abs().max() < 1e-4
    assert (again - log_q).abs().max() < 1e-4


@pytest.mark.parametrize("charge", [0, 1])
def test_the_density_of_four_plaquettes_sums_to_one(charge: int) -> None:
    """Over the three modes by quadrature, in the sector of a charge; without its trace it does not."""
    score = score_of(1.5, (2, 2))
    flow, n = GaugeFlow(score, 12), 25
    points = torch.linspace(-7, 7, n, dtype=torch.float64) * math.sqrt(score.s)
    a, b, c = torch.meshgrid(points, points, points, indexing="ij")
    basis = torch.tensor([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
    flux = (torch.stack([a, b, c], -1).reshape(-1, 3) @ basis).reshape(-1, 2, 2) + math.pi * charge / 2
    _, log_q = flow.up(flux)
    cell = float(points[1] - points[0]) ** 3
    assert abs(float(log_q.exp().sum()) * cell - 1) < 2e-3
    y, _ = flow.up(flux)
    bare = flow._log_base(flow.momenta.modes(y))  # noqa: SLF001
    assert abs(float(bare.exp().sum()) * cell - 1) > 2e-2
    weights = score.law.log_w(flux).sum((-1, -2))
    exact = weights - weights.logsumexp(0) - math.log(cell)
    assert float((exact.exp() * (exact - log_q)).sum() * cell) < 1e-3  # the KL is that of a good flow


@pytest.mark.parametrize(
    ("shape", "beta", "least"), [((16, 16), 7.0, 0.999), ((16, 16), 4.0, 0.999), ((8, 8), 2.0, 0.999),
                                 ((8, 8), 0.5, 0.999), ((32, 32), 96.0, 0.9999)],
)  # fmt: skip
def test_nearly_every_sample_counts_and_ln_z_is_exact(
    shape: tuple[int, int], beta: float, least: float
) -> None:
    score = score_of(beta, shape)
    flow, n = GaugeFlow(score), 512 if shape[0] < 32 else 128
    flux, log_w = sampled(flow, score, n)
    assert ess(log_w) > least
    value, error = ln_mean(log_w)
    assert abs(value - ln_z(beta, math.prod(shape))) < 4 * error + 1e-4
    links = torch.from_numpy(draw_links(beta, shape, 128, seed=4))
    u = torch.rand(128, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, forward = flow.latent(score, links, u)
    assert ess(-forward) > least
    value, error = ln_mean(-forward)
    assert abs(-value - ln_z(beta, math.prod(shape))) < 4 * error + 1e-4
    assert (wrapped(flux).sum((-1, -2)) / (2 * math.pi)).round().abs().max() >= 1


def test_a_wrong_propagator_and_wrong_sectors_are_made_good_by_weights() -> None:
    beta, shape = 2.0, (6, 6)
    target, volume = score_of(beta, shape), 36
    q = torch.arange(-6, 7, dtype=torch.float64)
    uniform = torch.full((13,), -math.log(13.0), dtype=torch.float64)
    flow = GaugeFlow(score_of(1.5 * beta, shape, (q, uniform)))
    flux, log_w = sampled(flow, target, 4096)
    assert ess(log_w) < 0.3
    value, error = ln_mean(log_w)
    assert abs(value - ln_z(beta, volume)) < 4 * error
    w = torch.softmax(log_w, 0)
    square = (wrapped(flux).sum((-1, -2)) / (2 * math.pi)).round() ** 2
    mean = float(w @ square)
    spread = float((w**2 @ (square - mean) ** 2).sqrt())
    exact = charge_law(beta, volume).moment(2)
    assert abs(mean - exact) < 4 * spread
    assert abs(float(square.mean()) - exact) > 10 * spread
    own, log_q = flow.down(white((8, *shape)), torch.full((8,), 9.0, dtype=torch.float64))
    assert (log_weight(flow.score, target, own, log_q) == math.inf).all()  # a charge that is never drawn


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 steps, got 1"):
        GaugeFlow(score_of(2.0, (4, 4)), 1)
