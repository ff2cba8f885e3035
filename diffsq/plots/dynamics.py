"""Figures of training watched: pairs of levels, students, a transformer's spectra."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREEN, GREY, INK, PURPLE, SERIES, VERMILLION, panels, styled
from lattice.exact.random_matrix import marchenko_pastur, two_level_density, upper_edge, wigner_surmise

MARKERS = {"data": "o", "chains": "s", "both": "^"}


@styled
def pairs_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.pairs`: P(s), density of levels, <S> against its square root, a against alpha/B."""
    figure, axes = panels(11, 8, 2, 2)
    rows = [row for row in result["rows"] if any("a" in pair for pair in row["pairs"])]
    small = sorted(rows, key=lambda row: (row["noise"] != "data", row["noise_per_step"]))[:1]
    for row in small:
        _histogram(axes[0, 0], row, "histogram", np.linspace(0, 4, 33))
        _histogram(axes[0, 1], row, "levels", np.linspace(-4, 4, 65))
    s = np.linspace(0, 4, 200)
    axes[0, 0].plot(s, wigner_surmise(s), "-", color=INK, label="Wigner's surmise")
    axes[0, 0].plot(s, np.exp(-s), ":", color=GREY, label="Poisson")
    axes[0, 0].set(xlabel=r"$s = S/\langle S\rangle$", ylabel=r"$P(s)$")
    x = np.linspace(-4, 4, 300)
    axes[0, 1].plot(x, two_level_density(x, 1.0), "-", color=INK, label=r"$2\times 2$ GOE")
    axes[0, 1].set(
        xlabel=r"$(\lambda - \bar\lambda)\,\sqrt{\pi}/\langle S\rangle$", ylabel="density of levels"
    )
    if rows:
        _square_root(axes[1, 0], rows)
        _amplitudes(axes[1, 1], rows)
    for place in axes.flat:
        if place.get_legend_handles_labels()[0]:
            place.legend(fontsize=10)
    return figure


def _histogram(axes: Axes, row: Mapping[str, Any], key: str, bins: Any) -> None:
    for (colour, marker), pair in zip(SERIES, row["pairs"], strict=False):
        counts = np.array(pair[key], dtype=np.float64)
        density = counts / (counts.sum() * np.diff(bins))
        axes.plot((bins[1:] + bins[:-1]) / 2, density, marker, color=colour, markersize=4,
                  label=rf"$\kappa = {pair['kappa']:.3g}$")  # fmt: skip
    axes.set_title(rf"$\alpha = {row['rate']:g}$, $|B| = {row['batch']}$", fontsize=12)


def _square_root(axes: Axes, rows: list[Mapping[str, Any]]) -> None:
    most = 0.0
    for name, colour, words in (("spacing", BLUE, "own block"), ("sorted", VERMILLION, "sorted neighbours")):
        for row in rows:
            if row["noise"] != "data":
                continue
            unit = [math.sqrt(row["noise_per_step"] * pair["x"]) for pair in row["pairs"]]
            value = np.array([pair[name] for pair in row["pairs"]])
            axes.errorbar(unit, value[:, 0], value[:, 1], fmt="o" if name == "spacing" else "s", color=colour,
                          markersize=4, label=words)  # fmt: skip
            words, most = "", max(most, *unit)
    axes.plot([0, most], [0, math.sqrt(2 * math.pi) * most], "-", color=INK, label=r"slope $\sqrt{2\pi}$")
    axes.set(xlabel=r"$\sqrt{\alpha x/|B|}$", ylabel=r"$\langle S\rangle$", xlim=(0, None), ylim=(0, None))


def _amplitudes(axes: Axes, rows: list[Mapping[str, Any]]) -> None:
    seen: set[str] = set()
    for name, colour in (("a", BLUE), ("a_sorted", VERMILLION)):
        for row in rows:
            value = np.array([np.array(pair[name]) / pair["a_formula"] for pair in row["pairs"]])
            what = {"a": "own block", "a_sorted": "sorted"}[name] + f", noise of {row['noise']}"
            at = row["noise_per_step"] * np.geomspace(0.93, 1.07, len(value))
            axes.errorbar(at, value[:, 0], value[:, 1], fmt=MARKERS[row["noise"]], color=colour, markersize=4,
                          label=None if what in seen else what)  # fmt: skip
            seen.add(what)
    axes.axhline(1, color=INK, linewidth=1)
    axes.set(xlabel=r"$\alpha/|B|$", ylabel=r"$\langle S\rangle$ / formula", xscale="log")


