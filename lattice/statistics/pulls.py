"""Differences in units of their error: pulls, thresholds for many of them, means over chains."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import scipy.stats

from lattice.arrays import Floats, real_array
from lattice.statistics.gamma import gamma_method

MIN_CHAINS_FOR_SCATTER = 8


def mean_and_error(x: Floats) -> tuple[float, float]:
    """The mean of independent numbers x (n,), and its error.

    >>> mean_and_error(np.array([1.0, 3.0]))
    (2.0, 1.0)
    """
    x = real_array(x, "x")
    return float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x))


def mean_of_chains(parts: list[Floats]) -> tuple[float, float, float]:
    """(mean, error, degrees of freedom) of per-chain series: scatter of chain means, or the Gamma method for
    few chains.

    Raises EstimatorError when there are few chains and the Gamma method cannot answer.
    """
    parts = [real_array(part, "series", booleans=True) for part in parts]
    if len(parts) >= MIN_CHAINS_FOR_SCATTER:
        return *mean_and_error(np.array([part.mean() for part in parts])), len(parts) - 1
    estimate = gamma_method(parts)
    return estimate.value, estimate.error, math.inf


def sigmas_of(deviation: float, error: float, dof: float) -> float:
    """|deviation|/error as the equivalent number of standard deviations of a normal law."""
    if not error > 0:
        return 0.0 if deviation == 0 else math.inf
    t = abs(deviation) / error
    if math.isinf(dof) or not math.isfinite(t):
        return t
    return float(min(t, -scipy.stats.norm.ppf(max(scipy.stats.t.sf(t, dof), 1e-300))))


SIGNIFICANCE = 1e-3


def pull(a: float, a_error: float, b: float, b_error: float) -> float:
    """(a - b)/sqrt(a_error^2 + b_error^2) of two independent measurements.

    >>> pull(1.5, 0.3, 1.0, 0.4)
    1.0
    """
    return float(a - b) / math.hypot(a_error, b_error)


def sidak_threshold(n: int, significance: float = SIGNIFICANCE) -> float:
    """|pull| that the largest of n rows exceeds by chance with probability `significance`.

    >>> round(sidak_threshold(1), 2), round(sidak_threshold(24), 2)
    (3.29, 4.1)
    """
    single = -math.expm1(math.log1p(-significance) / n)
    return -NormalDist().inv_cdf(single / 2)
