"""Compiled loops behind `hmc`, tested equal to the plain tensor version; what every kernel shares.

Layout: a block of chains is (rows, extent * block): a row is a line of sites along the last axis, the chain
index is innermost, so one stream of SIMD instructions moves the whole block along a row, in any dimension,
and every neighbour is a contiguous run.  No operation mixes two chains and nothing is reassociated, hence a
chain's result depends neither on the block nor on its company, bit for bit.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.actions.protocol import check_shape
from lattice.errors import InputError
from lattice.rng import compiled, fill_normals, uniform_at

TILE = 8  # sites moved together between the two layouts: eight float64 fill a cache line


@functools.lru_cache(maxsize=32)
def neighbour_table(shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """Flat (C order) indices of the 2d periodic neighbours of each site, (V, 2d): x+mu, x-mu for each axis.

    Read-only and shared.  Extent 2 lists its neighbour twice, extent 1 the site itself, as S does.

    >>> neighbour_table((3,)).tolist()
    [[1, 2], [2, 0], [0, 1]]
    """
    if shape:  # () are the other axes of a one-dimensional lattice: one row without neighbours
        check_shape(shape)
    sites = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    rolled = [np.roll(sites, shift, axis).ravel() for axis in range(len(shape)) for shift in (-1, 1)]
    table = np.array(rolled, dtype=np.uint64).reshape(len(rolled), sites.size).T.copy()
    table.setflags(write=False)
    return table


def available_threads(n_threads: int | None) -> int:
    """`n_threads`, or the processors this process may run on (its part of them under torchrun), at most
    NUMBA_NUM_THREADS if that is set."""
    if n_threads is not None and n_threads < 1:
        raise InputError(f"n_threads must be >= 1, got {n_threads}")
    if n_threads is not None:
        return n_threads
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "")
    free = max(1, free // int(beside)) if beside.isdigit() and int(beside) else free
    limit = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(free, max(1, int(limit))) if limit.isdigit() else free


def in_blocks(task: Callable[[int, int], None], n: int, size: int, n_threads: int | None) -> None:
    """task(start, stop) over all of n chains, at most `size` at a time, and all threads at work; the tasks
    write disjoint outputs."""
    threads = available_threads(n_threads)
    size = min(size, -(-n // threads))
    parts = [(start, min(start + size, n)) for start in range(0, n, size)]
    if threads == 1 or len(parts) == 1:
        for part in parts:
            task(*part)
        return
    with ThreadPoolExecutor(min(threads, len(parts))) as pool:
        list(pool.map(lambda part: task(*part), parts))


@compiled
def _add(total: Any, a: Any, b: Any) -> None:
    for j in range(total.size):
        total[j] += a[j] + b[j]


@compiled
def neighbour_sum(total: Any, phi: Any, rows: Any, r: Any, block: Any) -> None:
    """total (extent * block) = sum over the 2d neighbours of the sites of row r."""
    row, width = phi[r], phi.shape[1]
    total[:] = 0.0
    if width > block:
        _add(total[block : width - block], row[2 * block :], row[: width - 2 * block])
        _add(total[:block], row[block : 2 * block], row[width - block :])
        _add(total[width - block :], row[:block], row[width - 2 * block : width - block])
    else:
        _add(total, row, row)
    for mu in range(0, rows.shape[1], 2):
        _add(total, phi[rows[r, mu]], phi[rows[r, mu + 1]])


@compiled
def _energy_row(h: Any, f: Any, p: Any, v: Any, total: Any, mass: Any, lam: Any, kappa: Any) -> None:
    for j in range(f.size):
        f2 = f[j] * f[j]
        h[j] = 0.5 * p[j] * v[j] + (mass * f2 + lam * f2 * f2 - kappa * f[j] * total[j])


@compiled
def energy(h: Any, phi: Any, p: Any, v: Any, rows: Any, total: Any, work: Any, kappa: Any, lam: Any) -> None:
    """h (block,) = p v/2 + S; the sum over 2d neighbours meets each bond twice, hence kappa, not 2 kappa."""
    h[:] = 0.0
    for r in range(phi.shape[0]):
        neighbour_sum(total, phi, rows, r, h.size)
        _energy_row(work, phi[r], p[r], v[r], total, 1.0 - 2.0 * lam, lam, kappa)
        for start in range(0, work.size, h.size):
            for i in range(h.size):
                h[i] += work[start + i]


@compiled
def _kick_drift_row(
    new: Any, p: Any, f: Any, total: Any, mass: Any, quartic: Any, hop: Any, kick: Any, drift: Any
) -> None:
    for j in range(f.size):
        p[j] -= kick * ((mass + quartic * f[j] * f[j]) * f[j] - hop * total[j])
        new[j] = f[j] + drift * p[j]


@compiled
def kick_drift(
    new: Any, p: Any, phi: Any, rows: Any, total: Any, block: Any, kappa: Any, lam: Any, kick: Any, drift: Any
) -> None:
    """p -= kick dS/dphi(phi) and new = phi + drift p in one pass over memory."""
    for r in range(phi.shape[0]):
        neighbour_sum(total, phi, rows, r, block)
        _kick_drift_row(
            new[r], p[r], phi[r], total, 2.0 * (1.0 - 2.0 * lam), 4.0 * lam, 2.0 * kappa, kick, drift
        )


@compiled
def copy_chains(sites: Any, phi: Any, start: Any, back: Any) -> None:
    """Between sites (V, block) and the chains start .. start + block of phi (n, V)."""
    for first in range(0, sites.shape[0], TILE):
        for i in range(sites.shape[1]):
            for x in range(first, min(first + TILE, sites.shape[0])):
                if back:
                    phi[start + i, x] = sites[x, i]
                else:
                    sites[x, i] = phi[start + i, x]


@compiled
def load(
    phi: Any, now: Any, normal: Any, chains: Any, start: Any, block: Any, seed: Any, stream: Any, step: Any
) -> None:
    """Fields of a block of chains, and a standard normal number per site, with the chains innermost."""
    n_sites = phi.shape[1]
    row = np.empty(n_sites)
    numbers = normal.reshape(n_sites, block)
    copy_chains(now.reshape(n_sites, block), phi, start, False)
    for i in range(block):
        fill_normals(row, seed, stream, chains[start + i], step)
        for x in range(n_sites):
            numbers[x, i] = row[x]


@compiled
def store(
    phi: Any, out: Any, now: Any, dh: Any, accepted: Any, h0: Any, h1: Any, chains: Any, start: Any,
    seed: Any, stream: Any, trajectory: Any,
) -> None:  # fmt: skip
    """The accept step of a block of chains: out (n, V) = the new field or the old one."""
    sites = now.reshape(phi.shape[1], h0.size)
    for i in range(h0.size):
        c = start + i
        dh[c] = h1[i] - h0[i]
        u = uniform_at(seed, stream, chains[c], trajectory, np.uint64(0))
        accepted[c] = np.isfinite(dh[c]) and u < np.exp(-dh[c])
        for x in range(phi.shape[1]):
            out[c, x] = sites[x, i] if accepted[c] else phi[c, x]
