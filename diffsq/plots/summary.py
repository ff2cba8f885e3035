"""The final comparison as one figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots import style
from diffsq.plots.fields import show
from diffsq.plots.style import BLUE, GREY, INK, PURPLE, VERMILLION, new_figure, note, spread, styled

STYLES = {
    "training": ("Monte Carlo (training)", style.MONTE_CARLO, "D"),
    "raw": ("raw", style.RAW, "s"),
    "weighted": ("weighted", style.WEIGHTED, "o"),
    "metropolis": ("Metropolis", style.METROPOLIS, "^"),
}
OTHERS = ((VERMILLION, "s"), (BLUE, "o"), (PURPLE, "D"), (INK, "v"), (GREY, "P"))  # columns of other names
LATER = (PURPLE, GREY, INK)  # sample sets after the first, all columns alike


@styled
def pull_chart(
    labels: Sequence[str], pulls: Mapping[str, Sequence[float]], *, against: str = "reference"
) -> Figure:
    """Pulls (value - ``against``)/combined error of each column, one row per observable; NaN leaves a gap.

    Grey bands: 1, 2 and 3 sigma.  Pulls beyond the axis are drawn at its edge as an arrow with their value.
    """
    figure = new_figure(8.2, 0.5 * len(labels) + 1.7)
    _draw(figure, labels, pulls, against)
    return figure


@styled
def overview(
    phi: ArrayLike, sigma: ArrayLike, labels: Sequence[str], pulls: Mapping[str, Sequence[float]], *,
    against: str = "reference",
) -> Figure:  # fmt: skip
    """The method in one picture: a field denoised, ``phi`` (n, L0, L1) at ``sigma`` (n,), above the pulls."""
    figure = new_figure(12.0, 0.42 * len(labels) + 4.2)
    halves: Any = figure.subfigures(2, 1, height_ratios=[2.3, 0.42 * len(labels) + 1.9])
    strip, chart = halves
    frames, levels = np.asarray(phi, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    shown = spread(len(frames), 8)
    for axes, n in zip(strip.subplots(1, len(shown), squeeze=False)[0], shown):
        show(axes, frames[n])
        axes.set_title(rf"$\sigma = {levels[n]:.3g}$")
    strip.suptitle("one sample, from the start law (left) to a field (right); each frame over its rms")
    _draw(chart, labels, pulls, against)
    return figure


def _draw(figure: Any, labels: Sequence[str], pulls: Mapping[str, Sequence[float]], against: str) -> None:
    axes = figure.subplots()
    places = np.array(style.rows(axes, list(labels)))
    values = np.array([list(column) for column in pulls.values()], dtype=np.float64)
    reach = float(np.clip(1.1 * np.nanmax(np.abs(values), initial=0.0), 4.0, 8.0))
    for sigmas in (3, 2, 1):
        axes.axvspan(-sigmas, sigmas, color=GREY, alpha=0.10, linewidth=0)
    axes.axvline(0.0, color=INK, linewidth=1.0)
    apart = min(0.16, 0.8 / max(len(pulls), 1))  # all columns of an observable inside its row
    axes.hlines(places[:-1] - 0.5, -reach, reach, color=GREY, alpha=0.25, linewidth=0.8)
    for i, (name, column) in enumerate(zip(pulls, values)):
        label, colour, marker = _style(list(pulls), i)
        y = places + apart * ((len(pulls) - 1) / 2 - i)
        inside = np.abs(column) <= reach
        axes.plot(
            column[inside], y[inside], linestyle="none", marker=marker, color=colour, markersize=6,
            markeredgewidth=1.6, markerfacecolor="none" if name.endswith("raw") else colour, label=label,
        )  # fmt: skip
        for value, height in zip(column, y):
            if abs(value) > reach:
                _far(axes, value, height, reach, colour)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(labels) - 0.4))
    axes.set_xlabel(rf"pull against the {against}  [$\sigma$]")
    figure.legend(loc="outside upper center", ncols=4)


def _style(names: Sequence[str], i: int) -> tuple[str, str, str]:
    """Label, colour and marker of the i-th column: a marker for each kind; the first set has its colours."""
    name = names[i]
    label, _, kind = name.rpartition(" ")
    if kind not in STYLES:
        return (name, *OTHERS[i % len(OTHERS)])
    words, colour, marker = STYLES[kind]
    if not label:
        return words, colour, marker
    place = list(dict.fromkeys(each.rpartition(" ")[0] for each in names if " " in each)).index(label)
    return f"{label} {words}", colour if place == 0 else LATER[(place - 1) % len(LATER)], marker


def _far(axes: Axes, value: float, height: float, reach: float, colour: str) -> None:
    side, arrow = float(np.sign(value)), {"arrowstyle": "->", "color": colour}
    words = {"color": colour, "va": "center", "ha": "center", "fontsize": 11}
    note(axes, f"{value:+.0f}", (side * reach, height), (side * -26, 0), arrowprops=arrow, **words)
