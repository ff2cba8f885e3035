"""Two tables of observables side by side: pulls and a verdict.

pull = (a - b)/sqrt(error_a^2 + error_b^2), for two statistically independent measurements.  Observables of
one ensemble are correlated, so their chi^2 is not chi^2-distributed and is printed for orientation only.  The
verdict rests on the largest |pull|: with n rows its p-value is at most 1 - (1 - p_1)^n, exact for independent
rows and conservative for correlated Gaussian ones (Z. Sidak, J. Am. Stat. Assoc. 62 (1967) 626).  "differ"
means p_value < 1e-3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lattice.errors import InputError
from lattice.observables.names import in_short_table
from lattice.statistics.notation import aligned, format_entry, parse_value
from lattice.statistics.pulls import SIGNIFICANCE, pull, sidak_threshold

REFERENCE = "reference"  # identity of a table of published values
Measurement = Mapping[str, Any]


def compare(
    a: Measurement, b: Measurement, *, allow_different: bool = False, significance: float = SIGNIFICANCE,
    everything: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Compare two `measure` JSONs.

    The observables of the printed table, all of them with everything=True (then the many cumulants, nearly
    copies of each other, raise the threshold). What reference values give is always compared.

    In the result max_pull keeps its sign and threshold is the |pull| at which the verdict turns. Raises
    `InputError` for dicts of another form, for different actions or shapes (unless allow_different), and when
    no observable can be compared.

    >>> def table(x):
    ...     row = {"value": x, "error": 0.03}
    ...     return {"ensemble": {"action": None, "shape": [8, 8]}, "observables": {"phi2": row}}
    >>> result = compare(table(1.0), table(1.05))
    >>> result["verdict"], round(result["rows"][0]["pull"], 3)
    ('agree', -1.179)
    """
    if not 0 < significance < 1:
        raise InputError(f"significance must be between 0 and 1, got {significance}")
    notes = _check_same_physics(a, b, allow_different)
    rows, not_compared = [], []
    for name in _names(a, b, everything):
        reason = _why_not(name, a, b)
        if reason is None:
            x, e_x, y, e_y = (t["observables"][name][key] for t in (a, b) for key in ("value", "error"))
            row = {"name": name, "a": x, "a_error": e_x, "b": y, "b_error": e_y}
            rows.append({**row, "pull": pull(x, e_x, y, e_y)})
        else:
            not_compared.append({"name": name, "reason": reason})
    if not rows:
        raise InputError("no observable has a value and an error in both measurements: nothing to compare")
    worst = max((row["pull"] for row in rows), key=abs)
    single = math.erfc(abs(worst) / math.sqrt(2))
    p_value = 1.0 if single >= 1 else -math.expm1(len(rows) * math.log1p(-single))
    return {
        "rows": rows, "chi2": sum(row["pull"] ** 2 for row in rows), "n": len(rows), "max_pull": worst,
        "threshold": sidak_threshold(len(rows), significance), "p_value": p_value,
        "significance": significance, "verdict": "differ" if p_value < significance else "agree",
        "not_compared": not_compared, "notes": notes,
    }  # fmt: skip


def _names(a: Measurement, b: Measurement, everything: bool) -> list[str]:
    names = dict.fromkeys([*a["observables"], *b["observables"]])
    asked: set[str] = set()
    for table, other in ((a, b), (b, a)):
        if table["ensemble"].get("identity") == REFERENCE:
            asked |= table["observables"].keys() & other["observables"].keys()
    return [name for name in names if everything or in_short_table(name) or name in asked]


