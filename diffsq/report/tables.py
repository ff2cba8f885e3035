"""The numbers of the page: the final table with pulls, tiles, and how they are printed.

Everything comes from the run's summary; what a column is held against is said there
(`diffsq.run_folder.summary`).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffsq.run_folder.pulls import pull
from diffsq.run_folder.summary import TRAINING, prefix_of, set_label, truth_of
from lattice.observables.names import in_short_table
from lattice.statistics.notation import format_value
from lattice.statistics.weights import spread_words

CORRECTED = {"raw": "raw", "weighted": "weighted", "metropolis": "Metropolis"}
MAX_TILES = 12


@dataclass(frozen=True)
class Label:
    """An observable's symbol in HTML and in mathtext, and its definition in the project's conventions."""

    html: str
    math: str
    definition: str = ""


LABELS = {
    "abs_magnetization": Label("⟨|<i>M</i>|⟩", r"$\langle|M|\rangle$", "M = V⁻¹ Σ φ"),
    "susceptibility": Label("χ", r"$\chi$", "V(⟨M²⟩ − ⟨|M|⟩²)"),
    "susceptibility_full": Label("<i>V</i>⟨<i>M</i>²⟩", r"$V\langle M^2\rangle$", "G(k=0)"),
    "binder": Label("<i>U<sub>L</sub></i>", r"$U_L$", "1 − ⟨M⁴⟩/(3⟨M²⟩²)"),
    "action_density": Label("<i>s</i>", r"$s$", "⟨S⟩/V"),
    "phi2": Label("⟨φ²⟩", r"$\langle\phi^2\rangle$", "per site"),
    "phi4": Label("⟨φ⁴⟩", r"$\langle\phi^4\rangle$", "per site"),
    "magnetization": Label("⟨<i>M</i>⟩", r"$\langle M\rangle$", "M = V⁻¹ Σ φ"),
    "kappa4_ratio": Label(
        "κ<sub>4</sub>/κ<sub>2</sub>²", r"$\kappa_4/\kappa_2^2$", "cumulants of φ at one site"
    ),
    "kappa6_ratio": Label(
        "κ<sub>6</sub>/κ<sub>2</sub>³", r"$\kappa_6/\kappa_2^3$", "cumulants of φ at one site"
    ),
    "xi_2nd": Label("ξ<sub>2nd</sub>", r"$\xi_{\rm 2nd}$", "√(G(0)/G(k₁) − 1)/(2 sin(π/L))"),
    "plaquette": Label("⟨cos θ<sub>p</sub>⟩", r"$\langle\cos\theta_p\rangle$", "plaquette"),
    **{
        f"wilson_{r}x{t}": Label(f"<i>W</i>({r}×{t})", rf"$W({r}\times {t})$", "Wilson loop")
        for r in (1, 2, 3) for t in (1, 2, 3)
    },
    **{
        f"creutz_{r}x{r}": Label(f"χ({r}, {r})", rf"$\chi({r},{r})$", "Creutz ratio") for r in (2, 3)
    },
    **{
        f"polyakov{n}_{axis}": Label(
            f"⟨Re <i>P</i><sub>{axis}</sub>⟩" if not n else f"⟨|<i>P</i><sub>{axis}</sub>|²⟩",
            rf"$\langle{{\rm Re}}P_{axis}\rangle$" if not n else rf"$\langle|P_{axis}|^2\rangle$",
            "line around the torus, averaged over the parallel ones",
        )
        for n in ("", "2") for axis in (0, 1)
    },
    **{
        f"polyakov_sq_{axis}": Label(
            f"⟨Re <i>P</i><sub>{axis}</sub>²⟩", rf"$\langle{{\rm Re}}P_{axis}^2\rangle$",
            "line around the torus, twice",
        )
        for axis in (0, 1)
    },
    "charge": Label("⟨<i>Q</i>⟩", r"$\langle Q\rangle$", "topological charge"),
    "charge2": Label("⟨<i>Q</i>²⟩", r"$\langle Q^2\rangle$", "topological charge"),
    "chi_top": Label("χ<sub>top</sub>", r"$\chi_{\rm top}$", "⟨Q²⟩/V"),
    "ln_z": Label("ln <i>Z</i>", r"$\ln Z$", "ln of the mean weight, nats"),
}  # fmt: skip
_CUMULANTS_OF = {
    None: ("", "cumulants of φ at one site"),
    "_m": (" of <i>M</i>", "cumulants of M"),
    "_k1": (" of <i>φ̃</i>(k₁)", "cumulants of Re and Im φ̃/√V, lowest momentum"),
    "_k2": (" of <i>φ̃</i>(k₂)", "cumulants of Re and Im φ̃/√V, second momentum"),
}


def label_of(name: str, variable: str = "") -> Label:
    """The label of any observable of a table; its bare name if it is not known.

    variable: "z" or "φ" in the table of one variable.

    >>> label_of("kappa8_m_ratio").html, label_of("phi4").html, label_of("new").html
    ('κ<sub>8</sub>/κ<sub>2</sub>⁴ of <i>M</i>', '⟨φ⁴⟩', 'new')
    >>> label_of("Re m4", "z").html
    'Re ⟨z<sup>4</sup>⟩'
    """
    if variable and (match := re.fullmatch(r"(Re |Im )?(m|kappa)([2468])", name)):
        part, kind, order = match[1] or "", match[2], match[3]
        tex = {"z": "z", "φ": r"\phi"}[variable]
        if kind == "m":
            return Label(f"{part}⟨{variable}<sup>{order}</sup>⟩", rf"{part}$\langle {tex}^{order}\rangle$")
        return Label(f"{part}κ<sub>{order}</sub>", rf"{part}$\kappa_{order}$")
    if name in LABELS:
        return LABELS[name]
    match = re.fullmatch(r"kappa([2468])(_m|_k1|_k2)?(_ratio(?:_z2)?)?", name)
    if not match:
        return Label(html.escape(name), name)
    order, of, ratio = match.groups()
    symbol = f"κ<sub>{order}</sub>" + (f"/κ<sub>2</sub>{'⁰¹²³⁴'[int(order) // 2]}" if ratio else "")
    what, caption = _CUMULANTS_OF[of]
    if ratio == "_ratio_z2":
        caption += ", odd moments set to 0"
    return Label(symbol + what, name, caption)


@dataclass(frozen=True)
class Cell:
    """A number as printed, its pull (nan if there is none), and how far off it is: "ok", "warn", "off" or
    ""."""

    text: str = "–"
    pull: float = math.nan
    tau: str = ""

    @property
    def grade(self) -> str:
        return grade(self.pull)

    @property
    def pull_text(self) -> str:
        """Signed pull with a mark that needs no colour: nothing below 2, ! below 3, !! above."""
        if math.isnan(self.pull):
            return ""
        return f"{self.pull:+.1f}σ" + {"warn": " !", "off": " !!"}.get(self.grade, "")


@dataclass(frozen=True)
class Row:
    """One observable: its label, what is known of it as printed, one cell per column; main: of the short
    table."""

    name: str
    label: Label
    known: str
    main: bool
    cells: dict[str, Cell] = field(default_factory=dict)


def grade(size: float) -> str:
    """ "ok" below 2 sigma, "warn" below 3, "off" above, "" for nan."""
    return "" if math.isnan(size) else "ok" if abs(size) < 2 else "warn" if abs(size) < 3 else "off"


def show(entry: Any, digits: int = 6) -> str:
    """{"value", "error"}, a pair (value, error) or a number as the field writes it; text as it is.

    >>> show({"value": 0.76171, "error": 0.0007}), show(3.0), show(None), show([1.5, None])
    ('0.76171(70)', '3', '–', '1.5')
    """
    if isinstance(entry, Mapping):
        entry = (entry.get("value"), entry.get("error"))
    value, error = entry if isinstance(entry, list | tuple) else (entry, None)
    if isinstance(value, str) or value is None:
        return value or "–"
    if error is not None and 0 < error < math.inf and math.isfinite(value):
        return format_value(value, error)
    return f"{value:.{digits}g}"


def show_tau(entry: Any) -> str:
    """tau_int of {"tau_int", "tau_int_error"} or {"value", "error"} or a number; empty if there is none.

    >>> show_tau({"tau_int": 2.5, "tau_int_error": 0.12}), show_tau({"tau_int": None})
    ('2.50(12)', '')
    """
    if isinstance(entry, Mapping):
        value = entry.get("tau_int", entry.get("value"))
        entry = None if value is None else (value, entry.get("tau_int_error", entry.get("error")))
    return "" if entry is None else show(entry)


def pretty(text: str) -> str:
    """Plain-text symbols of the stages' messages as they are printed.

    >>> pretty("|M| >= 10 tau_int, M^2 0.5 sigma")
    '|M| ≥ 10 τ_int, M² 0.5 σ'
    """
    signs = {
        "^2": "²", "tau_int": "τ_int", "phi": "φ", "sigma": "σ", ">=": "≥", "<=": "≤", "exp(-dH)": "exp(−ΔH)",
        "kappa": "κ", "epsilon": "ε", "infinity": "∞",
    }  # fmt: skip
    for plain, sign in signs.items():
        text = text.replace(plain, sign)
    return text


def column_labels(summary: Mapping[str, Any]) -> dict[str, str]:
    """Heading of every column: the data by how they were made, corrected columns, sample sets by name."""
    config = summary.get("config") or {}
    made = config.get("ensemble") or {}
    data = (
        "data"
        if "data" in made or "ensemble" in config and config["ensemble"] is None
        else "complex Langevin"
        if "imaginary_noise" in made
        else "networks"
        if "n_chains" in made and "n_therm" not in made
        else "Monte Carlo"
        if "n_chains" in made
        else "exact draws"
    )
    return {
        name: data if name == TRAINING else CORRECTED.get(name, name.replace(" metropolis", " Metropolis"))
        for name in summary.get("columns") or {}
    }


def variable_of(summary: Mapping[str, Any]) -> str:
    """ "z" or "φ" for the table of one variable, "" for fields on a lattice."""
    rows = summary.get("rows") or []
    return "z" if "Re m2" in rows else "φ" if "m2" in rows else ""


def comparison(summary: dict[str, Any]) -> list[Row]:
    """Rows of the final table, the short table's observables first."""
    if not summary.get("columns"):
        return []
    tables = {name: dict(column["observables"]) for name, column in summary["columns"].items()}
    for name, sampling in summary["sampling"].items():
        column = f"{prefix_of(summary.get('config', {}), summary['sampling'], name)}weighted"
        if column in tables and sampling["ln_z"]["value"] is not None:
            tables[column]["ln_z"] = sampling["ln_z"]
    present = {name for table in tables.values() for name in table}
    main = [name for name in (*summary["rows"], "ln_z") if name in present]
    others = sorted(name for name in present - set(main) if not variable_of(summary) and in_short_table(name))
    truths = {column: truth_of(summary, column) for column in tables}
    known = truth_of(summary, TRAINING)
    published = (summary["reference"] or {"values": {}})["values"]
    rows = []
    for name in (*main, *others):
        cells = {column: _cell(table.get(name), truths[column].get(name)) for column, table in tables.items()}
        text = published.get(name) or (show(known[name]) if name in known else "")
        rows.append(Row(name, label_of(name, variable_of(summary)), text, name in main, cells))
    return rows


