"""Point models: symmetry, conservativeness and the Gaussian limit hold for any weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_points import gaussian_model, random_model, random_points

from diffsq.models.points import N_LAST, PointModel, chebyshev

KINDS = [(1, "score"), (2, "score"), (1, "energy"), (2, "energy")]
LEVELS = (0.05, 0.4, 3.0)


def sigma(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize(("dim", "kind"), KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_score_is_odd_and_the_energy_even(dim: int, kind: str, level: float) -> None:
    model, x = random_model(dim, kind), random_points(200, dim)
    s = model.score(x, sigma(level))
    assert s.dtype == torch.float64
    assert torch.allclose(model.score(-x, sigma(level)), -s, rtol=1e-5, atol=1e-6)
    gauss = -x @ torch.linalg.inv(model.covariance + level**2 * torch.eye(dim))
    assert ((s - gauss).abs().max(0).values > 0.01).all()  # the network is not idle
    if kind == "energy":
        assert torch.allclose(model.energy(-x, sigma(level)), model.energy(x, sigma(level)), atol=1e-6)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("level", LEVELS)
def test_the_score_is_minus_the_gradient_of_the_energy(dim: int, level: float) -> None:
    model, x, h = random_model(dim, "energy"), random_points(100, dim), 1e-3
    single = model.score(x, sigma(level))
    model.network.double()  # a difference of float32 energies is noise
    found = model.score(x, sigma(level))
    assert torch.allclose(single, found, rtol=1e-4, atol=1e-4)
    for axis in range(dim):
        step = torch.zeros_like(x)
        step[:, axis] = h
        slope = (model.energy(x + step, sigma(level)) - model.energy(x - step, sigma(level))) / (2 * h)
        assert torch.allclose(found[:, axis], -slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_gaussian_data_are_exact_before_training(kind: str) -> None:
    covariance = torch.tensor([[0.75, -0.25], [-0.25, 0.25]], dtype=torch.float64)
    model, x = gaussian_model(covariance, kind), random_points(50, 2)
    for level in LEVELS:
        a = covariance + level**2 * torch.eye(2)
        assert torch.allclose(model.score(x, sigma(level)), -x @ torch.linalg.inv(a), atol=1e-12)
        wiener = x @ torch.linalg.inv(a) @ covariance
        assert torch.allclose(model.denoise(x, sigma(level)), wiener, atol=1e-12)
        if kind == "energy":
            law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), a)
            assert torch.allclose(model.energy(x, sigma(level)), -law.log_prob(x), atol=1e-12)


@pytest.mark.parametrize(("dim", "kind"), KINDS)
def test_each_point_has_its_own_noise_level(dim: int, kind: str) -> None:
    model, x = random_model(dim, kind), random_points(6, dim)
    levels = torch.logspace(-1, 0.6, 6, dtype=torch.float64)
    together = model.score(x, levels)
    for i in range(6):
        assert torch.allclose(together[i : i + 1], model.score(x[i : i + 1], levels[i : i + 1]), atol=1e-5)


def test_polynomials_and_size() -> None:
    t = torch.linspace(-1, 1, 41, dtype=torch.float64)
    expected = torch.from_numpy(np.polynomial.chebyshev.chebvander(t.numpy(), N_LAST - 1))
    assert torch.allclose(chebyshev(t), expected, atol=1e-12)
    model = PointModel(1, "score", 8, 2)
    model.log_rho[1] = 0.5
    model.set_gaussian(torch.eye(1), 0.1, 10.0)
    assert model.rho(torch.tensor([0.1, 1.0, 10.0]).double()).log().tolist() == pytest.approx([-0.5, 0, 0.5])
    assert model.sigma_min == pytest.approx(0.1)
    assert model.sigma_max == pytest.approx(10.0)


def test_a_score_model_has_no_energy() -> None:
    with pytest.raises(AssertionError, match="no energy"):
        random_model(1, "score").energy(torch.zeros(1, 1).double(), sigma(1.0))
