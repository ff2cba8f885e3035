"""Models and calibrated paths of a 2 x 2 lattice, draws, and the truth by quadrature."""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
from small_models import equilibrium, levels_of, noise_of, phi4_model, spoil, still
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import propagator
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.exact.scalar import SmallLattice, small_lattice

TWO = ScalarPhi4(0.2, 0.05)
SHAPE = (2, 2)
N = 8000


@lru_cache(maxsize=1)
def truth() -> SmallLattice:
    return small_lattice(TWO, SHAPE)


def calibrated(model: LatticeScore, n_levels: int, phi: Tensor) -> ReversePath:
    path = ReversePath.predicted(model, levels_of(model, n_levels))
    path.calibrate(phi, noise_of("test/calibrate", len(phi), model.shape), still, chunk=4096)
    return path


@lru_cache(maxsize=1)
def good_path() -> ReversePath:
    phi = equilibrium(TWO, SHAPE, 4096)
    return calibrated(phi4_model(TWO, phi), 8, phi)


def tilted() -> ReversePath:
    """The good path with another kernel: a stronger tilt, a coupling of the sublattices, wider steps."""
    kernel = copy.deepcopy(good_path().kernel)
    kernel.tilt[:] = 0.8
    kernel.tilt_mean -= 0.2
    kernel.coupling[:] = 0.3
    return ReversePath(good_path().model, kernel)


def draw(path: ReversePath, n: int = N, stream: str = "test/draw") -> tuple[Tensor, Tensor]:
    return path.sample(TWO.action, noise_of(stream, n, path.model.shape), still)


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
