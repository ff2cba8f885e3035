"""The figure sections of the page: which files each needs and how it is drawn."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq import plots
from diffsq.checks.perform import MODULES
from diffsq.report.reader import Absent, NotRun, RunFolder
from diffsq.report.tables import COLUMNS, comparison, number, pretty, reference_values
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables import measure
from lattice.statistics.gamma import gamma_method


@dataclass(frozen=True)
class Section:
    """A heading and its figure as SVG of `width` pixels, or a note why there is none.

    A `problem` is repeated at the top of the page; with a figure it is a warning about what the figure shows.
    """

    key: str
    title: str
    figure: str = ""
    width: int = 0
    note: str = ""
    problem: bool = False
    text: str = ""  # what a check prints


def thermalisation(run: RunFolder) -> Figure:
    abs_m, density, start = run.thermalisation
    measured = ((run.summary.get("columns") or {}).get("training") or {}).get("observables") or {}
    bands = (
        number(measured.get("abs_magnetization")) or _production(run, "magnetization"),
        number(measured.get("action_density")) or _production(run, "action"),
    )
    return plots.thermalisation(abs_m, density, start, equilibrium=bands)


def _production(run: RunFolder, name: str) -> tuple[float, float] | None:
    """<|M|> or s of the ensemble itself, before the measure stage has run; None where it cannot be had."""
    try:
        ensemble = run.ensemble
        series = ensemble.series[name]
        values = np.abs(series) if name == "magnetization" else series / math.prod(ensemble.shape)
        estimate = gamma_method([values[chain][:, None] for chain in ensemble.replicas()])
    except (NotRun, InputError):
        return None
    return estimate.value, estimate.error


def autocorrelation(run: RunFolder) -> Figure:
    ensemble = run.ensemble
    m = ensemble.series["magnetization"]
    curves, windows, quoted = {}, {}, {}
    for label, series in ((r"$|M|$", np.abs(m)), (r"$M^2$", m**2), (r"$S$", ensemble.series["action"])):
        replicas = [series[chain] for chain in ensemble.replicas()]
        estimate = gamma_method([replica[:, None] for replica in replicas])
        curves[label] = plots.autocorrelation_function(replicas, max(10, 3 * estimate.window))
        windows[label], quoted[label] = estimate.window, (estimate.tau_int, estimate.tau_int_error)
    return plots.autocorrelation(curves, windows, tau_int=quoted, unit="saved configurations")


def history(run: RunFolder) -> Figure:
    losses = [line for line in run.metrics if "loss" in line and "step" in line]
    checks = [line for line in run.metrics if "val_gain" in line and "step" in line]
    return plots.training_history(
        [line["step"] for line in losses],
        [line["loss"] for line in losses],
        val_step=[line["step"] for line in checks],
        val_gain=[line["val_gain"] for line in checks],
        val_gain_error=[line.get("val_gain_error") or 0.0 for line in checks],  # 0: no bar
    )


def gain_levels(run: RunFolder) -> Figure:
    data = run.validation
    total = data.get("total") or {}
    return plots.gain_per_level(
        data["sigma"],
        np.sum(data["gain_base"], axis=1),
        np.sum(data["gain_unet"], axis=1),
        unet_error=data.get("gain_unet_error"),
        totals={key: (total[key], total.get(f"{key}_error")) for key in ("base", "unet") if key in total},
    )


def gain_shells(run: RunFolder) -> Figure:
    data = run.validation
    labels = [pretty(str(shell["label"])) for shell in data["shells"]]
    sizes = [int(shell["multiplicity"]) for shell in data["shells"]]
    return plots.gain_per_shell(data["sigma"], labels, data["gain_base"], data["gain_unet"], sizes)


def sequence(run: RunFolder) -> Figure:
    return plots.denoising_sequence(*run.sequence)


def schedule(run: RunFolder) -> Figure:
    return plots.level_schedule(run.diagnostics["levels"])


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
    data = run.diagnostics
    if not (data.get("reverse") or {}).get("log_weight"):
        raise Absent("this sampler gives no log-weights; sampling.method path does")
    return data


def path_kl(run: RunFolder) -> Figure:
    kl = _weighted(run).get("kl")
    if not kl:
        raise Absent("the path KL of this run was not measured")
    return plots.path_kl(kl)


def level_variance(run: RunFolder) -> Figure:
    data = _weighted(run)["per_level"]
    return plots.level_variance(data["sigma"], data["variance"])


def magnetization(run: RunFolder) -> Figure:
    samples = _samples(run)
    mc = _series(run.ensemble)
    if samples is None:
        return plots.magnetization_distribution(mc)
    return plots.magnetization_distribution(mc, samples.series["magnetization"], samples.log_weight)


def two_point(run: RunFolder) -> Figure:
    monte_carlo = _propagator(run, "training") or _curve(measure.two_point(run.ensemble))
    curves = {name: _propagator(run, name) for name in ("raw", "weighted")}
    return plots.two_point_function(
        monte_carlo, {name: curve for name, curve in curves.items() if curve is not None}
    )


def pulls(run: RunFolder) -> Figure:
    labels, shown, against = _pulls(run)
    return plots.pull_chart(labels, shown, against=against)


def overview(run: RunFolder) -> Figure:
    """The picture beside the page: one field denoised, and the final comparison."""
    labels, shown, against = _pulls(run)
    return plots.overview(*run.sequence, labels, shown, against=against)


def _pulls(run: RunFolder) -> tuple[list[str], dict[str, list[float]], str]:
    rows = [row for row in comparison(run.summary) if row.main]
    if not rows:
        raise NotRun("run")
    against = "reference" if reference_values(run.summary) else "Monte Carlo ensemble"
    shown = {name: [row.cells[name].pull for row in rows] for name in COLUMNS}
    shown = {name: column for name, column in shown.items() if not np.isnan(column).all()}
    if not shown:
        raise NotRun("run")
    return [row.label.math for row in rows], shown, against


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


def _samples(run: RunFolder) -> Ensemble | None:
    try:
        return run.samples
    except NotRun:
        return None


Draw = Callable[[RunFolder], Figure]

# key (also of the reading sentence in the template), title, figure; in reading order
SECTIONS: tuple[tuple[str, str, Draw], ...] = (
    ("thermalisation", "Thermalisation", thermalisation),
    ("autocorrelation", "Autocorrelation", autocorrelation),
    ("training", "Training history", history),
    ("gain-levels", "Path KL gained by noise level", gain_levels),
    ("gain-shells", "Path KL gained by momentum shell", gain_shells),
    ("schedule", "Level schedule", schedule),
    ("sequence", "One field, denoised", sequence),
    ("weights", "Log-weights", weights),
    ("path-kl", "Path KL of the chain", path_kl),
    ("level-variance", "Variance by reverse step", level_variance),
    ("pm", "Distribution of the magnetisation", magnetization),
    ("two-point", "Two-point function", two_point),
    ("pulls", "Pulls", pulls),
)


def build_sections(run: RunFolder) -> list[Section]:
    """Every section in reading order; one that cannot be drawn says why."""
    return [section(run, key, title, draw) for key, title, draw in SECTIONS] + [
        _check_section(run, name, content) for name, content in run.checks.items()
    ]


def _check_section(run: RunFolder, name: str, content: Mapping[str, Any]) -> Section:
    module = importlib.import_module(MODULES[name])
    found = section(run, f"check-{name}", f"Check: {name}", lambda _: module.figure(content["result"]))
    return replace(found, text=str(content.get("text", "")))


def section(run: RunFolder, key: str, title: str, draw: Draw) -> Section:
    """A figure of the page, or the reason why there is none."""
    try:
        figure = draw(run)
    except Absent as missing:
        return Section(key, title, note=str(missing))
    except (InputError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
        # a page with one figure missing and the reason in its place is worth more than no page
        return Section(key, title, note=f"not drawn: {_reason(error)}", problem=True)
    picture, width = plots.to_svg(figure, key), round(82 * figure.get_figwidth())
    warning = "; ".join(run.diagnostics.get("warnings", [])) if key == "weights" else ""
    return Section(key, title, picture, width, warning, problem=bool(warning))


def _reason(error: Any) -> str:
    return f"missing key {error}" if isinstance(error, KeyError) else str(error)
