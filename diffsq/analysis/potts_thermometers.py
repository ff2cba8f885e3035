"""Thermometers of Potts spins on a small torus: e(T) exact, <|m|>(T) and c1(T) measured by Swendsen-Wang.

Exact curves of m are not known for q > 2, so that they carry errors; e is exact, and interpolated by a cubic
between four temperatures for one asked for. Every chain gives one mean: errors are their scatter.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from diffsq.analysis.thermometers import NAMES, Curve
from lattice.actions.spins import Potts
from lattice.arrays import Floats
from lattice.exact.ising import potts_torus
from lattice.observables.spins import spin_primaries
from lattice.rng import uniforms
from lattice.updates.spins import heat_bath_sweep, spin_swendsen_wang_update

CHAINS, WARM, LONG = 256, 60, 200
FINE = 4  # exact energies for one temperature


@dataclass(frozen=True)
class PottsValues:
    """e, |m|, m^2 and c1 at temperatures t (n,): values and errors (n, 4); e is exact."""

    t: Floats
    values: Floats
    errors: Floats
    fine: tuple[Floats, Floats]  # temperatures, and e there, exact

    def curve(self, name: str) -> Curve:
        """The thermometer of "e" or "abs_m", of the temperatures where it moves."""
        if name == "e":
            return Curve(*_moving(*self.fine))
        i = NAMES.index(name)
        return Curve(*_moving(self.t, self.values[:, i], self.errors[:, i]))

    def at(self, t: float) -> dict[str, float]:
        """Values at one of the temperatures."""
        i = int(np.flatnonzero(self.t == t)[0])
        found = dict(zip(NAMES, self.values[i].tolist(), strict=True))
        errors = zip(NAMES, self.errors[i].tolist(), strict=True)
        return found | {f"{name}_error": error for name, error in errors}


def _moving(t: Floats, *columns: Floats) -> list[Floats]:
    """The points at which the first column moves, from the hot end: frozen spins are all alike, whatever T
    is."""
    x = columns[0]
    keep = [len(x) - 1]
    for i in range(len(x) - 2, -1, -1):
        if (x[i] - x[keep[-1]]) / (x[0] - x[-1]) > 1e-9:
            keep.append(i)
    rows = keep[::-1]
    return [t[rows], *(column[rows] for column in columns)]


def potts_values(q: int, shape: tuple[int, int], temperatures: list[float], seed: int) -> PottsValues:
    """Measured at each temperature, CHAINS chains from random spins. T = 0 is all spins alike.

    Raises `InputError` for tori whose energy is not known exactly, and temperatures below 0.
    """
    between = [
        a + (b - a) * k / FINE
        for a, b in itertools.pairwise(temperatures)
        for k in range(FINE)
        if a > 0 or not k
    ]
    fine = np.array([*between, temperatures[-1]])
    e = np.array([-2.0 if t == 0 else potts_torus(shape, q, float(t)).e for t in fine])
    exact = dict(zip(fine.tolist(), e.tolist(), strict=True))
    rows = [_values(q, shape, t, exact[t], seed, i) for i, t in enumerate(temperatures)]
    values, errors = (np.array([row[k] for row in rows]) for k in (0, 1))
    return PottsValues(np.array(temperatures), values, errors, (fine, e))


def _values(
    q: int, shape: tuple[int, int], t: float, e: float, seed: int, i: int
) -> tuple[list[float], list[float]]:
    """Values and errors at one temperature, of exact energy e."""
    if t == 0:
        return [-2.0, 1.0, 1.0, 0.0], [0.0] * 4
    action, chains = Potts(t, q), i * CHAINS + np.arange(CHAINS)
    u = uniforms(seed, "potts/start", chains, 0, int(np.prod(shape)))
    phi = action.values((u * q).astype(np.int8)).reshape(CHAINS, *shape)
    sums = np.zeros((4, CHAINS))
    for step in range(WARM + LONG):
        phi, _ = heat_bath_sweep(action, phi, seed=seed, chains=chains, trajectory=step)
        phi, _ = spin_swendsen_wang_update(action, phi, seed=seed, chains=chains, trajectory=step)
        if step >= WARM:
            p = spin_primaries(phi, action)
            sums += np.stack([p["s"] * t, p["abs_m"], p["m2"], p["nearest"] - p["farthest"]]) / LONG
    errors = sums.std(axis=1, ddof=1) / np.sqrt(CHAINS)
    return [e, *sums.mean(axis=1)[1:].tolist()], [0.0, *errors[1:].tolist()]
