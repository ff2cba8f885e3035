r"""Frequencies of whole numbers against a known law: chi^2 of independent, correlated or weighted data.

Values that are rare on either side are taken together with the outermost common one, so that a charge that
the law hardly has counts there. With f_k the (weighted) share of the value k, d_k = f_k - p_k,

    chi^2 = n sum_k d_k^2/p_k        of n independent data, or as good as n,
    chi^2 = d C^-1 d,  C_kl = sum_i w_i^2 (1_ik - p_k)(1_il - p_l)/(sum_i w_i)^2      of weights w,

all values but one in the second: weights that depend on the value itself change the errors of its frequency,
which no effective number of data knows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2 as chi2_law

from lattice.arrays import Floats, Integers

COMMON = 10.0  # expected data of a value, below which it is taken together with others


class Frequencies(NamedTuple):
    """chi^2 with dof degrees of freedom and its probability p, of the values low to high; where the law has
    one common value dof = 0 and p = 1."""

    chi2: float
    dof: int
    p: float
    low: int
    high: int


def frequencies(
    x: Floats, values: Integers, probability: Floats, n: float | None = None, weight: Floats | None = None
) -> Frequencies:
    """x (m,) whole numbers against P(values), in order; as good as n independent data (None: m), or with
    weights (m,).

    >>> law = np.array([-1, 0, 1]), np.array([0.25, 0.5, 0.25])
    >>> frequencies(np.array([0.0] * 50 + [1.0] * 25 + [-1.0] * 25), *law).p
    1.0
    """
    w = np.ones(len(x)) if weight is None else weight
    size = float(w.sum() ** 2 / (w**2).sum())
    n = size if n is None else min(n, size)
    common = values[n * probability > COMMON]
    low, high = (int(common.min()), int(common.max())) if len(common) else (0, 0)
    kinds = np.arange(low, high + 1)
    clipped, own = np.clip(x, low, high), np.clip(values, low, high)
    known = np.array([probability[own == k].sum() for k in kinds])
    known = known / known.sum()
    is_k = clipped[:, None] == kinds
    off = w @ is_k / w.sum() - known
    dof = len(kinds) - 1
    if not dof:
        return Frequencies(0.0, 0, 1.0, low, high)
    if weight is None:
        value = n * float((off**2 / known).sum())
    else:
        rest = w[:, None] * (is_k - known)
        covariance = (rest.T @ rest / w.sum() ** 2)[:-1, :-1]
        value = float(off[:-1] @ np.linalg.pinv(covariance, hermitian=True) @ off[:-1])
    return Frequencies(value, dof, float(chi2_law.sf(value, dof)), low, high)
