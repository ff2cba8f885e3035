"""Compiled leapfrog blocks of HMC; layout and sums are those of `layout`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled
from lattice.updates.kernels.layout import energy, kick_drift, load, store


@compiled
def hmc_block(
    phi: Any, out: Any, dh: Any, accepted: Any, chains: Any, start: Any, stop: Any, extent: Any, rows: Any,
    kappa: Any, lam: Any, kicks: Any, drifts: Any, seed: Any, momentum_stream: Any, accept_stream: Any,
    trajectory: Any,
) -> None:  # fmt: skip
    """One trajectory of chains start .. stop of phi (n, V) into out (n, V), dh (n,), accepted (n,).

    `extent` is the last axis, `rows` the neighbour table of the lattice of the other axes.
    """
    n_sites, block = phi.shape[1], stop - start
    n_rows, width = n_sites // extent, extent * block
    now, new, p = np.empty((n_rows, width)), np.empty((n_rows, width)), np.empty((n_rows, width))
    total, work = np.empty(width), np.empty(width)
    h0, h1 = np.empty(block), np.empty(block)
    load(phi, now, p, chains, start, block, seed, momentum_stream, trajectory)
    energy(h0, now, p, p, rows, total, work, kappa, lam)
    for k in range(drifts.size):
        kick_drift(new, p, now, rows, total, block, kappa, lam, kicks[k], drifts[k])
        now, new = new, now
    kick_drift(new, p, now, rows, total, block, kappa, lam, kicks[-1], 0.0)
    energy(h1, now, p, p, rows, total, work, kappa, lam)
    store(phi, out, now, dh, accepted, h0, h1, chains, start, seed, accept_stream, trajectory)
