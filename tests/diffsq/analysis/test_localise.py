"""Where efficiency is lost: nothing for exact steps, the right level and shell for planted errors."""

from __future__ import annotations

import torch
from small_models import equilibrium, free_model, geometric, levels_of, noise_of, phi4_model, still

from diffsq.analysis.localise import divergence_below, shares
from diffsq.models.momentum import shells
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import FreeScalar, ScalarPhi4

SHAPE, N = (4, 4), 1024
FREE = FreeScalar(0.2)
MARKS = [1, 2, 3, 4, 5]


def free_path() -> ReversePath:
    return ReversePath(free_model(SHAPE, 0.2), geometric(5, 0.2, 8.0))


def free_fields() -> torch.Tensor:
    path = free_path()
    return path.momenta.colour(noise_of("localise/free", N, SHAPE)(0), path.model.base.g)


def divergence(path: ReversePath, phi: torch.Tensor, action: ScalarPhi4) -> torch.Tensor:
    up, down = noise_of("localise/up", len(phi), SHAPE), noise_of("localise/down", len(phi), SHAPE)
    return divergence_below(path, phi, action.action, up, down, still, MARKS)


def test_exact_steps_lose_nothing() -> None:
    path, phi = free_path(), free_fields()
    assert divergence(path, phi, FREE).abs().max() < 1e-9
    index, _ = shells(path.momenta)
    found = shares(path, phi, FREE.action, noise_of("localise/shares", N, SHAPE), still, index)
    assert found.variance < 1e-18


def test_a_wide_step_is_found_at_its_level_and_shell() -> None:
    path, phi = free_path(), free_fields()
    k, widened = 3, 1.8  # one class of modes, too wide in the step from level 3 to level 2
    path.variance[2, k] *= widened
    d = divergence(path, phi, FREE)
    assert d[:, :2].abs().max() < 1e-9, "levels below the planted error are exact"
    m = float(path.momenta.multiplicity[k])
    expected = 0.5 * m * (widened + 1 / widened - 2)  # J of two Gaussians whose variances differ
    mean, error = d[:, 2].mean(), d[:, 2].std() / N**0.5
    assert abs(float(mean) - expected) < 4 * float(error)
    assert float(mean) > 10 * float(error)
    # above it nothing is added: J at levels 4 and 5 stays the same
    assert ((d[:, 3:].mean(0) - expected).abs() < 4 * d[:, 3:].std(0) / N**0.5).all()
    index, _ = shells(path.momenta)
    found = shares(path, phi, FREE.action, noise_of("localise/shares", N, SHAPE), still, index)
    shell = int(index[k])
    assert found.table[2, shell] > 0.9 * found.variance
    assert abs(float(found.table.sum()) + found.rest - found.variance) < 1e-12


def test_the_sum_over_levels_and_shells_is_the_log_weight() -> None:
    action = ScalarPhi4(0.22, 0.3)
    phi = equilibrium(action, SHAPE, N)
    path = ReversePath(phi4_model(action, phi), levels_of(phi4_model(action, phi), 5))
    noise = noise_of("localise/shares", N, SHAPE)
    index, _ = shells(path.momenta)
    found = shares(path, phi, action.action, noise, still, index)
    log_w, steps = path.weigh(phi, action.action, noise, still)
    assert abs(found.variance - float(log_w.var())) < 1e-9
    centred = log_w - log_w.mean()
    by_level = (centred[:, None] * (steps - steps.mean(0))).sum(0) / (N - 1)
    assert torch.allclose(found.table.sum(1), by_level, atol=1e-9)
