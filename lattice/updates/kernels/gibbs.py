"""Compiled loop behind `gibbs`: sweeps of one chain after another, each with numbers of its own.

Sums run over the nodes in order, so that a chain's result depends on no other chain, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled, fill_normals


@compiled
def gibbs_rows(
    phi: Any, w: Any, source: Any, mu2: Any, s: Any, seed: Any, stream: Any, chains: Any, trajectory: Any,
) -> None:  # fmt: skip
    """phi (n, n_visible) after a sweep, in place: the hidden nodes given phi, then phi given these."""
    n_visible, n_hidden = w.shape
    noise, hidden = np.empty(n_hidden + n_visible), np.empty(n_hidden)
    for chain in range(phi.shape[0]):
        fill_normals(noise, seed, stream, chains[chain], trajectory)
        row = phi[chain]
        for j in range(n_hidden):
            hidden[j] = s * noise[j]
        for i in range(n_visible):
            field = s * s * row[i]
            for j in range(n_hidden):
                hidden[j] += field * w[i, j]
        for i in range(n_visible):
            pull = source[i]
            for j in range(n_hidden):
                pull += w[i, j] * hidden[j]
            row[i] = pull / mu2 + noise[n_hidden + i] / np.sqrt(mu2)
