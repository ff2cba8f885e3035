"""The results of a scan as text: a row per point, and the words that describe one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lattice.statistics.notation import aligned, printed

CERTIFIED, UNCERTIFIED, FAILED = "certified", "not certified", "failed"  # the status of a result
_COLUMNS = {"<|M|>": "abs_magnetization", "chi": "susceptibility", "U_L": "binder", "xi_2nd": "xi_2nd",
            "s": "action_density"}  # fmt: skip
_OF_SPINS = {"e": "energy", "C": "specific_heat"}


AXES = {"phi4": "kappa", "free": "kappa", "ising": "temperature", "potts": "temperature",
        "ising_field": "temperature"}  # fmt: skip
_SYMBOLS = {"kappa": "kappa", "temperature": "T"}


def axis_of(action: Mapping[str, Any]) -> str:
    """The coupling that scans of this kind of action go along: "kappa", of spins "temperature".

    >>> axis_of({"kind": "ising", "temperature": 2.0, "h": 0.0})
    'temperature'
    """
    return AXES.get(str(action.get("kind", "phi4")), "kappa")


def fixed_of(action: Mapping[str, Any]) -> dict[str, Any]:
    """The other couplings, which curves of one scan have in common.

    >>> fixed_of({"kind": "phi4", "kappa": 0.27, "lam": 0.022, "convention": "kappa-lambda"})
    {'lam': 0.022}
    """
    left = {"kind", "convention", axis_of(action)}
    return {name: value for name, value in action.items() if name not in left and value is not None}


def in_words(fixed: Mapping[str, Any]) -> str:
    """Couplings as text.

    >>> in_words({"q": 3, "h": 0.0})
    'q = 3, h = 0'
    """
    return ", ".join(f"{name} = {value:g}" for name, value in fixed.items())


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
    actions = [result["request"]["action"] for result in results]
    axes = list(dict.fromkeys(map(axis_of, actions)))
    fixed = list(dict.fromkeys(name for action in actions for name in fixed_of(action)))
    columns = _COLUMNS | (_OF_SPINS if "temperature" in axes else {})
    rows = [["L", *(_SYMBOLS[axis] for axis in axes), *fixed, *columns, "tau_int(M^2)", "certificate"]]
    for action, result in zip(actions, results, strict=True):
        entries, tau = result.get("observables", {}), tau_trajectories(result)
        rows.append([
            extents(result["request"]["shape"]),
            *("-" if action.get(name) is None else f"{action[name]:.8g}" for name in (*axes, *fixed)),
            *(_cell(entries.get(name)) for name in columns.values()),
            printed(*(tau or (None,))), _verdict(result),
        ])  # fmt: skip
    note = ("chi = V(<M^2> - <|M|>^2) of the field phi; xi_2nd in lattice units; "
            "s = <S>/V; tau_int = 1/2 + sum rho, in trajectories")  # fmt: skip
    return "\n".join([*aligned(rows), "kappa-lambda convention; " * ("kappa" in axes) + note])


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
