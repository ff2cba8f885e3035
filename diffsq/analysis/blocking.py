"""Block spins of Ising configurations: which temperature do they have, block after block?

An ensemble of the 2^n L x 2^n L torus is blocked n times by majority (`lattice.exact.real_space`); at every
stage T_E is read off e, on the torus that is left. At T_c it stays, up to what blocks leave out; otherwise it
runs away from T_c, whichever way: the opposite of a flow that ends at T_c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffsq.analysis.thermometers import Reading, read_energy
from lattice.actions.spins import Ising
from lattice.arrays import Integers
from lattice.exact.real_space import block_spins
from lattice.rng import uniforms
from lattice.updates.spins import heat_bath_sweep, spin_swendsen_wang_update

CHAINS, WARM, LONG, APART = 64, 100, 40, 5


@dataclass(frozen=True)
class Blocked:
    """By stage: the extent, e and |m| with their errors, and T_E."""

    extent: int
    e: tuple[float, float]
    abs_m: tuple[float, float]
    t_e: Reading


def blocked(t: float, side: int, n_stages: int, seed: int) -> list[Blocked]:
    """Stages 0 ... n_stages of the side x side torus at T, CHAINS independent chains from the ground state.

    Raises `InputError` for temperatures and for extents that are not divisible.
    """
    fields = _fields(t, side, seed)
    found = []
    for stage in range(n_stages + 1):
        if stage:
            n = np.arange(len(fields)) + stage * 2**20
            fields = block_spins(fields, 2, seed, n)
        found.append(_read(fields))
    return found


def _fields(t: float, side: int, seed: int) -> Integers:
    """Configurations (CHAINS * LONG, side, side) of +-1."""
    action, chains, kept = Ising(t), np.arange(CHAINS), []
    phi = np.ones((CHAINS, side, side))
    for step in range(WARM + LONG * APART):
        phi, _ = heat_bath_sweep(action, phi, seed=seed, chains=chains, trajectory=step)
        phi, _ = spin_swendsen_wang_update(action, phi, seed=seed, chains=chains, trajectory=step)
        if step >= WARM and (step - WARM) % APART == 0:
            kept.append(phi)
    sign = np.where(uniforms(seed, "blocking/sign", np.arange(CHAINS * LONG), 0, 1) < 0.5, -1, 1)
    return np.concatenate(kept).astype(np.int64) * sign[..., None]


def _read(fields: Integers) -> Blocked:
    s = np.asarray(fields, dtype=np.float64)
    e = -sum((s * np.roll(s, 1, axis)).mean(axis=(1, 2)) for axis in (1, 2))
    pairs = []
    for x in (e, np.abs(s.mean(axis=(1, 2)))):
        each = np.asarray(x).reshape(LONG, CHAINS).mean(axis=0)  # every chain one number
        pairs.append((float(each.mean()), float(each.std(ddof=1) / np.sqrt(CHAINS))))
    side = s.shape[1]
    return Blocked(side, pairs[0], pairs[1], read_energy(*pairs[0], (side, side)))
