"""Measured points beside published values: pulls, ratios of errors, one verdict for all rows.

Published values may be quoted for the field of another convention, phi_theirs = s phi with the field_scale s
of `lattice.actions.conventions.from_kappa_lambda`; ours are multiplied by s^n before they are compared, n
being the number of fields in the observable. They agree when every pull is at most 3 in size and every error
at most the published one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lattice.observables.names import field_power
from lattice.statistics.notation import aligned, format_value, parse_value
from lattice.statistics.pulls import SIGNIFICANCE, pull, sidak_threshold

MAX_PULL, MAX_ERROR_RATIO = 3.0, 1.0


def compare_with_references(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """All results of `lattice.scans.scan` that carry a reference; None when none does.

    The verdict is "agree" without large pulls and large errors, else "differ"; "none" when no row could be
    judged. Values are in the convention of the reference; error_ratio is ours over theirs. A value published
    without an error is listed with pull None and not judged. false_alarm is the probability that n
    independent right values have a |pull| > 3, threshold the |pull| that they exceed with probability
    `significance`.
    """
    found: list[dict[str, Any]] = []
    for result in results:
        reference = (result.get("note") or {}).get("reference")
        if reference is None:
            continue
        if "observables" not in result:
            found.append({"point": result["name"], "name": "all", "reason": result["reason"]})
        else:
            values = reference["values"].items()
            found += [_row(result, reference["convention"], name, text) for name, text in values]
    if not found:
        return None
    rows, missing = ([row for row in found if ("reason" in row) is lost] for lost in (False, True))
    pulls = [row["pull"] for row in rows if row["pull"] is not None]
    worst = max(pulls, key=abs) if pulls else None
    large_pulls = [row for row in rows if abs(row["pull"] or 0.0) > MAX_PULL]
    large_errors = [row for row in rows if (row["error_ratio"] or 0.0) > MAX_ERROR_RATIO]
    verdict = "differ" if large_pulls or large_errors else "agree"
    return {"rows": rows, "not_compared": missing, "n": len(pulls), "max_pull": worst,
            "large_pulls": large_pulls, "large_errors": large_errors, "verdict": verdict if pulls else "none",
            "false_alarm": 1.0 - (1.0 - math.erfc(MAX_PULL / math.sqrt(2))) ** len(pulls),
            "threshold": sidak_threshold(len(pulls)) if pulls else None,
            "significance": SIGNIFICANCE}  # fmt: skip


def _row(result: Mapping[str, Any], convention: str, name: str, text: str) -> dict[str, Any]:
    head = {"point": result["name"], "name": name}
    entry = result["observables"].get(name)
    if entry is None or entry["value"] is None or entry["error"] is None:
        return {**head, "reason": (entry or {}).get("reason", "not measured")}
    factor = _field_scale(result, convention) ** field_power(name)
    value, error = entry["value"] * factor, entry["error"] * factor
    published, published_error = parse_value(text)
    known = math.isfinite(published_error)
    apart = math.hypot(error, published_error)
    return {**head, "value": value, "error": error, "reference": published,
            "reference_error": published_error if known else None,
            "pull": pull(value, error, published, published_error) if known and apart > 0 else None,
            "error_ratio": error / published_error if known and published_error > 0 else None}  # fmt: skip


def _field_scale(result: Mapping[str, Any], convention: str) -> float:
    if convention == "kappa-lambda":
        return 1.0
    from lattice.actions.conventions import from_kappa_lambda

    action, shape = result["request"]["action"], result["request"]["shape"]
    return from_kappa_lambda(convention, action["kappa"], action["lam"], len(shape)).field_scale


def format_references(result: Mapping[str, Any]) -> str:
    """The comparison as text: a row per published value, then the verdict."""
    table = [["point", "observable", "value", "reference", "pull", "error/reference's"]]
    for row in result["rows"]:
        error = row["reference_error"]
        table.append([
            row["point"], row["name"], format_value(row["value"], row["error"]),
            f"{row['reference']:.8g}" if error is None else format_value(row["reference"], error),
            "-" if row["pull"] is None else f"{row['pull']:+.2f}",
            "-" if row["error_ratio"] is None else f"{row['error_ratio']:.2f}",
        ])  # fmt: skip
    lines = aligned(table)
    lines += [f"not compared: {m['point']} {m['name']}: {m['reason']}" for m in result["not_compared"]]
    lines += [f"reference without error, not judged: {row['point']} {row['name']}"
              for row in result["rows"] if row["reference_error"] is None]  # fmt: skip
    if result["verdict"] == "none":
        return "\n".join([*lines, "verdict: none, no value could be compared"])
    n, pulls, errors = result["n"], result["large_pulls"], result["large_errors"]
    lines += [f"|pull| > {MAX_PULL:g}: {row['point']} {row['name']} {row['pull']:+.2f}" for row in pulls]
    lines += [f"error larger than the reference's: {row['point']} {row['name']} {row['error_ratio']:.2f} "
              "times" for row in errors]  # fmt: skip
    return "\n".join([
        *lines,
        f"verdict: {result['verdict']}; of {n} values {len(pulls)} with |pull| > {MAX_PULL:g} (largest "
        f"{abs(result['max_pull']):.2f}), {len(errors)} with an error larger than the reference's",
        f"({n} independent right values have one beyond {MAX_PULL:g} in {result['false_alarm']:.0%} of all "
        f"cases, one beyond {result['threshold']:.2f} in {result['significance']:.1%})",
    ])  # fmt: skip
