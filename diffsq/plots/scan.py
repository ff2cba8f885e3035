"""A coupling scan: observables against kappa, one curve per lattice size, and the crossings of U_L."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from diffsq.plots.estimators import Curve
from diffsq.plots.style import FIELD, GREY, INK, SERIES, band, panels, styled
from lattice.scans.crossings import ISING, curve_fit, dimensionless
from lattice.scans.scaling import MIN_POINTS
from lattice.scans.table import CERTIFIED, axis_of, extents, fixed_of, in_words, tau_trajectories
from lattice.statistics.notation import format_entry, format_value

SYMBOL = {"kappa": r"\kappa", "temperature": "T"}
Point = Mapping[str, Any]
"""One result of `lattice.scans.scan`."""


def _observable(name: str, result: Point) -> tuple[float, float] | None:
    entry = result["observables"][name]
    return None if entry["value"] is None or entry["error"] is None else (entry["value"], entry["error"])


@dataclass(frozen=True)
class Quantity:
    """What is drawn against kappa: label, (value, error) of a point, the lowest value shown (None: of the
    curves), and how many decades the curves span before the axis is logarithmic."""

    label: str
    read: Callable[[Any], tuple[float, float] | None]
    bottom: float | None = None
    decades: float = np.inf


QUANTITIES = {
    "magnetization": Quantity(
        rf"$\langle |M| \rangle$  {FIELD}", partial(_observable, "abs_magnetization"), bottom=0.0
    ),
    "susceptibility": Quantity(  # chi = V(<M^2> - <|M|>^2)
        rf"$\chi = V(\langle M^2 \rangle - \langle |M| \rangle^2)$  {FIELD}",
        partial(_observable, "susceptibility"), decades=1.3,
    ),
    "binder": Quantity(
        r"$U_L = 1 - \langle M^4 \rangle / 3 \langle M^2 \rangle^2$  [dimensionless]", dimensionless
    ),
    "correlation_length": Quantity(
        r"$\xi_{\rm 2nd}/L$  [dimensionless]", partial(dimensionless, quantity="xi_over_L"), bottom=0.0
    ),
    "tau": Quantity(
        r"$\tau_{\rm int}(M^2) = \frac{1}{2} + \Sigma\rho$  [trajectories]", tau_trajectories, bottom=0.0,
        decades=1.0,
    ),
}  # fmt: skip


@styled
def scan_figure(name: str, curves: Mapping[str, Curve], where: str = "", axis: str = "kappa") -> Figure:
    """One of `QUANTITIES` against kappa; ``curves`` maps a label (L = 16) to (kappa, value, error)."""
    quantity = QUANTITIES[name]
    figure, axes = panels(7.2, 4.6)
    for (label, curve), (colour, marker) in _series(curves):
        axes.plot(curve.x, curve.value, color=colour, linewidth=1.0, alpha=0.45)  # a guide for the eye
        _points(axes, curve, colour, marker, label)
    y = np.concatenate([curve.value for curve in curves.values()])
    if y.min() > 0 and np.log10(y.max() / y.min()) > quantity.decades:
        axes.set_yscale("log")
    elif quantity.bottom is not None:
        axes.set_ylim(bottom=quantity.bottom)
    _coupling_axis(axes, where, axis)
    axes.set_ylabel(quantity.label)
    axes.legend(loc="best")
    return figure


@styled
def binder_crossing(
    curves: Mapping[str, Curve], block: Mapping[str, Any], where: str = "", *, star: float | None = None
) -> Figure:
    """U_L(kappa) with its fits (bands: one error) and the crossings of each size with the next larger one.

    ``curves`` is keyed by the label of each size, ``block`` is one of
    `lattice.scans.crossings.binder_crossings`. The vertical band is the extrapolated kappa_c (from U_L = U*
    where that is known, else from crossings), or the crossing of the two largest sizes that meet; ``star``
    draws a known limit of U_L.
    """
    figure, axes = panels(10.6, 5.2)
    fits = [curve_fit(entry) for entry in block["fits"]]
    for ((label, curve), (colour, marker)), fit in zip(_series(curves), fits):
        _points(axes, curve, colour, marker, label)
        kappa = np.linspace(*fit.kappas, 200)
        band(axes, kappa, fit.value(kappa), fit.error(kappa), colour)
        axes.plot(kappa, fit.value(kappa), color=colour, linewidth=1.2)
    sizes = [fit.length for fit in fits]
    pairs = [p for p in block["pairs"] if tuple(p["L"]) in list(zip(sizes, sizes[1:])) and "kappa" in p]
    for pair in pairs:
        label = r"${} \times {}$: ${}_\times = {}$".format(
            *pair["L"], SYMBOL[block.get("axis", "kappa")], format_entry(pair, "kappa")
        )
        axes.errorbar(
            pair["kappa"], pair["value"], pair["value_error"], pair["kappa_error"], fmt="*", markersize=13,
            markerfacecolor="white", color=INK, zorder=6, label=label,
        )  # fmt: skip
    _limit_band(axes, block, pairs)
    if star is not None:
        label = rf"2D Ising $U^* = {star:.4f}$"
        axes.axhline(star, color=GREY, dashes=(6, 3), linewidth=1.2, zorder=0, label=label)
    _window(axes, curves, pairs)
    _coupling_axis(axes, where, block.get("axis", "kappa"))
    axes.set_ylabel(QUANTITIES["binder"].label)
    figure.legend(loc="outside right upper")
    return figure


def scan_figures(content: Mapping[str, Any]) -> dict[str, Figure]:
    """{file name: figure} of the content of scan.json: certified points, curves of at least three kappas.

    A scan of single points has no figures.
    """
    groups: dict[tuple[int, str, str], dict[str, list[Point]]] = {}
    for result in sorted(content["points"], key=_order):
        if result["status"] == CERTIFIED:
            shape, action = result["request"]["shape"], result["request"]["action"]
            sizes = groups.setdefault((len(shape), axis_of(action), in_words(fixed_of(action))), {})
            sizes.setdefault(f"$L = {extents(shape)}$".replace("x", r" \times "), []).append(result)
    figures: dict[str, Figure] = {}
    for (dim, axis, fixed), sizes in groups.items():
        sizes = {label: results for label, results in sizes.items() if len(results) >= MIN_POINTS}
        if not sizes:
            continue
        where = f"${fixed}$".replace("lam ", r"\lambda ") + ("" if dim == 2 else rf", $d = {dim}$")
        suffix = "" if len(groups) == 1 else f"_d{dim}_{fixed.replace(' = ', '').replace(', ', '_')}"
        for name, quantity in QUANTITIES.items():
            every = {label: _curve(results, quantity.read) for label, results in sizes.items()}
            curves = {label: curve for label, curve in every.items() if len(curve.x)}
            if curves:
                figures[f"{name}{suffix}"] = scan_figure(name, curves, where, axis)
        for block in content["crossings"]:
            own = (block["quantity"], block["dim"], block.get("axis", "kappa"), _fixed(block))
            if own == ("binder", dim, axis, fixed):
                labels = {f"$L = {fit['L']}$" for fit in block["fits"]}
                curves = {k: _curve(v, dimensionless) for k, v in sizes.items() if k in labels}
                other = block.get("fixed", {})
                star = ISING["binder"] if dim == 2 and "q" not in other and not other.get("h") else None
                figures[f"crossing{suffix}"] = binder_crossing(curves, block, where, star=star)
    return figures


def _order(result: Point) -> tuple[Sequence[int], float]:
    return result["request"]["shape"], _at(result)


def _at(result: Point) -> float:
    """Where on the axis a point is."""
    action = result["request"]["action"]
    return float(action[axis_of(action)])


def _fixed(block: Mapping[str, Any]) -> str:
    return in_words(block.get("fixed", {"lam": block.get("lam")}))


def _curve(results: Sequence[Point], read: Callable[[Any], tuple[float, float] | None]) -> Curve:
    rows = [(_at(r), *pair) for r in results if (pair := read(r)) is not None]
    return Curve(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)


def _series(curves: Mapping[str, Curve]) -> list[tuple[tuple[str, Curve], tuple[str, str]]]:
    return [(item, SERIES[i % len(SERIES)]) for i, item in enumerate(curves.items())]


def _points(axes: Axes, curve: Curve, colour: str, marker: str, label: str) -> None:
    axes.errorbar(curve.x, curve.value, curve.error, fmt=marker, color=colour, label=label, zorder=4)


def _limit_band(axes: Axes, block: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> None:
    source = block["universal"] or block["limit"]
    if source is not None:
        fit = source["kappa"]
        value, error = fit["limit"], fit["total_error"]
        how = r"$U_L = U^*$" if block["universal"] else "crossings"
        symbol = SYMBOL[block.get("axis", "kappa")]
        label = rf"${symbol}_c = {format_value(value, error)}$, {how}"
    elif pairs:
        value, error, label = pairs[-1]["kappa"], pairs[-1]["kappa_error"], None
    else:
        return
    axes.axvspan(value - error, value + error, color=GREY, alpha=0.35, linewidth=0, zorder=0, label=label)


def _window(axes: Axes, curves: Mapping[str, Curve], pairs: Sequence[Mapping[str, Any]]) -> None:
    """All points of all sizes, but no more of the curves below than the crossings need."""
    x, y = (np.concatenate([getattr(curve, of) for curve in curves.values()]) for of in ("x", "value"))
    margin = 0.04 * float(np.ptp(x))
    axes.set_xlim(float(x.min()) - margin, float(x.max()) + margin)
    if pairs:
        lowest = min(pair["value"] for pair in pairs)
        axes.set_ylim(bottom=max(float(y.min()) - 0.02, lowest - 0.15))


def _coupling_axis(axes: Axes, where: str, axis: str) -> None:
    if axis == "kappa":
        unit = ", ".join(filter(None, (r"$\kappa$–$\lambda$ convention", where)))
        axes.set_xlabel(rf"hopping parameter $\kappa$  [{unit}]")
    else:
        axes.set_xlabel(rf"temperature $T$  [{where}]")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    plain = ScalarFormatter(useOffset=False)
    plain.set_scientific(False)
    axes.xaxis.set_major_formatter(plain)
