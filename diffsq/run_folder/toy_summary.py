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

from diffsq.analysis.flow_limits import limit_lines
from diffsq.config.toy import ComplexConfig, ToyConfig
from diffsq.run_folder.records import certificate_of
from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexQuartic
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.files import code_version, read_json
from lattice.observables.holomorphic import NAMES, blocks_of, estimates, exact_numbers, parts, show, variable
from lattice.statistics.notation import aligned, format_value

MAX_PULL = 3.0
EXACT = "exact values"
MIN_ESS = 0.1  # of a learned energy; below it a few samples carry the Metropolis column


def summarize_toy(
    config: ToyConfig, folder: Path, seconds: dict[str, float], diagnostics: dict[str, Any]
) -> dict[str, Any]:
    """The content of summary.json of a finished run folder."""
    data = read_ensemble(folder / "ensemble")
    is_complex = isinstance(data.action, Complexified)
    y_minus = strip(data, config)
    columns = {"data": _column(data, y_minus)}
    for path in sorted((folder / "samples").iterdir()):
        if (path / "manifest.json").is_file():
            columns[path.name] = _column(read_ensemble(path), y_minus)
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
        "diagnostics": diagnostics,
        "seconds": seconds,
        "versions": code_version(),
    }
    for column in columns.values():
        if column["beyond_strip"] is not None and y_minus is not None:
            noise2 = float(column["about"].get("noise2", 0.0))
            expected = _expected_beyond(data, y_minus, noise2) * column["n"] / len(data)
            column["beyond_strip"]["expected"] = expected
    rows = read_json(folder / "samples" / "scan.json")["rows"]
    summary["limits"] = read_json(folder / "samples" / "limits.json")["rows"]
    summary["scan"] = [_scanned(row, summary) for row in rows]
    summary["verdict"] = verdict(summary, certificate)
    return summary


def _column(ensemble: Ensemble, y_minus: float | None) -> dict[str, Any]:
    about = ensemble.attrs.get("about") or {}
    noise2 = float(about.get("noise2", 0.0)) if ensemble.phi.shape[1] == 1 else 0.0
    z = variable(ensemble.phi)
    return {
        "n": len(ensemble),
        "identity": ensemble.identity,
        "about": about,
        "entries": estimates(z, blocks_of(ensemble), noise2),
        "beyond_strip": _beyond(ensemble, y_minus),
    }


def strip(ensemble: Ensemble, config: ToyConfig) -> float | None:
    """y_- of the quartic model, which complex Langevin with real noise does not pass; None where unknown."""
    if not isinstance(config, ComplexConfig) or config.ensemble.imaginary_noise > 0:
        return None
    inner = ensemble.action.inner if isinstance(ensemble.action, Complexified) else None
    return inner.strip if isinstance(inner, ComplexQuartic) and inner.lam > 0 else None


def _beyond(ensemble: Ensemble, y_minus: float | None) -> dict[str, Any] | None:
    """How many configurations lie beyond the strip, and how far out."""
    if y_minus is None:
        return None
    y = np.abs(ensemble.phi[:, 1])
    return {"y_minus": y_minus, "count": int((y > y_minus).sum()), "largest": float(y.max())}


def _expected_beyond(data: Ensemble, y_minus: float, noise2: float) -> float:
    """How many of the data would lie beyond the strip with Gaussian noise of this variance added."""
    y = data.phi[:, 1]
    if noise2 == 0:
        return float((np.abs(y) > y_minus).sum())
    return float(sum(ndtr((sign * y - y_minus) / math.sqrt(noise2)).sum() for sign in (1, -1)))


def pulls(summary: dict[str, Any], column: str) -> dict[str, float]:
    """Row label -> (value - baseline)/combined error of a column; rows without an error are left out.

    The data's own pulls are against the exact numbers. The others learned from those very data: as far as a
    model reproduces their fluctuation too, it is common to both, and the pull too small by up to sqrt(2).
    """
    return entry_pulls(summary, summary["columns"][column]["entries"], column)


def entry_pulls(summary: dict[str, Any], entries: dict[str, Any], column: str = "") -> dict[str, float]:
    """`pulls` of any set of entries."""
    against_data = summary["against"] == "data" and column != "data"
    data, found = summary["columns"]["data"]["entries"], {}
    for name in NAMES:
        for label, part in parts(name, summary["complex"]):
            base = data[name]["value"] if against_data else summary["exact"][name]
            own = entries[name]["error"][part]
            error = math.hypot(own, data[name]["error"][part] if against_data else 0.0)
            if error > 0:
                found[label] = (entries[name]["value"][part] - base[part]) / error
    return found


