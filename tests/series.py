"""Time series of known autocorrelation, and the gates on pulls."""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import lfilter


def ar1(rng, n, a, shape=()):
    """Stationary AR(1) with unit variance and rho(t) = a^t: (n, *shape); tau_int = (1/2)(1 + a)/(1 - a)."""
    noise = rng.normal(size=(n, *shape)) * math.sqrt(1 - a * a)
    noise[0] = rng.normal(size=shape)
    return lfilter([1.0], [1.0, -a], noise, axis=0)


def binder(x):
    return 1 - x[1] / (3 * x[0] ** 2)


def assert_coverage(pulls, tolerance=4.0):
    """68 % and 95 % intervals cover within `tolerance` binomial errors."""
    for width, expected in ((1.0, 0.682689), (1.959964, 0.95)):
        covered = np.mean(np.abs(pulls) < width)
        assert abs(covered - expected) < tolerance * math.sqrt(expected * (1 - expected) / len(pulls))


def coverage(pulls):
    return np.mean(np.abs(pulls) < 1)


def wide_gaussian(seed, n=2000, s=1.4):
    """Draws (n,) of N(0, s^2) and their log-weights for N(0, 1), up to a constant."""
    x = s * np.random.default_rng([21, seed]).normal(size=n)
    return x, -0.5 * x**2 + 0.5 * x**2 / s**2 + 1234.5
