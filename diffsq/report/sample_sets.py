"""The figure sections of one sample set; a run with several models has them once for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq import plots
from diffsq.report.reader import Absent, NotRun, RunFolder
from diffsq.report.sections import Draw, Section, build_sections, of_network, on_lattice
from diffsq.run_folder.summary import TRAINING, set_label
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.observables import measure


def weights(run: RunFolder) -> Figure:
    data = _weighted(run)
    ess = {
        side: (data[side]["ess"], data[side].get("ess_error") or math.nan)
        for side in ("reverse", "forward")
        if data[side].get("ess") is not None
    }
    return plots.log_weights(
        data["reverse"]["log_weight"], data["forward"]["log_weight"], data["ln_z"], ess=ess
    )


def _weighted(run: RunFolder) -> dict[str, Any]:
    """The diagnostics of a sampler with log-weights."""
    on_lattice(run)
    data = run.diagnostics
    if not (data.get("reverse") or {}).get("log_weight"):
        raise Absent("this sampler gives no log-weights; sampling.method flow or path does")
    return data


def path_kl(run: RunFolder) -> Figure:
    of_network(run)
    kl = _weighted(run).get("kl")
    if not kl:
        raise Absent("the path KL of this run was not measured")
    return plots.path_kl(kl)


def level_variance(run: RunFolder) -> Figure:
    of_network(run)
    data = _weighted(run).get("per_level")
    if data is None:
        raise Absent("a flow has no steps of noise")
    return plots.level_variance(data["sigma"], data["variance"])


def magnetization(run: RunFolder) -> Figure:
    on_lattice(run)
    mc = _series(run.ensemble)
    try:
        samples = run.samples
    except NotRun:
        return plots.magnetization_distribution(mc)
    return plots.magnetization_distribution(mc, samples.series["magnetization"], samples.log_weight)


def two_point(run: RunFolder) -> Figure:
    on_lattice(run)
    monte_carlo = _propagator(run, TRAINING) or _curve(measure.two_point(run.ensemble))
    prefix = f"{set_label(run.config, run.set_name)} " if run.other_sets else ""
    curves = {name: _propagator(run, prefix + name) for name in ("raw", "weighted")}
    return plots.two_point_function(
        monte_carlo, {name: curve for name, curve in curves.items() if curve is not None}
    )


def _propagator(run: RunFolder, column: str) -> plots.Curve | None:
    """G(k) that the measure stage stored beside the table, None before it has run."""
    table = ((run.summary.get("columns") or {}).get(column) or {}).get("two_point")
    return _curve(table) if table else None


def _curve(table: Mapping[str, Any]) -> plots.Curve:
    # null is an error the estimator refused; float64 turns it into nan, and the point stays without a bar
    x, value, error = (np.array(table[key], dtype=np.float64) for key in ("khat2", "G", "G_error"))
    return plots.Curve(x, value, error)


def _series(ensemble: Ensemble) -> Floats:
    """M ordered by chain and trajectory, so that jackknife blocks hold neighbours in Monte Carlo time."""
    return ensemble.series["magnetization"][np.concatenate(ensemble.replicas())]


OF_A_SET: tuple[tuple[str, str, Draw], ...] = (
    ("weights", "Log-weights", weights),
    ("pm", "Distribution of the magnetisation", magnetization),
    ("two-point", "Two-point function", two_point),
    ("path-kl", "Path KL of the chain", path_kl),
    ("level-variance", "Variance by reverse step", level_variance),
)


def set_sections(run: RunFolder) -> list[Section]:
    """The figures of every sample set; where several models have one, its label stands behind the title."""
    if not run.other_sets:
        return build_sections(run, OF_A_SET)
    found = []
    for name in (run.set_name, *run.other_sets):
        words = f": {set_label(run.config, name)}"
        own = tuple((f"{key}--{name}", title + words, draw) for key, title, draw in OF_A_SET)
        found += build_sections(replace(run, chosen=name), own)
    return found
