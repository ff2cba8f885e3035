"""Monte Carlo histories: thermalisation of hot and cold starts, autocorrelation function and tau_int(W)."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots.estimators import Autocorrelation
from diffsq.plots.style import BLUE, COLD, FIELD, GREY, HOT, INK, band, note, panels, styled
from lattice.arrays import Floats, real_array

Band = tuple[float, float]
KINDS = (("hot", HOT, (0, ())), ("cold", COLD, (0, (5, 1))), ("wall", GREY, (0, (1, 1))))


@styled
def thermalisation(
    abs_magnetization: ArrayLike, action_density: ArrayLike, start: Sequence[str], *, cut: int | None = None,
    equilibrium: tuple[Band | None, Band | None] = (None, None),
) -> Figure:  # fmt: skip
    """|M| and s against Monte Carlo time for hot and cold chains.

    ``abs_magnetization`` and ``action_density`` are (n_therm, n_chains), ``start`` names each chain's
    start, ``cut`` is the trajectory after which configurations are kept (default n_therm) and
    ``equilibrium`` the production (value, error) of <|M|> and s.  Thin: single chains; thick: mean over
    chains of equal start with its standard error.
    """
    figure, (left, right) = panels(11.0, 4.2, 1, 2)
    about = (
        (left, abs_magnetization, rf"$|M|$  {FIELD}", r"$\langle |M| \rangle$"),
        (right, action_density, r"$s = S/V$  [per site]", r"$s$"),
    )
    for (axes, history, label, name), production in zip(about, equilibrium):
        data = real_array(history, "history")
        _histories(axes, data, start)
        end = len(data) if cut is None else cut
        _mark(axes, end, "kept from here", 0.97, linewidth=1.4, rotation=90)
        if production is not None and np.isfinite(production).all():
            value, error = production
            axes.axhspan(value - error, value + error, color=GREY, alpha=0.35, linewidth=0)
            axes.axhline(value, color=INK, linewidth=1.0, label=f"production {name}")
        axes.set(xscale="log", xlim=(1, max(end, 2) ** 1.1), ylabel=label)
        axes.set_xlabel("Monte Carlo time [trajectories]")
    left.legend(loc="best")
    return figure


def _histories(axes: Axes, data: Floats, start: Sequence[str]) -> None:
    time = np.arange(1, len(data) + 1)
    edges = np.unique(np.geomspace(1, len(data) + 1, 60).round().astype(int))
    for kind, colour, dash in KINDS:
        chains = data[:, [name == kind for name in start]]
        n_chains = chains.shape[1]
        if not n_chains:
            continue
        axes.plot(time, chains[:, :4], color=colour, alpha=0.16, linewidth=0.5, zorder=1)
        # equal bins in log t: late times, thousands of points in a finger's width, would hide their own mean
        binned = np.array([chains[i - 1 : j - 1].mean(0) for i, j in itertools.pairwise(edges)])
        centre = np.array([np.sqrt(i * (j - 1)) for i, j in itertools.pairwise(edges)])
        mean, error = binned.mean(1), binned.std(1) / np.sqrt(max(n_chains - 1, 1))
        band(axes, centre, mean, error, colour, 0.4, zorder=3)
        label = f"{kind} starts ({n_chains})"
        axes.plot(centre, mean, color=colour, linestyle=dash, linewidth=2.0, label=label, zorder=4)


def _mark(
    axes: Axes, x: float, text: str, height: float, linewidth: float, rotation: float | None = None
) -> None:
    """A dashed line across the time axis with words beside it."""
    axes.axvline(x, color=INK, dashes=(4, 2), linewidth=linewidth)
    note(axes, text, (x, height), (5, 0), xycoords=("data", "axes fraction"), va="top", rotation=rotation)


@styled
def autocorrelation(
    curves: Mapping[str, Autocorrelation], windows: Mapping[str, int], *,
    tau_int: Mapping[str, tuple[float, float]] | None = None, unit: str = "saved configurations",
) -> Figure:  # fmt: skip
    """rho(t) above and tau_int(W) below, one column per observable, with the automatic window marked.

    ``curves`` maps a mathtext label to its functions, ``windows`` to the Gamma method's window, ``tau_int``
    to its published (value, error).  Both axes are in ``unit``.
    """
    figure, grid = panels(3.8 * len(curves) + 0.6, 5.8, 2, len(curves), squeeze=False, sharex="col")
    for (top, bottom), (label, curve) in zip(grid.T, curves.items()):
        t, window = np.arange(len(curve.rho)), windows[label]
        _curve(top, t, curve.rho, curve.rho_error, INK)
        top.axhline(0.0, color=INK, linewidth=0.8)
        _curve(bottom, t, curve.tau_int, curve.tau_int_error, BLUE)
        if tau_int is not None and label in tau_int:
            quoted = r"$\tau_{\rm int}$ quoted"
            bottom.errorbar(window, *tau_int[label], fmt="o", color=INK, zorder=5, label=quoted)
            bottom.legend(loc="lower right")
        _mark(top, window, rf"$W={window}$", 0.92, linewidth=1.2)
        bottom.axvline(window, color=INK, dashes=(4, 2), linewidth=1.2)
        top.set(title=label, xlabel=f"$t$ [{unit}]", xlim=(0, max(t[-1], 1)))
        top.set_ylim(min(-0.15, float(curve.rho.min()) - 0.05), 1.05)
        bottom.set_xlabel(f"$W$ [{unit}]")
        bottom.set_ylim(bottom=0)
    grid[0, 0].set_ylabel(r"$\rho(t)$")
    grid[1, 0].set_ylabel(rf"$\tau_{{\rm int}}(W)$ [{unit}]")
    return figure


def _curve(axes: Axes, x: ArrayLike, value: Floats, error: Floats, colour: str) -> None:
    band(axes, x, value, error, colour)
    axes.plot(x, value, color=colour)
