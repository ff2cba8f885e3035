"""Which configurations of an ensemble stand for all of it, where not all are wanted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lattice.arrays import Integers
from lattice.errors import InputError
from lattice.rng import uniforms


def spread_rows(
    chain: npt.ArrayLike, trajectory: npt.ArrayLike, n: int, *, seed: int, stream: str
) -> Integers:
    """n rows of chain, trajectory (N,), or all, stratified by chain: (min(n, N),), in the order of choice.

    Every chain is used equally often, but for one more or less and for chains that are used up. The times of
    a chain follow van der Corput's sequence (J. G. van der Corput, Proc. Akad. Amsterdam 38 (1935) 813), from
    a start of its own: m of T times are at least T/2^k apart, 2^k the next power of two. Chains take turns in
    a random order. Both are keyed (seed, stream). The first n rows of a longer choice are the choice of n. A
    stride would do neither: rows are stored time by time, and one that shares a factor with the number of
    chains meets few of them, at consecutive times.

    >>> chain, time = np.arange(32) % 4, np.arange(32) // 4
    >>> rows = spread_rows(chain, time, 8, seed=1, stream="doc")
    >>> sorted(chain[rows].tolist()), [int(np.ptp(time[rows][chain[rows] == c])) for c in range(4)]
    ([0, 0, 1, 1, 2, 2, 3, 3], [4, 4, 4, 4])
    """
    if n < 1:
        raise InputError(f"a choice of {n} rows is none")
    names, number = np.unique(np.asarray(chain), return_inverse=True)
    by_chain = np.lexsort((np.asarray(trajectory), number))  # chain by chain, in order of time
    lengths = np.bincount(number)
    starts = np.cumsum(lengths) - lengths
    start_time, place = uniforms(seed, f"rows/{stream}", np.arange(2), 0, len(names))
    turn = np.empty(len(number), dtype=np.int64)  # how often its chain was used before
    for length in np.unique(lengths):
        these = np.flatnonzero(lengths == length)
        first = (start_time[these] * length).astype(np.int64)
        at = (first[:, None] + _spread_times(int(length))) % length
        turn[starts[these][:, None] + at] = np.arange(length)
    order = np.lexsort((place[number[by_chain]], turn))
    return np.asarray(by_chain[order[:n]], dtype=np.int64)


def _spread_times(length: int) -> Integers:
    """0 ... length - 1 so that those that come first are far apart, around the circle too."""
    bits = max(1, (length - 1).bit_length())
    points, reverse = np.arange(2**bits), np.zeros(2**bits, dtype=np.int64)
    for bit in range(bits):
        reverse |= (points >> bit & 1) << (bits - 1 - bit)
    times = reverse * length >> bits
    return np.asarray(times[np.sort(np.unique(times, return_index=True)[1])], dtype=np.int64)


def disjoint_parts(chain: npt.ArrayLike, trajectory: npt.ArrayLike, n_parts: int) -> list[Integers]:
    """Rows of n_parts nearly equal parts of the data that are independent of each other: each in its order.

    Whole chains, the k-th with its neighbours n_parts away; or, where there are fewer chains than parts,
    stretches of time.
    """
    names, number = np.unique(np.asarray(chain), return_inverse=True)
    if len(names) >= n_parts:
        return [np.flatnonzero(number % n_parts == k) for k in range(n_parts)]
    by_chain = np.lexsort((np.asarray(trajectory), number))
    return [np.sort(part) for part in np.array_split(by_chain, n_parts)]
