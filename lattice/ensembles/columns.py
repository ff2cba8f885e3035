"""Columns of an ensemble as a user gives them, checked: one number for each configuration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats, Integers
from lattice.errors import InputError


def integers(name: str, values: npt.ArrayLike, n: int) -> Integers:
    """`values` as int64 (n,); `InputError` naming the column where they are not."""
    raw = np.asarray(values)
    array = raw.astype(np.int64) if raw.dtype.kind in "iuf" else raw
    if array.dtype != np.int64 or array.shape != (n,) or not np.array_equal(array, raw):
        raise InputError(
            f"{name} must be {n} integers, one per configuration, got shape {raw.shape} of {raw.dtype}"
        )
    return array


def floats(name: str, values: npt.ArrayLike, n: int) -> Floats:
    """`values` as finite float64 (n,); `InputError` naming the column where they are not."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,) or not np.isfinite(array).all():
        raise InputError(f"{name} must be {n} finite numbers, one per configuration, got shape {array.shape}")
    return array


def order_in_chain(chain: Integers) -> Integers:
    """The place (n,) of every configuration within its chain (n,)."""
    times = np.empty(len(chain), dtype=np.int64)
    for name in np.unique(chain):
        rows = np.flatnonzero(chain == name)
        times[rows] = np.arange(len(rows))
    return times
