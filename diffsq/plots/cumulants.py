"""Cumulants along the process: forward and backward with error bands, against the analytic curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from numpy.typing import NDArray

from diffsq.plots.style import BLUE, INK, VERMILLION, band, panels, spread, styled
from lattice.arrays import Floats

NAMES = {"ve": "variance expanding", "vp": "variance preserving"}
SIDES: tuple[str, ...] = ("forward", "backward")
SIGMA = r"noise level $\sigma$"
N_POINTS = 14  # markers per backward curve
ROOM = 0.6  # of a panel's contents, above and below them
Points = tuple[Floats, Floats]
"""Value and error at every level."""


@styled
def draw_flows(flows: Sequence[dict[str, Any]]) -> Figure:
    """kappa_n(t): one row per process (VE, VP), one column per order.

    A flow is {"sde", "sigma" (n_levels,), "orders", "analytic" (n_levels, n_orders), "forward", "backward":
    {"value", "error"} of that shape}; either curve may be missing.
    """
    orders = flows[0]["orders"]
    page, grid = panels(
        3.5 * len(orders), 3.2 * len(flows) + 0.4, len(flows), len(orders), squeeze=False, sharex="row"
    )
    for row, flow in zip(grid, flows):
        for i, (axes, n) in enumerate(zip(row, orders)):
            curves = {k: _column(flow[k], i) for k in SIDES if k in flow}
            _panel(axes, flow["sde"], n, np.array(flow["sigma"]), np.array(flow["analytic"])[:, i], curves)
            axes.set_title(rf"$\kappa_{n}$, {flow['sde'].upper()}")
        row[0].set_ylabel(rf"$\kappa_n(\sigma)$, {NAMES[flow['sde']]}", fontsize=12)
    _finish(page, grid)
    return page


@styled
def draw_observables(result: dict[str, Any]) -> Figure:
    """kappa_n(t)/kappa_2(0)^{n/2} of a check's observables (rows) and orders; result: of its `run`."""
    seen, orders = result["observables"], result["orders"]
    page, grid = panels(
        3.5 * len(orders), 2.5 * len(seen) + 0.5, len(seen), len(orders), squeeze=False, sharex=True
    )
    for row, entry in zip(grid, seen.values()):
        for i, (axes, n) in enumerate(zip(row, orders)):
            unit = entry["kappa2"] ** (n / 2)
            curves = {k: _column(entry[k], i, unit) for k in SIDES}
            line, error = _column(entry["analytic"], i, unit)
            _panel(axes, result["sde"], n, np.array(result["sigma"]), line, curves, error)
        row[0].set_ylabel(entry["label"].replace("k =", "$k$ =").replace("M", "$M$"))
    for axes, n in zip(grid[0], orders):
        power = "" if n == 2 else f"^{{{n // 2 if n % 2 == 0 else f'{n}/2'}}}"
        axes.set_title(rf"$\kappa_{n}(\sigma)\,/\,\kappa_2(0){power}$")
    _finish(page, grid)
    return page


def _column(curve: dict[str, Any], i: int, unit: float = 1.0) -> Points:
    value, error = (np.array(curve[key], dtype=np.float64)[:, i] / unit for key in ("value", "error"))
    return value, error


def _panel(
    axes: Axes, sde: str, n: int, sigma: Floats, analytic: Floats, curves: dict[str, Points],
    error: Floats | None = None,
) -> None:  # fmt: skip
    """One panel; what is less precise than the panel is high becomes a band over it, without a point."""
    grows = n == 2 and sde == "ve"
    low, high = _limits(grows, analytic, curves, error)
    place = sigma.copy()
    place[0] = sigma[1] * (sigma[1] / sigma[-1]) ** 0.12  # zero has no place on a log axis
    if "forward" in curves:
        value, width = curves["forward"]
        edges = (np.clip(value - width, low, high), np.clip(value + width, low, high))
        axes.fill_between(place, *edges, color=BLUE, alpha=0.3, linewidth=0)
        axes.plot(place, np.where(width < 0.5 * (high - low), value, np.nan), color=BLUE, linewidth=1.2)
    if error is not None:
        band(axes, place, analytic, error, INK, 0.2)
    axes.plot(place, analytic, color=INK, linewidth=1.2, dashes=(4, 2))
    if "backward" in curves:
        value, width = curves["backward"]
        at = [i for i in spread(len(sigma), N_POINTS) if width[i] < 0.5 * (high - low)]
        axes.errorbar(
            place[at], value[at], width[at], fmt="o", color=VERMILLION, markersize=3.5, elinewidth=1.0
        )
    axes.set(xscale="log", ylim=(low, high), yscale="log" if grows else "linear")
    axes.yaxis.set_minor_formatter(NullFormatter())
    steps = (1.0,) if sigma[-1] > 100 * sigma[1] else (1.0, 2.0, 5.0)
    decades = sorted(m * 10.0**e for e in range(-4, 5) for m in steps)
    ticks = [t for t in decades if sigma[1] <= t * 1.001 and t <= sigma[-1] * 1.05]
    axes.set_xticks([place[0], *ticks], ["0", *(f"{t:g}" for t in ticks)])
    axes.xaxis.set_minor_locator(NullLocator())


def _limits(
    grows: bool, analytic: Floats, curves: dict[str, Points], error: Floats | None
) -> tuple[float, float]:
    """Of a panel: the analytic curve, and the estimates at sigma = 0 with their errors, with room around."""
    ends = [float(analytic.min()), float(analytic.max())]
    if grows:
        return ends[0] / 1.5, ends[1] * 1.5
    for value, width in [*curves.values(), (analytic, error if error is not None else 0 * analytic)]:
        ends += [float(value[0] - 1.5 * width[0]), float(value[0] + 1.5 * width[0])]
    low, high = min(ends), max(ends)
    room = ROOM * max(high - low, 0.1 * max(abs(low), abs(high)), 1e-3)
    return low - room, high + room


def _finish(page: Figure, grid: NDArray[Any]) -> None:
    for axes in grid[-1]:
        axes.set_xlabel(SIGMA)
    axes = grid[0, 0]
    handles = [
        axes.plot([], [], color=INK, linewidth=1.2, dashes=(4, 2))[0],
        axes.fill_between([], [], [], color=BLUE, alpha=0.3),
        axes.errorbar([], [], [], fmt="o", color=VERMILLION, markersize=3.5),
    ]
    page.legend(handles, ["analytic", "forward", "backward"], loc="outside upper right", ncols=3)
