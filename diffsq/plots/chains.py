"""Monte Carlo histories: thermalisation of hot and cold starts, autocorrelation function and tau_int(W)."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots.estimators import Autocorrelation
from diffsq.plots.style import BLUE, COLD, GREY, HOT, INK, light_grid, new_figure, styled
from lattice.arrays import Floats

Band = tuple[float, float]


@styled
def thermalisation(
    abs_magnetization: ArrayLike,
    action_density: ArrayLike,
    start: Sequence[str],
    *,
    cut: int | None = None,
    equilibrium: tuple[Band | None, Band | None] = (None, None),
) -> Figure:
    """|M| and s against Monte Carlo time for hot and cold chains.

    ``abs_magnetization`` and ``action_density`` are (n_therm, n_chains), ``start`` names each chain's
    start, ``cut`` is the trajectory after which configurations are kept (default n_therm) and
    ``equilibrium`` the production (value, error) of <|M|> and s.  Thin: single chains; thick: mean over
    chains of equal start with its standard error.
    """
    figure = new_figure(11.0, 4.2)
    panels = figure.subplots(1, 2)
    histories = (abs_magnetization, action_density)
    labels = (r"$|M|$  [$\kappa$–$\lambda$ field]", r"$s = S/V$  [per site]")
    names = (r"$\langle |M| \rangle$", r"$s$")
    for axes, history, label, name, band in zip(panels, histories, labels, names, equilibrium, strict=True):
        data = np.asarray(history, dtype=np.float64)
        _histories(axes, data, start)
        end = len(data) if cut is None else cut
        axes.axvline(end, color=INK, dashes=(4, 2), linewidth=1.4)
        axes.annotate(
            "kept from here",
            (end, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(5, 0),
            textcoords="offset points",
            rotation=90,
            ha="left",
            va="top",
            color=INK,
        )
        if band is not None and np.isfinite(band).all():
            value, error = band
            axes.axhspan(value - error, value + error, color=GREY, alpha=0.35, linewidth=0)
            axes.axhline(value, color=INK, linewidth=1.0, label=f"production {name}")
        axes.set(
            xscale="log", xlim=(1, max(end, 2) ** 1.1), xlabel="Monte Carlo time [trajectories]", ylabel=label
        )
        light_grid(axes)
    panels[0].legend(loc="best")
    return figure


_KINDS = (("hot", HOT, (0, ())), ("cold", COLD, (0, (5, 1))), ("wall", GREY, (0, (1, 1))))


def _histories(axes: Axes, data: Floats, start: Sequence[str]) -> None:
    time = np.arange(1, len(data) + 1)
    edges = np.unique(np.geomspace(1, len(data) + 1, 60).round().astype(int))
    for kind, colour, dash in _KINDS:
        chains = data[:, [name == kind for name in start]]
        n_chains = chains.shape[1]
        if not n_chains:
            continue
        axes.plot(time, chains[:, :4], color=colour, alpha=0.16, linewidth=0.5, zorder=1)
        # equal bins in log t: late times, thousands of points in a finger's width, would hide their own mean
        binned = np.array([chains[i - 1 : j - 1].mean(0) for i, j in itertools.pairwise(edges)])
        centre = np.array([np.sqrt(i * (j - 1)) for i, j in itertools.pairwise(edges)])
        mean, error = binned.mean(1), binned.std(1) / np.sqrt(max(n_chains - 1, 1))
        axes.fill_between(centre, mean - error, mean + error, color=colour, alpha=0.4, linewidth=0, zorder=3)
        axes.plot(
            centre,
            mean,
            color=colour,
            linestyle=dash,
            linewidth=2.0,
            label=f"{kind} starts ({n_chains})",
            zorder=4,
        )


@styled
def autocorrelation(
    curves: Mapping[str, Autocorrelation],
    windows: Mapping[str, int],
    *,
    tau_int: Mapping[str, tuple[float, float]] | None = None,
    unit: str = "saved configurations",
) -> Figure:
    """rho(t) above and tau_int(W) below, one column per observable, with the automatic window marked.

    ``curves`` maps a mathtext label to its functions, ``windows`` to the Gamma method's window, ``tau_int``
    to its published (value, error).  Both axes are in ``unit``.
    """
    figure = new_figure(3.8 * len(curves) + 0.6, 5.8)
    panels = figure.subplots(2, len(curves), squeeze=False, sharex="col")
    for column, (label, curve) in enumerate(curves.items()):
        top, bottom, window = panels[0, column], panels[1, column], windows[label]
        t = np.arange(len(curve.rho))
        _band(top, t, curve.rho, curve.rho_error, INK)
        top.axhline(0.0, color=INK, linewidth=0.8)
        _band(bottom, t, curve.tau_int, curve.tau_int_error, BLUE)
        if tau_int is not None and label in tau_int:
            value, error = tau_int[label]
            bottom.errorbar(
                window, value, error, fmt="o", color=INK, zorder=5, label=r"$\tau_{\rm int}$ quoted"
            )
            bottom.legend(loc="lower right")
        for axes in (top, bottom):
            axes.axvline(window, color=INK, dashes=(4, 2), linewidth=1.2)
            light_grid(axes)
        top.annotate(
            rf"$W={window}$",
            (window, 0.92),
            xycoords=("data", "axes fraction"),
            xytext=(5, 0),
            textcoords="offset points",
            va="top",
        )
        top.set_title(label)
        top.set(xlim=(0, max(t[-1], 1)), ylim=(min(-0.15, float(curve.rho.min()) - 0.05), 1.05))
        top.set_xlabel(f"$t$ [{unit}]")
        bottom.set_xlabel(f"$W$ [{unit}]")
        bottom.set_ylim(bottom=0)
    panels[0, 0].set_ylabel(r"$\rho(t)$")
    panels[1, 0].set_ylabel(rf"$\tau_{{\rm int}}(W)$ [{unit}]")
    return figure


def _band(axes: Axes, x: ArrayLike, value: Floats, error: Floats, colour: str) -> None:
    axes.fill_between(x, value - error, value + error, color=colour, alpha=0.25, linewidth=0)
    axes.plot(x, value, color=colour)
