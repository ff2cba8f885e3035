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
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # costs are per core
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import numpy as np
import torch
from bench_updates import machine, machine_line

from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, write_atomic, write_json
from lattice.rng import uniforms
from lattice.simulation.starts import start_fields, start_names
from lattice.simulation.tuning import scaled_steps
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.notation import format_value
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.fourier import measured_inverse_mass
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.integrator import scheme
from lattice.updates.langevin import langevin_update
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep

Recipe = dict[str, dict[str, Any]]  # the updates of one trajectory in their order, with their settings
Sweep = Callable[[Floats, int], tuple[Floats, dict[str, float]]]  # (phi, trajectory) -> (phi', acceptances)
OBSERVABLES = ("M2", "absM", "S")
JITTER = 0.2  # of the HMC length, one draw for all chains: no mode may come back to where it was
CHAIN_LENGTH = 100  # tau_int that a chain should last; with fewer the number of chains is reduced
MALA_UP_TO = 32  # beyond, no budget of minutes sees its tau_int
AGREE = 4.0  # standard errors within which starts must agree
STYLE = {
    "hmc": ("HMC", "#0072B2", "o"),
    "hmc-fourier": ("HMC, Fourier-\naccelerated", "#56B4E9", "s"),
    "wolff": ("Wolff + HMC", "#D55E00", "^"),
    "wolff-local": ("Wolff + local", "#E69F00", "v"),
    "sw": ("Swendsen\u2013Wang", "#009E73", "D"),
    "mala": ("MALA", "#CC79A7", "P"),
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kappa", type=float, default=0.27088)
    parser.add_argument("--lam", type=float, default=0.022)
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


# The algorithms: a candidate is a recipe; HMC without n_steps is tuned to its target acceptance.


def hmc_settings(lengths: tuple[float, ...], targets: tuple[float, ...], **more: Any) -> list[dict[str, Any]]:
    integrators = ("leapfrog", "omelyan2")
    return [{"length": length, "integrator": integrator, "target": target, **more}
            for length in lengths for integrator in integrators for target in targets]  # fmt: skip


def hmc_lengths(extent: int) -> tuple[float, ...]:
    """Trajectory lengths worth trying: the best one grows with the correlation length, that is with L."""
    every = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    return tuple(x for x in every if extent / 32 <= x <= max(12, extent / 2))


def local_partners() -> list[Recipe]:
    """What moves the amplitudes between cluster updates."""
    metropolis = {"width": 1.5, "n_sweeps": 1}
    return [{"metropolis": metropolis}] + [
        {"overrelaxation": {"n_sweeps": n}, "metropolis": metropolis} for n in (1, 2, 4)
    ]


def hmc_partners() -> list[Recipe]:
    return [{"hmc": {"length": x, "integrator": "omelyan2", "target": 0.8}} for x in (1, 2, 4)]


CANDIDATES: dict[str, Callable[[int], list[Recipe]]] = {
    "hmc": lambda L: [{"hmc": s} for s in hmc_settings(hmc_lengths(L), (0.7, 0.9))],
    "hmc-fourier": lambda L: [
        {"hmc": s}
        for power in (1.0, 0.5)
        for s in hmc_settings((0.5, 1, 1.5, 2.5, 4, 6), (0.8,), power=power)
    ],
    "wolff": lambda L: [
        {"wolff": {"n_clusters": n}, **p} for n in (1, 2, 4, 8, 16) for p in hmc_partners()
    ],
    "wolff-local": lambda L: [
        {"wolff": {"n_clusters": n}, **p} for n in (1, 2, 4, 8, 16) for p in local_partners()
    ],
    "sw": lambda L: [{"sw": {}, **p} for p in (*local_partners(), *hmc_partners())],
    # its acceptance falls with the volume; a trajectory is L^2/16 steps, as tau_int grows
    "mala": lambda L: [
        {"mala": {"step": s, "n_steps": max(4, L * L // 16)}} for s in (0.02, 0.05, 0.1, 0.2)
    ],
}  # fmt: skip


def make_sweep(action: ScalarPhi4, recipe: Recipe, seed: int, propagator: Floats) -> Sweep:
    """One trajectory: the updates of `recipe` one after the other, on one core."""

    def hmc(phi: Floats, common: dict[str, Any], s: dict[str, Any]) -> tuple[Floats, float | None]:
        u = float(uniforms(seed, "bench/length", np.zeros(1, dtype=np.int64), common["trajectory"], 1)[0, 0])
        mass = propagator ** s["power"] if "power" in s else None
        phi, info = hmc_trajectory(action, phi, length=s["length"] * (1.0 + JITTER * (2.0 * u - 1.0)),
                                   n_steps=s["n_steps"], integrator=s["integrator"], inverse_mass=mass,
                                   **common)  # fmt: skip
        return phi, float(info.accepted.mean())

    def mala(phi: Floats, common: dict[str, Any], s: dict[str, Any]) -> tuple[Floats, float | None]:
        phi, info = langevin_update(action, phi, metropolis=True, **s, **common)
        return phi, float(info.accepted.mean())

    def local(update: Callable[..., Any]) -> Callable[..., tuple[Floats, float | None]]:
        def call(phi: Floats, common: dict[str, Any], s: dict[str, Any]) -> tuple[Floats, float | None]:
            phi, info = update(action, phi, **s, **common)
            return phi, float(info.acceptance.mean()) if hasattr(info, "acceptance") else None

        return call

    updates = {"hmc": hmc, "mala": mala, "wolff": local(wolff_update), "sw": local(swendsen_wang_update),
               "metropolis": local(metropolis_sweep),
               "overrelaxation": local(overrelaxation_sweep)}  # fmt: skip

    def sweep(phi: Floats, trajectory: int) -> tuple[Floats, dict[str, float]]:
        common = {"seed": seed, "chains": np.arange(len(phi)), "trajectory": trajectory, "n_threads": 1}
        acceptance = {}
        for name, settings in recipe.items():
            phi, accepted = updates[name](phi, common, settings)
            if accepted is not None:
                acceptance[name] = accepted
        return phi, acceptance

    return sweep


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


# Points


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


# Results


def fit_z(lengths: Floats, values: Floats, errors: Floats) -> tuple[float, float, float, int]:
    """z of value ~ L^z by weighted least squares of logarithms: (z, error, chi2, degrees of freedom).

    The error is enlarged by sqrt(chi2/dof) where that exceeds 1; nan with fewer than two points.

    >>> z, error, chi2, dof = fit_z(np.array([16.0, 32.0, 64.0]), np.array([1.0, 4.0, 16.0]), np.full(3, 0.1))
    >>> round(z, 6), dof
    (2.0, 1)
    """
    if len(lengths) < 2:
        return math.nan, math.nan, math.nan, 0
    x, y, weight = np.log(lengths), np.log(values), (values / errors) ** 2
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre) ** 2).sum()
    z = (weight * (x - centre) * y).sum() / spread
    chi2 = float((weight * (y - (weight * y).sum() / weight.sum() - z * (x - centre)) ** 2).sum())
    dof = len(x) - 2
    return float(z), float(spread**-0.5 * max(1.0, math.sqrt(chi2 / dof) if dof else 1.0)), chi2, dof


def forces(recipe: Recipe) -> float:
    """Force evaluations of one trajectory, nan where something else moves the field too."""
    (name, s), *others = recipe.items()
    if others or name not in ("hmc", "mala"):
        return math.nan
    return float(s["n_steps"] * (scheme(s["integrator"]).force_evaluations if name == "hmc" else 1))


# column of the table of exponents -> what it is of a point: (value, error) and a factor
EXPONENTS: dict[str, Callable[[dict[str, Any]], tuple[list[float], float]]] = {
    "tau M2 in trajectories": lambda p: (p["tau_int"]["M2"], 1.0),
    "tau abs M in trajectories": lambda p: (p["tau_int"]["absM"], 1.0),
    "tau S in trajectories": lambda p: (p["tau_int"]["S"], 1.0),
    "tau M2 in forces": lambda p: (p["tau_int"]["M2"], forces(p["recipe"])),
    "CPU per independent configuration and site, M2": lambda p: (p["cost_M2"], 1.0 / p["volume"]),
    "the same, slowest": lambda p: (p["cost_slowest"], 1.0 / p["volume"]),
}


def exponents(points: list[dict[str, Any]], smallest: int = 16) -> list[list[Any]]:
    """Per algorithm: its name, the number of points, and z of each of `EXPONENTS`.

    The settings are tuned at each L, so z in trajectories is no dynamical exponent where the trajectory grows
    with L; z in forces, or of the CPU time, is what a user pays.
    """
    rows = []
    for algorithm in dict.fromkeys(p["request"]["algorithm"] for p in points):
        used = [p for p in points if p["request"]["algorithm"] == algorithm]
        used = [p for p in used if p["request"]["L"] >= smallest]
        lengths = np.array([float(p["request"]["L"]) for p in used])
        row: list[Any] = [algorithm, len(used)]
        for of in EXPONENTS.values():
            pairs = np.array([np.multiply(*of(p)) for p in used]).reshape(-1, 2)
            row.append(fit_z(lengths, pairs[:, 0], pairs[:, 1]))
        rows.append(row)
    return rows


def shown_tau(value: float, error: float) -> str:
    """tau_int(error); an anticorrelated series, raised to 1/2 by the Gamma method, is a bound."""
    return "<= 0.5" if value < 0.5001 else format_value(value, error)


def describe(recipe: Recipe) -> str:
    parts = []
    for name, s in recipe.items():
        shown = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                 for key, value in s.items() if key != "target"]  # fmt: skip
        parts.append(f"{name} ({', '.join(shown)})" if shown else name)
    return " + ".join(parts)


def tables(points: list[dict[str, Any]]) -> str:
    """Markdown: one row per point, the exponents, and whether all algorithms agree on the averages."""
    lines = ["| algorithm | L | chains x trajectories | tau M2 | tau abs M | tau S | acceptance "
             "| CPU ms per trajectory | CPU s per independent configuration: M2 | slowest | V M2 "
             "| one trajectory |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    done = [p for p in points if p["failure"] is None]
    for p in done:
        tau = [shown_tau(*p["tau_int"][name]) for name in OBSERVABLES]
        m2 = format_value(*(p["volume"] * x for x in p["mean"]["M2"]))
        acceptance = ", ".join(f"{a:.2f}" for a in p["acceptance"].values())
        costs = [format_value(*p[key]) for key in ("cost_M2", "cost_slowest")]
        cells = [p["request"]["algorithm"], p["request"]["L"], f"{p['n_chains']} x {p['n_traj']}", *tau,
                 acceptance, f"{1e3 * p['cpu_per_trajectory']:.3g}", costs[0], f"{costs[1]} ({p['slowest']})",
                 m2, describe(p["recipe"])]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [f"| {p['request']['algorithm']} | {p['request']['L']} | no result: {p['failure']} |"
              for p in points if p["failure"] is not None]  # fmt: skip
    lines += ["", "z, from L >= 16, each L tuned on its own:", "",
              f"| algorithm | points | {' | '.join(EXPONENTS)} |",
              "|---" * (2 + len(EXPONENTS)) + "|"]  # fmt: skip
    for algorithm, n, *fits in exponents(done):
        shown = [f"{format_value(z, error)}, chi2 {chi2:.1f}/{dof}" if n > 1 and math.isfinite(z) else "-"
                 for z, error, chi2, dof in fits]  # fmt: skip
        lines.append(f"| {algorithm} | {n} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", agreement(done)])


def agreement(points: list[dict[str, Any]]) -> str:
    """The largest pull of any algorithm's mean against the weighted mean of all algorithms at the same L.

    All began with the same fields; chains of 100 tau_int forget them, so the runs count as independent.
    """
    largest, where = 0.0, "nothing to compare"
    for extent in {p["request"]["L"] for p in points}:
        same = [p for p in points if p["request"]["L"] == extent]
        for name in OBSERVABLES:
            value, error = np.array([p["mean"][name] for p in same]).T
            mean, variance = (value / error**2).sum() / (error**-2).sum(), 1 / (error**-2).sum()
            for p, v, e in zip(same, value, error):
                pull = abs(v - mean) / math.sqrt(max(e * e - variance, 1e-300)) if len(same) > 1 else 0.0
                if pull > largest:
                    largest, where = pull, f"{p['request']['algorithm']} L={extent} {name}"
    return f"Largest pull of a mean against the weighted mean of all algorithms: {largest:.1f} ({where})."


def figure(points: list[dict[str, Any]], path: Path) -> None:
    """tau_int(M^2) and CPU seconds per independent configuration against L, one curve per algorithm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    plt.rcParams.update({"font.size": 15, "axes.spines.top": False, "axes.spines.right": False})
    drawn, axes = plt.subplots(1, 2, figsize=(14.5, 5.8), layout="constrained")
    done = [p for p in points if p["failure"] is None]
    for ax, key in zip(axes, ("tau", "cost_M2")):
        for algorithm in dict.fromkeys(p["request"]["algorithm"] for p in done):
            mine = [p for p in done if p["request"]["algorithm"] == algorithm]
            mine.sort(key=lambda p: p["volume"])
            y, error = np.array([p["tau_int"]["M2"] if key == "tau" else p[key] for p in mine]).T
            label, colour, marker = STYLE[algorithm]
            ax.errorbar([p["request"]["L"] for p in mine], y, error, marker=marker, ms=8, lw=2.2, capsize=4,
                        color=colour, label=label)  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="$L$")
        ax.xaxis.set_major_locator(FixedLocator(sorted({p["request"]["L"] for p in done})))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.grid(alpha=0.25)
    axes[0].set_ylabel(r"$\tau_{\rm int}(M^2)$ in tuned trajectories")
    axes[1].set_ylabel("CPU s per independent configuration")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    first = points[0]["request"]
    couplings = rf"$\kappa={first['kappa']:g}$, $\lambda={first['lam']:g}$"
    drawn.suptitle(rf"$\phi^4$ in two dimensions, {couplings}, one core")
    write_atomic(path, lambda file: drawn.savefig(file, dpi=160, format="png"))
    plt.close(drawn)


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
