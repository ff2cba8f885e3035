"""Compiled loops behind `langevin`, in the layout of `kernels` (chain index innermost).

One Euler-Maruyama step of size h is one leapfrog step of size sqrt(2 h) whose momenta are the noise,

    p = eta - sqrt(h/2) dS/dphi,   phi' = phi + sqrt(2 h) p = phi - h dS/dphi + sqrt(2 h) eta,

so the passes over memory are those of HMC; numba notices edits of `kernels` only when `__pycache__` goes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled, normal_pair, uniform_at
from lattice.updates.kernels.layout import copy_chains, energy, kick_drift

ONE = np.uint64(1)


@compiled
def fill_noise(row: Any, seed: Any, stream: Any, chain: Any, trajectory: Any, first: Any) -> None:
    """row (size,) = the normal numbers at positions first, first + 1, ... of a stream (arguments uint64)."""
    block, odd = first >> ONE, np.int64(first & ONE)
    if odd:  # the second number of a counter whose first one belonged to the step before
        row[0] = normal_pair(seed, stream, chain, trajectory, block)[1]
        block += ONE
    rest = row[odd:]
    for b in range(rest.size // 2):
        pair = normal_pair(seed, stream, chain, trajectory, block + np.uint64(b))
        rest[2 * b], rest[2 * b + 1] = pair
    if rest.size % 2:
        rest[-1] = normal_pair(seed, stream, chain, trajectory, block + np.uint64(rest.size // 2))[0]


@compiled
def _mark_runaways(first: Any, sites: Any, work: Any, k: Any) -> None:
    """first (block,) = k where it was -1 and the field (V, block) is no longer finite: x - x is then NaN."""
    work[:] = 0.0
    for x in range(sites.shape[0]):
        for i in range(work.size):
            work[i] += sites[x, i] - sites[x, i]
    for i in range(work.size):
        if first[i] < 0 and work[i] != 0.0:
            first[i] = k


@compiled
def _keep_accepted(now: Any, new: Any, take: Any) -> None:
    """now = new in the chains to take; both (V, block)."""
    for x in range(now.shape[0]):
        for i in range(take.size):
            now[x, i] = new[x, i] if take[i] else now[x, i]


@compiled
def langevin_block(
    phi: Any, out: Any, dh: Any, accepted: Any, runaway: Any, chains: Any, start: Any, stop: Any, extent: Any,
    rows: Any, kappa: Any, lam: Any, step: Any, n_steps: Any, metropolis: Any, seed: Any, noise_stream: Any,
    accept_stream: Any, trajectory: Any,
) -> None:  # fmt: skip
    """n_steps Langevin steps of chains start .. stop of phi (n, V) into out (n, V).

    With `metropolis` dh and accepted (n, n_steps) are filled, else runaway (n,): the first step whose field
    is not finite, or -1.  `extent` is the last axis, `rows` the neighbour table of the other axes.
    """
    n_sites, block = phi.shape[1], stop - start
    n_rows, width = n_sites // extent, extent * block
    now, new, p = np.empty((n_rows, width)), np.empty((n_rows, width)), np.empty((n_rows, width))
    unused = np.empty((n_rows, width))  # what a kick without drift writes: the field must survive it
    total, work, normal = np.empty(width), np.empty(width), np.empty(n_sites)
    h0, h1, take = np.empty(block), np.empty(block), np.empty(block, np.bool_)
    noise, sites = p.reshape(n_sites, block), now.reshape(n_sites, block)
    kick, drift = np.sqrt(0.5 * step), np.sqrt(2.0 * step)
    copy_chains(sites, phi, start, False)
    for k in range(n_steps):
        for i in range(block):
            first = np.uint64(k) * np.uint64(n_sites)
            fill_noise(normal, seed, noise_stream, chains[start + i], trajectory, first)
            for x in range(n_sites):
                noise[x, i] = normal[x]
        if metropolis:
            energy(h0, now, p, p, rows, total, work, kappa, lam)
        kick_drift(new, p, now, rows, total, block, kappa, lam, kick, drift)
        if metropolis:
            kick_drift(unused, p, new, rows, total, block, kappa, lam, kick, 0.0)
            energy(h1, new, p, p, rows, total, work, kappa, lam)
            for i in range(block):
                c = start + i
                dh[c, k] = h1[i] - h0[i]
                u = uniform_at(seed, accept_stream, chains[c], trajectory, np.uint64(k))
                take[i] = np.isfinite(dh[c, k]) and u < np.exp(-dh[c, k])
                accepted[c, k] = take[i]
            _keep_accepted(now.reshape(n_sites, block), new.reshape(n_sites, block), take)
        else:
            now, new = new, now
            _mark_runaways(runaway[start:stop], now.reshape(n_sites, block), h0, k)
    copy_chains(now.reshape(n_sites, block), out, start, True)
