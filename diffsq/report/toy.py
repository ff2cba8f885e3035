"""The page of a run on one variable: ``build_toy_report(run_dir)``, as self-contained as the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq import plots
from diffsq.analysis.flow_limits import limit_cells
from diffsq.config.toy import ToyConfig, load_run_config
from diffsq.plots import complex_langevin, complex_plane, cumulants, learned_action
from diffsq.plots.training import losses
from diffsq.report.page import fill, run_tail
from diffsq.report.reader import Absent, NotRun, RunFolder
from diffsq.report.sections import Draw, section
from diffsq.run_folder.toy_summary import pulls, sample_lines, strip
from diffsq.training.checkpoint import read_lines
from lattice.ensembles.ensemble import read_ensemble
from lattice.files import write_atomic
from lattice.observables.moments import NAMES, parts, show

FORMULAS = {
    "complex_gaussian": "S = ½ σ<sub>0</sub> z²", "complex_quartic": "S = ½ σ<sub>0</sub> z² + ¼ λ z⁴",
    "real_quartic": "S = ½ μ² φ² + (g/4!) φ⁴",
    "two_peak": "p = ½ [N(μ<sub>0</sub>, σ<sub>0</sub>²) + N(−μ<sub>0</sub>, σ<sub>0</sub>²)]",
}  # fmt: skip
KINDS = {
    "complex_gaussian": "Complex Gaussian", "complex_quartic": "Complex quartic model",
    "real_quartic": "Real quartic model", "two_peak": "Two-peak law",
}  # fmt: skip
SYMBOLS = {"sigma0": "σ₀", "lam": "λ", "mu2": "μ²", "g": "g", "mu0": "μ₀"}


def build_toy_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from a finished run on one variable, and return its path."""
    run = RunFolder(Path(run_dir))
    path = run.path / "report.html"
    write_atomic(path, fill("toy.html.j2", _context(run)).encode("utf-8"))
    return path


def _context(run: RunFolder) -> dict[str, Any]:
    summary, action = run.summary, run.config["action"]
    is_complex = bool(summary["complex"])
    certificate = run.certificate
    title = "Verdict on complex Langevin" if is_complex else "Certificate of the exact draws"
    reading = (
        "Complex Langevin can converge to a wrong answer without a sign of it in any chain. Every check has "
        "its number and error: a power-law tail of the drift or a boundary term is <i>wrong</i>, anything "
        "else that fails is <i>doubtful</i>."
        if is_complex
        else "Independent draws by inverse distribution function; their moments against quadrature."
    )
    sections = [section(run, key, title_, draw) for key, title_, draw in _sections(summary)]
    return {
        "name": summary["name"], "action": _words(action), "formula": FORMULAS[action["kind"]],
        "verdict": _verdict(summary), "tiles": _tiles(summary), "complex": is_complex,
        "certificate": certificate, "certificate_title": title, "certificate_reading": reading,
        "certificate_note": "", "sections": sections,
        "problems": [each for each in sections if each.problem],
        "columns": list(summary["columns"]), "rows": _rows(summary),
        "baseline": "the data the models learned from" if summary["against"] == "data" else "the exact value",
        "scan": summary["scan"], "limits": limit_cells(summary["limits"], summary["exact"]),
        "lines": [*sample_lines(summary), *summary["diagnostics"].get("lines", [])], **run_tail(run),
    }  # fmt: skip


def _words(action: Mapping[str, Any]) -> str:
    def number(value: Any) -> str:
        if isinstance(value, list):
            return f"{value[0]:g} {'+' if value[1] >= 0 else '−'} {abs(value[1]):g}i"
        return f"{value:g}"

    couplings = [f"{SYMBOLS[key]} = {number(value)}" for key, value in action.items() if key in SYMBOLS]
    return ", ".join([KINDS[action["kind"]], *couplings])


def _verdict(summary: Mapping[str, Any]) -> dict[str, str]:
    verdict = summary["verdict"]
    worst = max(verdict["max_pull"].values(), default=0.0)
    what = "the data it learned from" if verdict["against"] == "data" else "the exact values"
    text = f"{'Passed' if verdict['passed'] else 'Not passed'}. Largest deviation from {what}: {worst:.1f}σ."
    if verdict["leaks"]:
        text += f" Weight beyond the strip: {', '.join(verdict['leaks'])}."
    if not verdict["certified"]:
        text += " The data are not certified."
    return {"text": text, "grade": "ok" if verdict["passed"] else "off"}


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    tiles = []
    if summary["ensemble_verdict"]:
        word = summary["ensemble_verdict"]
        tiles.append({"label": "complex Langevin", "value": word, "note": "verdict below"})
    for name, pull in summary["verdict"]["max_pull"].items():
        n = summary["columns"][name]["n"]
        tiles.append({"label": name, "value": f"{pull:.1f}σ", "note": f"largest pull, {n} configurations"})
    for name, column in summary["columns"].items():
        if "acceptance" in column["about"]:
            tiles.append({
                "label": f"{name}: acceptance", "value": f"{column['about']['acceptance']:.3f}",
                "note": "of the learned energy",
            })  # fmt: skip
    return tiles[:9]


