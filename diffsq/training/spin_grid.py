"""The spins that machines learn from: the ensembles of a grid of temperatures and fields (`grid`).

A machine learns from chains of its own, so that the scatter of machines is that of data, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsq.config.spins import FlowRow, FlowRun
from lattice.arrays import Floats
from lattice.ensembles.ensemble import read_ensemble
from lattice.rng import uniforms

Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Grid:
    """spins (n_points, n_chains, n_times, V), int8 values of phi, and the temperature of each point."""

    spins: Int8
    temperatures: Floats

    def of_machine(self, k: int, n: int, part: tuple[float, float] | None = None) -> Int8:
        """The rows (m, V) of machine k of n: every n-th chain, of temperatures in `part`, ends included."""
        low, high = part or (-np.inf, np.inf)
        chosen = self.spins[(self.temperatures >= low) & (self.temperatures <= high), k::n]
        return chosen.reshape(-1, chosen.shape[-1])

    def labelled(self, chains: slice) -> tuple[Int8, Floats]:
        """All rows of some chains, and the temperature of each."""
        rows = self.spins[:, chains]
        return rows.reshape(-1, rows.shape[-1]), np.repeat(self.temperatures, rows[0].size // rows.shape[-1])


def read_grid(config: FlowRun, out: Path) -> Grid:
    """The spins of a finished ensemble stage."""
    section, found, t = config.ensemble, list[Int8](), list[float]()
    for name, action in section.points().items():
        ensemble = read_ensemble(out / name, action)
        rows = np.stack(ensemble.replicas())
        phi = ensemble.phi.reshape(len(ensemble), -1).astype(np.int8)
        found.append(phi[rows])
        t.append(action.temperature)
    if section.ground_state:
        states = np.array([-1, 1] if section.q == 2 else range(section.q), dtype=np.int8)
        n_chains, n_times, sites = found[0].shape
        order = np.add.outer(np.arange(n_chains), np.arange(n_times)) % len(states)
        found.insert(0, np.repeat(states[order][..., None], sites, axis=-1))
        t.insert(0, 0.0)
    return Grid(np.stack(found), np.array(t))


def data_of(grid: Grid, row: FlowRow, n_seeds: int, seed: int) -> Int8:
    """What the machines of a row learn from, (n_seeds, n, V)."""
    data = np.stack([grid.of_machine(k, n_seeds, row.part) for k in range(n_seeds)])
    if row.shuffled:
        machines, n, sites = data.shape
        keys = uniforms(seed, "flow/shuffle", np.arange(machines * n), 0, sites)
        order = keys.reshape(machines, n, sites).argsort(-1)
        data = np.take_along_axis(data, order, -1)
    return data