def _cell(entry: Mapping[str, Any] | None, truth: tuple[float, float] | None) -> Cell:
    if entry is None:
        return Cell()
    size = pull(entry, truth)
    tau = show_tau(entry) if "tau_int" in entry else ""
    return Cell(show(entry), math.nan if size is None else size, tau)


@dataclass(frozen=True)
class Tile:
    """One number of the verdict line."""

    label: str
    value: str
    note: str = ""
    grade: str = ""


def verdict_tiles(summary: dict[str, Any], rows: list[Row], volume: int) -> list[Tile]:
    """Complex Langevin's verdict, the largest pull after correction, ESS both ways, acceptance, ln Z, the
    gain."""
    if not rows:
        return []
    tiles = []
    if summary["ensemble_verdict"]:
        tiles.append(Tile("complex Langevin", summary["ensemble_verdict"], "verdict below"))
    worst = largest_pull(summary, rows)
    if worst:
        row, column, cell = worst
        n = len(gated_cells(summary, rows))
        note = f"{row.label.html}, {column_labels(summary)[column]}; largest of {n}"
        tiles.append(Tile("max |pull| of the samples", f"{abs(cell.pull):.1f}σ", note, cell.grade))
    for name, sampling in summary["sampling"].items():
        prefix = f"{set_label(summary.get('config', {}), name)}: " if len(summary["sampling"]) > 1 else ""
        tiles += [
            Tile(prefix + tile.label, tile.value, tile.note, tile.grade)
            for tile in _set_tiles(summary, sampling)
        ]
        kl = sampling["kl"]
        if kl.get("gain") is not None:
            pair = "Wiener filter minus Wiener filter" if kl.get("base") is None else "base minus base"
            note = f"nats of path KL on held-out Monte Carlo, {pair} + U-Net"
            if kl.get("model") is not None:
                error = kl.get("model_error")
                per_site = [kl["model"] / volume, None if error is None else error / volume]
                note += f"; KL/V = {show(per_site)} per site with it"
            tiles.append(Tile("gain of the U-Net", show([kl["gain"], kl.get("gain_error")]), note))
    return tiles[:MAX_TILES]


