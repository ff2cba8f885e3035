"""Compiled loops of the closed-form score: site posteriors, sums of features, and the trace of its Jacobian.

The same numbers as the tensor code of diffsq.models.site and diffsq.models.features, which other devices and
automatic differentiation use. Each sample is one task, so that nothing depends on the number of threads.
Complex arrays come as real ones of twice the length, multipliers with every number twice.
"""

import numpy as np
from numba import njit, prange

from lattice.arrays import Floats, Integers


@njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract"})  # type: ignore[untyped-decorator]
def iterate(
    x: Floats, mu: Floats, cubics: Floats, own: float, pull: float, cell: float,
    means: Floats, slopes: Floats,
) -> None:  # fmt: skip
    """Fill means[:, -1] by mu_3 - mu, slopes (n, 3, L0, L1) from x and mu (n, L0, L1); cubics
    (4, n_cell + 1)."""
    n, rows, columns = x.shape
    turns = slopes.shape[1]
    last = x.dtype.type(cubics.shape[1] - 1)
    for s in prange(n):
        y = np.empty(columns, dtype=x.dtype)
        between = np.empty((2, rows, columns), dtype=x.dtype)
        for turn in range(turns):
            before = mu[s] if turn == 0 else between[turn % 2]
            after = means[s, -1] if turn + 1 == turns else between[1 - turn % 2]
            for i in range(rows):
                up, down = before[i - 1 if i else rows - 1], before[i + 1 if i + 1 < rows else 0]
                here, mean, slope = before[i], after[i], slopes[s, turn, i]
                y[0] = here[columns - 1] + here[1 % columns]
                for j in range(1, columns - 1):
                    y[j] = here[j - 1] + here[j + 1]
                y[columns - 1] = here[columns - 2] + here[0]
                for j in range(columns):
                    y[j] = own * x[s, i, j] + pull * (y[j] + up[j] + down[j])
                for j in range(columns):
                    place = abs(y[j]) * cell
                    place = place if place < last else last  # NaN too: it comes back below
                    left = np.uint32(place)
                    t = place - x.dtype.type(left)
                    c1, c2, c3 = cubics[1, left], cubics[2, left], cubics[3, left]
                    value = cubics[0, left] + t * (c1 + t * (c2 + t * c3))
                    mean[j] = (value if y[j] >= 0 else -value) + (y[j] - y[j])
                    slope[j] = (c1 + t * (c2 + c2 + (c3 + c3 + c3) * t)) * cell
                if turn + 1 == turns:
                    for j in range(columns):
                        mean[j] -= mu[s, i, j]


@njit(cache=True, parallel=True, error_model="numpy", fastmath=True)  # type: ignore[untyped-decorator]
def site_trace(slopes: Floats, own: float, k: Floats, pull: float, out: Floats) -> None:
    """Add to out (n,) float64 the trace of mu_3, from slopes (n, 3, L0, L1) and kernels own, k (6,) of
    `combination.site_kernels`. own times the slopes is the large part, cancelled by that of mu: float64."""
    n, _, rows, columns = slopes.shape
    for s in prange(n):
        d1, d2, d3 = slopes[s, 0], slopes[s, 1], slopes[s, 2]
        total = 0.0
        for i in range(rows):
            up, down = i + 1 if i + 1 < rows else 0, i - 1 if i else rows - 1
            a1, b1, o1 = d1[up], d1[down], d1[i]
            a3, b3, o3, o2 = d3[up], d3[down], d3[i], d2[i]
            part, near = x_zero(slopes), 0.0
            for j in range(columns):
                right, left = j + 1 if j + 1 < columns else 0, j - 1 if j else columns - 1
                a, b, c, d = a1[j], b1[j], o1[right], o1[left]
                p, q, r, w = a3[j], b3[j], o3[right], o3[left]
                outer = (k[0] + pull * k[2] * (c + d)) * (p + q) + (k[1] + pull * k[2] * (a + b)) * (r + w)
                outer += pull * (
                    k[3] * (a * q + b * p) + k[4] * (c * w + d * r) + k[5] * (a * p + b * q + c * r + d * w)
                )
                part += pull * o2[j] * outer
                near += o3[j]
            total += part + own * near
        out[s] += total


@njit(inline="always")  # type: ignore[untyped-decorator]
def x_zero(x: Floats) -> float:
    """Zero of the type of x."""
    zero: float = x.dtype.type(0)
    return zero


@njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract"})  # type: ignore[untyped-decorator]
def add_features(f: Floats, which: Integers, weight: Floats, scale: Floats, out: Floats) -> None:
    """out (n, h) += sum_j scale_j weight_j f_which(j).

    f (n, n_field, h), which (n_term,), weight (n_term, h), scale (n, n_term).
    """
    n, h = out.shape
    for s in prange(n):
        total = out[s]
        for j in range(len(which)):
            field, w, a = f[s, which[j]], weight[j], scale[s, j]
            for i in range(h):
                total[i] += a * w[i] * field[i]


@njit(cache=True, parallel=True, error_model="numpy", fastmath=True)  # type: ignore[untyped-decorator]
def add_overlaps(f: Floats, pairs: Integers, weight: Floats, out: Floats) -> None:
    """out (n,) float64 += sum over pairs (p, q) and i of weight_i f_p,i f_q,i.

    f (n, n_field, h), pairs (m, 2), weight (m, h).
    """
    n, _, h = f.shape
    for s in prange(n):
        for pair in range(len(pairs)):
            one, other, w = f[s, pairs[pair, 0]], f[s, pairs[pair, 1]], weight[pair]
            total = x_zero(f)
            for i in range(h):
                total += w[i] * one[i] * other[i]
            out[s] += total
