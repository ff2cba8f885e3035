"""Block Gibbs of a Gaussian machine, as an update that makes an ensemble: certified, and as slow as known.

rho(1) = 1 - lambda/mu^2 of every mode of K, tau_int = mu^2/lambda - 1/2 in sweeps. The ensemble is made anew,
in the run's checks/gibbs, by `lattice.simulate` with the update "gibbs".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.plots.machines import gibbs_figure
from diffsq.run_folder.finished import MachineBench
from lattice.actions.gaussian_rbm import GaussianMachine
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.manifest import FILES
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import gibbs_rho, gibbs_tau_int
from lattice.files import json_data, read_json
from lattice.progress import Progress
from lattice.requests import without
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import GROWS, Recipe
from lattice.simulation.simulate import simulate
from lattice.statistics.gamma import gamma_method
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import sidak_threshold, sigmas_of

THERM = 30.0  # slowest tau_int before the first saved sweep
LENGTH = 60.0  # slowest tau_int of each chain, where that is no more than
MOST_BYTES = 5e8  # of fields
MIN_CHAINS = 8
N_MODES = 8


def run(
    bench: MachineBench, progress: Progress, n_chains: int = 64, n_sweeps: int | None = None
) -> dict[str, Any]:
    """n_sweeps of each chain, null for 60 of the slowest tau_int, or as many as 0.5 GB hold.

    The verdict: the ensemble is certified, and rho(1) and tau_int of all modes shown agree with the closed
    forms. Raises `InputError` for a mass that cuts every mode, where a sweep forgets everything.
    """
    machine = bench.machine
    mu2, values = float(machine.mu2), np.linalg.eigh(machine.kernel.numpy())
    lam, basis = np.asarray(values[0]), np.asarray(values[1])
    if not lam[0] < 0.999 * mu2:
        raise InputError("no mode is below mu^2: the hidden nodes are not coupled to the fields")
    tau = float(gibbs_tau_int(lam, mu2)[0])
    action = GaussianMachine(machine.w.numpy(), mu2, machine.s)
    held = int(MOST_BYTES / (8 * n_chains * len(lam)))
    length = n_sweeps or max(400, min(math.ceil(LENGTH * tau), held))
    parameters = MonteCarlo(
        n_configs=n_chains * length, n_chains=n_chains, n_therm=max(50, math.ceil(THERM * tau)),
        update="gibbs", cluster="none", n_clusters=0,
    )  # fmt: skip
    out = bench.folder / "checks" / "gibbs"
    _clear_other(out, Recipe(action, bench.config.shape, parameters, bench.seed).request())
    made = simulate(action, bench.config.shape, parameters, seed=bench.seed, out=out, progress=progress)
    chosen = np.unique(np.linspace(0, len(lam) - 1, min(N_MODES, len(lam))).round().astype(int))
    chosen = chosen[lam[chosen] < 0.999 * mu2]
    modes = [_mode(made, basis[:, i], float(lam[i]), mu2) for i in chosen]
    certificate = made.attrs["certificate"]
    most = sidak_threshold(2 * len(modes))
    pulls = [*(row["sigmas"] for row in modes), *(abs(row["tau_pull"]) for row in modes)]
    return {
        "passed": bool(certificate["passed"] and max(pulls) < most), "certified": certificate["passed"],
        "reason": certificate["reason"], "n": len(made), "n_chains": n_chains, "mu2": mu2, "modes": modes,
        "largest_pull": max(pulls), "threshold": most, "slowest": tau,
    }  # fmt: skip


def refuse(n_chains: int = 64, n_sweeps: int | None = None) -> None:
    """`InputError` for chains that no error can be had of."""
    if n_chains < MIN_CHAINS or n_chains % 2:
        raise InputError(f"the check gibbs needs an even n_chains >= {MIN_CHAINS}, got {n_chains}")
    if n_sweeps is not None and n_sweeps < 100:
        raise InputError(f"the check gibbs needs n_sweeps >= 100, got {n_sweeps}")


def _clear_other(out: Path, request: dict[str, Any]) -> None:
    """Remove the check's own ensemble of other settings, or longer than asked for; a shorter one goes on."""
    found = read_json(out / "manifest.json").get("request") if (out / "manifest.json").is_file() else None
    if found is None:
        return
    now = json_data(request, "request")
    longer = found["ensemble"]["n_configs"] > now["ensemble"]["n_configs"]
    if not longer and without(found, GROWS) == without(now, GROWS):
        return
    for path in out.iterdir():
        if FILES.fullmatch(path.name):
            path.unlink()


def _mode(made: Ensemble, wave: Floats, lam: float, mu2: float) -> dict[str, Any]:
    """One mode of K: rho(1) with its error over chains, tau_int by the Gamma method."""
    x = made.phi.reshape(len(made), -1) @ wave
    series = [x[rows] for rows in made.replicas()]
    each = np.array([(s[1:] * s[:-1]).mean() for s in series]), np.array([(s**2).mean() for s in series])
    rho = each[0].mean() / each[1].mean()
    spread = (each[0] - rho * each[1]) / each[1].mean()
    error = float(spread.std(ddof=1) / math.sqrt(len(series)))
    estimate = gamma_method([s[:, None] for s in series])
    known, tau = float(gibbs_rho(np.array([lam]), mu2)[0]), float(gibbs_tau_int(np.array([lam]), mu2)[0])
    return {
        "lambda": lam, "rho": float(rho), "rho_error": error, "rho_exact": known,
        "rho_pull": float((rho - known) / error), "tau": estimate.tau_int,
        "tau_error": estimate.tau_int_error, "tau_exact": tau,
        "tau_pull": float((estimate.tau_int - tau) / estimate.tau_int_error),
        "sigmas": sigmas_of(float(rho - known), error, len(series) - 1),
        "variance": float(lam * each[1].mean()),
    }  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """A row per mode."""
    rows = [["lambda", "rho(1)", "1 - lambda/mu^2", "tau_int", "mu^2/lambda - 1/2"]]
    for row in result["modes"]:
        rows.append([
            f"{row['lambda']:.6g}", format_value(row["rho"], row["rho_error"]), f"{row['rho_exact']:.6f}",
            format_value(row["tau"], row["tau_error"]), f"{row['tau_exact']:.6g}",
        ])  # fmt: skip
    reason = f" ({result['reason']})" if result["reason"] else ""
    lines = [
        *aligned(rows),
        f"{result['n']} fields of {result['n_chains']} chains, one a sweep: "
        f"{'certified' if result['certified'] else 'NOT certified'}{reason}; largest pull "
        f"{result['largest_pull']:.1f}, {result['threshold']:.1f} is allowed",
        "passed" if result["passed"] else "NOT passed",
    ]
    return "\n".join(lines)


def figure(result: dict[str, Any]) -> Figure:
    """tau_int against lambda/mu^2."""
    return gibbs_figure(result)