def _set_tiles(summary: dict[str, Any], sampling: dict[str, Any]) -> list[Tile]:
    tiles, ess = [], sampling["ess"]
    is_drawn = bool((summary.get("config") or {}).get("machine"))
    notes = ("on its draws", "on the data") if is_drawn else ("on generated paths", "on noised data")
    for side, note in zip(("reverse", "forward"), notes, strict=True):
        if ess.get(side) is not None:
            about = spread_words((sampling.get("spread") or {}).get(side) or {})
            value = show([ess[side], ess.get(f"{side}_error")])
            tiles.append(Tile(f"ESS/N {side}", value, "; ".join([note, *about])))
    if sampling["acceptance"] is not None:
        rate = show([sampling["acceptance"], sampling.get("acceptance_error")])
        tiles.append(Tile("Metropolis acceptance", rate, "independence sampler on paths"))
    if sampling["ln_z"]["value"] is not None and not variable_of(summary):
        truth = truth_of(summary).get("ln_z")
        size = pull(sampling["ln_z"], truth)
        word = "exact" if summary.get("against") == "exact" else "reference"
        note = "log of the mean weight" if size is None else f"{word} {show(truth)}, {size:+.1f}σ"
        tiles.append(Tile("ln Z", show(sampling["ln_z"]), note, grade(math.nan if size is None else size)))
    return tiles


def gated_cells(summary: Mapping[str, Any], rows: list[Row]) -> list[tuple[Row, str, Cell]]:
    """The cells with a pull that the verdict asks for."""
    found = [
        (row, name, row.cells[name])
        for row in rows
        if row.main
        for name in summary["gated"]
        if name in row.cells
    ]
    return [entry for entry in found if not math.isnan(entry[2].pull)]


def largest_pull(summary: Mapping[str, Any], rows: list[Row]) -> tuple[Row, str, Cell] | None:
    """That of them farthest from what it is held against."""
    return max(gated_cells(summary, rows), key=lambda entry: abs(entry[2].pull), default=None)


def duration(seconds: float) -> str:
    """Wall-clock time in words.

    >>> duration(4.21), duration(75), duration(7265)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
