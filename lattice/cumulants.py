r"""Cumulants by the general recursion, odd moments included.

    kappa_n = m_n - sum_{j=1}^{n-1} C(n-1, j-1) kappa_j m_{n-j},      m_n = <x^n>

(Kendall and Stuart, The Advanced Theory of Statistics, vol. 1, ch. 3).  The odd moments vanish on average for
a Z2-symmetric action but not in a finite sample, and formulas without them are wrong for a shifted variable:
Exp(1) must give kappa_n = (n-1)!.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lattice.errors import InputError

Number = npt.NDArray[np.float64] | npt.NDArray[np.complex128]


def cumulants_from_moments(moments: npt.ArrayLike) -> Number:
    """kappa_1..kappa_n from the raw moments m_1..m_n along the last axis: (..., n) -> (..., n).

    Real or complex. Raises InputError for an empty last axis.

    >>> cumulants_from_moments([1.0, 2.0, 6.0, 24.0, 120.0])     # Exp(1): m_n = n!, kappa_n = (n-1)!
    array([ 1.,  1.,  2.,  6., 24.])
    """
    given = np.asarray(moments)
    m: Number = given.astype(np.result_type(given, np.float64))
    if m.ndim == 0 or m.shape[-1] == 0:
        raise InputError(f"moments must be an array (..., n) of m_1..m_n, n >= 1, got shape {m.shape}")
    kappa: Number = m.copy()
    for n in range(2, m.shape[-1] + 1):
        for j in range(1, n):
            kappa[..., n - 1] -= math.comb(n - 1, j - 1) * kappa[..., j - 1] * m[..., n - j - 1]
    return kappa


def moments_from_cumulants(kappa: npt.ArrayLike) -> Number:
    """The inverse recursion, m_n = sum_{j=1}^{n} C(n-1, j-1) kappa_j m_{n-j}, m_0 = 1: (..., n) -> (..., n).

    >>> moments_from_cumulants([0.0, 1.0, 0.0, 0.0])             # the unit normal
    array([0., 1., 0., 3.])
    """
    given = np.asarray(kappa)
    k: Number = given.astype(np.result_type(given, np.float64))
    if k.ndim == 0 or k.shape[-1] == 0:
        raise InputError(f"need an array (..., n) of kappa_1..kappa_n, n >= 1, got shape {k.shape}")
    m: Number = k.copy()
    for n in range(2, k.shape[-1] + 1):
        for j in range(1, n):
            m[..., n - 1] += math.comb(n - 1, j - 1) * k[..., j - 1] * m[..., n - j - 1]
    return m


def sample_moments(x: npt.ArrayLike, order: int = 8) -> Number:
    """<x^1>..<x^order> over the first axis: (n, ...) -> (..., order).

    >>> sample_moments([1.0, 3.0], order=3)
    array([ 2.,  5., 14.])
    """
    sample = np.asarray(x)
    if sample.ndim == 0 or len(sample) == 0 or order < 1:
        raise InputError(f"need a sample (n, ...), n >= 1, and order >= 1, got {sample.shape}, {order}")
    powers, out = np.ones_like(sample, dtype=np.result_type(sample, np.float64)), []
    for _ in range(order):
        powers = powers * sample
        out.append(powers.mean(axis=0))
    stacked: Number = np.stack(out, axis=-1)
    return stacked
