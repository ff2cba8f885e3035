"""Figure of a family of theories: the curves that one model draws between its couplings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import GREY, SERIES, panels, styled

PANELS = (
    ("abs_magnetization", r"$\langle|M|\rangle$"), ("susceptibility", r"$\chi$"), ("binder", "$U_L$"),
)  # fmt: skip


@styled
def curves_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.curves`: <|M|>, chi, U_L, d ln Z/d kappa per site, ratios of Z, ESS/N
    against kappa, a curve for each L; couplings of the training as ticks at the bottom."""
    figure, axes = panels(13, 8, 2, 3)
    sizes = sorted({p["size"] for p in result["points"]})
    for (colour, marker), size in zip(itertools.cycle(SERIES), sizes, strict=False):
        own = sorted((p for p in result["points"] if p["size"] == size), key=lambda p: p["kappa"])
        kappa = [p["kappa"] for p in own]
        new = size not in result["trained"]["sizes"]
        style = {
            "color": colour,
            "marker": marker,
            "markersize": 4,
            "linestyle": "--" if new else "-",
            "linewidth": 1.1,
        }
        label = f"L = {size}" + (", not trained" if new else "")
        for (name, _), place in zip(PANELS, axes[0], strict=True):
            entries = [p["observables"][name] for p in own]
            _draw(place, kappa, entries, style, label)
        slopes = [{"value": p["slope"] / size**2, "error": p["slope_error"] / size**2} for p in own]
        _draw(axes[1, 0], kappa, slopes, style, label)
        pairs = [r for r in result["ratios"] if r["size"] == size and r["pull"] is not None]
        axes[1, 1].plot(
            [r["kappa"] for r in pairs], [r["pull"] for r in pairs], marker, color=colour, markersize=4
        )
        ess = [{"value": p["ess"], "error": p["ess_error"]} for p in own]
        _draw(axes[1, 2], kappa, ess, style, label)
    for (_, words), place in zip(PANELS, axes[0], strict=True):
        place.set(ylabel=words)
    axes[0, 1].set_yscale("log")
    axes[1, 0].set(ylabel=r"$V^{-1}\,d\ln Z/d\kappa$")
    top = max(4.5, 1.1 * result["worst"])
    axes[1, 1].set(ylabel=r"ratios of $Z$, pull [$\sigma$]", ylim=(-top, top))
    axes[1, 1].axhline(0, color=GREY, linewidth=0.8)
    axes[1, 2].set(ylabel="ESS/N", ylim=(0, 1.02))
    for place in axes.flat:
        place.set_xlabel(r"$\kappa$")
        place.plot(
            result["trained"]["kappa"], np.full(len(result["trained"]["kappa"]), 0.015), "|", color=GREY,
            transform=place.get_xaxis_transform(), markersize=5,
        )  # fmt: skip
    axes[0, 0].legend(fontsize=9)
    return figure


def _draw(
    axes: Axes, kappa: list[float], entries: list[dict[str, Any]], style: dict[str, Any], label: str
) -> None:
    known = [
        (k, e["value"], e["error"]) for k, e in zip(kappa, entries, strict=True) if e["error"] is not None
    ]
    if known:
        x, y, error = (np.array(column) for column in zip(*known, strict=True))
        axes.errorbar(x, y, error, label=label, **style)
