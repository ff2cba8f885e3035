"""Closed-form bases of small lattices for tests of the flow, its Jacobian, and Gauss-Hermite sums."""

from __future__ import annotations

import itertools
import math
from copy import deepcopy
from functools import lru_cache

import numpy as np
import torch
from small_models import equilibrium, noise_of
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.models.momentum import propagator
from diffsq.models.regression import RegressionBase
from lattice.actions.phi4 import ScalarPhi4

Shape = tuple[int, int]
NEAR = ScalarPhi4(0.25, 0.05)


@lru_cache(maxsize=8)
def flow_base(
    shape: Shape, action: ScalarPhi4 = NEAR, sector: bool = False, site: bool = True, low: float = 0.2
) -> RegressionBase:
    """A base fitted to 2048 fields; without `site` it is smooth in the field."""
    phi = equilibrium(action, shape, 2048)
    model = LatticeScore.unfitted(shape, 12, sector=int(sector)).eval()
    base = model.sector if sector else model.base
    assert base is not None
    if sector:
        base.set_centre(phi, 64)
    g = propagator(base.momenta, base.of_sector(phi))
    base.set_gaussian(g, low, 2 * float(g.max()) ** 0.5)
    if site:
        base.set_action(action, 1.2 * float(phi.abs().max()))
    base.fit(phi, action.grad, noise_of("test/fit", len(phi), shape))
    return base


def smooth_base(shape: Shape, low: float = 0.2) -> RegressionBase:
    """Smooth in the noise level too, its coefficients parabolas in ln sigma: steps are soon small."""
    base = deepcopy(flow_base(shape, site=False, low=low))
    t = torch.linspace(-1, 1, len(base.log_sigma), dtype=torch.float64)
    powers = torch.stack([t**0, t, t**2], 1)
    projector = powers @ torch.linalg.pinv(powers)
    base.coefficients.copy_(torch.einsum("st,tkf->skf", projector, base.coefficients))
    return base


def spoilt(base: RegressionBase, size: float = 0.1, seed: int = 3) -> RegressionBase:
    """A bad score: each feature with a random change of `size` times what it is, root mean square in a class.

    That of a Gaussian field: weak features have large coefficients, which say nothing.
    """
    bad, p = deepcopy(base), base.momenta
    generator = torch.Generator().manual_seed(seed)
    change = size * torch.randn(bad.n_feature, generator=generator, dtype=torch.float64)
    white = noise_of("spoilt", 256, p.shape)(0)
    for node, sigma in enumerate(base.log_sigma.exp()):
        x = p.modes(p.colour(white, base.g + sigma**2))
        power = p.class_mean((base.features(x, sigma[None]).abs().double() ** 2).mean(0)).T
        present = power > 1e-6 * power.amax(0)
        bad.coefficients[node] += torch.where(present, change / power.sqrt(), 0.0)
    return bad


def fine(base: RegressionBase, n_steps: int, process: str = "ve") -> LatticeFlow:
    """The flow with features in float64."""
    return LatticeFlow(base, n_steps, process, torch.float64)


def log_det(flow: LatticeFlow, noise: Tensor) -> tuple[Tensor, Tensor]:
    """log q as the flow states it, and from the Jacobian of its own steps, reverse mode: (n,) each."""
    z = noise.clone().requires_grad_()
    x, log_q = LatticeFlow.down.__wrapped__(flow, z)  # type: ignore[attr-defined]
    rows = [
        torch.autograd.grad(column.sum(), z, retain_graph=True)[0].flatten(1) for column in x.flatten(1).T
    ]
    half = 0.5 * (noise**2 + math.log(2 * math.pi)).flatten(1).sum(1)
    return log_q.detach(), -half - torch.linalg.slogdet(torch.stack(rows, 1))[1]


def hermite(shape: Shape, n: int) -> tuple[Tensor, Tensor]:
    """Noise (n^V, *shape) and weights (n^V,) of the Gauss-Hermite rule for its standard normal law."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    volume = math.prod(shape)
    noise = np.array(list(itertools.product(nodes, repeat=volume))).reshape(-1, *shape)
    products = np.array(list(itertools.product(weights / math.sqrt(2 * math.pi), repeat=volume)))
    return torch.from_numpy(noise), torch.from_numpy(products.prod(1))


def ln_z_of(flow: LatticeFlow, action: ScalarPhi4, n: int) -> float:
    """ln of the integral of w over the noise."""
    noise, weights = hermite(flow.momenta.shape, n)
    x, log_q = flow.down(noise)
    return float(torch.logsumexp(weights.log() - action.action(x) - log_q, 0))
