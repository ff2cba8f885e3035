"""Series with gaps: configurations that are missing, chains of different strides.

All times lie on one grid, whose spacing is their greatest common divisor. Gamma(t) is the average over the
pairs of configurations at distance t on it, as U. Wolff (hep-lat/0306017) averages over those of a complete
series; the error of a mean takes every Gamma(t) as often as there are such pairs:

    error^2 = (1/N) [Gamma(0) + 2 sum_{t=1}^{W} share(t) Gamma(t)],   share(t) = pairs at distance t over N,

corrected for the ends of the chains, so that a complete series has share 1 at every t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from lattice.arrays import Floats, Integers
from lattice.errors import InputError

MAX_GRID = 64  # times as many grid points as configurations; beyond, hardly two pairs have the same distance

_FEW = 0.1  # of the largest share: distances with fewer pairs are interpolated


@dataclass(frozen=True)
class Grid:
    """Where the configurations of every replica lie on the common grid: `unit` of time between two points,
    `positions` (n_i,) of each replica from its first configuration on."""

    unit: int
    positions: list[Integers]

    @property
    def regular(self) -> bool:
        """Whether no point is left out: every replica is evenly spaced, all with the same spacing."""
        return all(len(part) == part[-1] + 1 for part in self.positions)

    @property
    def extents(self) -> Integers:
        """Grid points of each replica from its first to its last configuration."""
        return np.array([part[-1] + 1 for part in self.positions], dtype=np.int64)


@dataclass(frozen=True)
class Pairs:
    """Sums over pairs at distance t = 0, 1, ...: `gamma` (n_t,) their average, interpolated where there
    are hardly any; `share` (n_t,) as above; `density`, its mean far away: 1 without gaps."""

    gamma: Floats
    share: Floats
    density: float

    def independent(self, tau: Floats, grid: Grid) -> Floats:
        """For how many points of a complete series those at hand count, where its tau_int is tau (n_t,) with
        the window t: as many as the grid has where they lie, stretches that are missing not counted, if
        several lie within tau, and fewer where a pair is all there is."""
        n = sum(map(len, grid.positions))
        near = np.cumsum(np.append(0.0, self.share[1 : len(tau)])) / np.maximum(np.arange(len(tau)), 1)
        points = np.minimum(float(grid.extents.sum()), n / np.maximum(near, self.density))
        return np.minimum(points, 2 * tau * n * self.density)


def grid_of(times: Sequence[npt.ArrayLike]) -> Grid:
    """The grid of the times (n_i,) of each replica, whole numbers that increase.

    >>> grid = grid_of([[10, 12, 16], [3, 7]])
    >>> grid.unit, [part.tolist() for part in grid.positions], grid.regular
    (2, [[0, 1, 3], [0, 2]], False)
    """
    parts = [np.asarray(part) for part in times]
    if not parts or any(part.ndim != 1 or not len(part) or part.dtype.kind not in "iu" for part in parts):
        raise InputError("times: one array (n_i,) of whole numbers for each replica, none of them empty")
    steps = np.concatenate([np.diff(part.astype(np.int64)) for part in parts])
    if np.any(steps <= 0):
        raise InputError("times must increase within each replica")
    unit = int(np.gcd.reduce(steps)) if len(steps) else 1
    return Grid(unit, [((part - part[0]) // unit).astype(np.int64) for part in parts])


def pairs_of(projected: Floats, grid: Grid, n_times: int) -> Pairs:
    """Gamma(t) and the shares, t < n_times, of fluctuations (n,), the replicas one after the other."""
    n, first = len(projected), 0
    sums, pairs, share = np.zeros(n_times), np.zeros(n_times), np.zeros(n_times)
    density, t = 0.0, np.arange(n_times)
    for positions, extent in zip(grid.positions, grid.extents.tolist()):
        own = len(positions)
        both = np.zeros((2, extent))  # the fluctuations, and where there are any
        both[0, positions], both[1, positions] = projected[first : first + own], 1.0
        first, reach = first + own, min(extent, n_times)
        size = scipy.fft.next_fast_len(extent + reach, real=True)  # zero padding: no wrap-around
        spectrum = scipy.fft.rfft(both, size, axis=1)
        found = scipy.fft.irfft(spectrum.real**2 + spectrum.imag**2, size, axis=1)[:, :reach]
        counted = np.rint(found[1])
        sums[:reach] += found[0]
        pairs[:reach] += counted
        share += own * own / extent / n  # beyond the end: as often as the chain is dense
        share[:reach] += (counted * extent / (extent - t[:reach]) - own * own / extent) / n
        density += own * own / extent / n
    # a shift by less than the spacing leaves a few pairs at odd distances, each worth nothing
    seen = np.flatnonzero((pairs > 0) & (share >= _FEW * share[1:].max(initial=0.0)))
    gamma = np.interp(t, seen, sums[seen] / pairs[seen])
    return Pairs(gamma, share, density)
