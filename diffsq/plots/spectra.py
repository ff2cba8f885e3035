"""Eigenvalues of weight matrices beside those of random ones."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, INK, VERMILLION, panels, styled
from lattice.exact.random_matrix import edges, marchenko_pastur, upper_edge

MOST = 12


@styled
def spectra_figure(result: Mapping[str, Any]) -> Figure:
    """Of `models.spectra.table`: density of eigenvalues of every matrix (the MOST of largest KS distance),
    Marchenko-Pastur, and marks where outliers are."""
    rows = result["matrices"]
    chosen = sorted(rows, key=lambda name: -rows[name]["ks"])[:MOST]
    columns = min(3, len(chosen))
    lines = math.ceil(len(chosen) / columns)
    figure, axes = panels(4.2 * columns, 3.0 * lines, lines, columns, squeeze=False)
    for place, name in zip(axes.flat, chosen, strict=False):
        _panel(place, name, rows[name])
    for place in axes.flat[len(chosen) :]:
        place.set_axis_off()
    return figure


def _panel(axes: Axes, name: str, row: Mapping[str, Any]) -> None:
    (n, m), eigenvalues = row["shape"], np.array(row["x"])
    low, high = edges(n / m)
    bulk, edge = eigenvalues[eigenvalues <= upper_edge(n, m)], upper_edge(n, m)
    bins = np.linspace(0, edge, max(8, min(40, n // 4)) + 1)
    counts, _ = np.histogram(bulk, bins)
    axes.stairs(counts / (n * np.diff(bins)), bins, color=BLUE, fill=True, alpha=0.35, label=f"{n} × {m}")
    x = np.linspace(low, high, 400)[1:-1]
    density = marchenko_pastur(x, n / m)
    axes.plot(x, density, color=INK, label="Marchenko–Pastur")
    top = 1.5 * max(float((counts / (n * np.diff(bins))).max()), float(density[len(x) // 20 :].max()))
    outliers = eigenvalues[eigenvalues > edge]
    if len(outliers):
        shown = np.minimum(outliers, 2 * edge)
        words = f"{len(outliers)} outlier{'s' * (len(outliers) > 1)}, to {outliers[-1] / edge:.3g} edges"
        axes.plot(shown, np.full(len(shown), 0.04 * top), "v", color=VERMILLION, label=words)
    axes.set(title=name, xlabel=r"$x$ of $WW^T/(m s^2)$", ylabel="density", ylim=(0, top), xlim=(0, None))
    axes.title.set_fontsize(11)
    axes.legend(fontsize=9)
