"""Differences in units of their error: pulls, thresholds for many of them, means over chains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import scipy.stats

from lattice.arrays import Floats, real_array, real_number
from lattice.statistics.gamma import gamma_method
from lattice.statistics.rounding import rms, with_rounding

MIN_CHAINS_FOR_SCATTER = 8


def mean_and_error(x: Floats, scale: float = 0.0) -> tuple[float, float]:
    """The mean of independent numbers x (n,), and its error, no less than the rounding of x.

    scale: the rms of the terms where x are sums themselves.

    >>> mean_and_error(np.array([1.0, 3.0]))
    (2.0, 1.0)
    """
    x = real_array(x, "x")
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()), with_rounding(error, max(scale, rms(x)))


def mean_of_chains(parts: list[Floats], scale: float = 0.0) -> tuple[float, float, float]:
    """(mean, error, degrees of freedom) of per-chain series: scatter of chain means, or the Gamma method for
    few chains. Errors are no less than the rounding of the series, or of terms of the rms `scale`.

    Raises EstimatorError when there are few chains and the Gamma method cannot answer.
    """
    parts = [real_array(part, "series", booleans=True) for part in parts]
    scale = max(scale, rms(np.concatenate(parts)))
    if len(parts) >= MIN_CHAINS_FOR_SCATTER:
        return *mean_and_error(np.array([part.mean() for part in parts]), scale), len(parts) - 1
    estimate = gamma_method(parts)
    return estimate.value, with_rounding(estimate.error, scale), math.inf


def sigmas_of(deviation: float, error: float, dof: float = math.inf, scale: float = 0.0) -> float:
    """|deviation|/error as the equivalent number of standard deviations of a normal law.

    scale: of the numbers whose difference the deviation is, to whose rounding the error is raised.

    >>> sigmas_of(2.0, 0.5), round(sigmas_of(2.0, 0.5, dof=20), 2), sigmas_of(1e-17, 0.0, scale=1.0) < 1
    (4.0, 3.39, True)
    """
    error = with_rounding(error, scale)
    if not error > 0:
        return 0.0 if deviation == 0 else math.inf
    t = abs(deviation) / error
    if math.isinf(dof) or not math.isfinite(t):
        return t
    return float(min(t, -scipy.stats.norm.ppf(max(scipy.stats.t.sf(t, dof), 1e-300))))


SIGNIFICANCE = 1e-3


def pull(a: float, a_error: float, b: float, b_error: float) -> float:
    """(a - b)/sqrt(a_error^2 + b_error^2) of two independent measurements, the error no less than rounding.

    >>> pull(1.5, 0.3, 1.0, 0.4), abs(pull(0.1 + 0.2, 0.0, 0.3, 0.0)) < 1
    (1.0, True)
    """
    error = with_rounding(math.hypot(a_error, b_error), max(abs(a), abs(b)))
    return real_number(a - b, "the difference") / error if error > 0 else 0.0


def pull_of(one: Sequence[float], other: Sequence[float]) -> float:
    """The same of two pairs [value, error].

    >>> pull_of([1.5, 0.3], [1.0, 0.4])
    1.0
    """
    return pull(one[0], one[1], other[0], other[1])


def sidak_threshold(n: int, significance: float = SIGNIFICANCE) -> float:
    """|pull| that the largest of n rows exceeds by chance with probability `significance`.

    >>> round(sidak_threshold(1), 2), round(sidak_threshold(24), 2)
    (3.29, 4.1)
    """
    single = -math.expm1(math.log1p(-significance) / n)
    return -NormalDist().inv_cdf(single / 2)
