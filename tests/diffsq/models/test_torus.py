"""The learned score on the circle: symmetries by construction, whatever the weights; rescaling in beta."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffsq.models.torus import TorusScore, around, lift_mean
from lattice.actions.u1 import circulation
from lattice.errors import InputError


def random_score(shape: tuple[int, int] = (4, 4)) -> TorusScore:
    score, g = TorusScore(shape, 6, 2.0, 0.72, 0.1), torch.Generator().manual_seed(1)
    for weight in score.network.parameters():
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=g))
    return score.requires_grad_(False)


def some_links(shape: tuple[int, int] = (4, 4), n: int = 3) -> Tensor:
    u = torch.rand(n, 2, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return math.pi * (2 * u - 1)


SIGMA = torch.tensor([0.2, 0.7, 2.0], dtype=torch.float64)


def test_the_plaquette_field_turns_with_the_lattice_and_is_odd() -> None:
    score, theta = random_score(), circulation(some_links())
    u = score.plaquette_field(theta, SIGMA)
    assert u.abs().max() > 0.01
    for turned, same in (
        (-theta, -u), (theta.roll((1, 3), (-1, -2)), u.roll((1, 3), (-1, -2))),
        (theta.transpose(-1, -2), u.transpose(-1, -2)), (theta.flip(-1), u.flip(-1)),
        (theta.flip(-2), u.flip(-2)), (theta + 2 * math.pi * torch.ones_like(theta).cumsum(-1), u),
    ):  # fmt: skip
        assert torch.allclose(score.plaquette_field(turned, SIGMA), same, atol=2e-5)


def test_the_score_knows_no_gauge_and_no_holonomy() -> None:
    score, links = random_score((4, 6)), some_links((4, 6))
    found = score.score(links, SIGMA)
    turn = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    turned = links + torch.stack([turn - turn.roll(-1, -2), turn - turn.roll(-1, -1)], 1)
    turned[:, 0, 2, :] += 1.1
    scale = found.abs().amax()
    assert (score.score(turned, SIGMA) - found).abs().max() < 1e-4 * scale
    assert found.sum((-1, -2)).abs().max() < 1e-9 * scale
    plain = torch.randn(links.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert (score.score(links + plain, SIGMA) - found).abs().max() > 0.1 * scale


def test_the_mean_of_lifts_has_its_two_limits() -> None:
    theta = torch.linspace(-3, 3, 13, dtype=torch.float64)
    small, large = (torch.full_like(theta, v) for v in (0.01, 12.0))
    inner = theta.abs() < 2.5
    assert torch.allclose(lift_mean(theta, small)[inner], theta[inner], atol=1e-12)
    wave = 2 * 12.0 * math.exp(-6.0) * theta.sin()
    assert (lift_mean(theta, large) - wave).abs().max() < 1e-2 * wave.abs().max()


def test_loops_around_a_plaquette_are_sums_of_plaquettes() -> None:
    theta = circulation(some_links((5, 6)))
    loop2, loop3 = around(theta)
    block = sum(theta.roll((-i, -j), (-2, -1)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    assert torch.allclose(loop3, torch.as_tensor(block).sin())
    squares = [
        sum(theta.roll((-i - a, -j - b), (-2, -1)) for a in (0, 1) for b in (0, 1))
        for i in (-1, 0) for j in (-1, 0)
    ]  # fmt: skip
    assert torch.allclose(loop2, sum(torch.as_tensor(q).sin() for q in squares) / 4)


def test_rescaling_is_the_ratio_of_couplings_at_small_noise_alone() -> None:
    score, links = random_score(), some_links()
    sigma = torch.tensor([1e-3, 0.1, 2.0], dtype=torch.float64)
    own, other, control = (score.score(links, sigma, *args) for args in ((), (6.0,), (6.0, "published")))
    assert torch.allclose(control, 3 * own)
    size = own.flatten(1).norm(dim=1)
    ratio = other.flatten(1).norm(dim=1) / size
    assert ratio[0] == pytest.approx(3, rel=1e-3)
    assert ratio[2] == pytest.approx(1, rel=0.1)
    with pytest.raises(InputError, match="rescaling is propagator or published"):
        score.score(links, sigma, 6.0, "other")  # type: ignore[arg-type]
