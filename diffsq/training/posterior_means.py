r"""The regression target of denoising score matching without its noise, for points in one or two dimensions.

Denoising score matching (Vincent 2011; Song et al. 2011.13456, eq. 7) draws x = x_0 + sigma eps, x_0 from the
N data points, and regresses x_0 on x. Its minimiser is the posterior mean over the data set, and in low
dimension that is a sum one can do:

    p_sigma(x) = (1/N) sum_i G_sigma(x - x_i),     D(x, sigma) = E[x_0|x] = x + sigma^2 grad ln p_sigma(x).

Regression on D is denoising score matching with infinitely many noise draws (Rao-Blackwell): same minimiser,
no variance. Points are counted in cells of width h centred at multiples of h, together with their mirror
images (the law is taken to be symmetric under x -> -x), and smeared with variance s^2 = sigma^2 - h^2/12 per
axis: the cells' own width is taken back (Sheppard); what remains is of order (h/sigma)^4/3000 for a law
that is smooth on the scale of a cell. The Gaussian is a product over the axes, so the sums are products of
small matrices. At the nodes of a grid the target is then exact; between nodes it is never needed, training
points are nodes drawn from p_sigma.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.arrays import Floats, real_array
from lattice.errors import InputError

CELLS = 4  # cells and nodes per sigma
FINEST = 24  # cells per standard deviation of the data where sigma is larger than that
REACH = 7.0  # nodes go this many sigma beyond the data
MAX_CELLS = 2**26
MAX_KERNEL = 2**27  # nodes times cells along one axis: 1 GB
FLAT = 1e-6  # ratio of standard deviations below which one variable is none


@dataclass(frozen=True)
class Table:
    """p_sigma, normalised in x, and the posterior mean on a grid.

    axes: d arrays (n_a,); density (n_1, ...); mean (n_1, ..., d).
    """

    sigma: float
    axes: tuple[Floats, ...]
    density: Floats
    mean: Floats

    def at(self, nodes: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """Positions (n, d), posterior means (n, d) and densities (n,) of flat node numbers (n,)."""
        index = np.unravel_index(nodes, self.density.shape)
        x = np.stack([axis[i] for axis, i in zip(self.axes, index)], -1)
        return x, self.mean.reshape(-1, x.shape[1])[nodes], self.density.ravel()[nodes]

    def density_at(self, x: Floats) -> Floats:
        """The density (n,) at the nodes nearest to x (n, d), zero beyond the grid."""
        index = [np.rint((x[:, a] - axis[0]) / (axis[1] - axis[0])) for a, axis in enumerate(self.axes)]
        inside = np.all([(0 <= i) & (i < len(axis)) for i, axis in zip(index, self.axes)], axis=0)
        found = np.zeros(len(x))
        found[inside] = self.density[tuple(i[inside].astype(np.int64) for i in index)]
        return found


def check_points(points: Any) -> Floats:
    """`points` as float64 (N, d). Raises `InputError` unless N >= 2, d is 1 or 2 and all are finite."""
    found = real_array(points, "points")
    if found.ndim != 2 or found.shape[1] not in (1, 2) or len(found) < 2:
        raise InputError(f"points must have the shape (N, 1) or (N, 2) with N >= 2, got {found.shape}")
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if bad.size:
        raise InputError(f"{bad.size} of {len(found)} points are NaN or infinite, the first is row {bad[0]}")
    if not (found.std(0) > 0).all():
        raise InputError("all points have the same value of one coordinate: there is no law to learn")
    if found.std(0).min() < FLAT * found.std(0).max():
        widths = ", ".join(f"{width:.3g}" for width in found.std(0))
        raise InputError(
            f"one coordinate hardly varies (standard deviations {widths}): "
            f"there is no law of two variables to learn; a real action needs no complex Langevin"
        )
    return found


def binned(points: Floats, width: Floats) -> tuple[tuple[Floats, ...], Floats]:
    """Counts of the points (N, d) and of their mirror images in cells of `width` (d,) centred at multiples.

    Returns the d arrays of centres, symmetric about zero, and the counts (n_1, ...). Raises `InputError` for
    more than 2^26 cells.

    >>> binned(np.array([[0.0], [1.1], [1.0]]), np.array([1.0]))[1].tolist()
    [2.0, 2.0, 2.0]
    """
    largest = np.abs(points).max(0)
    half = np.floor(largest / width + 0.5)
    if np.prod(2 * half + 1) > MAX_CELLS:
        raise InputError(
            f"cells of {width.min():.3g} are too small for points that reach out to {largest.max():.3g}: "
            f"take a larger sigma_min, or look for outliers"
        )
    shape = tuple(int(m) for m in 2 * half + 1)
    cell = np.zeros(len(points), dtype=np.int64)
    for axis, n in enumerate(shape):
        cell = cell * n + np.floor(points[:, axis] / width[axis] + 0.5).astype(np.int64) + n // 2
    counts = np.bincount(cell, minlength=math.prod(shape)).reshape(shape).astype(np.float64)
    centres = tuple(h * (np.arange(n) - n // 2) for h, n in zip(width, shape))
    return centres, counts + np.flip(counts)


def table(points: Floats, sigma: float, cells: int = CELLS) -> Table:
    """p_sigma and E[x_0|x] of a data set (N, d) and its mirror images; `cells`: cells and nodes per sigma."""
    return next(tables(points, np.array([sigma]), cells))


def tables(
    points: Floats, sigmas: Floats, cells: int = CELLS, shifts: Floats | None = None
) -> Iterator[Table]:
    """`table` at each of the noise levels, one in memory at a time; cells that serve two are counted once.

    shifts (J, d): the nodes of each level and axis are displaced by this part of their distance. Without,
    the levels above the data's width share their nodes in units of sigma, and no level says anything of the
    law between them.
    """
    finest, width, counted = points.std(0) / FINEST, None, None
    moved = np.zeros((len(sigmas), points.shape[1])) if shifts is None else shifts
    for sigma, shift in zip(sigmas.tolist(), moved, strict=True):
        new = np.minimum(sigma / cells, finest)
        if counted is None or width is None or not np.array_equal(new, width):
            width, counted = new, binned(points, new)
        yield _smeared(*counted, width, sigma, cells, shift)


def _smeared(
    centres: tuple[Floats, ...], counts: Floats, width: Floats, sigma: float, cells: int, shift: Floats
) -> Table:
    axes, kernels, slopes = zip(
        *(_smearing(c, sigma, h, sigma / cells, part) for c, h, part in zip(centres, width, shift)),
        strict=True,
    )
    density = _product(counts / counts.sum(), kernels)
    mean = np.empty((*density.shape, density.ndim))
    inverse = 1 / np.maximum(density, np.finfo(float).tiny)
    for one, place in enumerate(np.meshgrid(*axes, indexing="ij", sparse=True)):
        mixed = [slopes[a] if a == one else kernels[a] for a in range(density.ndim)]
        gradient = _product(counts / counts.sum(), mixed) * inverse
        mean[..., one] = place + sigma**2 * gradient
    return Table(sigma, axes, density, mean)


def _smearing(
    centres: Floats, sigma: float, width: float, step: float, shift: float
) -> tuple[Floats, Floats, Floats]:
    """Nodes along one axis, and the Gaussian and its derivative between nodes and cells."""
    s2 = sigma**2 - width**2 / 12
    half = math.ceil((centres[-1] + REACH * sigma) / step)
    if (2 * half + 1) * len(centres) > MAX_KERNEL:
        raise InputError(
            f"noise of {sigma:.3g} is too fine for points that reach out to {centres[-1]:.3g}: "
            f"take a larger sigma_min, or look for outliers"
        )
    nodes = step * (np.arange(-half, half + 1) + shift)
    r = nodes[:, None] - centres
    gauss = np.exp(-0.5 * r**2 / s2) / math.sqrt(2 * math.pi * s2)
    return nodes, gauss, -r / s2 * gauss


def _product(counts: Floats, kernels: tuple[Floats, ...] | list[Floats]) -> Floats:
    smeared: Floats = kernels[0] @ counts
    return smeared if len(kernels) == 1 else smeared @ kernels[1].T


def draw_nodes(weight: NDArray[np.float64], uniform: Floats) -> NDArray[np.int64]:
    """Flat node numbers (n,) with probabilities proportional to `weight`, one in each n-th of its sum.

    uniform (n,) in (0, 1) places each within its n-th (stratified: less variance than independent draws).
    """
    cumulative = np.cumsum(weight.ravel())
    n = len(uniform)
    place = (np.arange(n) + uniform) / n * cumulative[-1]
    nodes: NDArray[np.int64] = np.searchsorted(cumulative, place, side="right")
    return np.minimum(nodes, cumulative.size - 1)
