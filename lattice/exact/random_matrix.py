r"""Eigenvalues of random real matrices: densities, spacings, edges (Mehta, Random Matrices, 3rd ed., 2004).

    semicircle         M symmetric n x n, elements off the diagonal of variance v: on [-R, R], R = 2 sqrt(n v)
    Marchenko-Pastur   W W^T/m, W (n, m) of independent elements of variance s^2, q = n/m <= 1: density on
                       s^2 (1 -+ sqrt q)^2     (Math. USSR Sbornik 1 (1967) 457)
    its edge           largest eigenvalue s^2 [(1 + sqrt q)^2 + t m^(-2/3) (1 + sqrt q)^(4/3) q^(-1/6)], t of
                       the law of Tracy and Widom, beta = 1     (Johnstone, Ann. Stat. 29 (2001) 295)
    two levels         of M = [[a, b], [b, d]], a and d of variance v, b of v/2: spacing S by Wigner's
                       surmise, <S> = sqrt(pi v), <S^2>/<S>^2 = 4/pi
    spacing ratios     r = min(s_i, s_(i+1))/max(s_i, s_(i+1)): <r> without unfolding (Atas et al.,
                       PRL 110 (2013) 084101, table I)

beta = 1 throughout: what real weight matrices have.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import airy, erf

from lattice.arrays import Floats
from lattice.errors import InputError

RATIO_GOE = 0.5307  # of large matrices, numerically; the surmise of 3 x 3 ones is 4 - 2 sqrt 3 = 0.5359
RATIO_POISSON = 2 * math.log(2) - 1
SPREAD_GOE = 4 / math.pi  # <S^2>/<S>^2 of Wigner's surmise
NODES = 60  # of Gauss and Legendre: F_1 to 1e-14


def wigner_surmise(s: Floats) -> Floats:
    """Density of spacings s >= 0 in units of their mean, exact for 2 x 2: (pi/2) s exp(-pi s^2/4)."""
    return math.pi / 2 * s * np.exp(-math.pi * s**2 / 4)


def wigner_cdf(s: Floats) -> Floats:
    """Probability of a spacing below s, in units of the mean."""
    return -np.expm1(-math.pi * s**2 / 4)


def two_level_density(x: Floats, spread: float) -> Floats:
    r"""Density of either eigenvalue of 2 x 2, about the mean tr<M>/2; spread = sqrt(v) = <S>/sqrt(pi).

    From the law of both, |x - y| exp[-(x^2 + y^2)/(2v)] over its norm 4 v sqrt(pi v): y integrated out.
    """
    t = x / (math.sqrt(2) * spread)
    distance = x * erf(t) + spread * math.sqrt(2 / math.pi) * np.exp(-(t**2))  # E|x - y|, y ~ N(0, v)
    density: Floats = np.exp(-(t**2)) * distance / (2 * math.sqrt(2) * spread**2)
    return density


def semicircle(x: Floats, radius: float) -> Floats:
    """Density 2 sqrt(R^2 - x^2)/(pi R^2) of Wigner's law."""
    return 2 / (math.pi * radius**2) * np.sqrt(np.clip(radius**2 - x**2, 0, None))


def semicircle_cdf(x: Floats, radius: float) -> Floats:
    """Probability below x of Wigner's law."""
    t = np.clip(x / radius, -1, 1)
    return 0.5 + (t * np.sqrt(1 - t**2) + np.arcsin(t)) / math.pi


def edges(q: float) -> tuple[float, float]:
    """(1 -+ sqrt q)^2 of Marchenko and Pastur, s = 1. Raises `InputError` unless 0 < q <= 1."""
    if not 0 < q <= 1:
        raise InputError(f"q = n/m = {q} of an (n, m) matrix must be in (0, 1]; transpose it")
    return (1 - math.sqrt(q)) ** 2, (1 + math.sqrt(q)) ** 2


def marchenko_pastur(x: Floats, q: float) -> Floats:
    """Density sqrt[(b - x)(x - a)]/(2 pi q x) between the edges, s = 1."""
    low, high = edges(q)
    inside = np.clip((high - x) * (x - low), 0, None)
    return np.divide(np.sqrt(inside), 2 * math.pi * q * x, out=np.zeros_like(inside), where=inside > 0)


def marchenko_pastur_cdf(x: Floats, q: float) -> Floats:
    """Probability below x, s = 1: the integral of the density in closed form."""
    low, high = edges(q)
    t = np.clip(np.asarray(x, dtype=np.float64), low, high)
    angle = np.arcsin(np.clip((2 * t - low - high) / (high - low), -1, 1))
    found = np.sqrt((high - t) * (t - low)) + (1 + q) * angle
    if q < 1:
        inverse = ((low + high) * t - 2 * low * high) / (t * (high - low))
        found = found - (1 - q) * np.arcsin(np.clip(inverse, -1, 1))
    return np.clip(0.5 + found / (2 * math.pi * q), 0, 1)  # near the edges arcsines lose half of the digits


@lru_cache(maxsize=256)
def marchenko_pastur_median(q: float) -> float:
    """The median, s = 1."""
    low, high = edges(q)
    return float(brentq(lambda x: float(marchenko_pastur_cdf(np.array(x), q)) - 0.5, low, high, xtol=1e-13))


def tracy_widom(s: float) -> float:
    r"""F_1(s), the probability that the scaled largest eigenvalue is below s, beta = 1.

    The Fredholm determinant det(1 - Ai((x + y)/2 + s)/2) on x, y > 0 (Ferrari and Spohn, J. Phys. A 38
    (2005) L557), by Gauss-Legendre quadrature (Bornemann, Math. Comp. 79 (2010) 871).

    >>> round(tracy_widom(0.9793), 4), round(tracy_widom(2.0234), 4)
    (0.95, 0.99)
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    reach = 16 + 2 * max(0.0, -s)
    x, w = reach * (nodes + 1) / 2, reach * weights / 2
    kernel = airy((x[:, None] + x) / 2 + s)[0] / 2
    root = np.sqrt(w)
    return float(np.linalg.det(np.eye(NODES) - root[:, None] * kernel * root))


@lru_cache(maxsize=16)
def tracy_widom_quantile(probability: float) -> float:
    """t with F_1(t) = probability. Raises `InputError` unless 1e-6 <= probability <= 1 - 1e-6."""
    if not 1e-6 <= probability <= 1 - 1e-6:
        raise InputError(f"a quantile of Tracy and Widom is wanted for a probability, got {probability}")
    return float(brentq(lambda s: tracy_widom(s) - probability, -8, 8, xtol=1e-10))


def upper_edge(n: int, m: int, probability: float = 0.99) -> float:
    """What the largest eigenvalue of W W^T/m, s = 1, stays below with this probability; n <= m."""
    q = n / m
    width = m ** (-2 / 3) * (1 + math.sqrt(q)) ** (4 / 3) * q ** (-1 / 6)
    return float(edges(q)[1] + tracy_widom_quantile(probability) * width)
