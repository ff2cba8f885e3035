"""The summary of a run as text for the terminal: the table, the checks, efficiencies, the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffsq.run_folder.pulls import pull
from diffsq.run_folder.summary import KERNELS, TRAINING, WAYS, column_pulls, set_label, truth_of
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import ess_words


def table_text(summary: dict[str, Any]) -> str:
    """The final table for the terminal: value(error) [pull] per column, the checks, efficiencies, verdict."""
    known = truth_of(summary, TRAINING)
    head = "reference" if summary["reference"] is not None else "exact"
    rows = [["observable", *([head] if known else []), *summary["columns"]]]
    sizes = {column: column_pulls(summary, column) for column in summary["columns"]}
    for name in summary["rows"]:
        cells = [show(*known[name]) if name in known else "-"] if known else []
        for column, content in summary["columns"].items():
            size = sizes[column].get(name)
            cells.append(
                _entry(content["observables"].get(name)) + ("" if size is None else f" [{size:+.1f}]")
            )
        rows.append([name, *cells])
    against = {"reference": "the reference", "exact": "the exact values", "training": "the training data"}
    words = against[summary["against"]]
    if known and summary["against"] == "training":
        words += ", theirs against the exact values"
    convention = "; odd moments are zero by symmetry" if summary["exact"] else "; kappa-lambda convention"
    if "plaquette" in summary["rows"]:
        convention = "; loops in plaquettes, lines around the torus"
    if "specific_heat" in summary["rows"]:
        convention = "; J = 1, energies per site"
    lines = [*aligned(rows), f"value(error) [pull against {words}]{convention}"] if len(rows) > 1 else []
    lines += [f"{column}: not measured, {why}" for column, why in summary["notes"].items()]
    for name, check in summary["checks"].items():
        lines += ["", f"check {name}:", check["text"]]
    return "\n".join([*lines, *([""] if summary["checks"] else []), *_tail(summary)])


def _tail(summary: dict[str, Any]) -> list[str]:
    lines = []
    several = len(summary["sampling"]) > 1
    for name, sampling in summary["sampling"].items():
        label = set_label(summary.get("config", {}), name)
        lines += [f"{label}: {line}" if several else line for line in _sampling_lines(summary, sampling)]
    if summary["ensemble_verdict"]:
        lines.append(f"complex Langevin: {summary['ensemble_verdict']}")
    lines.append("seconds: " + ", ".join(f"{stage} {s:.0f}" for stage, s in summary["seconds"].items()))
    found = summary["verdict"]
    worst = ", ".join(f"{name} {size:.1f}" for name, size in found["max_pull"].items() if size is not None)
    failed = f"; failed checks: {', '.join(found['failed_checks'])}" if found["failed_checks"] else ""
    alone = "by its checks" if summary["checks"] else "nothing to compare with"
    compared = f"largest |pull|: {worst}" if worst else alone
    lines.append(f"verdict: {'passed' if found['passed'] else 'NOT passed'} ({compared}{failed})")
    return lines


def _sampling_lines(summary: dict[str, Any], sampling: dict[str, Any]) -> Iterator[str]:
    kl, lnz = sampling["kl"], sampling["ln_z"]
    if sampling["ess"]["reverse"] is not None:
        yield f"ESS/N: {', '.join(f'{way} {ess_of(sampling, way)}' for way in WAYS)}"
    if sampling["acceptance"] is not None:
        yield f"Metropolis acceptance {show(sampling['acceptance'], sampling.get('acceptance_error'))}"
    if lnz["value"] is not None:
        truth = truth_of(summary).get("ln_z")
        size = pull(lnz, truth)
        word = "exact" if summary["against"] == "exact" else "reference"
        known = f" ({word} {show(*truth)} [{size:+.1f}])" if truth and size is not None else ""
        yield f"ln Z = {show(lnz['value'], lnz['error'])}{known}"
    if sampling.get("discretisation"):
        yield sampling["discretisation"]
    parts = [
        f"{name} {show(kl[name], kl.get(f'{name}_error'))}"
        for name in (*KERNELS, "gain")
        if kl.get(name) is not None
    ]
    if parts:
        yield f"KL on held-out data: {', '.join(parts)}"
    if sampling["clamped"]:
        yield f"{sampling['clamped']} of {sampling['n']} brought back into the box of the data"
    yield from (f"warning: {line}" for line in sampling["warnings"])


def ess_of(sampling: dict[str, Any], way: str) -> str:
    """ESS/N of one way as it is printed, with e^-Var log w and the largest weight behind."""
    ess, spread = sampling["ess"], (sampling.get("spread") or {}).get(way) or {}
    return ess_words(ess.get(way), ess.get(f"{way}_error"), spread)


def _entry(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None or entry["value"] is None else show(entry["value"], entry["error"])


def show(value: float | None, error: float | None) -> str:
    """value(error), or the value alone where it has no error."""
    if value is None:
        return "-"
    return f"{value:.6g}" if error is None or error <= 0 else format_value(value, error)
