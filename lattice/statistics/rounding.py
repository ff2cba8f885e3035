"""What floating point leaves of a quantity that vanishes: the floor of every error.

The imaginary part of a real law, the sum of terms that cancel: such numbers are not 0 but of the size of the
rounding of their terms, and their scatter may be smaller still. Errors are therefore never taken below it, so
that no deviation of this size is a significant one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lattice.arrays import Floats

ROUNDING = 1e-13  # of a sum, relative to the rms of its terms


def with_rounding(error: float, scale: float) -> float:
    """The error of a sum whose terms have the rms `scale`: never below their rounding.

    >>> with_rounding(0.0, 2.0), with_rounding(0.1, 2.0)
    (2e-13, 0.1)
    """
    return max(float(error), ROUNDING * float(scale))


def rms(x: Any) -> float:
    """The root of the mean square, the scale of the terms of a sum: x of any shape, also complex.

    >>> rms(np.array([3e-200, 4e-200j]))                              # squares would be 0
    3.5355339059327...e-200
    """
    size = float(np.abs(x).max(initial=0.0))
    return size * math.sqrt(float(np.mean(np.abs(x / size) ** 2))) if 0 < size < math.inf else size


def rounding_of(f: Callable[[Any], Any], means: Any, columns: Any) -> Floats:
    """The rounding of f(means), by that of the means (k,) of columns (n, k); f takes (..., k).

    >>> rounding_of(lambda m: m[..., 0] - m[..., 1], np.array([5.0, 5.0]), np.full((3, 2), 5.0)) > 9e-13
    np.True_
    """
    steps = [with_rounding(0.0, rms(columns[:, k])) for k in range(columns.shape[1])]
    return np.asarray(np.abs(f(means + np.diag(steps)) - f(means)).sum(axis=0))
