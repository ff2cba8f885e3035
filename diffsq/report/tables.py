"""The numbers of the page: the final comparison with pulls, the certificate, and the verdict.

A pull is (value - baseline)/sqrt(error^2 + error_baseline^2); the baseline is the reference where it has
the observable, the Monte Carlo (training) column otherwise.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lattice.observables.names import in_short_table
from lattice.statistics.notation import format_value, parse_value

COLUMNS = {"training": "Monte Carlo", "raw": "raw", "weighted": "weighted", "metropolis": "Metropolis"}


@dataclass(frozen=True)
class Label:
    """An observable's symbol in HTML and in mathtext, and its definition in the project's conventions."""

    html: str
    math: str
    definition: str


LABELS = {
    "abs_magnetization": Label("⟨|<i>M</i>|⟩", r"$\langle|M|\rangle$", "M = V⁻¹ Σ φ"),
    "susceptibility": Label("χ", r"$\chi$", "V(⟨M²⟩ − ⟨|M|⟩²)"),
    "susceptibility_full": Label("<i>V</i>⟨<i>M</i>²⟩", r"$V\langle M^2\rangle$", "G(k=0)"),
    "binder": Label("<i>U<sub>L</sub></i>", r"$U_L$", "1 − ⟨M⁴⟩/(3⟨M²⟩²)"),
    "action_density": Label("<i>s</i>", r"$s$", "⟨S⟩/V, κ–λ action"),
    "phi2": Label("⟨φ²⟩", r"$\langle\phi^2\rangle$", "per site"),
    "kappa4_ratio": Label(
        "κ<sub>4</sub>/κ<sub>2</sub>²", r"$\kappa_4/\kappa_2^2$", "cumulants of φ at one site"
    ),
    "kappa6_ratio": Label(
        "κ<sub>6</sub>/κ<sub>2</sub>³", r"$\kappa_6/\kappa_2^3$", "cumulants of φ at one site"
    ),
    "xi_2nd": Label("ξ<sub>2nd</sub>", r"$\xi_{\rm 2nd}$", "√(G(0)/G(k₁) − 1)/(2 sin(π/L))"),
    "ln_z": Label("ln <i>Z</i>", r"$\ln Z$", "ln of the mean weight, nats"),
}


def label_of(name: str) -> Label:
    """The label of any observable of ``lattice.observables.measure``; its bare name if it is not known.

    >>> label_of("kappa8_m_ratio").html, label_of("phi4").html, label_of("new").html
    ('κ<sub>8</sub>/κ<sub>2</sub>⁴ of <i>M</i>', '⟨φ⁴⟩', 'new')
    """
    if name in LABELS:
        return LABELS[name]
    if name in ("phi4", "magnetization"):
        return Label(
            "⟨φ⁴⟩" if name == "phi4" else "⟨<i>M</i>⟩", name, "per site" if name == "phi4" else "M = V⁻¹ Σ φ"
        )
    match = re.fullmatch(r"kappa([2468])(_m|_k1|_k2)?(_ratio(?:_z2)?)?", name)
    if not match:
        return Label(html.escape(name), name, "")
    order, of, ratio = match.groups()
    symbol = f"κ<sub>{order}</sub>" + (f"/κ<sub>2</sub>{'⁰¹²³⁴'[int(order) // 2]}" if ratio else "")
    what, caption = _CUMULANTS_OF[of]
    if ratio == "_ratio_z2":
        caption += ", odd moments set to 0"
    return Label(symbol + what, name, caption)


_CUMULANTS_OF = {
    None: ("", "cumulants of φ at one site"),
    "_m": (" of <i>M</i>", "cumulants of M"),
    "_k1": (" of <i>φ̃</i>(k₁)", "cumulants of Re and Im φ̃/√V, lowest momentum"),
    "_k2": (" of <i>φ̃</i>(k₂)", "cumulants of Re and Im φ̃/√V, second momentum"),
}


@dataclass(frozen=True)
class Cell:
    """A number as printed, its pull (nan if there is none), and how far off it is: "ok", "warn", "off" or
    ""."""

    text: str = "–"
    pull: float = math.nan
    grade: str = ""
    tau: str = ""

    @property
    def pull_text(self) -> str:
        """Signed pull with a mark that needs no colour: nothing below 2, ! below 3, !! above."""
        if math.isnan(self.pull):
            return ""
        return f"{self.pull:+.1f}σ" + {"warn": " !", "off": " !!"}.get(self.grade, "")


@dataclass(frozen=True)
class Row:
    """One observable: its label, the baseline as printed, and one cell per column."""

    name: str
    label: Label
    reference: str
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def main(self) -> bool:
        """Whether the observable belongs to the short table."""
        return self.name in LABELS


def number(entry: Any) -> tuple[float, float] | None:
    """(value, error) of a table entry: "0.7617(7)", {"value", "error"}, [value, error] or a number; None if
    there is none.

    >>> number("0.7617(7)"), number({"value": 1.5, "error": None}), number(None)
    ((0.7617, 0.0007), (1.5, nan), None)
    """
    value: Any
    error: Any = None
    if isinstance(entry, str):
        value, error = parse_value(entry)
    elif isinstance(entry, Mapping):
        value, error = entry.get("value"), entry.get("error")
    elif isinstance(entry, list | tuple) and len(entry) == 2:
        value, error = entry
    else:
        value = entry
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value), float(error) if isinstance(error, int | float) else math.nan


def show(entry: Any, digits: int = 6) -> str:
    """The entry of a table as the field writes it; ``digits`` of a number without error.

    >>> show({"value": 0.76171, "error": 0.0007}), show(3.0), show(None)
    ('0.76171(70)', '3', '–')
    """
    if isinstance(entry, str):
        return entry
    pair = number(entry)
    if pair is None:
        return "–" if entry is None else str(entry)
    value, error = pair
    return (
        format_value(value, error)
        if math.isfinite(value) and error > 0 and math.isfinite(error)
        else f"{value:.{digits}g}"
    )


def pretty(text: str) -> str:
    """Plain-text symbols of the stages' messages as they are printed.

    >>> pretty("|M| >= 10 tau_int, M^2 0.5 sigma")
    '|M| ≥ 10 τ_int, M² 0.5 σ'
    """
    signs = {
        "^2": "²",
        "tau_int": "τ_int",
        "phi": "φ",
        "sigma": "σ",
        ">=": "≥",
        "<=": "≤",
        "exp(-dH)": "exp(−ΔH)",
    }
    for plain, sign in signs.items():
        text = text.replace(plain, sign)
    return text


def pull(entry: Any, baseline: Any) -> float:
    """(value - baseline)/combined error; nan where either is missing or has no error.

    >>> pull({"value": 1.0, "error": 0.3}, "0.0(4)")
    2.0
    """
    ours, theirs = number(entry), number(baseline)
    if ours is None or theirs is None:
        return math.nan
    error = math.hypot(ours[1], theirs[1])
    return (ours[0] - theirs[0]) / error if error > 0 else math.nan


def grade(size: float) -> str:
    """ "ok" below 2 sigma, "warn" below 3, "off" above, "" for nan."""
    return "" if math.isnan(size) else "ok" if abs(size) < 2 else "warn" if abs(size) < 3 else "off"


def reference_values(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The reference's numbers by observable; {} without a reference.  Reads both {"values": {...}} and a
    plain mapping."""
    reference = summary.get("reference")
    if not isinstance(reference, Mapping):
        return {}
    values = reference.get("values", reference.get("observables", reference))
    return dict(values) if isinstance(values, Mapping) else {}


