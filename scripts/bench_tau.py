#!/usr/bin/env python
"""Autocorrelation times and cost of phi^4 updates at one coupling: the baseline for any other sampler.

    python scripts/bench_tau.py --out DIR [--algorithms hmc wolff ...] [--sizes 8 16 32 64 128] [--budget 60]

Every algorithm is tuned as its best friend would: all its candidates run a short pilot, the better half goes
on for twice as long, and so on. Compared is the CPU time per independent configuration, 2 tau_int times CPU
seconds per trajectory, with the slowest of M^2, |M| and S. The winner then runs for the whole budget, its
chains being replicas of the Gamma method. All begin with equilibrium fields, made by Wolff + HMC from hot,
cold and domain-wall starts that are required to agree: allowed, as every update here is exact, and the budget
goes into measuring.

One JSON per point, written when it is finished; the same command goes on where it stopped. Processes with
different --algorithms may share --out, one per core; a last call with all of them makes the tables, the fits
and the figure.
"""

# ruff: noqa: E402 - the number of threads must be set before numba and torch start
from __future__ import annotations

import argparse
import math
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # costs are per core
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import numpy as np
import torch
from bench_common import KAPPA, LAM, machine, machine_line
from bench_recipes import CANDIDATES, Recipe, make_sweep
from bench_report import OBSERVABLES, describe, figure, tables

from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, write_atomic, write_json
from lattice.simulation.starts import start_fields, start_names
from lattice.simulation.tuning import scaled_steps
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.notation import format_value
from lattice.updates.fourier import measured_inverse_mass

CHAIN_LENGTH = 100  # tau_int that a chain should last; with fewer the number of chains is reduced
MALA_UP_TO = 32  # beyond, no budget of minutes sees its tau_int
AGREE = 4.0  # standard errors within which starts must agree


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kappa", type=float, default=KAPPA)
    parser.add_argument("--lam", type=float, default=LAM)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128], help="L of L x L")
    parser.add_argument("--algorithms", nargs="+", choices=list(CANDIDATES),
                        default=list(CANDIDATES))  # fmt: skip
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per point; pilots take half more")
    parser.add_argument("--seed", type=int, default=1, help="0 <= seed < 2^32")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    if not 0 <= options.seed < 2**32 or options.budget <= 0 or min(options.sizes) < 2:
        parser.error("seed must be in [0, 2^32), budget > 0 and sizes >= 2")
    return options


def observe(action: ScalarPhi4, phi: Floats) -> Floats:
    """M^2, |M| and S/V of every chain: (3, n)."""
    m = phi.reshape(len(phi), -1).mean(axis=1)
    return np.array([m * m, np.abs(m), action.action(torch.from_numpy(phi)).numpy() / phi[0].size])


class Chains:
    """Chains under one sweep: their series, acceptances, and the CPU seconds of the updates alone."""

    def __init__(
        self, action: ScalarPhi4, recipe: Recipe, phi: Floats, seed: int, propagator: Floats
    ) -> None:
        self.action, self.recipe, self.phi, self.cpu = action, recipe, phi, 0.0
        self.series: list[Floats] = []
        self.acceptances: list[dict[str, float]] = []
        self.seed = (seed << 32) | zlib.crc32(canonical_json([recipe, list(phi.shape)]).encode())
        self._tune(propagator)
        self.sweep = make_sweep(action, self.recipe, self.seed, propagator)
        self.sweep(phi, 0)  # compiles; not counted

    def _tune(self, propagator: Floats) -> None:
        """Give HMC the step number of its target acceptance, by a few trajectories."""
        settings = self.recipe.get("hmc")
        if settings is None or settings.get("n_steps"):
            return
        step = 0.4 * min(1.0, 16.0 / math.sqrt(self.phi[0].size)) ** 0.5  # dH ~ V (step size)^4
        n_steps, phi = max(2, round(settings["length"] / step)), self.phi
        for t in range(5):
            recipe = {"hmc": {**settings, "n_steps": n_steps}}
            phi, accepted = make_sweep(self.action, recipe, self.seed ^ 1, propagator)(phi, t)
            n_steps = scaled_steps(n_steps, accepted["hmc"], settings["target"], settings["integrator"])
        self.recipe = {**self.recipe, "hmc": {**settings, "n_steps": n_steps}}

    def run(self, seconds: float, at_least: int = 2) -> None:
        """Go on for `seconds` of wall time, measuring included."""
        end, done = time.perf_counter() + seconds, 0
        while done < at_least or time.perf_counter() < end:
            begin = time.process_time()
            self.phi, acceptance = self.sweep(self.phi, 1 + len(self.series))
            self.cpu += time.process_time() - begin
            self.series.append(observe(self.action, self.phi))
            self.acceptances.append(acceptance)
            done += 1

    @property
    def cpu_per_trajectory(self) -> float:
        return self.cpu / (len(self.series) * len(self.phi))

    def summary(self) -> dict[str, Any]:
        names = self.acceptances[0]
        return {"recipe": self.recipe, "n_chains": len(self.phi), "n_traj": len(self.series),
                "cpu_per_trajectory": self.cpu_per_trajectory,
                "acceptance": {name: float(np.mean([a[name] for a in self.acceptances])) for name in names},
                }  # fmt: skip


