"""Compiled loops behind `cluster`: every chain on its own, its random numbers generated inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled, uniform_at

ONE = np.uint64(1)


@compiled
def wolff_chain(
    phi: Any, sizes: Any, nb: Any, kappa: Any, seed: Any, stream: Any, chain: Any, trajectory: Any,
    stack: Any, member: Any,
) -> None:  # fmt: skip
    """len(sizes) single-cluster flips of one field phi (V,), in place; `stack`, `member` (V,) are scratch.

    Embedded Ising spins s = sign phi with couplings 2 kappa |phi_x phi_y|: a bond is frozen with
    probability 1 - exp(-4 kappa phi_x phi_y) where kappa phi_x phi_y > 0 (Brower, Tamayo, PRL 62 (1989)
    1087; Wolff, PRL 62 (1989) 361).  Every entry of the neighbour table is a bond of its own, as in S.
    """
    n_sites = phi.size
    position = np.uint64(0)
    for k in range(sizes.size):
        for x in range(n_sites):
            member[x] = False
        u = uniform_at(seed, stream, chain, trajectory, position)
        position += ONE
        root = np.uint64(min(np.int64(u * n_sites), n_sites - 1))
        member[root] = True
        stack[0] = root
        top, size = 1, 0
        while top > 0:
            top -= 1
            x = stack[top]
            size += 1
            for mu in range(nb.shape[1]):
                y = nb[x, mu]
                if not member[y]:
                    bond = 4.0 * kappa * phi[x] * phi[y]
                    if bond > 0.0:
                        u = uniform_at(seed, stream, chain, trajectory, position)
                        position += ONE
                        if u < -np.expm1(-bond):
                            member[y] = True
                            stack[top] = y
                            top += 1
        for x in range(n_sites):
            if member[x]:
                phi[x] = -phi[x]
        sizes[k] = size


@compiled
def wolff_range(
    phi: Any, sizes: Any, nb: Any, kappa: Any, seed: Any, stream: Any, chains: Any, trajectory: Any,
    start: Any, stop: Any,
) -> None:  # fmt: skip
    """`wolff_chain` for chains start .. stop of phi (n, V), in place; sizes (n, n_clusters)."""
    stack = np.empty(phi.shape[1], np.uint64)
    member = np.empty(phi.shape[1], np.bool_)
    for c in range(start, stop):
        wolff_chain(phi[c], sizes[c], nb, kappa, seed, stream, chains[c], trajectory, stack, member)
