"""Compiled loops behind `spins`: heat bath, Metropolis and clusters of states l = 0 .. q - 1, int8.

Local updates of two states move a block of chains at once, chains innermost, as in `local`; a threshold is
compared with 32 random bits, which rounds a probability to 2^-32. More states, and clusters, go chain by
chain with 52 bits. Numbers are made inside; every chain depends on its own key only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import LOW, SHIFT, compiled, fill_uniforms, philox, uniform_at
from lattice.updates.kernels.cluster import fill_exponentials, refill, unite


@compiled
def _words(words: Any, seed: Any, stream: Any, chains: Any, step: Any, counter: Any) -> None:
    """words (4, block) = the 32-bit words of one counter of every chain."""
    for i in range(words.shape[1]):
        a, b, c, d = philox(counter, step, chains[i], stream, seed & LOW, seed >> SHIFT)
        words[0, i], words[1, i], words[2, i], words[3, i] = a, b, c, d


@compiled
def _two_states(own: Any, total: Any, word: Any, table: Any, changed: Any) -> None:
    """own (block,) = 1 where the word is below table[2 total + own], else 0; `changed` counts the changes."""
    for i in range(own.size):
        old = own[i]
        new = np.int8(word[i] < table[2 * total[i] + old])
        changed[i] += old ^ new
        own[i] = new


@compiled
def _add(total: Any, a: Any, b: Any) -> None:
    for i in range(total.size):
        total[i] += a[i] + b[i]


@compiled
def two_state_block(
    labels: Any, moved: Any, chains: Any, start: Any, stop: Any, nb: Any, table: Any, n_sweeps: Any,
    seed: Any, stream: Any, trajectory: Any,
) -> None:  # fmt: skip
    """`n_sweeps` sweeps, site after site, of chains start .. stop of labels (n, V), in place.

    table (2 (2d + 1),) uint64: 2^32 times the probability that a site is 1 afterwards, by 2 * (neighbours in
    state 1) + its state. moved (n,): the fraction of visits that changed the state.
    """
    n_sites, block = labels.shape[1], stop - start
    sites, keys = np.empty((n_sites, block), np.int8), chains[start:stop]
    words, total = np.empty((4, block), np.uint64), np.empty(block, np.int8)
    changed = np.zeros(block, np.int64)
    for x in range(n_sites):
        for i in range(block):
            sites[x, i] = labels[start + i, x]
    for k in range(n_sweeps * n_sites):
        x = k % n_sites
        if k % 4 == 0:
            _words(words, seed, stream, keys, trajectory, np.uint64(k // 4))
        total[:] = 0
        for mu in range(0, nb.shape[1], 2):
            if nb[x, mu] != np.uint64(x):
                _add(total, sites[nb[x, mu]], sites[nb[x, mu + 1]])
        _two_states(sites[x], total, words[k % 4], table, changed)
    for x in range(n_sites):
        for i in range(block):
            labels[start + i, x] = sites[x, i]
    for i in range(block):
        moved[start + i] = changed[i] / (n_sweeps * n_sites)


@compiled
def heat_bath_range(
    labels: Any, moved: Any, nb: Any, bond: Any, weight: Any, n_sweeps: Any, seed: Any, stream: Any,
    chains: Any, trajectory: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """The same of q states, by heat bath; bond (2d + 1,) = exp(K n), weight (q,)."""
    n_sites, n_states = labels.shape[1], weight.size
    below, count = np.empty(n_states), np.zeros(n_states, np.int64)
    for c in range(start, stop):
        own, changed = labels[c], 0
        for k in range(n_sweeps * n_sites):
            x = k % n_sites
            count[:] = 0
            for mu in range(nb.shape[1]):
                if nb[x, mu] != np.uint64(x):
                    count[own[nb[x, mu]]] += 1
            total = 0.0
            for a in range(n_states):
                total += bond[count[a]] * weight[a]
                below[a] = total
            u = total * uniform_at(seed, stream, chains[c], trajectory, np.uint64(k))
            new = 0
            while new < n_states - 1 and below[new] <= u:
                new += 1
            changed += new != own[x]
            own[x] = new
        moved[c] = changed / (n_sweeps * n_sites)


@compiled
def metropolis_range(
    labels: Any, moved: Any, nb: Any, bond: Any, weight: Any, n_sweeps: Any, seed: Any, stream: Any,
    chains: Any, trajectory: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """The same by Metropolis: another state, each as likely, accepted with min(1, exp(-dS))."""
    n_sites, n_states = labels.shape[1], weight.size
    for c in range(start, stop):
        own, changed = labels[c], 0
        for k in range(n_sweeps * n_sites):
            x = k % n_sites
            old, at = own[x], np.uint64(2 * k)
            u = uniform_at(seed, stream, chains[c], trajectory, at)
            new = (old + 1 + min(np.int64(u * (n_states - 1)), n_states - 2)) % n_states
            here = there = 0
            for mu in range(nb.shape[1]):
                if nb[x, mu] != np.uint64(x):
                    here += own[nb[x, mu]] == old
                    there += own[nb[x, mu]] == new
            u = uniform_at(seed, stream, chains[c], trajectory, at + np.uint64(1))
            if u * bond[here] * weight[old] < bond[there] * weight[new]:
                own[x] = new
                changed += 1
        moved[c] = changed / (n_sweeps * n_sites)


@compiled
def wolff_range(
    labels: Any, sizes: Any, nb: Any, coupling: Any, log_weight: Any, seed: Any, stream: Any,
    state_stream: Any, chains: Any, trajectory: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """Single clusters of chains start .. stop of labels (n, V), in place; sizes (n, n_clusters), 0 where the
    new state was refused.

    A cluster of equal states grows with probability 1 - exp(-K) a bond; it is offered one of the other
    states, accepted with min(1, [w(new)/w(old)]^size): what a ghost spin in the direction of the field does,
    summed over its bonds.
    """
    n_sites, n_neighbours, n_states = labels.shape[1], nb.shape[1], log_weight.size
    stack, cluster = np.empty(n_sites + n_neighbours, np.uint64), np.empty(n_sites, np.uint64)
    member, buffer = np.zeros(n_sites, np.uint8), np.empty(256)
    for c in range(start, stop):
        own = labels[c]
        first, used = np.uint64(0), 0
        refill(buffer, seed, stream, chains[c], trajectory, first)
        for k in range(sizes.shape[1]):
            size, top = 0, 1
            root = np.uint64(min(np.int64(-np.expm1(-buffer[used]) * n_sites), n_sites - 1))
            used += 1
            state = own[root]
            member[root], stack[0] = np.uint8(1), root
            while top > 0:
                if used + n_neighbours >= buffer.size:
                    first, used = first + np.uint64(used >> 1), used & 1
                    refill(buffer, seed, stream, chains[c], trajectory, first)
                top -= 1
                x = stack[top]
                cluster[size] = x
                size += 1
                for mu in range(n_neighbours):
                    y = nb[x, mu]
                    open_bond = (own[y] == state) & (member[y] == 0)
                    joins = open_bond & (buffer[used] < coupling)
                    used += open_bond
                    member[y] |= np.uint8(joins)
                    stack[top] = y
                    top += joins
            at = np.uint64(2 * k)
            u = uniform_at(seed, state_stream, chains[c], trajectory, at)
            new = (state + 1 + min(np.int64(u * (n_states - 1)), n_states - 2)) % n_states
            u = uniform_at(seed, state_stream, chains[c], trajectory, at + np.uint64(1))
            gain = size * (log_weight[new] - log_weight[state])
            takes = gain >= 0.0 or u < np.exp(gain)
            for i in range(size):
                member[cluster[i]] = np.uint8(0)
                if takes:
                    own[cluster[i]] = new
            sizes[c, k] = size if takes else 0


@compiled
def swendsen_wang_range(
    labels: Any, n_clusters: Any, largest: Any, nb: Any, coupling: Any, log_weight: Any, seed: Any,
    bond_stream: Any, state_stream: Any, chains: Any, trajectory: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """All clusters of chains start .. stop of labels (n, V), in place: every cluster of size s takes state a
    with probability w(a)^s / sum of these, which is the ghost spin summed over its bonds."""
    n_sites, dim, n_states = labels.shape[1], nb.shape[1] // 2, log_weight.size
    exponential, uniform = np.empty(n_sites * dim), np.empty(n_sites)
    label, size = np.empty(n_sites, np.uint64), np.empty(n_sites, np.int64)
    new = np.empty(n_sites, np.int8)
    top = log_weight.max()
    for c in range(start, stop):
        own = labels[c]
        fill_exponentials(exponential, seed, bond_stream, chains[c], trajectory)
        fill_uniforms(uniform, seed, state_stream, chains[c], trajectory)
        for x in range(n_sites):
            label[x] = x
        for x in range(n_sites):
            for mu in range(dim):
                y = nb[x, 2 * mu]
                if own[x] == own[y] and exponential[x * dim + mu] < coupling:
                    unite(label, np.uint64(x), y)
        size[:] = 0
        for x in range(n_sites):
            label[x] = label[label[x]]  # no site hangs below a later one, so the parent is final already
            size[label[x]] += 1
        count, most = 0, np.int64(0)
        for x in range(n_sites):
            if size[x] == 0:
                continue
            count, most = count + 1, max(most, size[x])
            total = 0.0
            for a in range(n_states):
                total += np.exp(size[x] * (log_weight[a] - top))
            below, state = np.exp(size[x] * (log_weight[0] - top)), 0
            while state < n_states - 1 and below <= uniform[x] * total:
                state += 1
                below += np.exp(size[x] * (log_weight[state] - top))
            new[x] = state
        for x in range(n_sites):
            own[x] = new[label[x]]
        n_clusters[c], largest[c] = count, most
