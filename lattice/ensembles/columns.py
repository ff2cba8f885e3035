"""Columns of an ensemble as a user gives them, checked: one number for each configuration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats, Integers, integer_array, real_array
from lattice.errors import InputError


def integers(name: str, values: npt.ArrayLike, n: int) -> Integers:
    """`values` as int64 (n,); `InputError` naming the column where they are not."""
    array = integer_array(values, name)
    if array.shape != (n,):
        raise InputError(f"{name} must be {n} integers, one per configuration, got shape {array.shape}")
    return array


def floats(name: str, values: npt.ArrayLike, n: int, finite: bool = True) -> Floats:
    """`values` as float64 (n,), `finite` or any; `InputError` naming the column where they are not."""
    array = real_array(values, name, booleans=True)
    bad = int(np.count_nonzero(~np.isfinite(array))) if finite else 0
    if array.shape != (n,) or bad:
        found = f"{bad} that are not" if bad else f"shape {array.shape}"
        words = "finite numbers" if finite else "numbers"
        raise InputError(f"{name} must be {n} {words}, one per configuration, got {found}")
    return array


def order_in_chain(chain: Integers) -> Integers:
    """The place (n,) of every configuration within its chain (n,)."""
    times = np.empty(len(chain), dtype=np.int64)
    for name in np.unique(chain):
        rows = np.flatnonzero(chain == name)
        times[rows] = np.arange(len(rows))
    return times


def check_distinct(chain: Integers, trajectory: Integers) -> None:
    """Refuse a configuration stored twice: InputError naming chain (n,), trajectory (n,) and the rows.

    >>> check_distinct(np.array([0, 1, 1]), np.array([7, 7, 7]))
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: trajectory 7 of chain 1 is stored twice, rows 1 and 2 (1 such in all): \
leave one of each out; a chain need not be evenly spaced, but its trajectories must differ
    """
    order = np.lexsort((trajectory, chain))  # stable: rows of a pair stay in order
    same = np.flatnonzero((np.diff(chain[order]) == 0) & (np.diff(trajectory[order]) == 0))
    if len(same):
        row, again = (int(order[same[0] + i]) for i in (0, 1))
        raise InputError(
            f"trajectory {int(trajectory[row])} of chain {int(chain[row])} is stored twice, rows {row} and "
            f"{again} ({len(same)} such in all): leave one of each out; a chain need not be evenly spaced, "
            "but its trajectories must differ"
        )
