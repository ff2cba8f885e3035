"""The results of a scan as text: a row per point, and the words that describe one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lattice.statistics.notation import aligned, printed

CERTIFIED, UNCERTIFIED, FAILED = "certified", "not certified", "failed"  # the status of a result
_COLUMNS = {"<|M|>": "abs_magnetization", "chi": "susceptibility", "U_L": "binder", "xi_2nd": "xi_2nd",
            "s": "action_density"}  # fmt: skip


def extents(shape: Sequence[int]) -> str:
    """One extent of a square or cubic lattice, else all of them.

    >>> extents((16, 16)), extents([64, 8])
    ('16', '64x8')
    """
    return str(shape[0]) if len(set(shape)) == 1 else "x".join(map(str, shape))


def tau_trajectories(result: dict[str, Any], name: str = "susceptibility_full") -> tuple[float, float] | None:
    """(tau_int, error) of an observable in trajectories, None where it was refused. `susceptibility_full` is
    V<M^2>, so the default is tau_int(M^2). With a stride s nothing below s/2 can be resolved."""
    entry = result.get("observables", {}).get(name, {})
    if entry.get("tau_int") is None:
        return None
    return result["stride"] * entry["tau_int"], result["stride"] * (entry["tau_int_error"] or 0.0)


def format_scan(results: Sequence[dict[str, Any]]) -> str:
    """The table of a scan, a row per point: value(error), tau_int(M^2) in trajectories, the certificate."""
    rows = [["L", "kappa", "lam", *_COLUMNS, "tau_int(M^2)", "certificate"]]
    for result in results:
        action, entries = result["request"]["action"], result.get("observables", {})
        tau = tau_trajectories(result)
        rows.append([
            extents(result["request"]["shape"]), f"{action['kappa']:.8g}", f"{action['lam']:.8g}",
            *(_cell(entries.get(name)) for name in _COLUMNS.values()),
            printed(*(tau or (None,))), _verdict(result),
        ])  # fmt: skip
    note = ("kappa-lambda convention; chi = V(<M^2> - <|M|>^2) of the field phi; xi_2nd in lattice units; "
            "s = <S>/V; tau_int = 1/2 + sum rho, in trajectories")  # fmt: skip
    return "\n".join([*aligned(rows), note])


def _cell(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else printed(entry["value"], entry["error"])


def _verdict(result: dict[str, Any]) -> str:
    return "passed" if result["status"] == CERTIFIED else f"{result['status']}: {result['reason']}"


def result_line(result: dict[str, Any]) -> str:
    """One finished point in one line."""
    if result["status"] == FAILED:
        return f"failed: {result['reason']}"
    entries = result["observables"]
    values = f"<|M|> {_cell(entries['abs_magnetization'])}, U_L {_cell(entries['binder'])}"
    verdict = "certified" if result["status"] == CERTIFIED else _verdict(result)
    return f"{values}, {result['n']} configurations in {result['seconds']:.1f} s, {verdict}"
