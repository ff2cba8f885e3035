"""The one table of a run: what its columns are held against, their pulls, and the rows that are shown.

A column is a measurement {"observables": {name: {"value", "error", ...}}}; truth is {name: (value, error)}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lattice.observables.holomorphic import DYSON, NAMES, ODD, parts
from lattice.statistics import pulls

Truth = dict[str, tuple[float, float]]
TABLE = (
    "abs_magnetization", "susceptibility", "susceptibility_full", "binder", "action_density", "phi2",
    "xi_2nd", "kappa4_ratio", "kappa6_ratio",
)  # fmt: skip
SPINS = (
    "energy", "specific_heat", "abs_magnetization", "susceptibility", "susceptibility_full", "binder",
    "nearest", "c1", "xi_2nd",
)  # fmt: skip


def rows_of(measurement: Mapping[str, Any]) -> list[str]:
    """The observables of the table, from the data's measurement: of fields on a lattice the short list.

    Of one variable everything but what must be 0 or 1, odd moments and the Schwinger-Dyson equation, and
    kappa_2 of a complex one, which is its second moment.
    """
    names = list(measurement["observables"])
    if "specific_heat" in names:
        return [name for name in SPINS if name in names]
    if "plaquette" in names:  # of links; without what is another row times a number
        return [name for name in names if name not in ("action_density", "chi_top")]
    if "action_density" in names:
        return list(TABLE)
    if "xi_2nd" in names:  # of a law without an action
        return [*(name for name in TABLE if name in names), "kappa4_m_ratio"]
    return [name for name in names if not name.endswith((" kappa2", DYSON, *ODD))]


def by_label(entries: Mapping[str, Any], is_complex: bool) -> dict[str, dict[str, float]]:
    """Entries {name: {"value": [re, im], "error": [re, im]}} as observables, one for each part."""
    return {
        label: {"value": entries[name]["value"][part], "error": entries[name]["error"][part]}
        for name in NAMES
        for label, part in parts(name, is_complex)
    }


def exact_truth(exact: Mapping[str, Any], is_complex: bool) -> Truth:
    """Exact numbers {name: [re, im]} as truth without error."""
    return {label: (exact[name][part], 0.0) for name in NAMES for label, part in parts(name, is_complex)}


def entry_pulls(entries: Mapping[str, Any], truth: Truth, is_complex: bool) -> dict[str, float]:
    """Label -> pull of every part of the entries that has an error."""
    found = {name: pull(entry, truth.get(name)) for name, entry in by_label(entries, is_complex).items()}
    return {name: size for name, size in found.items() if size is not None}


def pull(entry: Mapping[str, Any] | None, truth: tuple[float, float] | None) -> float | None:
    """(value - truth) / combined error, or None where either is missing.

    >>> pull({"value": 1.5, "error": 0.3}, (1.0, 0.4))
    1.0
    """
    if entry is None or truth is None or entry["value"] is None or entry["error"] is None:
        return None
    if math.hypot(entry["error"], truth[1]) == 0:
        return None
    return pulls.pull(entry["value"], entry["error"], *truth)
