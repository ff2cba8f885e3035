"""The summary of a run on one variable: moments and cumulants, exact, of the data and of every sample set.

The columns are held against the data they learned from (complex Langevin, whose own law nobody knows) or
against quadrature (exact draws). `summarize_toy` makes the content of summary.json, `toy_table_text` prints.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from diffsq import compare
from diffsq.records import certificate_of
from diffsq.toy_config import ToyConfig
from diffsq.toy_table import NAMES, blocks_of, estimates, exact_numbers, parts, show, variable
from lattice.ensemble import Ensemble, read_ensemble
from lattice.files import code_version, read_json
from lattice.notation import aligned, format_value
from lattice.progress import Progress
from lattice.toys import Complexified, ComplexQuartic

MAX_PULL = 3.0
MIN_ESS = 0.1  # of a learned energy; below it a few samples carry the Metropolis column


def summarize_toy(
    config: ToyConfig, folder: Path, seconds: dict[str, float], progress: Progress
) -> dict[str, Any]:
    """The content of summary.json of a finished run folder."""
    from diffsq.toy_diagnostics import diagnose

    data = read_ensemble(folder / "ensemble")
    is_complex = isinstance(data.action, Complexified)
    columns = {"data": _column(data)}
    for path in sorted((folder / "samples").iterdir()):
        if (path / "manifest.json").is_file():
            columns[path.name] = _column(read_ensemble(path))
    certificate = certificate_of(folder)
    summary: dict[str, Any] = {
        "toy": True,
        "name": config.name,
        "config": json.loads(config.model_dump_json()),
        "complex": is_complex,
        "exact": exact_numbers(data.action),
        "columns": columns,
        "against": "data" if is_complex else "exact",
        "ensemble_verdict": certificate.get("verdict"),
        "scan": read_json(folder / "samples" / "scan.json")["rows"],
        "diagnostics": diagnose(config, folder, data, progress),
        "seconds": seconds,
        "versions": code_version(),
    }
    for column in columns.values():
        if column["beyond_strip"] is not None:
            noise2 = float(column["about"].get("noise2", 0.0))
            column["beyond_strip"]["expected"] = _expected_beyond(data, noise2) * column["n"] / len(data)
    summary["verdict"] = verdict(summary, certificate)
    return summary


def _column(ensemble: Ensemble) -> dict[str, Any]:
    about = ensemble.attrs.get("about") or {}
    noise2 = float(about.get("noise2", 0.0)) if ensemble.phi.shape[1] == 1 else 0.0
    z = variable(ensemble.phi)
    return {
        "n": len(ensemble),
        "identity": ensemble.identity,
        "about": about,
        "entries": estimates(z, blocks_of(ensemble), noise2),
        "beyond_strip": _beyond(ensemble),
    }


def strip(action: Any) -> float | None:
    """y_- of the quartic model: complex Langevin stays in |y| <= y_- where 3 A^2 >= B^2, else None.

    y_-^2 = [A - sqrt(A^2 - B^2/3)]/(2 lam), sigma0 = A + iB (Aarts, Giudice, Seiler 1306.3075).
    """
    inner = action.inner if isinstance(action, Complexified) else action
    if not isinstance(inner, ComplexQuartic) or inner.lam == 0:
        return None
    a, b = complex(inner.sigma0).real, complex(inner.sigma0).imag
    if a <= 0 or 3 * a * a < b * b:
        return None
    return math.sqrt((a - math.sqrt(a * a - b * b / 3)) / (2 * inner.lam))


def _beyond(ensemble: Ensemble) -> dict[str, Any] | None:
    """How many configurations lie beyond the strip, and how far out."""
    y_minus = strip(ensemble.action)
    if y_minus is None:
        return None
    y = np.abs(ensemble.phi[:, 1])
    return {"y_minus": y_minus, "count": int((y > y_minus).sum()), "largest": float(y.max())}


def _expected_beyond(data: Ensemble, noise2: float) -> float:
    """How many of the data would lie beyond the strip with Gaussian noise of this variance added."""
    y, y_minus = data.phi[:, 1], strip(data.action)
    assert y_minus is not None
    if noise2 == 0:
        return float((np.abs(y) > y_minus).sum())
    return float(sum(ndtr((sign * y - y_minus) / math.sqrt(noise2)).sum() for sign in (1, -1)))


def pulls(summary: dict[str, Any], column: str) -> dict[str, float]:
    """Row label -> (value - baseline)/combined error of a column; rows without an error are left out."""
    found = {}
    for name in NAMES:
        entry = summary["columns"][column]["entries"][name]
        for label, part in parts(name, summary["complex"]):
            if summary["against"] == "data":
                base = summary["columns"]["data"]["entries"][name]
                truth, error = base["value"][part], base["error"][part]
            else:
                truth, error = summary["exact"][name][part], 0.0
            if math.hypot(error, entry["error"][part]) > 0:
                found[label] = compare.pull(entry["value"][part], entry["error"][part], truth, error)
    return found


def verdict(summary: dict[str, Any], certificate: dict[str, Any]) -> dict[str, Any]:
    """passed: certified data, every entry within 3 sigma, no more weight beyond the strip than the data."""
    worst = {
        name: max(map(abs, pulls(summary, name).values()), default=0.0)
        for name in summary["columns"]
        if name != summary["against"]
    }
    leaks = [name for name, column in summary["columns"].items() if _leaks(column["beyond_strip"])]
    within = all(pull <= MAX_PULL for pull in worst.values())
    return {
        "against": summary["against"], "certified": bool(certificate["passed"]), "max_pull": worst,
        "leaks": leaks, "passed": bool(certificate["passed"] and within and not leaks),
    }  # fmt: skip


def _leaks(found: dict[str, Any] | None) -> bool:
    """More beyond the strip than the data (with that sample set's noise), by over three Poisson errors."""
    return found is not None and found["count"] > found["expected"] + 3 * math.sqrt(max(found["expected"], 1))


def toy_table_text(summary: dict[str, Any]) -> str:
    """The final table for the terminal, the scan of samplers, what the model knows, and the verdict."""
    names = list(summary["columns"])
    rows = [["", "exact", *names]]
    marks = {name: pulls(summary, name) for name in names if name != summary["against"]}
    for name in NAMES:
        if summary["complex"] and name == "kappa2":
            continue  # the same number as m2
        for label, part in parts(name, summary["complex"]):
            cells = [f"{summary['exact'][name][part]:.6g}"]
            for column in names:
                text = show(summary["columns"][column]["entries"][name], part)
                mark = marks.get(column, {}).get(label)
                cells.append(text + ("" if mark is None else f" [{mark:+.1f}]"))
            rows.append([label, *cells])
    against = "data, complex Langevin" if summary["complex"] else "exact values"
    lines = [*aligned(rows), f"value(error) [pull against the {against}]; odd moments are zero by symmetry"]
    return "\n".join([*lines, *_scan_lines(summary), *_tail(summary)])


def _scan_lines(summary: dict[str, Any]) -> list[str]:
    if not summary["scan"]:
        return []
    rows = [["model", "process", "sampler", "N", "samples", "largest |pull|", "in"]]
    for row in summary["scan"]:
        rows.append([
            row["model"], row["sde"], row["method"], str(row["n_levels"]), str(row["n"]),
            "-" if row["max_pull"] is None else f"{row['max_pull']:.1f}", row["worst"],
        ])  # fmt: skip
    return ["", "other samplers:", *aligned(rows)]


def _tail(summary: dict[str, Any]) -> list[str]:
    lines = [""]
    for name, column in summary["columns"].items():
        about = column["about"]
        if "acceptance" in about:
            ess = f"ESS/N {about['ess']:.3f}"
            lines.append(f"{name}: acceptance {about['acceptance']:.3f}, {ess} of the learned energy")
            if about["ess"] < MIN_ESS:
                lines.append(f"warning: {ess}: the learned energy is low where no data are; train longer")
        if column["beyond_strip"] is not None:
            found, n = column["beyond_strip"], column["n"]
            largest = f"data: {found['expected']:.1f}; largest {found['largest']:.5f}"
            lines.append(f"{name}: {found['count']} of {n} beyond |y| = {found['y_minus']:.5f} ({largest})")
    lines += summary["diagnostics"].get("lines", [])
    if summary["ensemble_verdict"]:
        lines.append(f"complex Langevin: {summary['ensemble_verdict']}")
    lines.append("seconds: " + ", ".join(f"{stage} {s:.0f}" for stage, s in summary["seconds"].items()))
    worst = ", ".join(f"{name} {pull:.1f}" for name, pull in summary["verdict"]["max_pull"].items())
    leaks = summary["verdict"]["leaks"]
    beyond = f"; beyond the strip: {', '.join(leaks)}" if leaks else ""
    passed = "passed" if summary["verdict"]["passed"] else "NOT passed"
    lines.append(f"verdict: {passed} (largest |pull|: {worst}{beyond})")
    return lines


def certificate_text(certificate: dict[str, Any]) -> str:
    """The verdict on complex Langevin, or the certificate of exact draws: a line per check."""
    word = certificate.get("verdict") or ("passed" if certificate["passed"] else "failed")
    lines = [f"{word}" + (f": {certificate['reason']}" if certificate["reason"] else "")]
    for check in certificate["checks"]:
        number = "-" if check["value"] is None else f"{check['value']:.4g}"
        if check["value"] is not None and check["error"]:
            number = format_value(check["value"], check["error"])
        mark = "passed" if check["passed"] else "FAILED"
        lines.append(f"  {mark}  {check['name']:<28} {number:<16} {check['detail']}")
    return "\n".join(lines)