def _rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    marks = {name: pulls(summary, name) for name in summary["columns"]}
    rows = []
    for name in NAMES:
        if summary["complex"] and name == "kappa2":
            continue
        for label, part in parts(name, summary["complex"]):
            cells = []
            for column, content in summary["columns"].items():
                pull = marks.get(column, {}).get(label)
                size = abs(pull) if pull is not None else 0.0
                cells.append({
                    "text": show(content["entries"][name], part),
                    "pull": "" if pull is None else f"{pull:+.1f}σ" + "!" * ((size >= 2) + (size >= 3)),
                    "grade": "" if pull is None else "ok" if size < 2 else "warn" if size < 3 else "off",
                })  # fmt: skip
            exact = f"{summary['exact'][name][part]:.6g}"
            rows.append({"label": _symbol(label, summary), "exact": exact, "cells": cells})
    return rows


def _symbol(label: str, summary: Mapping[str, Any]) -> str:
    part, _, name = label.rpartition(" ")
    order, z = name[-1], "z" if summary["complex"] else "φ"
    symbol = f"κ<sub>{order}</sub>" if name.startswith("kappa") else f"⟨{z}<sup>{order}</sup>⟩"
    return f"{part} {symbol}" if part else symbol


def _sections(summary: Mapping[str, Any]) -> list[tuple[str, str, Draw]]:
    first: list[tuple[str, str, Draw]] = [
        ("drift", "Drift histogram", lambda run: complex_langevin.drift_histogram(run.certificate)),
        ("boundary", "Boundary terms", lambda run: complex_langevin.boundary_terms(run.certificate)),
        ("plane", "In the complex plane", _plane),
    ]
    real: list[tuple[str, str, Draw]] = [("flow", "Cumulants along the process", _flow)]
    if summary["config"]["n_parts"]:  # without parts there is no error band
        real.append(("action", "Learned effective action", _action))
    last: list[tuple[str, str, Draw]] = [("training", "Training", _training), ("pulls", "Pulls", _pulls)]
    return [*(first if summary["complex"] else real), *last]


def _plane(run: RunFolder) -> Figure:
    from diffsq.analysis.fokker_planck import log_density_map
    from diffsq.checks.toy_diagnostics import drift_of
    from diffsq.models.files import load_model
    from diffsq.models.points import PointModel

    data, learned = run.ensemble, None
    name = next(name for name in run.summary["columns"] if name != "data")
    samples = read_ensemble(run.path / "samples" / name).phi
    if "energy" in run.summary["config"]["models"]:
        model = load_model(run.path / "train" / "energy", PointModel)
        x, y = (1.03 * float(np.abs(data.phi[:, axis]).max()) for axis in (0, 1))
        sigma = float(model.log_sigma[0].exp())
        learned = log_density_map(model, drift_of(data.action), (-x, x, -y, y), sigma)
    config = load_run_config(run.path / "config.yaml")
    assert isinstance(config, ToyConfig)
    return complex_plane.density_map(data.phi, samples, learned, strip=strip(data, config))


def _flow(run: RunFolder) -> Figure:
    return cumulants.draw_flows(_diagnostics(run, "flow"))


def _action(run: RunFolder) -> Figure:
    from diffsq.checks.toy_diagnostics import learned_action as found

    config = load_run_config(run.path / "config.yaml")
    assert isinstance(config, ToyConfig)
    return learned_action.figure([found(config, run.path)], [_words(run.config["action"])])


def _training(run: RunFolder) -> Figure:
    curves = {}
    for path in sorted((run.path / "train").glob("*/metrics.jsonl")):
        lines = [line for line in read_lines(path) if "loss" in line]
        if lines:
            curves[path.parent.name] = ([line["step"] for line in lines], [line["loss"] for line in lines])
    if not curves:
        raise Absent("no optimiser steps in this run")
    return losses(curves)


def _pulls(run: RunFolder) -> Figure:
    summary = run.summary
    names = [name for name in summary["columns"] if name != "data"]
    found = {name: pulls(summary, name) for name in names}
    labels = [label for label in next(iter(found.values())) if not label.endswith(" kappa2")]  # = m2
    against = "complex Langevin data" if summary["against"] == "data" else "exact values"
    columns = {name: [pull[label] for label in labels] for name, pull in found.items()}
    return plots.pull_chart([_math(label, summary) for label in labels], columns, against=against)


def _math(label: str, summary: Mapping[str, Any]) -> str:
    part, _, name = label.rpartition(" ")
    z = "z" if summary["complex"] else r"\phi"
    symbol = rf"$\kappa_{name[-1]}$" if name.startswith("kappa") else rf"$\langle {z}^{name[-1]}\rangle$"
    return f"{part} {symbol}" if part else symbol


def _diagnostics(run: RunFolder, key: str) -> Any:
    found = run.summary["diagnostics"].get(key)
    if found is None:
        raise NotRun("run")
    return found
