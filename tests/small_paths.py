"""Models and paths of a 2 x 2 lattice, draws, and the truth by quadrature."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from small_models import equilibrium, levels_of, noise_of, phi4_model, spoil, still
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import propagator
from diffsq.models.spread import Spread
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.exact.scalar import SmallLattice, small_lattice

TWO = ScalarPhi4(0.2, 0.05)
SHAPE = (2, 2)
N = 8000


@lru_cache(maxsize=1)
def truth() -> SmallLattice:
    return small_lattice(TWO, SHAPE)


def path_of(model: LatticeScore, n_levels: int) -> ReversePath:
    return ReversePath(model, levels_of(model, n_levels))


@lru_cache(maxsize=1)
def good_path() -> ReversePath:
    return path_of(phi4_model(TWO, equilibrium(TWO, SHAPE, 4096)), 8)


def widened(kind: type[ReversePath] = ReversePath) -> ReversePath:
    """The good path with steps that are too wide, each class of modes by a factor of its own."""
    path = kind(good_path().model, good_path().levels)
    path.variance = path.variance * torch.linspace(1.1, 1.4, path.variance.shape[1], dtype=torch.float64)
    path.zero_scale = 1.5 * path.zero_scale
    return path


def draw(path: ReversePath, n: int = N, stream: str = "test/draw") -> tuple[Tensor, Tensor]:
    return path.sample(TWO.action, noise_of(stream, n, path.model.shape), still)


def as_matrix(spread: Spread, i: int) -> Floats:
    """The map of residuals that a spread is for the sample i, column by column."""
    shape = tuple(spread.log_ratio.shape[1:])
    v = math.prod(shape)
    unit = torch.eye(v, dtype=torch.float64).reshape(v, *shape)
    one = Spread(spread.log_ratio[i : i + 1].expand(v, *shape), None, spread.frame)
    return one.spread(unit).reshape(v, v).T.numpy()


@lru_cache(maxsize=4)
def smooth_model(channels: int = 0) -> LatticeScore:
    """A fitted model without the tables of the site posterior, whose derivative is not continuous.

    Orders of convergence and differences of fields need a smooth denoiser; `phi4_model` has them.
    """
    phi = equilibrium(TWO, SHAPE, 4096)
    model = LatticeScore.unfitted(SHAPE, 10, channels, 2).eval()
    g = propagator(model.momenta, phi)
    model.base.set_gaussian(g, 0.2, 2 * float(g.max()) ** 0.5)
    model.base.fit(phi, TWO.grad, noise_of("test/fit", len(phi), SHAPE))
    if model.unet is not None:
        spoil(model, 0.05)
        with torch.no_grad():  # random weights here are as rough in sigma as they come: no asymptotic order
            for weight in model.unet.embed.parameters():
                weight.mul_(0.3)
    return model