def comparison(summary: Mapping[str, Any]) -> list[Row]:
    """Rows of the final table, the short table's observables first, in the order of ``LABELS``."""
    columns = summary.get("columns") or {}
    tables = {name: (columns.get(name) or {}).get("observables") or {} for name in COLUMNS}
    if number(summary.get("ln_z")):
        tables["weighted"] = {**tables["weighted"], "ln_z": summary["ln_z"]}
    reference = reference_values(summary)
    present = {name for table in tables.values() for name in table}
    others = sorted(name for name in present - set(LABELS) if in_short_table(name))
    order = [name for name in LABELS if name in present] + others
    return [_row(name, reference, tables) for name in order]


def _row(name: str, reference: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> Row:
    known = number(reference.get(name)) is not None
    baseline = reference.get(name) if known else tables["training"].get(name)
    cells = {}
    for column, table in tables.items():
        if table.get(name) is None:
            cells[column] = Cell()
            continue
        size = math.nan if column == "training" and not known else pull(table[name], baseline)
        cells[column] = Cell(show(table[name]), size, grade(size), _row_tau(table[name]))
    return Row(name, label_of(name), show(reference[name]) if known else "", cells)


def _row_tau(entry: Any) -> str:
    return show_tau(entry) if isinstance(entry, Mapping) and "tau_int" in entry else ""


def show_tau(entry: Any) -> str:
    """tau_int of {"tau_int", "tau_int_error"} or {"value", "error"} or a number; empty if there is none.

    >>> show_tau({"tau_int": 2.5, "tau_int_error": 0.12}), show_tau({"tau_int": None})
    ('2.50(12)', '')
    """
    if isinstance(entry, Mapping) and "tau_int" in entry:
        entry = {"value": entry["tau_int"], "error": entry.get("tau_int_error")}
    pair = number(entry)
    return "" if pair is None or math.isnan(pair[0]) else show(pair)


@dataclass(frozen=True)
class Tile:
    """One number of the verdict line."""

    label: str
    value: str
    note: str = ""
    grade: str = ""


def verdict_tiles(summary: Mapping[str, Any], rows: list[Row], volume: int | None) -> list[Tile]:
    """ESS both ways, acceptance, ln Z, the largest exact pull and the network's gain, where known."""
    tiles, ess, kl = [], summary.get("ess") or {}, summary.get("kl") or {}
    for side, note in (("reverse", "on generated paths"), ("forward", "on noised Monte Carlo")):
        if ess.get(side) is not None:
            tiles.append(Tile(f"ESS/N {side}", show([ess[side], ess.get(f"{side}_error")]), note))
    if summary.get("acceptance") is not None:
        tiles.append(
            Tile("Metropolis acceptance", show(summary["acceptance"], 3), "independence sampler on paths")
        )
    if number(summary.get("ln_z")):
        expected = reference_values(summary).get("ln_z")
        size = pull(summary["ln_z"], expected)
        note = (
            f"reference {show(expected)}, {size:+.1f}σ" if not math.isnan(size) else "log of the mean weight"
        )
        tiles.append(Tile("ln Z", show(summary["ln_z"]), note, grade(size)))
    worst = largest_pull(rows)
    if worst:
        row, column, cell = worst
        note = f"{row.label.html}, {COLUMNS[column]} column; largest of {len(_exact_cells(rows))}"
        tiles.append(Tile("max |pull| after correction", f"{abs(cell.pull):.1f}σ", note, cell.grade))
    if kl.get("gain") is not None:
        note = "nats of path KL on held-out Monte Carlo, base minus base + U-Net"
        if volume and kl.get("model") is not None:
            note += f"; KL/V = {kl['model'] / volume:.2g} per site with it"
        tiles.append(Tile("gain of the U-Net", show([kl["gain"], kl.get("gain_error")]), note))
    return tiles


def largest_pull(rows: list[Row]) -> tuple[Row, str, Cell] | None:
    """The exact (weighted or Metropolis) cell of the short table farthest from its baseline."""
    return max(_exact_cells(rows), key=lambda entry: abs(entry[2].pull), default=None)


def _exact_cells(rows: list[Row]) -> list[tuple[Row, str, Cell]]:
    """Weighted and Metropolis cells with a pull, only those against the reference if there is one."""
    known = any(row.reference for row in rows)
    chosen = [row for row in rows if row.main and (row.reference or not known)]
    found = [(row, column, row.cells[column]) for row in chosen for column in ("weighted", "metropolis")]
    return [entry for entry in found if not math.isnan(entry[2].pull)]


def duration(seconds: float) -> str:
    """Wall-clock time in words.

    >>> duration(4.21), duration(75), duration(7265)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
