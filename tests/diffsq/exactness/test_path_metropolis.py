"""Metropolis over whole paths: the law that comes out is that of the energy, not that of the sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_points import gaussian_model, random_model, random_points, two_peak_points

from diffsq.exactness.path_metropolis import PointChain, metropolis_points
from diffsq.models.points import PointModel
from diffsq.process.sde import VESDE
from diffsq.sampling.point_path import PointPath, calibrated, sample_paths
from diffsq.sampling.streams import POINT_BLOCK
from lattice.errors import InputError

N = 4 * POINT_BLOCK
SIGMA1 = 0.3
LEVELS = VESDE(SIGMA1, 8.0).levels(24)


class Steep(PointModel):
    """A sampler that is wrong on purpose: its score is 6 % too large, its energy is what it was."""

    def score(self, x: torch.Tensor, sigma: torch.Tensor, frame: object = None) -> torch.Tensor:
        return 1.06 * super().score(x, sigma)


def random_energy() -> Steep:
    """A law that is not Gaussian, whose score at different levels does not belong together, and is wrong."""
    model, wrong = random_model(1, "energy", size=0.25), Steep(1, "energy", 16, 3)
    wrong.load_state_dict(model.state_dict())
    wrong.log_rho[0] = 0.5
    return wrong.requires_grad_(False)


def quadrature(model, n: int) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """<x^n> under e^{-E} at sigma_1, and ln int e^{-E}."""
    x = torch.linspace(-12, 12, 24001, dtype=torch.float64)[:, None]
    p = torch.exp(-model.energy(x, LEVELS[1:2]))
    return float((p * x[:, 0] ** n).sum() / p.sum()), float(torch.log(p.sum() * 24 / 24000))


def deviation(x: torch.Tensor, truth: float, n: int) -> float:
    """Pull of <x^n>, its error from 32 blocks."""
    blocks = torch.stack([(part[:, 0] ** n).mean() for part in x.split(len(x) // 32)])
    return abs(float(blocks.mean()) - truth) / float(blocks.std() / np.sqrt(len(blocks)))


def test_the_chain_has_the_law_of_the_energy_where_the_sampler_has_not() -> None:
    model = random_energy()
    kernel = calibrated(model, LEVELS, two_peak_points(POINT_BLOCK), 1)
    chain = metropolis_points(model, kernel, N, 2, two_peak_points(POINT_BLOCK))
    pulls = [deviation(chain.points, quadrature(model, n)[0], n) for n in (2, 4)]
    assert max(pulls) < 4.5
    value, error = chain.ln_z
    assert abs(value - quadrature(model, 2)[1]) < 4.5 * error
    assert 0.1 < chain.acceptance[0] < 0.999
    assert 0.05 < chain.ess[0] < 0.999
    # the same sampler without the accept step
    raw = sample_paths(PointPath(model, kernel), N, 2, lambda x: model.energy(x, LEVELS[1:2]))[0]
    assert deviation(raw, quadrature(model, 2)[0], 2) > 10


def test_weights_of_another_energy_are_noticed() -> None:
    """Negative control: accepting with an energy 20 % too steep moves the law by far more than the gate."""
    model = gaussian_model(torch.tensor([[1.0]], dtype=torch.float64), "energy")
    kernel = calibrated(model, LEVELS, two_peak_points(POINT_BLOCK), 1)
    points = random_points(POINT_BLOCK, 1, 1.0)
    right = metropolis_points(model, kernel, N, 2, points)
    truth = 1 + SIGMA1**2
    assert deviation(right.points, truth, 2) < 4.5
    model.variance.mul_(0.8)
    steep = metropolis_points(model, kernel, N, 2, points)
    assert deviation(steep.points, truth, 2) > 10
    assert deviation(steep.points, truth - 0.2, 2) < 4.5


def test_exact_energy_and_score_accept_everything() -> None:
    model = gaussian_model(torch.tensor([[1.0]], dtype=torch.float64), "energy")
    points = torch.randn(4 * POINT_BLOCK, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chain = metropolis_points(model, calibrated(model, LEVELS, points, 1), POINT_BLOCK, 2, points)
    assert chain.acceptance[0] > 0.95
    assert chain.ess_forward[0] == pytest.approx(chain.ess[0], abs=0.01)
    assert chain.as_dict()["ln_z"] == pytest.approx(0, abs=0.01)
    assert chain.as_dict().keys() == {
        "sigma", "spread", "distrusted",
        *(f"{name}{end}" for name in ("acceptance", "ess", "ess_forward", "ln_z") for end in ("", "_error")),
    }  # fmt: skip
    assert chain.as_dict()["spread"]["forward"]["exp_minus_var"] == pytest.approx(1, abs=0.02)


def test_a_rejected_proposal_repeats_the_state() -> None:
    log_weight = np.array([5.0, 0.0, 0.0, 6.0])
    chain = PointChain(torch.zeros(4, 1), 0.1, np.array([True, False, False, True]), log_weight, log_weight)
    assert chain.acceptance[0] == pytest.approx(1 / 3)
    w, many = np.exp(log_weight), np.tile(log_weight, 256)
    ess, error = PointChain(torch.zeros(1024, 1), 0.1, np.ones(1024, bool), many, many).ess
    assert ess == pytest.approx(w.sum() ** 2 / (4 * (w**2).sum()))
    assert 0 < error < 0.05


def test_a_score_model_is_refused() -> None:
    model = random_model(1, "score")
    kernel = calibrated(model, LEVELS, two_peak_points(1000), 1)
    with pytest.raises(InputError, match="energy model"):
        metropolis_points(model, kernel, 10, 1, two_peak_points(1000))
