"""Paths of lifted flux: exact ln Z both ways, charges kept, weights that know a wrong variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsq.models.gauge import GaugeScore
from diffsq.models.protocol import Noise
from diffsq.sampling.gauge_path import GaugePath
from diffsq.sampling.gauge_sets import minus_log_weight
from lattice.actions.u1 import circulation
from lattice.exact.u1 import ln_z
from lattice.observables.gauge import wrapped
from lattice.simulation.gauge_draws import draw_links

SHAPE, BETA, N = (6, 6), 2.0, 2048


def noise_of(seed: int, n: int = N) -> Noise:
    g = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(n, *SHAPE, generator=g, dtype=torch.float64)


def ln_mean(log_w: Tensor) -> tuple[float, float]:
    w = (log_w - log_w.max()).exp()
    return float(log_w.max() + w.mean().log()), float(w.std() / w.mean() / math.sqrt(len(w)))


def sampled(path: GaugePath, target: GaugeScore) -> tuple[Tensor, Tensor, Tensor]:
    u = torch.rand(N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    charge = path.score.drawn_charges(u)
    flux, log_w = path.of_charges(charge).sample(minus_log_weight(path.score, target), noise_of(3))
    return flux, log_w, charge


def test_ln_z_is_exact_from_both_sides_and_charges_are_kept() -> None:
    score = GaugeScore(SHAPE, torch.tensor([BETA]))
    path = GaugePath.of(score, 40)
    flux, log_w, charge = sampled(path, score)
    assert torch.allclose(flux.sum((-1, -2)), 2 * math.pi * charge)
    w = (log_w - log_w.max()).exp()
    assert float(w.sum() ** 2 / (w**2).sum() / N) > 0.85
    value, error = ln_mean(log_w)
    assert abs(value - ln_z(BETA, 36)) < 4 * error
    links = torch.from_numpy(draw_links(BETA, SHAPE, N, seed=8))
    u = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lifts = score.law.lifted(wrapped(circulation(links)), u)
    forward, increments = path.weigh(lifts, minus_log_weight(score, score), noise_of(4))
    value, error = ln_mean(-forward)
    assert abs(-value - ln_z(BETA, 36)) < 4 * error
    assert increments.shape == (N, 40)


def test_a_model_of_another_coupling_is_made_good_by_weights() -> None:
    target, wrong = (GaugeScore(SHAPE, torch.tensor([beta])) for beta in (BETA, 1.3 * BETA))
    _, log_w, _ = sampled(GaugePath.of(wrong, 40), target)
    value, error = ln_mean(log_w)
    assert abs(value - ln_z(BETA, 36)) < 4 * error
    w = (log_w - log_w.max()).exp()
    assert float(w.sum() ** 2 / (w**2).sum() / N) < 0.6
    assert abs(ln_z(1.3 * BETA, 36) - ln_z(BETA, 36)) > 20 * error
