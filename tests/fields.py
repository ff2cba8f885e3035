"""Exact draws of fields of known law for the tests of the denoiser, and its closed form for two peaks."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from diffsq.models.symmetry import Symmetry
from lattice.actions.phi4 import ScalarPhi4

MU, WIDTH = 1.0, 0.5  # peaks of the two-peak density 1/2 [N(MU, WIDTH^2) + N(-MU, WIDTH^2)]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def white(shape: tuple[int, ...], n: int, seed: int) -> Tensor:
    """(n, *shape) standard normal."""
    return torch.randn(n, *shape, generator=generator(seed), dtype=torch.float64)


def hessian(action: ScalarPhi4, shape: tuple[int, ...]) -> Tensor:
    """(V, V) matrix of the quadratic action, column by column from its gradient."""
    volume = math.prod(shape)
    return action.grad(torch.eye(volume, dtype=torch.float64).reshape(volume, *shape)).reshape(volume, volume)


def free_fields(action: ScalarPhi4, shape: tuple[int, ...], n: int, seed: int) -> Tensor:
    """Exact draws of a Gaussian theory in position space, phi = L^-T xi with L L^T the action's matrix."""
    factor = torch.linalg.cholesky(hessian(action, shape))
    xi = white((math.prod(shape),), n, seed)
    return torch.linalg.solve_triangular(factor.T, xi.T, upper=True).T.reshape(n, *shape)


def two_peak(shape: tuple[int, ...], n: int, seed: int) -> Tensor:
    """(n, *shape) independent draws of the two-peak density."""
    noise = white(shape, n, seed)
    sign = torch.randint(0, 2, noise.shape, generator=generator(seed + 1)) * 2 - 1
    return MU * sign + WIDTH * noise


def two_peak_denoiser(x: Tensor, sigma: Tensor | float) -> Tensor:
    """E[z | z + sigma eps = x] of the two-peak density, closed form."""
    s2 = WIDTH**2 + torch.as_tensor(sigma) ** 2
    return (WIDTH**2 * x + torch.as_tensor(sigma) ** 2 * MU * torch.tanh(MU * x / s2)) / s2


def two_peak_density(x: Tensor, sigma: float) -> Tensor:
    """Density of z + sigma eps."""
    s2 = WIDTH**2 + sigma**2
    peaks = torch.exp(-((x - MU) ** 2) / (2 * s2)) + torch.exp(-((x + MU) ** 2) / (2 * s2))
    return peaks / (2 * math.sqrt(2 * math.pi * s2))


def grid(radius: float, n: int = 4001) -> tuple[Tensor, float]:
    """Points of a trapezoidal rule on [-radius, radius], and their spacing."""
    return torch.linspace(-radius, radius, n, dtype=torch.float64), 2 * radius / (n - 1)


def significance(samples: Tensor) -> Tensor:
    """Mean over dim 0 in units of its standard error; rows must be independent."""
    return samples.mean(0) / (samples.std(0) / math.sqrt(len(samples)))


def all_symmetries(shape: tuple[int, int]) -> list[Symmetry]:
    """Shifts, reflections and, on a square, the exchange of the axes; the first is the identity."""
    shifts = [(0, 0), (1, 0), (0, 3), (2, 5)]
    flips: list[tuple[int, ...]] = [(), (-2,), (-1,), (-2, -1)]
    exchanges = [False, True] if shape[0] == shape[1] else [False]
    return [Symmetry(*g) for g in itertools.product(shifts, flips, exchanges)]
