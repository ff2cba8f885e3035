"""The summary of a run: observables of the training ensemble and of the sample, raw and corrected.

`summarize` makes the content of summary.json from a finished run folder, `verdict` judges it, `table_text`
prints it. A column or number that does not exist (no log-weights, hence no ESS, ln Z or KL) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffsq.config.config import Config
from diffsq.run_folder.records import certificate_of
from lattice.errors import InputError
from lattice.files import code_version, read_json
from lattice.statistics import pulls
from lattice.statistics.notation import aligned, format_value, parse_value

TABLE = (
    "abs_magnetization", "susceptibility", "susceptibility_full", "binder", "action_density", "phi2",
    "xi_2nd", "kappa4_ratio", "kappa6_ratio",
)  # fmt: skip
COLUMNS = ("training", "raw", "weighted", "metropolis")
KL = ("wiener", "base", "model", "gain", "gain_error")  # of the whole path, in nats per configuration
MAX_PULL = 3.0
NOTHING: dict[str, Any] = {"observables": {}}  # a column that could not be measured


def summarize(config: Config, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of summary.json: one `measure` JSON per column, pulls, ESS, ln Z, KL, seconds, versions."""
    diagnostics = read_json(folder / "samples" / "diagnostics.json")
    columns, notes = _columns(config, folder)
    reference = config.active_reference()
    summary: dict[str, Any] = {
        "name": config.name,
        "config": json.loads(config.model_dump_json()),
        "columns": columns,
        "notes": notes,
        "reference": reference.model_dump(mode="json") if reference else None,
        "ess": {
            f"{way}{suffix}": (diagnostics.get(way) or {}).get(f"ess{suffix}")
            for way in ("reverse", "forward") for suffix in ("", "_error")
        },
        "acceptance": diagnostics.get("acceptance"),
        "ln_z": {"value": diagnostics.get("ln_z"), "error": diagnostics.get("ln_z_error")},
        "kl": {name: (diagnostics.get("kl") or {}).get(name) for name in KL},
        "warnings": diagnostics.get("warnings", []),
        "checks": {name: _check(folder, name) for name in config.checks},
        "seconds": seconds,
        "versions": code_version(),
    }  # fmt: skip
    return {**summary, "verdict": verdict(summary, certificate_of(folder))}


def _check(folder: Path, name: str) -> dict[str, Any]:
    content = read_json(folder / "checks" / f"{name}.json")
    return {"passed": content["passed"], "text": content["text"]}


