"""Clean fields given noisy ones where this is known: free fields by momenta, single sites by quadrature."""

from __future__ import annotations

import math

import torch
from fields import generator
from torch import Tensor

from lattice.actions.phi4 import ScalarPhi4
from lattice.exact.scalar import free_propagator

RADIUS, POINTS, ROWS = 6.0, 401, 8192  # of the quadrature, and how many sites at once


def free_posterior(action: ScalarPhi4, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """W x and C, (n, *shape) in the order of `fftn`, of a free field: x (n, *shape), sigma (n,)."""
    shape = tuple(x.shape[1:])
    g = torch.from_numpy(free_propagator(action.kappa, shape))
    s2 = sigma.reshape(-1, *[1] * len(shape)) ** 2
    axes = tuple(range(1, x.dim()))
    mean = torch.fft.ifftn(g / (g + s2) * torch.fft.fftn(x, dim=axes), dim=axes).real
    return mean, g * s2 / (g + s2)


def half(c: Tensor) -> Tensor:
    """(..., *shape) in the order of `fftn` to that of `rfftn`."""
    return c[..., : c.shape[-1] // 2 + 1]


def _sites() -> Tensor:
    return torch.linspace(-RADIUS, RADIUS, POINTS, dtype=torch.float64)


def site_posterior(action: ScalarPhi4, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E[phi|x], E[phi^2|x] and E[dS/dphi|x] at kappa = 0, like x, by quadrature; sigma like x or a number."""
    assert action.kappa == 0
    phi = _sites()
    s, force = action.action(phi[:, None]), action.grad(phi[:, None])[:, 0]
    powers = torch.stack([phi, phi**2, force], 1)
    rows = []
    for at, width in zip(x.flatten().split(ROWS), sigma.expand(x.shape).flatten().split(ROWS)):
        weight = torch.softmax(-s - (at[:, None] - phi) ** 2 / (2 * width[:, None] ** 2), 1)
        rows.append(weight @ powers)
    mean, second, force = torch.cat(rows).T.reshape(3, *x.shape)
    return mean, second, force


def site_draws(action: ScalarPhi4, shape: tuple[int, ...], n: int, seed: int) -> Tensor:
    """(n, *shape) independent draws at kappa = 0, by the inverse of the distribution function."""
    assert action.kappa == 0
    edges = torch.linspace(-RADIUS, RADIUS, 100_001, dtype=torch.float64)
    middle = 0.5 * (edges[1:] + edges[:-1])
    cdf = torch.exp(-action.action(middle[:, None])).cumsum(0)
    u = torch.rand(n * math.prod(shape), generator=generator(seed), dtype=torch.float64)
    cell = torch.searchsorted(cdf, u * cdf[-1]).clamp(max=len(middle) - 1)
    inside = torch.rand(len(u), generator=generator(seed + 1), dtype=torch.float64) - 0.5
    return (middle[cell] + inside * (edges[1] - edges[0])).reshape(n, *shape)


def excess(action: ScalarPhi4, sigma: float) -> float:
    """E |D - W x|^2/(2 sigma^2) per site at kappa = 0, D exact and W = G/(G + sigma^2): the error of the
    Wiener filter, nats per unit of ln sigma^2."""
    phi = _sites()
    p = torch.softmax(-action.action(phi[:, None]), 0)
    g = float(p @ phi**2)
    x = torch.linspace(-RADIUS - 9 * sigma, RADIUS + 9 * sigma, 4001, dtype=torch.float64)
    density = torch.cat([torch.exp(-((q[:, None] - phi) ** 2) / (2 * sigma**2)) @ p for q in x.split(ROWS)])
    density /= density.sum()
    mean = site_posterior(action, x, torch.tensor(sigma, dtype=torch.float64))[0]
    return float(density @ (mean - g / (g + sigma**2) * x) ** 2) / (2 * sigma**2)
