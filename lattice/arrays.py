"""The arrays of the package by name, and their rows in parts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Complexes = NDArray[np.complex128]


def batches(n: int, size: int) -> Iterator[Integers]:
    """Row numbers 0 ... n - 1, at most `size` at a time.

    >>> [rows.tolist() for rows in batches(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    for first in range(0, n, size):
        yield np.arange(first, min(first + size, n))
