"""Figures of two-dimensional U(1): charges, freezing, extrapolation in beta, the theta term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffsq.plots.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, panels, styled
from lattice.arrays import Floats

WAYS = {"training": (INK, "v"), "raw": (VERMILLION, "s"), "weighted": (BLUE, "o"), "metropolis": (GREEN, "^")}


@styled
def charges_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.topology`: P(Q) above, its ratio to the exact law below."""
    charge, exact = np.array(result["charge"]), np.array(result["probability"])
    shown = exact > 1e-6
    figure, (top, bottom) = panels(7.0, 6.4, 2, 1, sharex=True, height_ratios=(2, 1))
    top.plot(charge[shown], exact[shown], color=GREY, linewidth=1.4, label="exact")
    rows = list(result["rows"].items())
    for i, (name, row) in enumerate(rows):
        colour, marker = WAYS[name.rpartition(" ")[2]]
        p, n = np.array(row["observed"])[shown], max(row["n"], 1.0)
        error = np.sqrt(exact[shown] / n)
        x = charge[shown] + 0.12 * (i - (len(rows) - 1) / 2)
        seen = p > 0
        fill = "none" if name.startswith("torus") else colour
        top.errorbar(
            x[seen], p[seen], error[seen], color=colour, marker=marker, linestyle="none", label=name,
            markerfacecolor=fill,
        )  # fmt: skip
        known = exact[shown] * n >= 10
        ratio, spread = p[known] / exact[shown][known], error[known] / exact[shown][known]
        bottom.errorbar(
            x[known], ratio, spread, color=colour, marker=marker, linestyle="none", markerfacecolor=fill
        )
    bottom.axhline(1, color=GREY, linewidth=1.2)
    top.set_yscale("log")
    top.set_ylabel("P(Q)")
    top.legend(fontsize=10)
    bottom.set_ylabel("P(Q)/exact")
    bottom.set_xlabel("topological charge Q")
    low, high = bottom.get_ylim()
    bottom.set_ylim(max(low, 0.0), min(high, 2.5))
    top.set_title(f"U(1), {result['shape'][0]} × {result['shape'][1]}, β = {result['beta']:g}")
    return figure


LINE = 0.09375  # beta/L^2 of the right panels
SAMPLERS = {
    "hmc": (VERMILLION, "s", "HMC"), "heat bath": (PURPLE, "D", "heat bath"),
    "winding": (INK, "v", "HMC + winding moves"), "exact": (GREY, "P", "exact draws"),
    "diffusion": (BLUE, "o", "diffusion + Metropolis"),
}  # fmt: skip


