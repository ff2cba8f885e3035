"""Fields and noise taken in blocks, so that nothing of the size of an ensemble is made besides it.

The size of a block is a function of the lattice alone: sums over blocks in order are then the same numbers
whatever the memory of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from diffsq.models import device_noise
from diffsq.models.protocol import Noise
from lattice.arrays import Floats, Integers
from lattice.rng import normals


def block_size(shape: tuple[int, ...], most: int, sites: int) -> int:
    """Fields of one block: `most`, or as many as have `sites` sites together.

    >>> block_size((16, 16), 256, 2**17), block_size((128, 128), 256, 2**17)
    (256, 8)
    """
    return max(1, min(most, sites // math.prod(shape)))


class Fields(Protocol):
    """Fields (n, *shape) that are asked for some at a time: a tensor, or `Rows` of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Rows:
    """The rows (n,) of fields phi (N, *shape) in the memory of the CPU, copied to `device` when asked for."""

    phi: Tensor
    rows: Tensor
    device: torch.device

    @classmethod
    def of(cls, phi: Floats, rows: Integers, device: torch.device) -> Rows:
        """Of arrays."""
        return cls(torch.from_numpy(phi), torch.from_numpy(rows), device)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor, /) -> Tensor:
        chosen = index if isinstance(index, slice) else index.to(self.rows.device)
        return self.phi[self.rows[chosen]].to(self.device)


@dataclass(frozen=True)
class Mapped:
    """A function of fields, (n, *shape) -> (n, *shape), of those that are asked for."""

    fields: Fields
    function: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, index: slice | Tensor, /) -> Tensor:
        return self.function(self.fields[index])


def split(fields: Fields, size: int) -> Iterator[Tensor]:
    """The fields, `size` at a time."""
    return (fields[rows] for rows in slices(len(fields), size))


def largest(fields: Fields, size: int) -> float:
    """The largest |phi|."""
    return max(float(extreme.abs()) for part in split(fields, size) for extreme in torch.aminmax(part))


def zero_modes(fields: Fields, size: int) -> Tensor:
    """sqrt(V) M of each field: (n,)."""
    parts = [part.flatten(1).sum(1) / math.sqrt(part[0].numel()) for part in split(fields, size)]
    return torch.cat(parts)


@dataclass(frozen=True)
class KeyedNoise:
    """noise(step) -> (n, *shape) standard normal, a function of (seed, stream, index (n,), step).

    index may be one number: noise(step) is then (*shape). Made on the device, the same numbers on each.
    """

    seed: int
    stream: str
    index: int | Integers
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"

    def __call__(self, step: int) -> Tensor:
        index, size, device = np.atleast_1d(self.index), math.prod(self.shape), torch.device(self.device)
        if device.type == "cpu":
            eps = torch.from_numpy(normals(self.seed, self.stream, index, step, size))
        else:
            eps = device_noise.normals(self.seed, self.stream, index, step, size, device)
        return eps.reshape(*np.shape(self.index), *self.shape)

    def part(self, rows: slice) -> KeyedNoise:
        """The noise of the samples `rows`."""
        return replace(self, index=np.atleast_1d(self.index)[rows])


def drawn(noise: Noise, step: int) -> Fields:
    """noise(step), numbers of a keyed noise only where they are asked for."""
    return _Drawn(noise, step) if isinstance(noise, KeyedNoise) else noise(step)


def slices(n: int, size: int) -> Iterator[slice]:
    """0 ... n - 1, `size` at a time."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@dataclass(frozen=True)
class _Drawn:
    noise: KeyedNoise
    step: int

    def __len__(self) -> int:
        return int(np.size(self.noise.index))

    def __getitem__(self, index: slice | Tensor, /) -> Tensor:
        assert isinstance(index, slice)
        return self.noise.part(index)(self.step)
