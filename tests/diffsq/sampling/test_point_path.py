"""Weights of whole paths of points, on laws known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_points import TwoPeak, gaussian_model, two_peak_points

from diffsq.exactness.weights import forward_ess, ln_z, ln_z_forward
from diffsq.process.sde import VESDE
from diffsq.sampling.point_path import PointKernel, PointPath, calibrated, forward_weights, sample_paths
from diffsq.sampling.streams import POINT_BLOCK

COVARIANCE = torch.tensor([[0.75, -0.25], [-0.25, 0.25]], dtype=torch.float64)
ROOT = torch.linalg.cholesky(COVARIANCE)


def normal_points(n: int) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ ROOT.T


def test_path_weights_of_a_gaussian_are_those_of_its_kernel() -> None:
    """Exact score and exact kernel: every weight is Z; a kernel 0.5 % too wide costs next to nothing."""
    model, levels = gaussian_model(COVARIANCE), VESDE(0.1, 8.0).levels(12)
    eye = torch.eye(2, dtype=torch.float64)
    steps = [
        (hi**2 - lo**2) * torch.linalg.inv(COVARIANCE + hi**2 * eye) @ (COVARIANCE + lo**2 * eye)
        for lo, hi in zip(levels[1:-1], levels[2:])
    ]
    law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), COVARIANCE + levels[1] ** 2 * eye)

    def unnormalised(x: torch.Tensor) -> torch.Tensor:
        return -law.log_prob(x) - 0.7

    exact = PointKernel(levels, torch.stack(steps))
    x, log_w = sample_paths(PointPath(model, exact), 500, 1, unnormalised)
    assert torch.allclose(log_w, torch.full_like(log_w, 0.7), atol=1e-8)
    measured = calibrated(model, levels, normal_points(4 * POINT_BLOCK), 1, wider=0.005)
    inverse = torch.linalg.inv(torch.linalg.cholesky(1.005 * exact.covariance))
    assert (inverse @ measured.covariance @ inverse.mT - eye).abs().max() < 0.03  # four sigma of 32768 points
    assert float(sample_paths(PointPath(model, measured), 500, 1, unnormalised)[1].std()) < 0.05


@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_mean_weight_is_the_integral_whatever_the_score(scale: float) -> None:
    """E[w] = Z for the two-peak law with a score that is right, and with one that is 10 % short."""

    class Scaled(TwoPeak):
        def score(self, x: torch.Tensor, sigma: torch.Tensor, frame: object = None) -> torch.Tensor:
            return scale * super().score(x, sigma)

    law, levels = Scaled(), VESDE(0.1, 12.0).levels(40)
    kernel = calibrated(law, levels, two_peak_points(2 * POINT_BLOCK), 1)
    x, log_w = sample_paths(
        PointPath(law, kernel), 4 * POINT_BLOCK, 2, lambda y: -law.log_density(y, 0.1) - math.log(3.0)
    )
    w = log_w.exp()
    assert abs(float(w.mean()) - 3) < 4 * float(w.std()) / math.sqrt(len(w))
    second = (w * x[:, 0] ** 2).mean() / w.mean()
    error = float((w * (x[:, 0] ** 2 - second)).std() / w.mean()) / math.sqrt(len(w))
    assert abs(float(second) - 1.0725) < 4 * error
    raw = abs(float((x[:, 0] ** 2).mean()) - 1.0725)
    if scale < 1:  # the weights had something to do
        assert raw > 10 * float((x[:, 0] ** 2).std()) / math.sqrt(len(x))


@pytest.mark.parametrize("factor", [1.0, 0.4])
def test_forward_and_reverse_weights_know_the_same_integral(factor: float) -> None:
    """Z and ESS both ways for the two-peak law; a kernel too narrow collapses forward at once."""
    law, levels = TwoPeak(), VESDE(0.1, 12.0).levels(40)
    right = calibrated(law, levels, two_peak_points(2 * POINT_BLOCK), 1)
    path = PointPath(law, PointKernel(levels, factor * right.covariance))

    def energy(y: torch.Tensor) -> torch.Tensor:
        return -law.log_density(y, 0.1) - 0.3

    reverse = sample_paths(path, 4 * POINT_BLOCK, 2, energy)[1].numpy()
    forward = forward_weights(path, two_peak_points(4 * POINT_BLOCK, 9), 3, energy).numpy()
    ess = np.exp(reverse).sum() ** 2 / (len(reverse) * np.exp(2 * reverse).sum())
    if factor < 1:
        assert forward_ess(forward)[0] < 0.05
        return
    for value, error in (ln_z(reverse), ln_z_forward(forward)):
        assert abs(value - 0.3) < 4.5 * error < 0.05
    value, error = forward_ess(forward)
    assert abs(value - ess) < 4.5 * error + 0.01
    assert value > 0.5
