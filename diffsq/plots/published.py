"""Figure of the published recipe: two-point function, effective action, law of M, set by set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import GREY, INK, SERIES, panels, styled

N_BINS = 30  # of M
EDGES = np.array([-1.0, 1e-9, 0.1, 0.3, 1.0, 3.0, 9.0])  # of khat^2, k = 0 alone
PLACES = np.arange(len(EDGES) - 1)
LABELS = ("0", "< 0.1", "0.1–0.3", "0.3–1", "1–3", "> 3")


@styled
def published_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.published`: G(k) of every raw set over that of the ensemble in ranges of momentum, -log q
    against S, P(M) of the ensemble, the models and the protocol."""
    sets = result["sets"]
    figure, axes = panels(15, 5.0, 1, 3)
    shown = [name for name in sets if name != "ensemble" and sets[name]["m"] is not None]
    looks = dict(zip(shown, itertools.cycle(SERIES), strict=False))
    step = 0.7 / max(1, len(shown))
    for i, name in enumerate(shown):
        colour, marker = looks[name]
        ratio, error = in_ranges(sets[name], sets["ensemble"])
        place = PLACES + step * (i - (len(shown) - 1) / 2)
        axes[0].errorbar(place, ratio, error, color=colour, fmt=marker, markersize=4.5, label=name)
    axes[0].axhline(1, color=GREY, linewidth=0.8)
    axes[0].set_xticks(PLACES, LABELS)
    axes[0].tick_params(axis="x", which="minor", bottom=False, top=False)
    axes[0].set(xlabel=r"$\hat k^2$", ylabel=r"$G(k)$ / ensemble")
    _actions(axes[1], result["actions"], looks)
    _laws(axes[2], sets, shown, looks)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=12)
    return figure


def in_ranges(own: Mapping[str, Any], truth: Mapping[str, Any]) -> tuple[Any, Any]:
    """G(k) over that of the ensemble and its error, averaged in the ranges of momentum by weights 1/error^2,
    nan where there is none. Classes of momenta are taken as independent."""
    k2 = np.array(own["khat2"])
    g, error, right = (np.array(x, dtype=float) for x in (own["G"], own["G_error"], truth["G"]))
    ratio, error = g / right, error / right
    value, spread = np.full(len(PLACES), np.nan), np.full(len(PLACES), np.nan)
    for place in PLACES:
        rows = (k2 > EDGES[place]) & (k2 <= EDGES[place + 1]) & (error > 0)
        if rows.any():
            weight = error[rows] ** -2
            value[place], spread[place] = (weight @ ratio[rows]) / weight.sum(), weight.sum() ** -0.5
    return value, spread


def _actions(axes: Axes, actions: Mapping[str, Any], looks: Mapping[str, Any]) -> None:
    for name, own in actions.items():
        x, y = np.array(own["pairs"]).T
        colour, marker = looks[f"{name} raw"]
        label = f"{name}: slope {own['slope']:.3f}"
        axes.plot(x, y, marker, color=colour, markersize=3, alpha=0.6, label=label)
    if actions:
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], color=INK, linewidth=0.9)
        axes.legend(fontsize=11)
    axes.set(xlabel=r"$S$", ylabel=r"$-\log q$ + const")


def _laws(axes: Axes, sets: Mapping[str, Any], shown: list[str], looks: Mapping[str, Any]) -> None:
    kept = {name: np.array(sets[name]["m"]) for name in ("ensemble", *shown)}
    top = max(float(np.abs(m).max()) for m in kept.values())
    bins = np.linspace(-top, top, N_BINS + 1).tolist()
    for name, m in kept.items():
        if name == "ensemble":
            axes.hist(m, bins, density=True, color=GREY, alpha=0.4, label="ensemble")
        elif name == "protocol" or name.endswith("raw"):
            colour, _ = looks[name]
            axes.hist(m, bins, density=True, histtype="step", color=colour, linewidth=1.6)
    axes.set(xlabel="$M$", ylabel="$P(M)$")
    axes.legend(fontsize=11, loc="upper center")