def short_tau(series: Floats) -> float:
    """tau_int of series (n_traj, n_chains) that may be shorter than it: a sum, then an exponential tail.

    Only pilots use it, to rank; where rho has not fallen to 1/4 within half of the series the rest is taken
    to decay as it did so far.

    >>> bool(short_tau(np.random.default_rng(1).normal(size=(100, 50))) < 0.6)
    True
    """
    x = series - series.mean()
    variance, tau, rho, t = float((x * x).mean()), 0.5, 1.0, 0
    while rho > 0.25 and t < len(x) // 2:
        t += 1
        rho = float((x[t:] * x[:-t]).mean()) / variance
        tau += rho
    rho = min(max(rho, 0.0), 0.999)
    return max(0.5, tau + (rho / (rho ** (-1.0 / t) - 1.0) if rho > 1e-6 else 0.0))


def pilot_cost(chains: Chains) -> float:
    """CPU seconds per independent configuration, by the slowest observable, roughly."""
    series = np.array(chains.series)
    return 2.0 * max(short_tau(series[:, i]) for i in range(len(OBSERVABLES))) * chains.cpu_per_trajectory


def tournament(candidates: list[Chains], seconds: float) -> tuple[Chains, list[dict[str, Any]]]:
    """The best of the candidates: the better half of each round enters the next, which lasts as long."""
    rounds = max(1, math.ceil(math.log2(len(candidates))))
    alive, pilots = list(candidates), []
    for number in range(rounds):
        for chains in alive:
            chains.run(seconds / rounds / len(alive))
        alive.sort(key=pilot_cost)
        kept = max(1, len(alive) // 2) if number < rounds - 1 else 1
        pilots += [{**c.summary(), "cost": pilot_cost(c), "rounds": number + 1} for c in alive[kept:]]
        alive = alive[:kept]
    best = alive[0]
    pilots.append({**best.summary(), "cost": pilot_cost(best), "rounds": rounds})
    return best, pilots[::-1]


def equilibrium(action: ScalarPhi4, extent: int, seed: int, folder: Path) -> tuple[Floats, dict[str, Any]]:
    """Equilibrium fields (n, L, L) and their record, kept in `folder`; `InputError` if the starts differ."""
    path, request = folder / f"start_L{extent}.npy", {**action.as_dict(), "L": extent, "seed": seed}
    if path.is_file() and path.with_suffix(".json").is_file():
        record = read_json(path.with_suffix(".json"))
        _check_request(path, record["request"], request)
        return np.load(path), record
    n, shape = max(16, min(256, 2**17 // extent**2)), (extent, extent)
    recipe: Recipe = {"wolff": {"n_clusters": 4},
                      "hmc": {"length": 2.0, "n_steps": 10, "integrator": "omelyan2"}}  # fmt: skip
    sweep = make_sweep(action, recipe, seed, np.ones(shape))
    phi, t = start_fields(action, shape, n, seed), 0
    hot = np.array([name == "hot" for name in start_names(n)])
    for n_sweeps in (200, 400, 800):
        seen = []
        for step in range(n_sweeps):
            phi, _ = sweep(phi, t)
            t += 1
            if step >= n_sweeps // 2:  # the first half is discarded
                seen.append(observe(action, phi))
        means = np.mean(seen, axis=0)
        error = np.sqrt(sum(means[:, side].var(axis=1, ddof=1) / side.sum() for side in (hot, ~hot)))
        pulls = (means[:, hot].mean(axis=1) - means[:, ~hot].mean(axis=1)) / error
        if np.abs(pulls).max() < AGREE:
            record = {"request": request, "recipe": recipe, "n_chains": n, "n_therm": t,
                      "pulls_hot_against_others": dict(zip(OBSERVABLES, pulls.tolist()))}  # fmt: skip
            _store(path, phi, record)
            return phi, record
    raise InputError(f"L={extent}: hot and other starts differ by {np.abs(pulls).max():.1f} errors after "
                     f"{t} sweeps")  # fmt: skip


def _store(path: Path, phi: Floats, record: dict[str, Any]) -> None:
    write_atomic(path, lambda file: np.save(file, phi))
    write_json(path.with_suffix(".json"), record)


def measure_point(algorithm: str, extent: int, options: argparse.Namespace) -> dict[str, Any]:
    """Tune, run and estimate one point; a series too short for its tau_int says so in "failure"."""
    action = ScalarPhi4(options.kappa, options.lam)
    phi, start = equilibrium(action, extent, options.seed, options.out)
    propagator = measured_inverse_mass(phi)
    few = phi[: max(16, len(phi) // 4)]
    pilots = [Chains(action, r, few, options.seed, propagator) for r in CANDIDATES[algorithm](extent)]
    best, record = tournament(pilots, options.budget / 2)
    tau = pilot_cost(best) / (2.0 * best.cpu_per_trajectory)
    affordable = options.budget / (best.cpu_per_trajectory * CHAIN_LENGTH * tau)
    n = min(len(phi), max(8, 2 ** int(math.log2(max(1.0, affordable)))))
    chains = Chains(action, best.recipe, phi[:n], options.seed ^ 2**31, propagator)
    chains.run(options.budget, at_least=20)
    return {"request": _request(algorithm, extent, options), "machine": machine(), "budget": options.budget,
            **chains.summary(), **estimates(chains, extent**2), "start": start, "pilots": record}  # fmt: skip


def estimates(chains: Chains, volume: int) -> dict[str, Any]:
    series = np.array(chains.series)  # (n_traj, 3, n_chains)
    out: dict[str, Any] = {"tau_int": {}, "mean": {}, "failure": None}
    try:
        for i, name in enumerate(OBSERVABLES):
            e = gamma_method(np.ascontiguousarray(series[:, i].T[:, :, None]))
            out["tau_int"][name], out["mean"][name] = [e.tau_int, e.tau_int_error], [e.value, e.error]
    except EstimatorError as error:
        return {**out, "failure": f"{name}: {error}"}
    per_tau = 2.0 * chains.cpu_per_trajectory
    slowest = max(out["tau_int"], key=lambda name: float(out["tau_int"][name][0]))
    return {**out, "slowest": slowest, "cost_M2": [per_tau * x for x in out["tau_int"]["M2"]],
            "cost_slowest": [per_tau * x for x in out["tau_int"][slowest]], "volume": volume}  # fmt: skip


def _request(algorithm: str, extent: int, options: argparse.Namespace) -> dict[str, Any]:
    return {"algorithm": algorithm, "L": extent, "kappa": options.kappa, "lam": options.lam,
            "seed": options.seed}  # fmt: skip


def _check_request(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    if stored != wanted:
        raise InputError(f"{path}: made with {stored}, not {wanted}; give another --out")


def point(algorithm: str, extent: int, options: argparse.Namespace) -> dict[str, Any]:
    """The stored point if it is finished, else a new one; failed points are done again."""
    path = options.out / f"{algorithm}_L{extent}.json"
    if path.is_file():
        stored = read_json(path)
        _check_request(path, stored["request"], _request(algorithm, extent, options))
        if stored["failure"] is None:
            return stored
    result = measure_point(algorithm, extent, options)
    write_json(path, result)
    return result


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    torch.set_num_threads(1)
    print(machine_line(), flush=True)
    points = []
    try:
        for extent in options.sizes:
            for algorithm in options.algorithms:
                if algorithm == "mala" and extent > MALA_UP_TO:
                    continue
                begin = time.perf_counter()
                p = point(algorithm, extent, options)
                points.append(p)
                what = p["failure"] or f"tau_int(M2) = {format_value(*p['tau_int']['M2'])}"
                took = f"[{time.perf_counter() - begin:.0f} s]"
                print(f"{algorithm} L={extent}: {what}, {describe(p['recipe'])} {took}", flush=True)
        text = tables(points)
        write_atomic(options.out / "table.md", (machine_line() + "\n\n" + text + "\n").encode())
        if any(p["failure"] is None for p in points):
            figure(points, options.out / "tau.png")
    except InputError as error:
        print(f"bench_tau: {error}", file=sys.stderr)
        return 2
    print("\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