def _scanned(row: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """A row of the scan with its largest pull and where it is; a sampler that ran away has none."""
    if row["entries"] is None:
        return {**row, "max_pull": None, "worst": row["reason"]}
    found = entry_pulls(summary, row["entries"])
    worst = max(found, key=lambda label: abs(found[label]))
    return {**row, "max_pull": abs(found[worst]), "worst": worst}


def verdict(summary: dict[str, Any], certificate: dict[str, Any]) -> dict[str, Any]:
    """passed: certified data, every entry within 3 sigma, no more weight beyond the strip than the data."""
    worst = {
        name: max(map(abs, pulls(summary, name).values()), default=0.0)
        for name in summary["columns"]
        if name != "data"
    }
    n_data = summary["columns"]["data"]["n"]
    leaks = [name for name, column in summary["columns"].items() if _leaks(column, n_data)]
    within = all(pull <= MAX_PULL for pull in worst.values())
    return {
        "against": summary["against"], "certified": bool(certificate["passed"]), "max_pull": worst,
        "leaks": leaks, "passed": bool(certificate["passed"] and within and not leaks),
    }  # fmt: skip


def _leaks(column: dict[str, Any], n_data: int) -> bool:
    """More beyond the strip than the data (with that sample set's noise), by over three errors.

    Both counts fluctuate; a Metropolis chain repeats samples: variance (2 - a)/a.
    Without noise this cannot be seen: samples are clamped to the data's box, and that is counted instead.
    """
    found = column["beyond_strip"]
    if found is None:
        return False
    a = column["about"].get("acceptance", 1.0)
    variance = max(found["expected"], 1) * (1 + column["n"] / n_data) * (2 - a) / a
    return bool(found["count"] > found["expected"] + 3 * math.sqrt(variance))


def toy_table_text(summary: dict[str, Any]) -> str:
    """The final table for the terminal, the scan of samplers, what the model knows, and the verdict."""
    names = list(summary["columns"])
    rows = [["", "exact", *names]]
    marks = {name: pulls(summary, name) for name in names}
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
    against = f"data, theirs against the {EXACT}" if summary["complex"] else EXACT
    lines = [*aligned(rows), f"value(error) [pull against the {against}]; odd moments are zero by symmetry"]
    lines += [*_scan_lines(summary), *limit_lines(summary["limits"], summary["exact"]), *_tail(summary)]
    return "\n".join(lines)


def _scan_lines(summary: dict[str, Any]) -> list[str]:
    if not summary["scan"]:
        return []
    rows = [["model", "process", "sampler", "N", "samples", "largest |pull|", "in"]]
    for row in summary["scan"]:
        rows.append([
            row["model"], row["sde"], row["method"], str(row["n_levels"]), str(row["n"]),
            "-" if row["max_pull"] is None else f"{row['max_pull']:.1f}", row["worst"],
        ])  # fmt: skip
    return ["", f"other samplers, pulls against the {summary['against']}:", *aligned(rows)]


def sample_lines(summary: dict[str, Any]) -> list[str]:
    """Efficiency of the Metropolis correction, samples moved into the data's box, weight beyond the strip."""
    lines = []
    for name, column in summary["columns"].items():
        about = column["about"]
        if "acceptance" in about:
            lines += _efficiency(name, about)
        if about.get("clamped"):
            lines.append(f"{name}: {about['clamped']} of {column['n']} brought back into the box of the data")
        if column["beyond_strip"] is not None:
            found, n = column["beyond_strip"], column["n"]
            largest = f"data: {found['expected']:.1f}; largest {found['largest']:.5f}"
            lines.append(f"{name}: {found['count']} of {n} beyond |y| = {found['y_minus']:.5f} ({largest})")
    return lines


def _efficiency(name: str, about: dict[str, Any]) -> list[str]:
    forward = format_value(about["ess_forward"], about["ess_forward_error"])
    ess = f"ESS/N {about['ess']:.3f} (reverse), {forward} (forward, on noised data)"
    lines = [f"{name}: acceptance {about['acceptance']:.3f}, {ess} of the learned energy"]
    if about["ess"] < MIN_ESS:
        lines.append(f"warning: reverse ESS/N below {MIN_ESS}: few paths carry the weight; train longer")
    if about["ess_forward"] < MIN_ESS:
        lines.append(
            f"warning: forward ESS/N below {MIN_ESS}: proposals lack weight where the data are; "
            f"more metropolis_levels, or train longer"
        )
    return lines


def _tail(summary: dict[str, Any]) -> list[str]:
    lines = ["", *sample_lines(summary), *summary["diagnostics"].get("lines", [])]
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
