"""Spins of a diffusion model: what temperature do they have, raw and by weight?

The run samples the real field of an Ising model (`lattice.actions.ising_field`), in which the spins are
independent given the field: s is drawn from P(s|phi), so that pairs (phi, s) have the weights of phi. Energy,
order and correlation are held against the exact ones of this torus, T_E and T_m are read off as for the flow
of a Boltzmann machine, and ln Z against Kaufman's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsq.analysis.thermometers import read_energy, read_magnetisation
from diffsq.plots.spin_flow import spins_figure
from diffsq.run_folder.finished import Workbench
from lattice.actions.ising_field import IsingField
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.spins import known
from lattice.observables.measure import measure
from lattice.progress import Progress
from lattice.rng import uniforms
from lattice.statistics.notation import aligned, format_value, printed
from lattice.statistics.pulls import pull
from lattice.statistics.weights import effective_sample_size, log_moments

OF = {"action": IsingField}
NAMES = ("energy", "abs_magnetization", "c1", "specific_heat", "binder")
MOST_ROW = 10
FAR = 3.0  # sigma
MIN_ESS = 0.1
STREAM = "check/spins"


def run(bench: Workbench, progress: Progress) -> dict[str, Any]:
    """passed: weighted energy, |m| and c1, and ln Z, within 3 sigma of the exact values, with an effective
    sample size of a tenth at least: below, errors say little.

    Raises `InputError` for another action, a field, and a torus that is not square with rows up to 10 sites.
    """
    action, shape = bench.action, bench.samples.shape
    if not isinstance(action, IsingField):
        raise InputError("the check spins is for a run with action.kind: ising_field")
    if action.h or len(shape) != 2 or shape[0] != shape[1] or shape[0] > MOST_ROW:
        raise InputError(
            f"the check spins is for h = 0 and square tori up to {MOST_ROW} sites, got {action.h:g} on "
            f"{list(shape)}"
        )
    progress.start(3, "spins")
    exact, sets = known(action.spins, shape), dict[str, Any]()
    for name, ensemble in (("training", bench.ensemble), ("raw", bench.samples), ("weighted", bench.samples)):
        spins = spins_of(action, ensemble, bench.seed)
        if name != "weighted":
            spins.log_weight = None
        table = measure(spins, two_point=False)["observables"]
        sets[name] = {key: _pulled(table[key]) for key in NAMES} | _temperatures(table, shape)
        progress.update(1)
    progress.close()
    ln_z = _ln_z(action, bench.samples, exact["ln_z"])
    pulls = [sets["weighted"][name]["pull"] for name in NAMES[:3]] + [ln_z["pull"]]
    ess = effective_sample_size(bench.samples.log_weight)[0] if bench.samples.log_weight is not None else 0.0
    near = all(size is not None and abs(size) <= FAR for size in pulls)
    return {
        "passed": near and ess >= MIN_ESS, "ess": ess, "t": action.temperature, "sets": sets, "ln_z": ln_z,
        "exact": {name: exact[name] for name in NAMES}, "shape": list(shape),
    }  # fmt: skip


def spins_of(action: IsingField, ensemble: Ensemble, seed: int) -> Ensemble:
    """The ensemble of spins s drawn from P(s|phi), with the chains and weights of the fields."""
    mean = action.mean_spins(torch.from_numpy(ensemble.phi)).numpy()
    u = uniforms(seed, STREAM, np.arange(len(mean)), 0, math.prod(mean.shape[1:])).reshape(mean.shape)
    spins: Floats = np.where(2 * u - 1 < mean, 1.0, -1.0)
    return Ensemble.from_fields(spins, action.spins, ensemble.chain, ensemble.trajectory, ensemble.log_weight)


def _pulled(entry: dict[str, Any]) -> dict[str, Any]:
    size = pull(entry["value"], entry["error"], entry["exact"], 0.0) if entry["error"] else None
    return {"value": entry["value"], "error": entry["error"], "pull": size}


def _temperatures(table: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    torus, found = (shape[0], shape[1]), {}
    for label, name, read in (
        ("T_E", "energy", read_energy), ("T_m", "abs_magnetization", read_magnetisation),
    ):  # fmt: skip
        got = read(table[name]["value"], table[name]["error"] or 0.0, torus)
        finite = math.isfinite(got.t) and math.isfinite(got.error)
        found[label] = [got.t, got.error] if finite else [None, None]
    return found


def _ln_z(action: IsingField, samples: Ensemble, exact: float) -> dict[str, float]:
    """ln Z of the Ising model from the weights of the fields."""
    if samples.log_weight is None:
        return {"value": math.nan, "error": math.nan, "exact": exact, "pull": math.inf}
    value, error = log_moments(samples.log_weight, {1: 1.0})
    value -= action.ln_z_beyond(samples.shape)
    return {"value": value, "error": error, "exact": exact, "pull": pull(value, error, exact, 0.0)}


def text(result: dict[str, Any]) -> str:
    """Rows of values, temperatures and ln Z."""
    columns = list(result["sets"])
    lines = [["", "exact", *columns]]
    for name in NAMES:
        cells = []
        for column in columns:
            entry = result["sets"][column][name]
            size = "" if entry["pull"] is None else f" [{entry['pull']:+.1f}]"
            cells.append(printed(entry["value"], entry["error"]) + size)
        lines.append([name, f"{result['exact'][name]:.6g}", *cells])
    for label in ("T_E", "T_m"):
        read = [result["sets"][column][label] for column in columns]
        shown = ["-" if t is None else format_value(t, error) for t, error in read]
        lines.append([label, f"{result['t']:.6g}", *shown])
    z = result["ln_z"]
    words = f"ESS/N {result['ess']:.3g}: " + ("passed" if result["passed"] else "NOT passed")
    return "\n".join([
        *aligned(lines),
        f"ln Z of the Ising model {format_value(z['value'], z['error'])} (exact {z['exact']:.6f} "
        f"[{z['pull']:+.1f}])", words,
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """Temperatures read off the spins."""
    return spins_figure(result)