@styled
def students_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.teacher_student`: amplitudes of fresh data and of single data sets, and the formulas."""
    figure, axes = panels(7.5, 4.4)
    labels, seen = [], set()
    for place, row in enumerate(result["rows"]):
        low, high = row["formula"]
        axes.fill_between([place - 0.35, place + 0.35], low, high, color=GREY, alpha=0.5,
                          label=None if place else r"formula, $c = 0$ to $3$")  # fmt: skip
        fresh = row["n_data"] is None
        words = "fresh data" if fresh else "one data set each"
        label = None if words in seen else words
        seen.add(words)
        if fresh:
            axes.errorbar(place, *row["a"], fmt="o", color=BLUE, label=label)
        else:
            spots = place + np.linspace(-0.25, 0.25, len(row["all"]))
            axes.plot(spots, row["all"], "s", color=VERMILLION, markersize=4, label=label)
        labels.append(rf"{row['alpha']:g}, {row['batch']}")
    axes.set_xticks(range(len(labels)), labels)
    axes.minorticks_off()
    axes.set(xlabel=r"$\alpha$, $|B|$", ylabel=r"$\langle S\rangle/\sqrt{\alpha A^2/|B|}$")
    axes.legend()
    return figure


@styled
def text_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.text_spectra`: eigenvalue densities of two matrices, KS and outliers by step."""
    figure, axes = panels(11, 7.6, 2, 2)
    kinds, eigenvalues = list(result["null"]), result["eigenvalues"]["text"]
    steps = sorted(eigenvalues, key=int)
    last = max(int(name.split(".")[0]) for name in eigenvalues[steps[0]])
    for place, name in ((axes[0, 0], "0.q"), (axes[0, 1], f"{last}.out")):
        shape = (len(eigenvalues[steps[0]][name]), 4 * len(eigenvalues[steps[0]][name]))
        m = shape[1] if name.endswith(("fc", "out")) else shape[0]
        _density(
            place, shape[0], m, [(eigenvalues[step][name], step) for step in (steps[0], steps[-1])], name
        )
    for place, number, words in (
        (axes[1, 0], "ks", "KS distance"),
        (axes[1, 1], "outliers", "outliers per matrix"),
    ):
        for (colour, marker), kind in zip(SERIES, kinds, strict=False):
            for group, dash in (("text", "-"), ("shuffled", ":")):
                at = [max(row["step"], 3) for row in result[group]]
                value = np.array([row["kinds"][kind][number] for row in result[group]])
                place.errorbar(at, value[:, 0], value[:, 1], linestyle=dash, marker=marker, color=colour,
                               markersize=4, label=kind if dash == "-" else None)  # fmt: skip
        place.set(xlabel="step (0 at the left edge)", ylabel=words, xscale="log")
    axes[1, 0].axhline(
        max(null[1] for null in result["null"].values()), color=INK, linewidth=0.8, linestyle="--"
    )
    axes[1, 0].set_title("solid: text; dotted: shuffled; dashed: 95 % of random matrices", fontsize=11)
    for place in axes.flat:
        place.legend(fontsize=9)
    return figure


def _density(axes: Axes, n: int, m: int, rows: list[Any], name: str) -> None:
    edge = upper_edge(n, m)
    bins = np.linspace(0, edge, 21)
    for (values, step), colour in zip(rows, (GREEN, PURPLE), strict=True):
        x = np.array(values)
        counts, _ = np.histogram(x[x <= edge], bins)
        words = f"step {step}: {int((x > edge).sum())} outliers, to {x.max() / edge:.3g} edges"
        axes.stairs(counts / (n * np.diff(bins)), bins, color=colour, linewidth=1.6, label=words)
    low, high = (1 - math.sqrt(n / m)) ** 2, (1 + math.sqrt(n / m)) ** 2
    x = np.linspace(max(low, 1e-3), high, 300)[1:-1]
    axes.plot(x, marchenko_pastur(x, n / m), "-", color=INK, linewidth=1, label="Marchenko–Pastur")
    axes.set(title=name, xlabel=r"$x$ of $WW^T/(m s^2)$", ylabel="density", ylim=(0, 2.2))
