"""Compiled loops behind `local`: sweeps over the sites in lexicographic order, many chains at a time.

Layout: a block of chains is (V, block), the chain innermost, so one stream of SIMD instructions updates the
same site of all chains of the block and the sites may be visited in any order.  No operation mixes two
chains, hence a chain's result depends neither on the block nor on its company, bit for bit.

With h the hopping term 2 kappa times the sum over the neighbours other than x itself, and a self-neighbour
(extent 1) moved into the mass m, the part of S that knows phi_x is

    U(phi_x) = m phi_x^2 + lam phi_x^4 - h phi_x.

A proposal is accepted where U(phi') - U(phi) < -ln u, which needs no exponential.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled, inlined, log_unit, random_bits, unit
from lattice.updates.kernels.layout import copy_chains


@inlined
def action_change(old: Any, new: Any, h: Any, mass: Any, lam: Any) -> Any:
    """U(new) - U(old), factored by new - old: no cancellation between large terms."""
    return (new - old) * ((new + old) * (mass + lam * (new * new + old * old)) - h)


@inlined
def reflection_centre(h: Any, guess: Any, stiffness: Any, quartic: Any) -> Any:
    """One Newton step towards stiffness c + quartic c^3 = h, see `local.Centre`; no function of phi_x."""
    c = guess * h
    c2 = c * c
    return (h + 2.0 * quartic * c2 * c) / (stiffness + 3.0 * quartic * c2)


@compiled
def _metropolis_row(
    f: Any, total: Any, uniform: Any, exponential: Any, accepted: Any, mass: Any, lam: Any, hop: Any,
    width: Any,
) -> None:  # fmt: skip
    for i in range(f.size):
        old = f[i]
        new = old + width * (2.0 * uniform[i] - 1.0)
        take = action_change(old, new, hop * total[i], mass, lam) < exponential[i]
        f[i] = new if take else old
        accepted[i] += 1.0 if take else 0.0


@compiled
def _overrelaxation_row(
    f: Any, total: Any, exponential: Any, accepted: Any, mass: Any, lam: Any, hop: Any, guess: Any,
    stiffness: Any,
) -> None:  # fmt: skip
    for i in range(f.size):
        old, h = f[i], hop * total[i]
        new = 2.0 * reflection_centre(h, guess, stiffness, 4.0 * lam) - old
        take = action_change(old, new, h, mass, lam) < exponential[i]
        f[i] = new if take else old
        accepted[i] += 1.0 if take else 0.0


@compiled
def _uniform_and_exponential(
    u: Any, e: Any, seed: Any, stream: Any, chains: Any, step: Any, counter: Any
) -> None:
    """u, e (block,): the first number of a counter as a uniform, the second as an exponential, -ln u."""
    for i in range(u.size):
        n0, n1 = random_bits(seed, stream, chains[i], step, counter)
        u[i], e[i] = unit(n0), -log_unit(unit(n1))


@compiled
def _two_exponentials(a: Any, b: Any, seed: Any, stream: Any, chains: Any, step: Any, counter: Any) -> None:
    """a, b (block,): both numbers of a counter as exponentials."""
    for i in range(a.size):
        n0, n1 = random_bits(seed, stream, chains[i], step, counter)
        a[i], b[i] = -log_unit(unit(n0)), -log_unit(unit(n1))


@compiled
def _add_pair(total: Any, a: Any, b: Any) -> None:
    for i in range(total.size):
        total[i] += a[i] + b[i]


@compiled
def _neighbour_sum(total: Any, phi: Any, nb: Any, x: Any) -> None:
    """total (block,) = sum over the neighbours of site x other than itself."""
    total[:] = 0.0
    for mu in range(0, nb.shape[1], 2):
        if nb[x, mu] != x:
            _add_pair(total, phi[nb[x, mu]], phi[nb[x, mu + 1]])


@compiled
def metropolis_block(
    phi: Any, out: Any, acceptance: Any, chains: Any, start: Any, stop: Any, nb: Any, mass: Any, lam: Any,
    hop: Any, width: Any, n_sweeps: Any, seed: Any, stream: Any, trajectory: Any,
) -> None:  # fmt: skip
    """`n_sweeps` Metropolis sweeps of chains start .. stop of phi (n, V) into out (n, V), acceptance (n,).

    Visit k = 0 .. n_sweeps V uses counter k of the stream: first its proposal, then its accept step.
    """
    n_sites, block = phi.shape[1], stop - start
    sites, keys = np.empty((n_sites, block)), chains[start:stop]
    total, uniform, exponential = np.empty(block), np.empty(block), np.empty(block)
    accepted = np.zeros(block)
    copy_chains(sites, phi, start, False)
    for k in range(n_sweeps * n_sites):
        x = k % n_sites
        _uniform_and_exponential(uniform, exponential, seed, stream, keys, trajectory, np.uint64(k))
        _neighbour_sum(total, sites, nb, np.uint64(x))
        _metropolis_row(sites[x], total, uniform, exponential, accepted, mass, lam, hop, width)
    copy_chains(sites, out, start, True)
    acceptance[start:stop] = accepted / (n_sweeps * n_sites)


@compiled
def overrelaxation_block(
    phi: Any, out: Any, acceptance: Any, chains: Any, start: Any, stop: Any, nb: Any, mass: Any, lam: Any,
    hop: Any, guess: Any, stiffness: Any, n_sweeps: Any, seed: Any, stream: Any, trajectory: Any,
) -> None:  # fmt: skip
    """As `metropolis_block`, overrelaxation: visit k uses the number at position k of the stream."""
    n_sites, block = phi.shape[1], stop - start
    sites, keys = np.empty((n_sites, block)), chains[start:stop]
    total, accepted, exponential = np.empty(block), np.zeros(block), np.empty((2, block))
    copy_chains(sites, phi, start, False)
    for k in range(n_sweeps * n_sites):
        x = k % n_sites
        if k % 2 == 0:
            _two_exponentials(
                exponential[0], exponential[1], seed, stream, keys, trajectory, np.uint64(k // 2)
            )
        _neighbour_sum(total, sites, nb, np.uint64(x))
        _overrelaxation_row(sites[x], total, exponential[k % 2], accepted, mass, lam, hop, guess, stiffness)
    copy_chains(sites, out, start, True)
    acceptance[start:stop] = accepted / (n_sweeps * n_sites)
