"""Named random streams: noise, a function of (seed, stream, index, step), and the lattice frames of steps."""

import numpy as np
import torch
from numpy.typing import NDArray

from diffsq.models.blocks import KeyedNoise
from diffsq.models.protocol import Frames
from diffsq.models.symmetry import Symmetry
from lattice.rng import uniforms

POINT_BLOCK = 8192  # points of one index


def noise_of(
    seed: int, stream: str, index: int | NDArray[np.int64], shape: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> KeyedNoise:  # fmt: skip
    """noise(step) -> (n, *shape) standard normal for indices (n,), (*shape) for one index."""

    return KeyedNoise(seed, stream, index, tuple(shape), device)


def frames_of(seed: int, shape: tuple[int, ...]) -> Frames:
    """Lattice frame of each step, the same for all samples and for the forward weights.

    A frame per block would make the proposals of one Metropolis chain come from different laws.
    """

    def draw(step: int) -> Symmetry:
        return Symmetry.draw(uniforms(seed, "sample/frame", np.array([0]), step, 5)[0], shape)

    return draw
