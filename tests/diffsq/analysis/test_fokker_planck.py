"""Circulation and Fokker-Planck residual of learned laws, on laws where both are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_points import gaussian_model, random_model, random_points

from diffsq.analysis.fokker_planck import (
    circulation,
    divergence,
    fokker_planck,
    log_density_map,
    score_jacobian,
)
from diffsq.plots.complex_plane import density_map
from lattice.errors import InputError

SIGMA0 = 1 + 1j
# stationary covariance of complex Langevin for S = 1/2 (1 + i) z^2 with real noise
STATIONARY = torch.tensor([[0.75, -0.25], [-0.25, 0.25]], dtype=torch.float64)


def drift(sigma0: complex):  # type: ignore[no-untyped-def]
    def k(x: torch.Tensor) -> torch.Tensor:
        force = -sigma0 * torch.complex(x[:, 0], x[:, 1])
        return torch.stack([force.real, force.imag], 1)

    return k


def gaussian_points(n: int) -> torch.Tensor:
    return random_points(n, 2, 1.0) @ torch.linalg.cholesky(STATIONARY).T


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_jacobian_against_finite_differences(kind: str) -> None:
    model, x, h = random_model(2, kind), random_points(60, 2), 2e-2
    sigma = torch.tensor([0.5], dtype=torch.float64)
    score, jacobian = score_jacobian(model, x, 0.5)
    assert torch.allclose(score, model.score(x, sigma), atol=1e-5)
    for axis in range(2):
        step = torch.zeros_like(x)
        step[:, axis] = h
        slope = (model.score(x + step, sigma) - model.score(x - step, sigma)) / (2 * h)
        assert torch.allclose(jacobian[:, :, axis], slope, atol=2e-3)


def test_an_energy_has_no_circulation_a_score_has() -> None:
    points = random_points(500, 2, 0.7)
    assert circulation(random_model(2, "energy"), points, 0.1) < 1e-12
    assert circulation(random_model(2, "score"), points, 0.1) > 1e-3
    assert circulation(gaussian_model(STATIONARY), points, 0.1) < 1e-12


def test_divergence_of_a_holomorphic_drift() -> None:
    def quartic(x: torch.Tensor) -> torch.Tensor:
        z = torch.complex(x[:, 0], x[:, 1])
        k = -(SIGMA0 * z + z**3)
        return torch.stack([k.real, k.imag], 1)

    x = random_points(100, 2)
    z = torch.complex(x[:, 0], x[:, 1])
    assert torch.allclose(divergence(quartic, x), -2 * (SIGMA0 + 3 * z**2).real, atol=1e-6)


def test_complex_langevin_keeps_its_gaussian_and_no_other() -> None:
    points, small = gaussian_points(4000), 0.01
    kept = fokker_planck(gaussian_model(STATIONARY), drift(SIGMA0), points, small)
    assert kept["relative"] < 3e-3  # the noise itself: of order (0.01/0.35)^2
    assert kept["largest_term"] > 1
    wider = fokker_planck(gaussian_model(1.2 * STATIONARY), drift(SIGMA0), points, small)
    assert wider["relative"] > 0.05
    other = fokker_planck(gaussian_model(STATIONARY), drift(1 + 0.5j), points, small)
    assert other["relative"] > 0.05


def test_wrong_input() -> None:
    points = random_points(100, 1)
    with pytest.raises(InputError, match="two dimensions"):
        circulation(random_model(1, "score"), points, 0.1)
    with pytest.raises(InputError, match="complexified"):
        fokker_planck(random_model(1, "score"), drift(SIGMA0), points, 0.1)
    with pytest.raises(InputError, match="NaN"):
        fokker_planck(gaussian_model(STATIONARY), lambda x: x / 0, gaussian_points(100), 0.1)


def test_map_of_the_plane() -> None:
    model, sigma = gaussian_model(STATIONARY, "energy"), 0.01
    found = log_density_map(model, drift(SIGMA0), (-4, 4, -2.5, 2.5), sigma, n=161)
    cell = float(np.diff(found["x"])[0] * np.diff(found["y"])[0])
    assert np.exp(found["log_p"]).sum() * cell == pytest.approx(1, abs=1e-3)
    second = (np.exp(found["log_p"]) * found["x"][None] * found["y"][:, None]).sum() * cell
    assert second == pytest.approx(-0.25, abs=1e-3)  # rows are y
    figure = density_map(gaussian_points(5000), gaussian_points(4000), found, strip=1.0)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["data", "model", "learned $P$, drift arrows"]
    assert len(density_map(gaussian_points(5000), gaussian_points(4000)).axes) == 3  # two panels, a bar
