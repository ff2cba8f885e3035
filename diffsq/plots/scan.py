"""A coupling scan: observables against kappa, one curve per lattice size, and the crossings of U_L."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from diffsq.plots.estimators import Curve
from diffsq.plots.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, light_grid, new_figure, styled
from lattice.scans.crossings import ISING, curve_fit, dimensionless
from lattice.scans.scaling import MIN_POINTS, CurveFit
from lattice.scans.table import CERTIFIED, extents, tau_trajectories
from lattice.statistics.notation import format_value

SERIES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (INK, "v"), (GREY, "P"))
FIELD = r"[$\kappa$–$\lambda$ field]"


@styled
def scan_magnetization(curves: Mapping[str, Curve], where: str = "") -> Figure:
    """<|M|> against kappa; ``curves`` maps a label (L = 16) to (kappa, value, error)."""
    return _scan(curves, rf"$\langle |M| \rangle$  {FIELD}", where, bottom=0.0)


@styled
def scan_susceptibility(curves: Mapping[str, Curve], where: str = "") -> Figure:
    """chi = V(<M^2> - <|M|>^2) against kappa."""
    label = rf"$\chi = V(\langle M^2 \rangle - \langle |M| \rangle^2)$  {FIELD}"
    return _scan(curves, label, where, log=_decades(curves) > 1.3)


@styled
def scan_binder(curves: Mapping[str, Curve], where: str = "") -> Figure:
    """U_L = 1 - <M^4>/(3 <M^2>^2) against kappa."""
    label = r"$U_L = 1 - \langle M^4 \rangle / 3 \langle M^2 \rangle^2$  [dimensionless]"
    return _scan(curves, label, where)


@styled
def scan_correlation_length(curves: Mapping[str, Curve], where: str = "") -> Figure:
    """xi_2nd/L against kappa."""
    return _scan(curves, r"$\xi_{\rm 2nd}/L$  [dimensionless]", where, bottom=0.0)


@styled
def scan_tau(curves: Mapping[str, Curve], where: str = "") -> Figure:
    """tau_int(M^2) = 1/2 + sum rho in trajectories against kappa."""
    label = r"$\tau_{\rm int}(M^2) = \frac{1}{2} + \Sigma\rho$  [trajectories]"
    return _scan(curves, label, where, log=_decades(curves) > 1.0, bottom=0.0)


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
    figure = new_figure(10.6, 5.2)
    axes = figure.subplots()
    fits = [curve_fit(entry) for entry in block["fits"]]
    for (colour, marker), (label, curve), fit in zip(_series(len(fits)), curves.items(), fits):
        _points(axes, curve, colour, marker, label)
        _band(axes, fit, colour)
    sizes = [fit.length for fit in fits]
    pairs = [p for p in block["pairs"] if tuple(p["L"]) in list(zip(sizes, sizes[1:])) and "kappa" in p]
    for pair in pairs:
        text = rf"${pair['L'][0]} \times {pair['L'][1]}$: $\kappa_\times = {_number(pair, 'kappa')}$"
        axes.errorbar(
            pair["kappa"], pair["value"], pair["value_error"], pair["kappa_error"], fmt="*", markersize=13,
            markerfacecolor="white", color=INK, zorder=6, label=text,
        )  # fmt: skip
    _limit_band(axes, block, pairs)
    if star is not None:
        label = rf"2D Ising $U^* = {star:.4f}$"
        axes.axhline(star, color=GREY, dashes=(6, 3), linewidth=1.2, zorder=0, label=label)
    _window(axes, curves, pairs, block)
    _kappa_axis(axes, where)
    axes.set_ylabel(r"$U_L = 1 - \langle M^4 \rangle / 3 \langle M^2 \rangle^2$  [dimensionless]")
    figure.legend(loc="outside right upper")
    return figure


def scan_figures(content: Mapping[str, Any]) -> dict[str, Figure]:
    """{file name: figure} of the content of scan.json: certified points, curves of at least three kappas.

    A scan of single points has no figures.
    """
    groups: dict[tuple[int, float], dict[str, list[Mapping[str, Any]]]] = {}
    for result in sorted(content["points"], key=_order):
        if result["status"] == CERTIFIED:
            shape, lam = result["request"]["shape"], result["request"]["action"]["lam"]
            sizes = groups.setdefault((len(shape), lam), {})
            sizes.setdefault(f"$L = {extents(shape)}$".replace("x", r" \times "), []).append(result)
    figures: dict[str, Figure] = {}
    for (dim, lam), sizes in groups.items():
        sizes = {label: results for label, results in sizes.items() if len(results) >= MIN_POINTS}
        if not sizes:
            continue
        where = rf"$\lambda = {lam:g}$" + ("" if dim == 2 else rf", $d = {dim}$")
        suffix = "" if len(groups) == 1 else f"_d{dim}_lam{lam:g}"
        for name, draw, read in _FIGURES:
            every = {label: _curve(results, read) for label, results in sizes.items()}
            curves = {label: curve for label, curve in every.items() if len(curve.x)}
            if curves:
                figures[f"{name}{suffix}"] = draw(curves, where)
        for block in content["crossings"]:
            if (block["quantity"], block["dim"], block["lam"]) == ("binder", dim, lam):
                labels = {f"$L = {fit['L']}$" for fit in block["fits"]}
                curves = {k: _curve(v, dimensionless) for k, v in sizes.items() if k in labels}
                star = ISING["binder"] if dim == 2 else None
                figures[f"crossing{suffix}"] = binder_crossing(curves, block, where, star=star)
    return figures


def _order(result: Mapping[str, Any]) -> tuple[Sequence[int], float]:
    return result["request"]["shape"], result["request"]["action"]["kappa"]


def _observable(name: str) -> Any:
    def read(result: Mapping[str, Any]) -> tuple[float, float] | None:
        entry = result["observables"][name]
        return None if entry["value"] is None or entry["error"] is None else (entry["value"], entry["error"])

    return read


def _xi_over_l(result: Mapping[str, Any]) -> tuple[float, float] | None:
    return dimensionless(result, "xi_over_L")


_FIGURES: tuple[tuple[str, Any, Any], ...] = (
    ("magnetization", scan_magnetization, _observable("abs_magnetization")),
    ("susceptibility", scan_susceptibility, _observable("susceptibility")),
    ("binder", scan_binder, dimensionless),
    ("correlation_length", scan_correlation_length, _xi_over_l),
    ("tau", scan_tau, tau_trajectories),
)


def _curve(results: Sequence[Mapping[str, Any]], read: Any) -> Curve:
    rows = [(r["request"]["action"]["kappa"], *pair) for r in results if (pair := read(r)) is not None]
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Curve(table[:, 0], table[:, 1], table[:, 2])


def _series(n: int) -> list[tuple[str, str]]:
    return [SERIES[i % len(SERIES)] for i in range(n)]


def _scan(
    curves: Mapping[str, Curve], ylabel: str, where: str, *, log: bool = False, bottom: float | None = None
) -> Figure:
    figure = new_figure(7.2, 4.6)
    axes = figure.subplots()
    for (colour, marker), (label, curve) in zip(_series(len(curves)), curves.items()):
        axes.plot(curve.x, curve.value, color=colour, linewidth=1.0, alpha=0.45)  # a guide for the eye
        _points(axes, curve, colour, marker, label)
    if log:
        axes.set_yscale("log")
    elif bottom is not None:
        axes.set_ylim(bottom=bottom)
    _kappa_axis(axes, where)
    axes.set_ylabel(ylabel)
    axes.legend(loc="best")
    return figure


def _points(axes: Axes, curve: Curve, colour: str, marker: str, label: str) -> None:
    axes.errorbar(curve.x, curve.value, curve.error, fmt=marker, color=colour, label=label, zorder=4)


def _band(axes: Axes, fit: CurveFit, colour: str) -> None:
    kappa = np.linspace(*fit.kappas, 200)
    value, error = fit.value(kappa), fit.error(kappa)
    axes.fill_between(kappa, value - error, value + error, color=colour, alpha=0.25, linewidth=0)
    axes.plot(kappa, value, color=colour, linewidth=1.2)


def _limit_band(axes: Axes, block: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> None:
    source = block["universal"] or block["limit"]
    if source is not None:
        fit = source["kappa"]
        value, error = fit["limit"], fit["total_error"]
        how = r"$U_L = U^*$" if block["universal"] else "crossings"
        label = rf"$\kappa_c = {format_value(value, error)}$, {how}"
    elif pairs:
        value, error, label = pairs[-1]["kappa"], pairs[-1]["kappa_error"], None
    else:
        return
    axes.axvspan(value - error, value + error, color=GREY, alpha=0.35, linewidth=0, zorder=0, label=label)


def _window(axes: Axes, curves: Mapping[str, Curve], pairs: Sequence[Mapping[str, Any]], block: Any) -> None:
    """All points of all sizes, but no more of the curves below than the crossings need."""
    x = np.concatenate([curve.x for curve in curves.values()])
    y = np.concatenate([curve.value for curve in curves.values()])
    margin = 0.04 * float(np.ptp(x))
    axes.set_xlim(float(x.min()) - margin, float(x.max()) + margin)
    if pairs:
        lowest = min(pair["value"] for pair in pairs)
        axes.set_ylim(bottom=max(float(y.min()) - 0.02, lowest - 0.15))


def _kappa_axis(axes: Axes, where: str) -> None:
    unit = ", ".join(filter(None, (r"$\kappa$–$\lambda$ convention", where)))
    axes.set_xlabel(rf"hopping parameter $\kappa$  [{unit}]")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    plain = ScalarFormatter(useOffset=False)
    plain.set_scientific(False)
    axes.xaxis.set_major_formatter(plain)
    light_grid(axes)


def _number(pair: Mapping[str, Any], key: str) -> str:
    return format_value(pair[key], pair[f"{key}_error"])


def _decades(curves: Mapping[str, Curve]) -> float:
    y = np.concatenate([curve.value for curve in curves.values()])
    return float(np.log10(y.max() / y.min())) if y.min() > 0 else 0.0
