"""The figure sections of the page: which files each needs and how it is drawn. A section whose files this
kind of run does not have is left out; one whose stage has not run says so."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq import plots
from diffsq.analysis.fokker_planck import drift_of, log_density_map
from diffsq.checks.perform import MODULES
from diffsq.plots import complex_langevin, complex_plane
from diffsq.plots.training import losses
from diffsq.report.reader import DAMAGE, Absent, NotRun, RunFolder
from diffsq.report.tables import comparison, pretty
from diffsq.run_folder.finished import PointBench, open_run
from diffsq.run_folder.summary import TRAINING
from lattice.actions.networks import NETWORKS
from lattice.errors import InputError
from lattice.statistics.gamma import gamma_method

AGAINST = {"reference": "reference", "exact": "exact values", "training": "training data"}


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


class Foreign(Absent):
    """The section belongs to another kind of run."""


def on_lattice(run: RunFolder) -> None:
    """Refuse a run on one variable, and one without action."""
    machine = run.config.get("machine") and run.config.get("lattice")
    if run.config and not run.config.get("sde") and not machine:
        raise Foreign("for fields on a lattice")


def has_table(config: Mapping[str, Any]) -> bool:
    """Whether a run has an ensemble of an action, and so columns to compare."""
    ensemble = config.get("ensemble", {})
    return ensemble is not None and "data" not in ensemble and "temperatures" not in ensemble


def of_network(run: RunFolder) -> None:
    """Refuse all but a run that trains a score of fields on a lattice."""
    if run.config and not run.config.get("sde"):
        raise Foreign("for a score of fields on a lattice")


def of_chains(run: RunFolder) -> None:
    """Refuse what is drawn independently."""
    on_lattice(run)
    if (run.config.get("action") or {}).get("kind") in NETWORKS:
        raise Foreign("for Markov chains")


def thermalisation(run: RunFolder) -> Figure:
    of_chains(run)
    abs_m, density, start = run.thermalisation
    measured = ((run.summary.get("columns") or {}).get(TRAINING) or {}).get("observables") or {}
    bands = tuple(
        (measured[name]["value"], measured[name]["error"] or math.nan)
        if name in measured
        else _production(run, series)
        for name, series in (("abs_magnetization", "magnetization"), ("action_density", "action"))
    )
    return plots.thermalisation(abs_m, density, start, equilibrium=bands)  # type: ignore[arg-type]


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
    of_chains(run)
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
    """Losses of every model of one variable; of the score on a lattice the held-out gain too."""
    if run.config.get("machine") or not has_table(run.config) or run.config.get("models") == []:
        raise Foreign("its checks show how it has learned")
    if run.config.get("sde") is None:
        curves = {name: [line for line in lines if "loss" in line] for name, lines in run.metrics.items()}
        return losses({
            name: ([line["step"] for line in lines], [line["loss"] for line in lines])
            for name, lines in curves.items() if lines
        })  # fmt: skip
    lines = run.metrics[run.lattice_model]
    steps = [line for line in lines if "loss" in line and "step" in line]
    checks = [line for line in lines if "val_gain" in line and "step" in line]
    return plots.training_history(
        [line["step"] for line in steps],
        [line["loss"] for line in steps],
        val_step=[line["step"] for line in checks],
        val_gain=[line["val_gain"] for line in checks],
        val_gain_error=[line.get("val_gain_error") or 0.0 for line in checks],  # 0: no bar
        base="Wiener filter" if _on_wiener(run) else "regression base",
        flow=_network(run) == "network",
    )


def _network(run: RunFolder) -> str:
    """What its network is called."""
    return "network" if (run.config.get("model") or {}).get("network") else "U-Net"


def _on_wiener(run: RunFolder) -> bool:
    """Whether the U-Net is a residual on the bare Wiener filter."""
    return run.lattice_model == "score" and (run.config.get("model") or {}).get("base") == "wiener"


def gain_levels(run: RunFolder) -> Figure:
    of_network(run)
    data = run.validation
    total = data.get("total") or {}
    return plots.gain_per_level(
        data["sigma"],
        None if _on_wiener(run) else np.sum(data["gain_base"], axis=1),
        np.sum(data["gain_unet"], axis=1),
        unet_error=data.get("gain_unet_level_error"),
        totals={key: (total[key], total.get(f"{key}_error")) for key in ("base", "unet") if key in total},
        network=_network(run),
    )


def gain_shells(run: RunFolder) -> Figure:
    of_network(run)
    data = run.validation
    labels = [pretty(str(shell["label"])) for shell in data["shells"]]
    sizes = [int(shell["multiplicity"]) for shell in data["shells"]]
    base = None if _on_wiener(run) else data["gain_base"]
    return plots.gain_per_shell(data["sigma"], labels, base, data["gain_unet"], sizes, _network(run))


def sequence(run: RunFolder) -> Figure:
    of_network(run)
    return plots.denoising_sequence(*run.sequence)


def schedule(run: RunFolder) -> Figure:
    of_network(run)
    return plots.level_schedule(run.diagnostics["levels"])


def drift(run: RunFolder) -> Figure:
    return complex_langevin.drift_histogram(_langevin(run))


def boundary(run: RunFolder) -> Figure:
    return complex_langevin.boundary_terms(_langevin(run))


def _langevin(run: RunFolder) -> dict[str, Any]:
    if "imaginary_noise" not in (run.config.get("ensemble") or {}):
        raise Foreign("for complex Langevin")
    return run.certificate


def plane(run: RunFolder) -> Figure:
    _langevin(run)
    bench = open_run(run.path)
    assert isinstance(bench, PointBench)
    data, learned = bench.ensemble.phi, None
    if "energy" in bench.models:
        model = bench.models["energy"]
        x, y = (1.03 * float(np.abs(data[:, axis]).max()) for axis in (0, 1))
        sigma = float(model.log_sigma[0].exp())
        learned = log_density_map(model, drift_of(bench.action), (-x, x, -y, y), sigma)
    return complex_plane.density_map(data, run.samples.phi, learned, strip=bench.strip)


def pulls(run: RunFolder) -> Figure:
    labels, shown = _pulls(run)
    return plots.pull_chart(labels, shown, against=AGAINST[run.summary["against"]])


def overview(run: RunFolder) -> Figure:
    """The picture beside the page: one field denoised, and the final comparison."""
    labels, shown = _pulls(run)
    return plots.overview(*run.sequence, labels, shown, against=AGAINST[run.summary["against"]])


def _pulls(run: RunFolder) -> tuple[list[str], dict[str, list[float]]]:
    if not has_table(run.config):
        raise Foreign("for runs with an ensemble")
    rows = [row for row in comparison(run.summary) if row.main]
    if not rows:
        raise NotRun("run")
    names = [
        name for name in run.summary["columns"] if name != TRAINING or run.summary["against"] != "training"
    ]
    shown = {name: [row.cells[name].pull for row in rows] for name in names}
    shown = {name: column for name, column in shown.items() if not np.isnan(column).all()}
    if not shown:
        raise Absent("nothing to hold the columns against")
    return [row.label.math for row in rows], shown


Draw = Callable[[RunFolder], Figure]

# key (also of the reading sentence in the template), title, figure; in reading order
FIRST: tuple[tuple[str, str, Draw], ...] = (
    ("sequence", "One field, denoised", sequence),
    ("plane", "In the complex plane", plane),
    ("pulls", "Pulls", pulls),
)
SECTIONS: tuple[tuple[str, str, Draw], ...] = (
    ("schedule", "Level schedule", schedule),
    ("training", "Training history", history),
    ("gain-levels", "Path KL gained by noise level", gain_levels),
    ("gain-shells", "Path KL gained by momentum shell", gain_shells),
    ("thermalisation", "Thermalisation", thermalisation),
    ("autocorrelation", "Autocorrelation", autocorrelation),
    ("drift", "Drift histogram", drift),
    ("boundary", "Boundary terms", boundary),
)


def build_sections(run: RunFolder, chosen: tuple[tuple[str, str, Draw], ...]) -> list[Section]:
    """The sections that belong to this kind of run, in reading order; one that cannot be drawn says why."""
    found = [section(run, key, title, draw) for key, title, draw in chosen]
    return [each for each in found if each is not None]


def check_sections(run: RunFolder) -> list[Section]:
    """One for every check made of this run."""
    return [_check_section(run, name, content) for name, content in run.checks.items()]


def _check_section(run: RunFolder, name: str, content: Mapping[str, Any]) -> Section:
    module = importlib.import_module(MODULES[name])
    text = str(content.get("text", ""))

    def draw(_: RunFolder) -> Figure:
        figure: Figure | None = module.figure(content["result"]) if hasattr(module, "figure") else None
        if figure is None:
            raise Absent("")
        return figure

    found = section(run, f"check-{name}", f"Check: {name}", draw)
    assert found is not None
    return replace(found, text=text)


def section(run: RunFolder, key: str, title: str, draw: Draw) -> Section | None:
    """A figure of the page, the reason why there is none, or None where it belongs to another kind of run."""
    try:
        figure = draw(run)
        picture, width = plots.to_svg(figure, key), round(82 * figure.get_figwidth())
        warning = "; ".join(run.diagnostics.get("warnings", [])) if key.startswith("weights") else ""
    except Foreign:
        return None
    except Absent as missing:
        return Section(key, title, note=str(missing))
    except DAMAGE as error:
        # a page with one figure missing and the reason in its place is worth more than no page
        return Section(key, title, note=f"not drawn: {_reason(error)}", problem=True)
    return Section(key, title, picture, width, warning, problem=bool(warning))


def _reason(error: Any) -> str:
    return f"missing key {error}" if isinstance(error, KeyError) else str(error)