def _columns(config: Config, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Measured columns, and for each that could not be measured the reason."""
    from diffsq.exactness.weights import metropolis_ensemble
    from lattice.ensembles.ensemble import Ensemble, read_ensemble
    from lattice.observables.measure import measure

    samples = read_ensemble(folder / "samples")
    makers: dict[str, Callable[[], Ensemble]] = {
        "training": lambda: read_ensemble(folder / "ensemble"),
        "raw": lambda: samples,
    }
    if samples.log_weight is not None:
        makers["weighted"] = lambda: samples
        makers["metropolis"] = lambda: metropolis_ensemble(samples, config.seed)
    columns: dict[str, Any] = {}
    notes: dict[str, str] = {}
    if samples.log_weight is None:
        notes["weighted, metropolis"] = f"the sampler {config.sampling.method!r} gives no log-weights"
    for name, make in makers.items():
        try:
            columns[name] = measure(make(), ignore_weights=name == "raw")
        except InputError as error:  # an estimator that cannot answer is a result too
            notes[name] = str(error)
    return columns, notes


def truth_of(summary: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What the columns are held against: the reference where there is one, else the training ensemble."""
    if summary["reference"] is not None:
        known = {name: parse_value(text) for name, text in summary["reference"]["values"].items()}
        return {name: pair for name, pair in known.items() if math.isfinite(pair[1])}
    found = summary["columns"].get("training", NOTHING)["observables"]
    return {name: (e["value"], e["error"]) for name, e in found.items() if e["error"] is not None}


def pull(entry: dict[str, Any] | None, truth: tuple[float, float] | None) -> float | None:
    """(value - truth) / combined error, or None where either is missing.

    >>> pull({"value": 1.5, "error": 0.3}, (1.0, 0.4))
    1.0
    """
    if entry is None or truth is None or entry["value"] is None or entry["error"] is None:
        return None
    if math.hypot(entry["error"], truth[1]) == 0:
        return None
    return pulls.pull(entry["value"], entry["error"], *truth)


def verdict(summary: dict[str, Any], certificate: dict[str, Any]) -> dict[str, Any]:
    """Largest |pull| of each column over the table's rows.

    passed: the ensemble is certified and every weighted and Metropolis row has an error and a pull within 3.
    """
    truth = truth_of(summary)
    worst: dict[str, float | None] = {}
    for column in COLUMNS:
        observables = summary["columns"].get(column, NOTHING)["observables"]
        pulls = [abs(p) for name in TABLE if (p := pull(observables.get(name), truth.get(name))) is not None]
        worst[column] = max(pulls, default=None)
    lnz = pull(summary["ln_z"], truth.get("ln_z"))
    worst["ln_z"] = None if lnz is None else abs(lnz)
    corrected = ("weighted", "metropolis")
    missing = [
        f"{column} {name}"
        for column in corrected
        for name in TABLE
        if name in truth
        and pull(summary["columns"].get(column, NOTHING)["observables"].get(name), truth[name]) is None
    ]
    within = all(w is None or w <= MAX_PULL for w in (worst[c] for c in (*corrected, "ln_z")))
    against = "reference" if summary["reference"] is not None else "training"
    failed = [name for name, check in summary.get("checks", {}).items() if check["passed"] is False]
    return {
        "against": against,
        "certified": bool(certificate["passed"]),
        "max_pull": worst,
        "missing": missing,
        "failed_checks": failed,
        "passed": bool(certificate["passed"] and within and not missing and not failed),
    }


def table_text(summary: dict[str, Any]) -> str:
    """The final table for the terminal: value(error) [pull] per column, then ESS, acceptance, ln Z, KL."""
    truth, columns = truth_of(summary), summary["columns"]
    against = summary["verdict"]["against"]
    shown = [c for c in COLUMNS if c in columns]
    heads = (["reference"] if against == "reference" else []) + shown
    rows = [["observable", *heads]]
    for name in TABLE:
        cells = [_value(*truth[name]) if name in truth else "-"] if against == "reference" else []
        for column in shown:
            entry = columns[column]["observables"].get(name)
            p = None if column == against else pull(entry, truth.get(name))
            cells.append(_entry(entry) + (f" [{p:+.1f}]" if p is not None else ""))
        rows.append([name, *cells])
    lines = aligned(rows)
    lines.append(f"value(error) [pull against the {against}]; kappa-lambda convention")
    lines += [f"{column}: not measured, {why}" for column, why in summary["notes"].items()]
    for name, check in summary.get("checks", {}).items():
        lines += ["", f"check {name}:", check["text"], ""]
    return "\n".join([*lines, *_tail(summary, truth)])


def _tail(summary: dict[str, Any], truth: dict[str, tuple[float, float]]) -> list[str]:
    ess, kl, lnz = summary["ess"], summary["kl"], summary["ln_z"]
    lines = []
    if ess["reverse"] is not None:
        forward = _value(ess["forward"], ess["forward_error"])
        lines.append(f"ESS/N: reverse {_value(ess['reverse'], ess['reverse_error'])}, forward {forward}")
    if summary["acceptance"] is not None:
        lines.append(f"Metropolis acceptance {summary['acceptance']:.3f}")
    if lnz["value"] is not None:
        p = pull(lnz, truth.get("ln_z"))
        known = f" (reference {_value(*truth['ln_z'])} [{p:+.1f}])" if p is not None else ""
        lines.append(f"ln Z = {_value(lnz['value'], lnz['error'])}{known}")
    parts = [f"{name} {kl[name]:.3g}" for name in ("wiener", "base", "model") if kl.get(name) is not None]
    if kl.get("gain") is not None:
        parts.append(f"gain {_value(kl['gain'], kl.get('gain_error'))}")
    if parts:
        lines.append(f"path KL on held-out data: {', '.join(parts)}")
    lines += [f"warning: {line}" for line in summary.get("warnings", [])]
    lines.append("seconds: " + ", ".join(f"{stage} {s:.0f}" for stage, s in summary["seconds"].items()))
    worst = ", ".join(
        f"{name} {w:.1f}" for name, w in summary["verdict"]["max_pull"].items() if w is not None
    )
    lines.append(
        f"verdict: {'passed' if summary['verdict']['passed'] else 'NOT passed'} (largest |pull|: {worst})"
    )
    return lines


def _entry(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None or entry["value"] is None else _value(entry["value"], entry["error"])


def _value(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if error is None or error <= 0 else format_value(value, error)
