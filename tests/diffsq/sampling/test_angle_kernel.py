"""Paths on the circle: exact whatever the network, between charges, and gauge directions left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffsq.models.protocol import Noise
from diffsq.models.torus import TorusScore
from diffsq.sampling.angle_kernel import AnglePath
from lattice.actions.u1 import U1
from lattice.exact.u1 import charge_law, ln_z
from lattice.simulation.gauge_draws import draw_links

SHAPE, BETA, N = (2, 2), 1.0, 16384


def score_of(size: float) -> TorusScore:
    score, g = TorusScore(SHAPE, 4, BETA, 1.6, 0.1), torch.Generator().manual_seed(1)
    for weight in score.network.parameters():
        weight.data.copy_(size * torch.randn(weight.shape, generator=g))
    return score.requires_grad_(False)


def noise_of(seed: int, n: int = N) -> Noise:
    g = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(n, 2, *SHAPE, generator=g, dtype=torch.float64)


def start(seed: int, n: int = N) -> Tensor:
    u = torch.rand(n, 2, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return math.pi * (2 * u - 1)


def ln_mean(log_w: Tensor) -> tuple[float, float]:
    w = (log_w - log_w.max()).exp()
    return float(log_w.max() + w.mean().log()), float(w.std() / w.mean() / math.sqrt(len(w)))


@pytest.mark.parametrize("size", [0.0, 0.05])
def test_ln_z_and_the_charge_are_exact_whatever_the_network(size: float) -> None:
    path = AnglePath.of(score_of(size), 16).calibrate(
        torch.from_numpy(draw_links(BETA, SHAPE, 512, seed=3)), noise_of(5, 512)
    )
    links, log_w = path.sample(U1(BETA).action, start(1), noise_of(2))
    assert links.abs().max() <= math.pi
    value, error = ln_mean(log_w)
    assert error < 0.1
    assert abs(value - ln_z(BETA, 4)) < 4 * error
    w, square = torch.softmax(log_w, 0), U1(BETA).order(links) ** 2
    mean = float(w @ square)
    assert abs(mean - charge_law(BETA, 4).moment(2)) < 4 * float((w**2 @ (square - mean) ** 2).sqrt())
    forward = path.weigh(torch.from_numpy(draw_links(BETA, SHAPE, N, seed=6)), U1(BETA).action, noise_of(7))
    value, error = ln_mean(-forward)
    assert abs(-value - ln_z(BETA, 4)) < 4 * error


class Forgetful(AnglePath):
    """Steps of this variance, weighed as if it were one."""

    def _log_reverse(self, rest: Tensor, n: int) -> Tensor:
        return AnglePath(self.score, self.levels, torch.ones_like(self.variance), self.beta)._log_reverse(
            rest, n
        )


def test_any_variance_of_a_step_is_exact_and_one_that_is_forgotten_is_not() -> None:
    path, action = AnglePath.of(score_of(0.0), 16), U1(BETA).action
    for kind, right in ((AnglePath, True), (Forgetful, False)):
        narrow = kind(path.score, path.levels, 0.8 * path.variance, BETA)
        value, error = ln_mean(narrow.sample(action, start(1), noise_of(2))[1])
        assert (abs(value - ln_z(BETA, 4)) < 5 * error) is right
        assert right or abs(value - ln_z(BETA, 4)) > 10 * error


def test_paths_move_between_charges() -> None:
    path = AnglePath.of(score_of(0.0), 12)
    seen: list[Tensor] = []
    path.sample(U1(BETA).action, start(1, 64), noise_of(2, 64), lambda n, a: seen.append(U1(BETA).order(a)))
    assert (seen[0] != seen[-1]).any()
    assert (seen[-1] == 0).any()
