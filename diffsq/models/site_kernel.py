"""The site posterior's iteration, and the trace of its Jacobian, as compiled loops over one sample at a time.

The same numbers as the tensor methods of diffsq.models.site and diffsq.models.features, which other devices
use; each sample is one task, so that nothing depends on the number of threads.
"""

from numba import njit, prange

from lattice.arrays import Floats


@njit(cache=True, parallel=True, error_model="numpy")  # type: ignore[untyped-decorator]
def iterate(
    x: Floats, mu: Floats, cubics: Floats, own: float, pull: float, cell: float, means: Floats, slopes: Floats
) -> None:
    """Fill means and slopes (3, n, L0, L1) from x and mu (n, L0, L1); cubics (n_cell + 1, 4)."""
    n, rows, columns = x.shape
    last = cubics.shape[0] - 1
    for s in prange(n):
        for turn in range(means.shape[0]):
            before = mu[s] if turn == 0 else means[turn - 1, s]
            for i in range(rows):
                up, down = before[i - 1 if i else rows - 1], before[i + 1 if i + 1 < rows else 0]
                here, mean, slope = before[i], means[turn, s, i], slopes[turn, s, i]
                for j in range(columns):
                    near = up[j] + down[j] + here[j - 1 if j else columns - 1]
                    near += here[j + 1 if j + 1 < columns else 0]
                    y = own * x[s, i, j] + pull * near
                    place = abs(y) * cell
                    if place < last:
                        left = int(place)
                        t = place - x.dtype.type(left)
                    elif place >= last:
                        left, t = last, x.dtype.type(0)
                    else:  # NaN
                        left, t = 0, place
                    c = cubics[left]
                    value = c[0] + t * (c[1] + t * (c[2] + t * c[3]))
                    mean[j] = value if y >= 0 else -value
                    slope[j] = (c[1] + t * (2 * c[2] + 3 * t * c[3])) * cell


@njit(cache=True, parallel=True, error_model="numpy")  # type: ignore[untyped-decorator]
def trace(slopes: Floats, k: Floats, pull: float, out: Floats) -> None:
    """Fill out (n,) float64 from slopes (3, n, L0, L1); k: what `features._site_kernels` makes."""
    _, n, rows, columns = slopes.shape
    for s in prange(n):
        d1, d2, d3 = slopes[0, s], slopes[1, s], slopes[2, s]
        total = 0.0
        for i in range(rows):
            up, down = i + 1 if i + 1 < rows else 0, i - 1 if i else rows - 1
            for j in range(columns):
                right, left = j + 1 if j + 1 < columns else 0, j - 1 if j else columns - 1
                a, b, c, d = d1[up, j], d1[down, j], d1[i, right], d1[i, left]
                p, q, r, w = d3[up, j], d3[down, j], d3[i, right], d3[i, left]
                inner = k[1] + pull * (k[2] * (a + b) + k[3] * (c + d))
                outer = (k[5] + pull * k[7] * (c + d)) * (p + q) + (k[6] + pull * k[7] * (a + b)) * (r + w)
                outer += pull * (
                    k[8] * (a * q + b * p) + k[9] * (c * w + d * r) + k[10] * (a * p + b * q + c * r + d * w)
                )
                total += k[0] * d1[i, j] + d2[i, j] * (inner + pull * outer) + k[4] * d3[i, j]
        out[s] = total
