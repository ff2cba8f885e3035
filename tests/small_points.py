"""Point models with known answers: the two-peak law in closed form, untrained and random networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffsq.models.points import PointModel
from lattice.rng import normals, uniforms

MU, S0 = 1.0, 0.25
KAPPA = np.array([MU**2 + S0**2, -2 * MU**4, 16 * MU**6, -272 * MU**8])


def two_peak_points(n: int, seed: int = 3) -> Tensor:
    """Exact draws (n, 1)."""
    sign = np.where(uniforms(seed, "test/sign", np.array([0]), 0, n)[0] < 0.5, 1, -1)
    return torch.from_numpy(S0 * normals(seed, "test/peak", np.array([0]), 0, n)[0] + MU * sign)[:, None]


class TwoPeak:
    """1/2 [N(1, 1/16) + N(-1, 1/16)]: posterior mean, score and density at every noise level."""

    dim = 1
    covariance = torch.tensor([[MU**2 + S0**2]], dtype=torch.float64)
    box = torch.tensor([[-10.0], [10.0]], dtype=torch.float64)

    def score(self, x: Tensor, sigma: Tensor, frame: object = None) -> Tensor:
        v = S0**2 + sigma[:, None] ** 2
        return (MU * torch.tanh(MU * x / v) - x) / v

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x + sigma[:, None] ** 2 * self.score(x, sigma)

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        v = S0**2 + sigma**2
        parts = torch.stack([-((x[:, 0] - m) ** 2) / (2 * v) for m in (MU, -MU)])
        return torch.logsumexp(parts, 0) - 0.5 * np.log(8 * np.pi * v)


def gaussian_model(covariance: Tensor, kind: str = "score", width: int = 8) -> PointModel:
    """Untrained: the exact score of N(0, covariance), learned range 0.01...20."""
    model = PointModel(len(covariance), kind, width, 2)
    model.set_gaussian(covariance, 0.01, 20.0)
    return model.requires_grad_(False)


def random_model(dim: int, kind: str, seed: int = 5, size: float = 0.3) -> PointModel:
    """A network with random weights everywhere, so that nothing vanishes by accident."""
    model = PointModel(dim, kind, 16, 3)
    root = torch.tensor([[1.0, 0.0], [-0.4, 0.5]], dtype=torch.float64)[:dim, :dim]
    model.set_gaussian(root @ root.T, 0.05, 5.0)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.network.parameters():
        parameter.data.copy_(size * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def random_points(n: int, dim: int, size: float = 1.5, seed: int = 7) -> Tensor:
    """(n, dim) normal numbers."""
    return size * torch.from_numpy(normals(seed, "test/points", np.array([0]), 0, n * dim)).reshape(n, dim)


def cumulants_of(x: Tensor) -> np.ndarray:
    """kappa_2, 4, 6, 8 of a symmetric variable x (n,) from its even moments."""
    m2, m4, m6, m8 = (float((x**n).mean()) for n in (2, 4, 6, 8))
    k4, k6 = m4 - 3 * m2**2, m6 - 15 * m4 * m2 + 30 * m2**3
    k8 = m8 - 28 * m6 * m2 - 35 * m4**2 + 420 * m4 * m2**2 - 630 * m2**4
    return np.array([m2, k4, k6, k8])


def with_errors(x: Tensor, blocks: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """kappa_2, 4, 6, 8 of x (n,) and their jackknife errors."""
    parts = list(x.split(-(-len(x) // blocks)))
    left = np.array([cumulants_of(torch.cat(parts[:i] + parts[i + 1 :])) for i in range(len(parts))])
    return cumulants_of(x), np.sqrt((len(parts) - 1) * left.var(0))
