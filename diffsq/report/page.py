"""One self-contained HTML page per run: ``build_report(run_dir)``.

Figures are inline SVG, style is inline CSS, nothing is loaded from elsewhere: the file can be mailed,
archived beside the ensemble, or shown in a talk.  A stage that has not run is named as such instead of
failing.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from diffsq.report.reader import NotRun, RunFolder
from diffsq.report.sections import build_sections, overview
from diffsq.report.tables import (
    COLUMNS,
    comparison,
    duration,
    largest_pull,
    number,
    pretty,
    reference_values,
    show,
    show_tau,
    verdict_tiles,
)
from lattice.errors import InputError
from lattice.files import write_atomic

__all__ = ["build_report"]


def build_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from whatever stages the run folder holds, and return its path.

    A finished run also gets ``overview.png``: one field denoised above the pulls of the final table.

    Raises InputError if ``run_dir`` is not a folder, or its config or summary cannot be read; a damaged
    file of a single stage becomes a note in its section.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: no such run folder")
    path = run_dir / "report.html"
    run = RunFolder(run_dir)
    with contextlib.suppress(NotRun):
        picture = io.BytesIO()
        overview(run).savefig(picture, format="png", dpi=110)
        write_atomic(run_dir / "overview.png", picture.getvalue())
    write_atomic(path, render(run).encode("utf-8"))
    return path


def render(run: RunFolder) -> str:
    """The page as text."""
    return fill("report.html.j2", _context(run))


def fill(template: str, context: Mapping[str, Any]) -> str:
    """A template of this package as text."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.PackageLoader("diffsq.report", "templates"),
    )  # fmt: skip
    environment.filters |= {
        "show": show, "show_tau": show_tau, "pretty": pretty, "duration": duration, "html": Markup,
    }  # fmt: skip
    return environment.get_template(template).render(**context)


def _context(run: RunFolder) -> dict[str, Any]:
    summary, config = run.summary, run.config
    rows = comparison(summary)
    certificate, certificate_note = _certificate(run)
    shape = (config.get("lattice") or {}).get("shape") or []
    volume = 1
    for extent in shape:
        volume *= int(extent)
    unit = _tau_unit(summary, certificate)
    known = bool(reference_values(summary))
    sections = build_sections(run)
    return {
        "name": summary.get("name") or config.get("name") or run.path.name,
        "action": _action_words(config.get("action") or {}),
        "lattice": " × ".join(str(extent) for extent in shape),
        "dimension": len(shape),
        "tiles": verdict_tiles(summary, rows, volume if shape else None),
        "verdict": _verdict(summary, rows, certificate),
        "certificate": certificate,
        "certificate_note": certificate_note,
        "sections": sections,
        "problems": [section for section in sections if section.problem],
        "rows": rows,
        "columns": COLUMNS,
        "has_reference": known,
        "tau_unit": unit,
        **run_tail(run),
    }


def run_tail(run: RunFolder) -> dict[str, Any]:
    """What ends the page of every run: seconds, config, versions, identities."""
    return {
        "seconds": _seconds(run.summary),
        "config_text": run.config_text,
        "versions": _flat(run.summary.get("versions") or {}),
        "identities": _identities(run.summary),
    }


def _action_words(action: Mapping[str, Any]) -> str:
    kind = {"phi4": "φ⁴ theory", "free": "free scalar"}.get(
        str(action.get("kind")), str(action.get("kind", ""))
    )
    couplings = [
        f"{symbol} = {action[key]:g}"
        for key, symbol in (("kappa", "κ"), ("lam", "λ"))
        if number(action.get(key))
    ]
    return ", ".join(part for part in (kind, *couplings) if part)


def _certificate(run: RunFolder) -> tuple[dict[str, Any] | None, str]:
    try:
        return run.certificate, ""
    except NotRun as missing:
        return None, str(missing)
    except InputError as error:
        return None, f"cannot be read: {error}"


def _tau_unit(summary: Mapping[str, Any], certificate: Mapping[str, Any] | None) -> str:
    training = (summary.get("columns") or {}).get("training") or {}
    unit = training.get("tau_unit") or ((certificate or {}).get("tau_int") or {}).get("unit")
    return str(unit) if unit else "saved configurations"


def _verdict(
    summary: Mapping[str, Any], rows: list[Any], certificate: Mapping[str, Any] | None
) -> dict[str, str]:
    """One sentence and a grade: what the exactness of this run rests on, or how far the run has come."""
    worst = largest_pull(rows)
    if worst is None:
        done = (
            "ensemble certified"
            if certificate and certificate.get("passed")
            else "ensemble not certified yet"
        )
        return {"text": f"Run not complete: {done}; the sections below show the stages found.", "grade": ""}
    row, _, cell = worst
    baseline = "the reference" if row.reference else "Monte Carlo"
    if cell.grade == "off":
        text = (
            f"After correction an observable still disagrees with {baseline}: find the cause before using it"
        )
    else:
        text = f"After correction every compared observable agrees with {baseline}"
        text += " within 3σ" if cell.grade == "warn" else ""
    text += f" (largest deviation {abs(cell.pull):.1f}σ)."
    recorded = summary.get("verdict") or {}
    if recorded.get("certified") is False:
        text += " The Monte Carlo ensemble is not certified."
    if recorded.get("missing"):
        text += f" Not measured: {', '.join(map(str, recorded['missing']))}."
    if "passed" in recorded:
        text = f"{'Passed' if recorded['passed'] else 'Not passed'}. {text}"
    return {"text": text, "grade": cell.grade if recorded.get("passed", True) else "off"}


def _seconds(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    seconds = {
        stage: float(s) for stage, s in (summary.get("seconds") or {}).items() if isinstance(s, int | float)
    }
    total = seconds.pop("total", sum(seconds.values()))
    longest = max(seconds.values(), default=0.0) or 1.0
    stages = [{"stage": stage, "seconds": s, "share": 100 * s / longest} for stage, s in seconds.items()]
    return [*stages, {"stage": "total", "seconds": total, "share": 0.0}] if stages else []


def _flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        else:
            flat[f"{prefix}{key}"] = "–" if value is None else str(value)
    return flat


def _identities(summary: Mapping[str, Any]) -> dict[str, str]:
    """n and sha256 of every measured ensemble, as far as the summary names them."""
    found = {}
    for column, table in (summary.get("columns") or {}).items():
        ensemble = (table or {}).get("ensemble") or {}
        parts = [f"n = {ensemble['n']}"] if "n" in ensemble else []
        parts += [f"sha256 {ensemble['identity']}"] if ensemble.get("identity") else []
        if parts:
            found[COLUMNS.get(column, column)] = ", ".join(parts)
    return found
