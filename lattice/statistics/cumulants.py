r"""Cumulants by the general recursion, odd moments included.

    kappa_n = m_n - sum_{j=1}^{n-1} C(n-1, j-1) kappa_j m_{n-j},      m_n = <x^n>

(Kendall and Stuart, The Advanced Theory of Statistics, vol. 1, ch. 3).  The odd moments vanish on average for
a Z2-symmetric action but not in a finite sample, and formulas without them are wrong for a shifted variable:
Exp(1) must give kappa_n = (n-1)!.  Where the law is symmetric, leaving them out is a better estimator of the
same numbers, see `cumulant_ratio_z2`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt
from einops import rearrange

from lattice.arrays import Floats, number_array, real_array
from lattice.errors import InputError


def cumulants_from_moments(moments: npt.ArrayLike) -> npt.NDArray[Any]:
    """kappa_1..kappa_n from the raw moments m_1..m_n along the last axis: (..., n) -> (..., n).

    Real or complex. Raises InputError for an empty last axis.

    >>> cumulants_from_moments([1.0, 2.0, 6.0, 24.0, 120.0])     # Exp(1): m_n = n!, kappa_n = (n-1)!
    array([ 1.,  1.,  2.,  6., 24.])
    """
    return np.stack(_recursion(_columns(moments, "m")), axis=-1)


def moments_from_cumulants(kappa: npt.ArrayLike) -> npt.NDArray[Any]:
    """The inverse recursion, m_n = sum_{j=1}^{n} C(n-1, j-1) kappa_j m_{n-j}, m_0 = 1: (..., n) -> (..., n).

    >>> moments_from_cumulants([0.0, 1.0, 0.0, 0.0])             # the unit normal
    array([0., 1., 0., 3.])
    """
    k = _columns(kappa, "kappa")
    m: list[Any] = []
    for n, cumulant_n in enumerate(k):
        m.append(sum((c * lower * moment for c, lower, moment in zip(_binomials(n), k, m[::-1])), cumulant_n))
    return np.stack(m, axis=-1)


def _columns(given: npt.ArrayLike, name: str) -> list[Any]:
    """x_1..x_n along the last axis of x (..., n), at least double precision."""
    x = np.asarray(given) if _calculate(given) else number_array(given, name)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise InputError(f"need an array (..., n) of {name}_1..{name}_n, n >= 1, got shape {x.shape}")
    return list(rearrange(x, "... n -> n ..."))


def _calculate(given: Any) -> bool:
    """Whether these are numbers of a class of its own with its arithmetic, such as pyerrors' with errors."""
    if not isinstance(given, np.ndarray) or given.dtype != np.object_ or isinstance(given, np.ma.MaskedArray):
        return False
    others = [x for x in given.flat if not isinstance(x, Number)]
    return bool(others) and all(hasattr(x, "__radd__") and hasattr(x, "__rmul__") for x in others)


def _recursion(m: Sequence[Any]) -> list[Any]:
    """kappa_1..kappa_n from m_1..m_n, numbers or arrays of one shape."""
    kappa: list[Any] = []
    for n, moment in enumerate(m):
        terms = zip(_binomials(n), kappa, m[:n][::-1])
        kappa.append(moment - sum([c * k * lower for c, k, lower in terms]))
    return kappa


@lru_cache(maxsize=32)
def _binomials(n: int) -> tuple[int, ...]:
    return tuple(math.comb(n, j) for j in range(n))


def cumulant(moments: Floats) -> float:
    """The last cumulant, kappa_n from m_1..m_n (n,): odd moments included.

    >>> cumulant(np.array([1.0, 2.0, 6.0]))
    2.0
    """
    return float(_recursion(real_array(moments, "moments").tolist())[-1])


def cumulant_ratio(moments: Floats) -> float:
    """kappa_n/kappa_2^(n/2) from m_1..m_n (n,), n >= 2, odd moments included; nan where kappa_2 <= 0.

    >>> cumulant_ratio(np.array([1.0, 2.0, 6.0, 24.0]))           # Exp(1): 3!
    6.0
    """
    kappa = _recursion(real_array(moments, "moments").tolist())
    return float(kappa[-1] / kappa[1] ** (len(kappa) / 2)) if kappa[1] > 0 else math.nan


def cumulant_ratio_z2(even_moments: Floats) -> float:
    """kappa_n/kappa_2^(n/2) of a law symmetric under x -> -x, from m_2, m_4, ..., m_n (n/2,).

    The odd moments have their exact value, 0, instead of their sample values. Both estimators converge to the
    same number. In a finite sample of two peaks at +-mu (the broken phase) the sign populations are unequal,
    m_1 ~ mu/sqrt(N), and `cumulant_ratio` carries that as noise and as a bias of 4 m_1^2/mu^2 in the fourth
    ratio; here it is absent, and what remains are the fluctuations of x^2. For a law that is not symmetric
    the result is wrong, whatever N.

    >>> cumulant_ratio_z2(np.array([1.0, 1.0])), cumulant_ratio_z2(np.array([2.0, 24.0]))
    (-2.0, 3.0)

    Two peaks at +-1 come out right, Exp(1) does not (6).
    """
    moments = np.zeros(2 * len(even_moments))
    moments[1::2] = real_array(even_moments, "even_moments")
    return cumulant_ratio(moments)
