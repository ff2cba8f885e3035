"""Figure of the published recipe: two-point function, effective action, law of M, set by set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import GREY, INK, SERIES, panels, styled

N_BINS = 30


@styled
def published_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.published`: G(k) of every set over that of the ensemble, -log q against S, P(M) of sets
    without weights."""
    sets = result["sets"]
    figure, axes = panels(15, 4.8, 1, 3)
    truth = sets["ensemble"]
    g = np.array(truth["G"])
    for (colour, marker), (name, own) in zip(
        itertools.cycle(SERIES), ((k, v) for k, v in sets.items() if k != "ensemble"), strict=False
    ):
        known = [(x, a / b, e / b) for x, a, b, e in zip(own["khat2"], own["G"], g, own["G_error"]) if e]
        x, ratio, error = np.array(known).T
        axes[0].errorbar(
            np.maximum(x, x[x > 0].min() / 3), ratio, error, color=colour, marker=marker, markersize=3.5,
            linestyle="none" if name.endswith("weighted") else "-", linewidth=0.9, label=name, alpha=0.85,
        )  # fmt: skip
    axes[0].axhline(1, color=GREY, linewidth=0.8)
    axes[0].set(
        xscale="log", xlabel=r"$\hat k^2$ (leftmost: $k=0$)", ylabel=r"$G(k)$ / ensemble", ylim=(0.75, 1.25)
    )
    _actions(axes[1], result["actions"])
    _laws(axes[2], sets)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=11)
    return figure


def _actions(axes: Axes, actions: Mapping[str, Any]) -> None:
    for (colour, marker), (name, own) in zip(SERIES, actions.items(), strict=False):
        x, y = np.array(own["pairs"]).T
        axes.plot(
            x, y, marker, color=colour, markersize=3, alpha=0.6, label=f"{name}: slope {own['slope']:.3f}"
        )
    if actions:
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], color=INK, linewidth=0.9)
        axes.legend(fontsize=10)
    axes.set(xlabel=r"$S$", ylabel=r"$-\log q$ + const")


def _laws(axes: Axes, sets: Mapping[str, Any]) -> None:
    kept = {name: np.array(own["m"]) for name, own in sets.items() if own["m"] is not None}
    top = max(float(np.abs(m).max()) for m in kept.values())
    bins = np.linspace(-top, top, N_BINS + 1).tolist()
    for (colour, _), (name, m) in zip(itertools.cycle(SERIES), kept.items(), strict=False):
        if name == "ensemble":
            axes.hist(m, bins, density=True, color=GREY, alpha=0.35, label=name)
        else:
            axes.hist(m, bins, density=True, histtype="step", color=colour, linewidth=1.3, label=name)
    axes.set(xlabel="$M$", ylabel="$P(M)$")
    axes.legend(fontsize=10)
