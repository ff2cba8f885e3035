"""Figures of two-dimensional U(1): charges, freezing, extrapolation in beta, the theta term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREEN, GREY, INK, VERMILLION, panels, styled

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
