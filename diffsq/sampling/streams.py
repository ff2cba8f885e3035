"""Named random streams: noise, a function of (seed, stream, index, step), and the lattice frames of steps."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from diffsq.models.protocol import Frames, Noise
from diffsq.models.symmetry import Symmetry
from lattice.rng import normals, uniforms

POINT_BLOCK = 8192  # points of one index


def noise_of(
    seed: int, stream: str, index: int | NDArray[np.int64], shape: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> Noise:  # fmt: skip
    """noise(step) -> (n, *shape) standard normal for indices (n,), (*shape) for one index."""

    def draw(step: int) -> torch.Tensor:
        eps = normals(seed, stream, np.atleast_1d(index), step, math.prod(shape))
        return torch.from_numpy(eps).reshape(*np.shape(index), *shape).to(device)

    return draw


def frames_of(seed: int, shape: tuple[int, ...]) -> Frames:
    """Lattice frame of each step, the same for all samples and for the forward weights.

    A frame per block would make the proposals of one Metropolis chain come from different laws.
    """

    def draw(step: int) -> Symmetry:
        return Symmetry.draw(uniforms(seed, "sample/frame", np.array([0]), step, 5)[0], shape)

    return draw
