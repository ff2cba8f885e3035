"""Normal matrices of a regression in momentum space, per class of modes, as one compiled loop."""

import numpy as np
from numba import njit, prange

from lattice.arrays import Floats, Integers

N_PART = 8  # sums over samples are taken in so many parts, whatever the number of threads


@njit(cache=True, parallel=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _sums(x: Floats, index: Integers, weight: Floats, out: Floats) -> None:
    n, n_row, n_mode, _ = x.shape
    n_part = out.shape[0]
    for part in prange(n_part):
        re, im = np.empty(n_row), np.empty(n_row)
        for s in range(part * n // n_part, (part + 1) * n // n_part):
            for k in range(n_mode):
                for i in range(n_row):
                    re[i] = x[s, i, k, 0]
                    im[i] = x[s, i, k, 1]
                total = out[part, index[k]]
                for i in range(n_row):
                    a, b = weight[k] * re[i], weight[k] * im[i]
                    row = total[i]
                    for j in range(n_row):
                        row[j] += a * re[j] + b * im[j]


def normal_sums(x: Floats, index: Integers, weight: Floats, n_class: int) -> Floats:
    """sum over samples and the modes of each class of weight Re conj(x_i) x_j: (n_class, n_row, n_row).

    x (n, n_row, n_mode, 2) float32, real and imaginary parts; index, weight (n_mode,). Summed in float64.
    """
    out = np.zeros((N_PART, n_class, x.shape[1], x.shape[1]))
    _sums(x, index, weight, out)
    total: Floats = out.sum(0)
    return total
