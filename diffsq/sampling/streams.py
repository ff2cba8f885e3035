"""What names the law of a run's samples: its noise levels, lattice frames, random numbers and kernel file."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Frames, Noise
from diffsq.models.symmetry import Symmetry
from lattice.rng import normals, uniforms

POINT_BLOCK = 8192


def point_noise(seed: int, stream: str, block: int, dim: int) -> Noise:
    """noise(step) -> (POINT_BLOCK, dim) standard normal, a function of (seed, stream, block, step)."""

    def draw(step: int) -> Tensor:
        eps = normals(seed, stream, np.array([block]), step, POINT_BLOCK * dim)
        return torch.from_numpy(eps).reshape(POINT_BLOCK, dim)

    return draw


def noise_of(
    model: LatticeScore, seed: int, stream: str, index: NDArray[np.int64], device: torch.device
) -> Noise:
    """noise(step) -> (len(index), *shape) standard normal, a function of (seed, stream, index, step)."""

    def draw(step: int) -> Tensor:
        eps = normals(seed, stream, index, step, model.momenta.volume)
        return torch.from_numpy(eps).reshape(len(index), *model.shape).to(device)

    return draw


def frames_of(model: LatticeScore, seed: int) -> Frames:
    """Lattice frame of each step, the same for all samples and for the forward weights.

    A frame per block would make the proposals of one Metropolis chain come from different laws.
    """

    def draw(step: int) -> Symmetry:
        u = uniforms(seed, "sample/frame", np.array([0]), step, 5)[0]
        return Symmetry.draw(torch.from_numpy(u), model.shape)

    return draw
