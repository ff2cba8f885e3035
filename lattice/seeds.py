"""The seed of all random numbers: any integer from 0 to 2^64 - 1, Python's or NumPy's."""

from __future__ import annotations

import operator
from typing import Any

from lattice.errors import InputError


def check_seed(seed: Any, what: str = "seed") -> int:
    """`seed` as a Python integer; InputError for what is none (1.5, 1.0, True, "1") or outside [0, 2^64).

    >>> check_seed(7)
    7
    >>> check_seed(1.5)
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: seed must be an integer in [0, 2^64), got 1.5
    """
    # a tensor of booleans has an __index__ too
    boolean = isinstance(seed, bool) or "bool" in str(getattr(seed, "dtype", ""))
    try:
        number = -1 if boolean else operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**64:
        raise InputError(f"{what} must be an integer in [0, 2^64), got {' '.join(repr(seed).split())[:60]}")
    return number
