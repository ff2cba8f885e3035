"""Figure of what a configuration costs through the critical point, sampler by sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, panels, styled

STYLES = {
    "hmc 1": (VERMILLION, "s", "HMC, unit trajectories"), "hmc": (PURPLE, "D", "HMC, tuned"),
    "clusters": (INK, "v", "clusters"), "path": (GREEN, "^", "diffusion, paths + Metropolis"),
    "flow": (BLUE, "o", "diffusion, flow + Metropolis"),
}  # fmt: skip

UNKNOWN = math.nan, math.nan  # a gap in the line


@styled
def costs_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.criticality`: tau_int of the slowest observable above, CPU time per independent
    configuration below, a column for each L; the dotted line is the crossover of the largest size."""
    points = result["points"]
    sizes = sorted({p["size"] for p in points})
    figure, axes = panels(
        4.4 * len(sizes) + 0.4, 7.6, 2, len(sizes), sharex=True, sharey="row", squeeze=False
    )
    for column, size in enumerate(sizes):
        own = sorted((p for p in points if p["size"] == size), key=lambda p: float(p["kappa"]))
        for kind, (colour, marker, label) in STYLES.items():
            kappa = [p["kappa"] for p in own]
            found = [p["samplers"][kind] for p in own]
            tau = np.array([s["tau_int"][s["slowest"]] if s["cost"] else UNKNOWN for s in found]).T
            cost = 1e3 * np.array([s["cost"] or UNKNOWN for s in found]).T
            for place, (value, error) in zip(axes[:, column], (tau, cost), strict=True):
                place.errorbar(
                    kappa, value, error, color=colour, marker=marker, markersize=5, linewidth=1.4,
                    label=label if place is axes[1, 0] else None,
                )  # fmt: skip
        for place in axes[:, column]:
            place.set_yscale("log")
            place.axvline(result["crossover"], color=GREY, linestyle=":", linewidth=1.2)
        axes[0, column].set_title(f"L = {size}")
        axes[1, column].set_xlabel(r"$\kappa$")
    axes[0, 0].set_ylabel(r"$\tau_{\rm int}$ of the slowest of $|M|$, $M^2$, $S$ [steps]")
    axes[1, 0].set_ylabel("CPU ms per independent configuration")
    figure.legend(loc="outside lower center", ncols=5 if len(sizes) > 2 else 2, fontsize=12)
    return figure
