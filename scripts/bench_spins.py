"""Updates of Ising spins at T_c: speed beside plain NumPy on the same clock, tau_int and z of each.

    python scripts/bench_spins.py [--sizes 16 32 64] [--chains 256] [--sweeps 20] [--repeat 5] [--tau 4000]

NumPy's rival is a checkerboard heat bath of one lattice, the plain program; and the same of all chains in one
array. Of clusters it is one Swendsen-Wang update with scipy's connected components. tau_int in sweeps, of
Wolff in clusters and, comparable, in clusters times their mean size over V.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bench_common import machine_line, race, rates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lattice.actions.spins import Ising
from lattice.arrays import Floats
from lattice.exact.ising import CRITICAL
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.notation import aligned, format_value
from lattice.updates.spins import (
    heat_bath_sweep,
    spin_metropolis_sweep,
    spin_swendsen_wang_update,
    spin_wolff_update,
)

UPDATES: dict[str, Callable[..., Any]] = {
    "heat bath": heat_bath_sweep, "Metropolis": spin_metropolis_sweep,
    "Swendsen-Wang": spin_swendsen_wang_update, "Wolff": spin_wolff_update,
}  # fmt: skip


def checkerboard(s: Floats, t: float, rng: np.random.Generator, mask: Any) -> Floats:
    """One heat bath sweep of spins (..., L, L), half of the sites at a time."""
    for half in mask:
        h = sum(np.roll(s, shift, axis) for axis in (-1, -2) for shift in (1, -1))
        new = np.where(rng.random(s.shape) < 1 / (1 + np.exp(-2 * h / t)), 1.0, -1.0)
        s = np.where(half, new, s)
    return s


def plain_swendsen_wang(s: Floats, t: float, rng: np.random.Generator) -> Floats:
    """One update of a lattice (L, L): bonds by NumPy, clusters by scipy."""
    sites = np.arange(s.size).reshape(s.shape)
    pairs = []
    for axis in (0, 1):
        open_bond = (s == np.roll(s, -1, axis)) & (rng.random(s.shape) < -math.expm1(-2 / t))
        pairs.append((sites[open_bond], np.roll(sites, -1, axis)[open_bond]))
    row, column = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
    graph = coo_array((np.ones(len(row), dtype=np.int8), (row, column)), shape=(s.size, s.size))
    n, label = connected_components(graph, directed=False)
    return np.where(rng.random(n) < 0.5, 1.0, -1.0)[label].reshape(s.shape)


def equilibrium(action: Ising, n: int, side: int) -> Floats:
    """Chains (n, L, L) after 60 cluster updates."""
    phi = np.ones((n, side, side))
    for step in range(60):
        phi, _ = spin_swendsen_wang_update(action, phi, seed=1, chains=np.arange(n), trajectory=step)
    return phi


def speeds(side: int, n: int, sweeps: int, repeat: int) -> list[list[str]]:
    """Site updates per second and core of every update, beside NumPy."""
    action, rng = Ising(CRITICAL), np.random.default_rng(1)
    phi, sites = equilibrium(action, n, side), side * side
    mask = [np.indices((side, side)).sum(0) % 2 == parity for parity in (0, 1)]
    keys: dict[str, Any] = {"seed": 1, "chains": np.arange(n), "trajectory": 0, "n_threads": 1}

    def sweep(update: Callable[..., Any]) -> Callable[[], float]:
        def run() -> float:
            update(action, phi, **keys, n_sweeps=sweeps)
            return float(n * sites * sweeps)

        return run

    def plain(s: Floats, times: int, step: Callable[[Floats], Floats]) -> Callable[[], float]:
        def run() -> float:
            for _ in range(times):
                step(s)
            return float(s.size * times)

        return run

    def clusters() -> float:
        spin_swendsen_wang_update(action, phi, **keys)
        return float(n * sites)

    runs = {
        "heat bath": sweep(heat_bath_sweep), "Metropolis": sweep(spin_metropolis_sweep),
        "NumPy, one lattice": plain(phi[0], 20, lambda s: checkerboard(s, CRITICAL, rng, mask)),
        "NumPy, all chains": plain(phi, 1, lambda s: checkerboard(s, CRITICAL, rng, mask)),
        "Swendsen-Wang": clusters,
        "NumPy and scipy clusters": plain(phi[0], 20, lambda s: plain_swendsen_wang(s, CRITICAL, rng)),
    }  # fmt: skip
    found = {name: float(np.median(rates(turns))) for name, turns in race(runs, repeat).items()}
    local, cluster = found["NumPy, one lattice"], found["NumPy and scipy clusters"]
    rows = []
    for name, rate in found.items():
        rival = cluster if name in ("Swendsen-Wang", "NumPy and scipy clusters") else local
        rows.append([str(side), name, f"{rate / 1e6:.2f}", f"{1e9 / rate:.1f}", f"{rate / rival:.1f}"])
    return rows


def tau(side: int, name: str, length: int, n: int) -> tuple[float, float, float]:
    """tau_int of S with its error, in updates, and the mean work of one in sweeps."""
    action, phi = Ising(CRITICAL), equilibrium(Ising(CRITICAL), n, side)
    series, work = np.empty((length, n)), 0.0
    for step in range(length):
        phi, info = UPDATES[name](action, phi, seed=2, chains=np.arange(n), trajectory=step)
        work += float(info.size.mean()) / side**2 if name == "Wolff" else 1.0
        near = sum((phi * np.roll(phi, 1, axis)).mean(axis=(1, 2)) for axis in (1, 2))
        m2 = phi.mean(axis=(1, 2)) ** 2
        series[step] = m2 if name in ("heat bath", "Metropolis") else near
    found = gamma_method([series[:, c : c + 1] for c in range(n)])
    return found.tau_int, found.tau_int_error, work / length


def autocorrelation(sizes: Sequence[int], length: int, n: int) -> list[str]:
    """tau_int by size, and z of a fit through all sizes."""
    rows = [["update", *(f"L = {side}" for side in sizes), "z"]]
    for name in UPDATES:
        logs, cells = [], []
        for side in sizes:
            try:
                value, error, work = tau(side, name, length, n)
            except EstimatorError as refused:
                cells.append(f"refused: {refused}"[:40])
                continue
            cells.append(format_value(value * work, error * work))
            logs.append((math.log(side), math.log(value * work), error / value))
        z = "-"
        if len(logs) > 2:
            x, y, e = np.array(logs).T
            fit, covariance = np.polyfit(x, y, 1, w=1 / e, cov="unscaled")
            z = format_value(float(fit[0]), float(np.sqrt(covariance[0, 0])))
        rows.append([name, *cells, z])
    return [*aligned(rows), "tau_int = 1/2 + sum rho at T_c in sweeps (Wolff: clusters times size/V): of M^2 "
            "for local updates, of S for clusters; z of a straight line through all sizes"]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--chains", type=int, default=256)
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tau", type=int, default=0, help="updates of a chain to measure tau_int; 0: not")
    args = parser.parse_args(argv)
    rows = [["L", "update", "10^6 sites/s", "ns a site", "x plain NumPy"]]
    for side in args.sizes:
        rows += speeds(side, args.chains, args.sweeps, args.repeat)
    print("\n".join([machine_line(), *aligned(rows)]))
    if args.tau:
        print("\n".join(autocorrelation(args.sizes, args.tau, 32)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
