"""The final comparison as one figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots.fields import SPAN
from diffsq.plots.style import (
    BLUE,
    GREY,
    INK,
    METROPOLIS,
    MONTE_CARLO,
    PURPLE,
    RAW,
    VERMILLION,
    WEIGHTED,
    new_figure,
    styled,
)

STYLES = {
    "training": ("Monte Carlo (training)", MONTE_CARLO, "D"),
    "raw": ("raw", RAW, "s"),
    "weighted": ("weighted", WEIGHTED, "o"),
    "metropolis": ("Metropolis", METROPOLIS, "^"),
}
OTHERS = ((VERMILLION, "s"), (BLUE, "o"), (PURPLE, "D"), (INK, "v"), (GREY, "P"))  # columns of other names


@styled
def pull_chart(
    labels: Sequence[str], pulls: Mapping[str, Sequence[float]], *, against: str = "reference"
) -> Figure:
    """Pulls (value - ``against``)/combined error of each column, one row per observable; NaN leaves a gap.

    Grey bands: 1, 2 and 3 sigma.  Pulls beyond the axis are drawn at its edge as an arrow with their value.
    """
    figure = new_figure(8.2, 0.5 * len(labels) + 1.7)
    draw_pulls(figure.subplots(), labels, pulls, against)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@styled
def overview(
    phi: ArrayLike,
    sigma: ArrayLike,
    labels: Sequence[str],
    pulls: Mapping[str, Sequence[float]],
    *,
    against: str = "reference",
) -> Figure:
    """The method in one picture: a field denoised, ``phi`` (n, L0, L1) at ``sigma`` (n,), above the pulls."""
    figure = new_figure(12.0, 0.42 * len(labels) + 4.2)
    halves: Any = figure.subfigures(2, 1, height_ratios=[2.3, 0.42 * len(labels) + 1.9])
    strip, chart = halves
    frames, levels = np.asarray(phi, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int))
    for axes, n in zip(strip.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        rms = float(np.sqrt(np.mean(frames[n] ** 2))) or 1.0
        axes.imshow(frames[n] / rms, cmap="RdBu_r", vmin=-SPAN, vmax=SPAN, origin="lower")
        axes.set_title(rf"$\sigma = {levels[n]:.3g}$")
        axes.set(xticks=[], yticks=[])
        axes.minorticks_off()
    strip.suptitle("one sample, from the start law (left) to a field (right); each frame over its rms")
    draw_pulls(chart.subplots(), labels, pulls, against)
    chart.legend(loc="outside upper center", ncols=4)
    return figure


def draw_pulls(axes: Axes, labels: Sequence[str], pulls: Mapping[str, Sequence[float]], against: str) -> None:
    """The content of `pull_chart` on given axes."""
    rows = np.arange(len(labels))[::-1]
    values = np.array([list(column) for column in pulls.values()], dtype=np.float64).reshape(
        len(pulls), len(labels)
    )
    reach = float(np.clip(1.1 * np.nanmax(np.abs(values), initial=0.0), 4.0, 8.0))
    for band in (3, 2, 1):
        axes.axvspan(-band, band, color=GREY, alpha=0.10, linewidth=0)
    axes.axvline(0.0, color=INK, linewidth=1.0)
    axes.hlines(rows[:-1] - 0.5, -reach, reach, color=GREY, alpha=0.25, linewidth=0.8)
    for i, (name, column) in enumerate(zip(pulls, values, strict=True)):
        label, colour, marker = STYLES.get(name, (name, *OTHERS[i % len(OTHERS)]))
        y = rows + 0.16 * ((len(pulls) - 1) / 2 - i)
        inside = np.abs(column) <= reach
        axes.plot(
            column[inside],
            y[inside],
            linestyle="none",
            marker=marker,
            color=colour,
            markersize=6,
            markeredgewidth=1.6,
            markerfacecolor="none" if name == "raw" else colour,
            label=label,
        )
        for value, height in zip(column, y, strict=True):
            if abs(value) > reach:
                side = np.sign(value)
                axes.annotate(
                    f"{value:+.0f}",
                    (side * reach, height),
                    xytext=(side * -26, 0),
                    textcoords="offset points",
                    color=colour,
                    va="center",
                    ha="center",
                    fontsize=11,
                    arrowprops={"arrowstyle": "->", "color": colour},
                )
    axes.set_yticks(rows, labels)
    axes.set(
        xlim=(-reach, reach),
        ylim=(-0.6, len(labels) - 0.4),
        xlabel=rf"pull against the {against}  [$\sigma$]",
    )
    axes.tick_params(axis="y", which="both", length=0)