@styled
def freezing_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.freezing`: tau_int(Q^2) above, CPU time per independent configuration below; left at L = 16
    against beta, right along beta/L^2 against L. An arrow is a bound."""
    figure, axes = panels(10.4, 7.6, 2, 2, sharex="col", sharey="row")
    points = result["points"]
    line = [p for p in points if abs(p["beta"] / p["size"] ** 2 - LINE) < 1e-9]
    columns = [
        ([p for p in points if p["size"] == 16 and p not in line], "beta"), (line, "size")
    ]  # fmt: skip
    for column, (own, what) in enumerate(columns):
        own = sorted(own, key=lambda p: float(p[what]))
        for name, (colour, marker, label) in SAMPLERS.items():
            x = [p[what] for p in own]
            found = [p["samplers"][name] for p in own]
            bound = np.array([s["how"] == "none" for s in found], dtype=bool)
            for row, (key, scale) in enumerate((("tau_q2", 1.0), ("cost", 1e3))):
                value = scale * np.array([s[key][0] for s in found])
                error = scale * np.array([s[key][1] or 0.0 for s in found])
                _points(axes[row, column], np.array(x), value, error, bound, colour, marker)
            if not column:
                axes[1, 0].plot([], [], color=colour, marker=marker, linewidth=1.4, label=label)
        for row in (0, 1):
            axes[row, column].set_yscale("log")
    axes[0, 0].set_title("L = 16")
    axes[0, 1].set_title(r"$\beta = 0.094\,L^2$")
    axes[0, 0].axhline(0.5, color=GREY, linestyle=":", linewidth=1.0)
    axes[0, 1].axhline(0.5, color=GREY, linestyle=":", linewidth=1.0)
    axes[0, 0].set_ylabel(r"$\tau_{\rm int}(Q^2)$ [steps]")
    axes[1, 0].set_ylabel("CPU ms per independent configuration")
    axes[1, 0].set_xlabel(r"$\beta$")
    axes[1, 1].set_xlabel("L")
    axes[1, 1].set_xscale("log", base=2)
    axes[1, 1].set_xticks([p["size"] for p in line], [str(p["size"]) for p in line])
    figure.legend(loc="outside lower center", ncols=5, fontsize=12)
    return figure


@styled
def theta_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.theta`: Z(theta)/Z(0) and chi(theta) beside the exact curves."""
    figure, axes = panels(9.6, 4.2, 1, 2)
    points = result["points"]
    labels = r"$Z(\theta)/Z(0) = \langle\cos\theta Q\rangle$", r"$\chi(\theta)$"
    for place, name, label in zip(axes, ("sign", "chi"), labels, strict=True):
        place.plot(result["curve"]["theta"], result["curve"][name], color=GREY, label="exact")
        own = [p for p in points if p["known"] or name == "sign"]
        place.errorbar(
            [p["theta"] for p in own], [p[name][0] for p in own], [p[name][1] for p in own], color=BLUE,
            marker="o", linestyle="none", label="weights of θ = 0",
        )  # fmt: skip
        place.set_xlabel(r"$\theta$")
        place.set_ylabel(label)
    lost = [p["theta"] for p in points if not p["known"]]
    if lost:
        axes[1].axvspan(min(lost), max(lost) + 1e-9, color=VERMILLION, alpha=0.12, label="sign problem")
    axes[1].legend(fontsize=11)
    axes[0].set_title(f"{result['shape'][0]} × {result['shape'][1]}, β = {result['beta']:g}")
    return figure


def _points(
    axes: Axes, x: Floats, value: Floats, error: Floats, bound: NDArray[np.bool_], colour: str, marker: str
) -> None:  # fmt: skip
    """A line through what is known; bounds are open, with an arrow."""
    known = ~bound
    if known.any():
        below = np.minimum(error[known], 0.8 * value[known])  # on a logarithmic axis
        axes.errorbar(
            x[known], value[known], [below, error[known]], color=colour, marker=marker, linewidth=1.4
        )
    if bound.any():
        axes.errorbar(
            x[bound], value[bound], 0.5 * value[bound], color=colour, marker=marker, linestyle="none",
            lolims=True, markerfacecolor="none",
        )  # fmt: skip


CIRCLE = {
    "lifted flux": (BLUE, "o", "lifted flux"), "propagator": (GREEN, "^", "circle, by the propagator"),
    "published": (VERMILLION, "s", r"circle, by $\beta/\beta_0$"),
}  # fmt: skip


@styled
def rescaling_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.rescaling`: <Q^2> over the exact one against beta; on the way down, at the largest beta."""
    figure, (left, right) = panels(10.0, 4.6, 1, 2)
    points = sorted(result["points"], key=lambda p: float(p["beta"]))
    for name, (colour, marker, label) in CIRCLE.items():
        own = [p for p in points if name in p["rows"]]
        if not own:
            continue
        known = np.array([p["exact"]["q2"] for p in own])
        value, error = np.array([p["rows"][name]["q2"] for p in own]).T / known
        left.errorbar([p["beta"] for p in own], value, error, color=colour, marker=marker, label=label)
    left.axhline(1, color=GREY, linewidth=1.2)
    left.axvline(result["beta0"], color=GREY, linestyle=":", linewidth=1.2)
    left.set_yscale("log")
    left.set_xlabel(r"$\beta$")
    left.set_ylabel(r"$\langle Q^2\rangle$ of raw samples / exact")
    left.legend(fontsize=11)
    last = points[-1]
    for name in ("propagator", "published"):
        if name not in last["rows"]:
            continue
        sigma, own, known = np.array(last["rows"][name]["profile"]).T
        inside = sigma > 0
        colour, marker, label = CIRCLE[name]
        right.plot(sigma[inside], own[inside], color=colour, marker=marker, markersize=4, label=label)
        if name == "published":
            right.plot(sigma[inside], known[inside], color=INK, label="exact links, the same noise")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel(r"noise $\sigma$ of a link, downwards from right to left")
    right.set_ylabel(r"$\langle Q^2\rangle$ on the way")
    right.set_title(f"β = {last['beta']:g}")
    if right.get_legend_handles_labels()[0]:
        right.legend(fontsize=11)
    return figure
