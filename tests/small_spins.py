"""Ising and Potts configurations of small tori for tests: a heat bath on two sublattices."""

from __future__ import annotations

import numpy as np

from lattice.arrays import Floats, Integers
from lattice.rng import uniforms


def ising(n: int, size: int, temperatures: Floats, sweeps: int = 200, seed: int = 1) -> Integers:
    """Spins (n_temperatures n, size^2) of +-1 after `sweeps` of the even torus, n at every temperature in
    turn; temperature 0 is all up or all down."""
    t = np.repeat(np.asarray(temperatures, dtype=np.float64), n)
    rows = np.arange(len(t))
    first = uniforms(seed, "test/spins/start", rows, 0, size * size).reshape(-1, size, size)
    # starts of one sign: a quench would leave stripes
    s = np.where(first[:, :1, :1] < 0.5, -1, 1) * np.ones((1, size, size), dtype=np.int64)
    even = np.add.outer(np.arange(size), np.arange(size)) % 2 == 0
    beta = np.where(t > 0, 1 / np.where(t > 0, t, 1.0), 1e6)[:, None, None]
    for sweep in range(sweeps):
        u = uniforms(seed, "test/spins", rows, sweep, size * size).reshape(s.shape)
        for part in (even, ~even):
            field = sum(np.roll(s, shift, axis) for shift in (1, -1) for axis in (1, 2))
            up = 1 / (1 + np.exp(np.clip(-2 * beta * field, -700, 700)))
            s = np.where(part, np.where(u < up, 1, -1), s)
    return s.reshape(len(t), -1)


def enumerated(size: int, t: float) -> tuple[Integers, Floats]:
    """All spins (2^V, V) of a small torus, and their Boltzmann weights."""
    states = (np.arange(2 ** (size * size))[:, None] >> np.arange(size * size)) & 1
    s = (2 * states - 1).reshape(-1, size, size)
    bonds = (s * np.roll(s, 1, 1)).sum((1, 2)) + (s * np.roll(s, 1, 2)).sum((1, 2))
    p = np.exp((bonds - bonds.max()) / t)
    return s.reshape(len(s), -1), p / p.sum()


def drawn(states: Integers, p: Floats, n: int, seed: int = 1) -> Integers:
    """n independent rows of `states` with probabilities p."""
    u = uniforms(seed, "test/spins/drawn", np.arange(1), 0, n)[0]
    return states[np.minimum(np.searchsorted(np.cumsum(p), u), len(p) - 1)]