def reference_measurement(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Published numbers {kappa, lam, shape, values: {name: "0.7617(7)"}} in the form of a `measure` JSON.

    A value without a stated error keeps error None and is then listed as not compared.
    """
    observables = {}
    for name, text in reference["values"].items():
        value, error = parse_value(text)
        known = error if math.isfinite(error) else None
        observables[name] = {"value": value, "error": known, "tau_int": None, "tau_int_error": None}
    couplings = {name: float(reference[name]) for name in ("kappa", "lam")}
    action = {"kind": "phi4", "convention": "kappa-lambda", **couplings}
    return {
        "ensemble": {"identity": REFERENCE, "action": action, "shape": list(reference["shape"])},
        "observables": observables,
        "tau_unit": "none (reference values)",
    }


def _check_same_physics(a: Measurement, b: Measurement, allow_different: bool) -> list[str]:
    """Notes for the reader; InputError where the two tables do not belong beside each other."""
    for label, table in (("first", a), ("second", b)):
        parts = [isinstance(table, Mapping) and table.get(part) for part in ("ensemble", "observables")]
        if not all(isinstance(part, Mapping) for part in parts):
            raise InputError(f"the {label} table is not a measurement: it needs 'ensemble' and 'observables'")
    pairs = {key: (a["ensemble"].get(key), b["ensemble"].get(key)) for key in ("action", "shape")}
    differences = [f"{key} {_show(x)} against {_show(y)}" for key, (x, y) in pairs.items() if not _same(x, y)]
    if differences and not allow_different:
        raise InputError("the two measurements are of different physics: " + "; ".join(differences))
    notes = [f"different physics, compared on request: {d}" for d in differences]
    identity = a["ensemble"].get("identity")
    if identity is not None and identity == b["ensemble"].get("identity"):
        notes.append("both tables measure the same configurations: the pulls ignore that correlation")
    return notes


def _same(x: Any, y: Any) -> bool:
    """Equal, numbers to 1e-12 (a coupling that went through a text file)."""
    if isinstance(x, Mapping) and isinstance(y, Mapping):
        return x.keys() == y.keys() and all(_same(x[key], y[key]) for key in x)
    if isinstance(x, (list, tuple)) and isinstance(y, (list, tuple)):
        return len(x) == len(y) and all(_same(i, j) for i, j in zip(x, y))
    if isinstance(x, (int, float)) and isinstance(y, (int, float)):
        return math.isclose(x, y, rel_tol=1e-12)
    return bool(x == y)


def _show(x: Any) -> str:
    if isinstance(x, Mapping):
        return "(" + ", ".join(f"{key}={value}" for key, value in x.items()) + ")"
    return "x".join(str(i) for i in x) if isinstance(x, (list, tuple)) else str(x)


def _number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def _why_not(name: str, a: Measurement, b: Measurement) -> str | None:
    """Reason why a row has no pull, None if it has one."""
    for label, table in (("first", a), ("second", b)):
        entry = table["observables"].get(name)
        if not isinstance(entry, Mapping):
            return f"not in the {label} table"
        for key in ("value", "error"):
            if not _number(entry.get(key)):
                why = f" ({entry['reason']})" if entry.get("reason") else ""
                return f"no {key} in the {label} table{why}"
    x, y = a["observables"][name], b["observables"][name]
    return None if math.hypot(x["error"], y["error"]) > 0 else "both errors are zero"


def format_compare(result: Mapping[str, Any], labels: tuple[str, str] = ("A", "B")) -> str:
    """Text for the terminal: aligned rows value(error) with pulls, then the verdict and what was left out."""
    table = [["observable", *labels, "pull"]]
    for row in result["rows"]:
        table.append([row["name"], *(format_entry(row, side) for side in "ab"), f"{row['pull']:+.2f}"])
    lines = aligned(table)
    lines += [f"not compared: {item['name']}: {item['reason']}" for item in result["not_compared"]]
    lines += [f"note: {note}" for note in result["notes"]]
    lines.append(
        f"verdict: {result['verdict']}; largest |pull| {abs(result['max_pull']):.2f} "
        f"of {result['n']}, threshold {result['threshold']:.2f} at {result['significance']:g}, "
        f"p = {result['p_value']:.3g}; chi2 = {result['chi2']:.1f} of correlated rows"
    )
    return "\n".join(lines)
