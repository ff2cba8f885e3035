"""Compiled loops behind `cluster`: every chain on its own, its random numbers generated inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled, fill_uniforms, log_unit, random_bits, uniform_at, unit

BUFFER = 256  # numbers made at a time


@compiled
def refill(buffer: Any, seed: Any, stream: Any, chain: Any, trajectory: Any, first: Any) -> None:
    """buffer = -ln(1 - u) of the uniforms of the counters first, first + 1, ... (two each)."""
    for i in range(buffer.size // 2):
        n0, n1 = random_bits(seed, stream, chain, trajectory, first + np.uint64(i))
        buffer[2 * i], buffer[2 * i + 1] = -log_unit(1.0 - unit(n0)), -log_unit(1.0 - unit(n1))


@compiled
def wolff_chain(
    phi: Any, sizes: Any, nb: Any, kappa: Any, seed: Any, stream: Any, chain: Any, trajectory: Any,
    stack: Any, cluster: Any, member: Any, buffer: Any,
) -> None:  # fmt: skip
    """len(sizes) single-cluster flips of one field phi (V,), in place. Scratch: stack (V + 2d,), cluster
    (V,), member (V,) all zero before and after, buffer.

    Embedded Ising spins s = sign phi with couplings 2 kappa |phi_x phi_y|: a bond is frozen with
    probability 1 - exp(-4 kappa phi_x phi_y) where kappa phi_x phi_y > 0 (Brower, Tamayo, PRL 62 (1989)
    1087; Wolff, PRL 62 (1989) 361).  Every entry of the neighbour table is a bond of its own, as in S.
    Random numbers are taken in order, one for the root and one for each bond that could freeze; they are made
    in batches, and nothing branches on a bond, because no processor could predict it.
    """
    n_sites, n_neighbours = phi.size, nb.shape[1]
    first, used = np.uint64(0), 0
    refill(buffer, seed, stream, chain, trajectory, first)
    for k in range(sizes.size):
        size, top = 0, 1
        root = np.uint64(min(np.int64(-np.expm1(-buffer[used]) * n_sites), n_sites - 1))
        used += 1
        member[root], stack[0] = np.uint8(1), root
        while top > 0:
            if used + n_neighbours >= buffer.size:
                first, used = first + np.uint64(used >> 1), used & 1
                refill(buffer, seed, stream, chain, trajectory, first)
            top -= 1
            x = stack[top]
            cluster[size] = x
            size += 1
            for mu in range(n_neighbours):
                y = nb[x, mu]
                bond = 4.0 * kappa * phi[x] * phi[y]
                open_bond = (bond > 0.0) & (member[y] == 0)
                joins = open_bond & (buffer[used] < bond)
                used += open_bond
                member[y] |= np.uint8(joins)
                stack[top] = y
                top += joins
        for i in range(size):
            x = cluster[i]
            phi[x], member[x] = -phi[x], np.uint8(0)
        sizes[k] = size


@compiled
def wolff_range(
    phi: Any, sizes: Any, nb: Any, kappa: Any, seed: Any, stream: Any, chains: Any, trajectory: Any,
    start: Any, stop: Any,
) -> None:  # fmt: skip
    """`wolff_chain` for chains start .. stop of phi (n, V), in place; sizes (n, n_clusters)."""
    n_sites = phi.shape[1]
    stack, cluster = np.empty(n_sites + nb.shape[1], np.uint64), np.empty(n_sites, np.uint64)
    member, buffer = np.zeros(n_sites, np.uint8), np.empty(BUFFER)
    for c in range(start, stop):
        wolff_chain(
            phi[c], sizes[c], nb, kappa, seed, stream, chains[c], trajectory, stack, cluster, member, buffer
        )


@compiled
def fill_exponentials(row: Any, seed: Any, stream: Any, index: Any, step: Any) -> None:
    """row (size,) = -ln u of the first uniforms u of one stream: P(row < b) = 1 - exp(-b)."""
    for block in range(row.size // 2):
        n0, n1 = random_bits(seed, stream, index, step, np.uint64(block))
        row[2 * block], row[2 * block + 1] = -log_unit(unit(n0)), -log_unit(unit(n1))
    if row.size % 2:
        last = row.size - 1
        row[last] = -log_unit(uniform_at(seed, stream, index, step, np.uint64(last)))


@compiled
def root_of(label: Any, x: Any) -> Any:
    """The root of x; every second site on the way is hung one generation higher (path halving)."""
    while label[x] != x:
        label[x] = label[label[x]]
        x = label[x]
    return x


@compiled
def unite(label: Any, x: Any, y: Any) -> None:
    """The clusters of two sites become one, hung below its lowest site."""
    a, b = root_of(label, x), root_of(label, y)
    if a < b:
        label[b] = a
    else:
        label[a] = b


@compiled
def label_clusters(label: Any, phi: Any, nb: Any, kappa: Any, exponential: Any) -> None:
    """label (V,) uint64 = lowest site of the cluster of each site, every bond of S drawn once.

    exponential (V*d,) decides the bonds x, x+mu: frozen where it is below 4 kappa phi_x phi_y, which has
    probability 1 - exp(-4 kappa phi_x phi_y) for kappa phi_x phi_y > 0 and never happens otherwise.
    """
    dim = nb.shape[1] // 2
    for x in range(label.size):
        label[x] = x
    for x in range(label.size):
        for mu in range(dim):
            y = nb[x, 2 * mu]
            if exponential[x * dim + mu] < 4.0 * kappa * phi[x] * phi[y]:
                unite(label, np.uint64(x), y)
    for x in range(label.size):
        label[x] = label[label[x]]  # no site hangs below a later one, so the parent is final already


@compiled
def swendsen_wang_range(
    phi: Any, n_clusters: Any, largest: Any, v_m2: Any, nb: Any, kappa: Any, seed: Any, bond_stream: Any,
    flip_stream: Any, chains: Any, trajectory: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """One Swendsen-Wang update of chains start .. stop of phi (n, V), in place; the infos are (n,)."""
    n_sites = phi.shape[1]
    exponential = np.empty(n_sites * (nb.shape[1] // 2))
    uniform, total = np.empty(n_sites), np.empty(n_sites)
    label, size = np.empty(n_sites, np.uint64), np.empty(n_sites, np.int64)
    for c in range(start, stop):
        f = phi[c]
        fill_exponentials(exponential, seed, bond_stream, chains[c], trajectory)
        fill_uniforms(uniform, seed, flip_stream, chains[c], trajectory)
        label_clusters(label, f, nb, kappa, exponential)
        total[:] = 0.0
        size[:] = 0
        for x in range(n_sites):
            root = label[x]
            total[root] += f[x]
            size[root] += 1
            if uniform[root] < 0.5:
                f[x] = -f[x]
        count, most, square = 0, np.int64(0), 0.0
        for x in range(n_sites):
            count += size[x] > 0
            most = max(most, size[x])
            square += total[x] * total[x]
        n_clusters[c], largest[c], v_m2[c] = count, most, square / n_sites
