"""Cumulant generating functionals W[J] = ln <e^{J x}>, and cumulants from them by Cauchy's formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Functional = Callable[[NDArray[Any]], NDArray[Any]]
"""W(J) for J (n,), real or complex -> (n,)."""


def noised_functional(w0: Functional, f: float, sigma: float) -> Functional:
    """W_t[J] = W_0[f J] + 1/2 f^2 sigma^2 J^2."""
    return lambda j: w0(f * j) + 0.5 * (f * sigma * j) ** 2


def functional_of(x: NDArray[np.float64], p: NDArray[np.float64]) -> Functional:
    """W[J] = ln sum_i p_i e^{J x_i} / sum_i p_i: nodes x (n,) and weights p >= 0 (n,), of quadrature."""
    weight = p / p.sum()
    return lambda j: np.log(np.exp(np.multiply.outer(np.asarray(j), x)) @ weight)


def cumulants_of(w: Functional, n_max: int, radius: float = 0.5, n_nodes: int = 64) -> NDArray[np.float64]:
    """kappa_1..kappa_n_max (n_max,) of W by Cauchy's formula on |J| = radius.

    radius: inside the disk where <e^{J x}> has no zero or pole: the error is (radius/nearest)^n_nodes of
    truncation and 1e-16 n!/radius^n of rounding.
    """
    angle = 2 * math.pi * np.arange(n_nodes) / n_nodes
    coefficients = np.fft.fft(w(radius * np.exp(1j * angle))).real / n_nodes
    scale = np.array([math.factorial(n) / radius**n for n in range(1, n_max + 1)])
    out: NDArray[np.float64] = coefficients[1 : n_max + 1] * scale
    return out
