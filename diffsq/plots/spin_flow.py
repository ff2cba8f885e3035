"""Figures of the flow of binary machines: where it goes, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREEN, GREY, INK, SERIES, VERMILLION, band, panels, styled

QUANTITIES = ((0, "e", r"$e$"), (3, "c1", r"$c_1$"))


@styled
def spin_flow_figure(result: Mapping[str, Any], labels: list[str]) -> Figure:
    """Of `checks.spin_flow`: temperatures, e and c1 against the sweep for the first row, with the values at
    T_c and of the mixture; the end points of all rows in the plane of e and |m|; T_E and T_m by row; what the
    network reads, or spectra of W."""
    figure, axes = panels(13, 8.4, 2, 3)
    first = result["rows"][0]["at"][-1]
    _thermometers(axes[0, 0], first, result["t_critical"])
    axes[0, 0].set_title(labels[0], fontsize=11)
    for place, (i, name, symbol) in zip(axes[0, 1:], QUANTITIES, strict=True):
        _curve(place, first, i)
        place.axhline(result["critical"][name], color=VERMILLION, linewidth=1.2, label=r"at $T_c$")
        place.axhline(first["mixture"][name], color=GREEN, linestyle="--", linewidth=1.2, label="mixture")
        place.set(xlabel="sweep", ylabel=symbol, xscale="symlog", xlim=(0, first["curves"]["n"][-1]))
    axes[0, 2].legend(fontsize=10)
    _plane(axes[1, 0], result)
    _temperatures(axes[1, 1], result, labels)
    if result["thermometer"]:
        _calibration(axes[1, 2], result)
    else:
        _spectra(axes[1, 2], result)
    return figure


def _thermometers(axes: Axes, at: Mapping[str, Any], t_critical: float) -> None:
    """T_E and T_m against the sweep with bands, and T of the network; from cold starts solid, hot dashed."""
    n, beyond = np.array(at["curves"]["n"]), 3 * t_critical
    for start, dash in (("cold", "-"), ("hot", "--")):
        for label, colour in (("T_E", BLUE), ("T_m", VERMILLION)):
            t, low, high = (np.array(x, dtype=np.float64) for x in at["curves"][start][label])
            words = f"${label[0]}_{label[2]}$" if start == "cold" else None
            axes.plot(n, t, dash, color=colour, label=words)
            low, high = (np.where(np.isnan(x), beyond, x) for x in (low, high))
            axes.fill_between(n, low, high, color=colour, alpha=0.2, linewidth=0)
        if at["network"]:
            words = "$T_{NN}$" if start == "cold" else None
            axes.plot(at["network"]["n"], at["network"][start], dash, color=GREEN, label=words)
    axes.axhline(t_critical, color=INK, linewidth=1.0, label="$T_c$")
    for name in ("t_e", "t_m"):
        axes.axhline(
            at["mixture"][name], color=GREY, linestyle=":", label="mixture" if name == "t_e" else None
        )
    axes.set(xlabel="sweep", ylabel="$T$", xscale="symlog", xlim=(0, n[-1]), ylim=(0, beyond))
    axes.legend(fontsize=9, ncols=2)


def _curve(axes: Axes, at: Mapping[str, Any], i: int) -> None:
    n = np.array(at["curves"]["n"])
    for start, colour in (("cold", BLUE), ("hot", GREY)):
        mean, spread = (np.array(at["curves"][start][key])[:, i] for key in ("mean", "spread"))
        axes.plot(n, mean, "-", color=colour, label=f"{start} start")
        band(axes, n, mean, spread, colour)


def _plane(axes: Axes, result: Mapping[str, Any]) -> None:
    """End points (|m|, e): of every row its steps joined, critical point, mean-field line, mixture."""
    m = np.linspace(0, 1, 100)
    if result["q"] == 2:
        axes.plot(m, -2 * m**2, ":", color=GREY, label=r"mean field, $e = -2m^2$")
    for (colour, marker), row in zip(_series(len(result["rows"])), result["rows"], strict=True):
        x = np.array([[at["end"]["abs_m"], at["end"]["e"]] for at in row["at"]])
        axes.errorbar(
            x[:, 0, 0], x[:, 1, 0], x[:, 1, 1], x[:, 0, 1], fmt=marker, linestyle="-", color=colour,
            linewidth=0.8, markersize=5,
        )  # fmt: skip
    critical, null = result["critical"], result["rows"][0]["at"][-1]["mixture"]
    axes.plot(critical["abs_m"], critical["e"], "*", color=VERMILLION, markersize=14, label=r"$T_c$")
    axes.plot(null["abs_m"], null["e"], "P", color=GREEN, markersize=10, label="mixture (first row)")
    axes.set(xlabel=r"$\langle|m|\rangle$", ylabel=r"$e$", title="end points, by step of learning")
    axes.legend(fontsize=10)


def _temperatures(axes: Axes, result: Mapping[str, Any], labels: list[str]) -> None:
    """T_E and T_m of every row at its last step; a cross: starts have not ended alike."""
    beyond = 4 * result["t_critical"]
    for y, row in enumerate(result["rows"]):
        last = row["at"][-1]
        if last["verdict"] == "not converged":
            axes.plot(0.03 * beyond, -y, "x", color=GREY, markersize=5)
            continue
        for name, marker, colour in (("T_E", "o", BLUE), ("T_m", "s", VERMILLION), ("T_NN", "^", GREEN)):
            t = [x for x in last["readings"].get(name, []) if x is not None]
            if t:
                spread = np.std(t, ddof=1) if len(t) > 1 else 0.0
                words = f"${name[0]}_{{{name[2:]}}}$" if y == 0 else None
                axes.errorbar(
                    np.mean(t), -y, xerr=spread, fmt=marker, color=colour, markersize=5, label=words
                )
        axes.plot([last["mixture"]["t_e"], last["mixture"]["t_m"]], [-y, -y], "|", color=INK, markersize=11)
    axes.axvline(result["t_critical"], color=VERMILLION, linewidth=1.0)
    axes.set_yticks(-np.arange(len(labels)), labels, fontsize=8)
    axes.set(xlabel=r"$T$ read off (bars: mixture; line: $T_c$)", xlim=(0, beyond))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=10)


def _calibration(axes: Axes, result: Mapping[str, Any]) -> None:
    """What the network reads at true temperatures, and along the flow of the first row."""
    own = result["thermometer"]
    t, mean, sd = (np.array(own[key]) for key in ("t", "mean", "sd"))
    axes.plot(t, mean, "-", color=GREEN, label="network at true $T$")
    band(axes, t, mean, sd, GREEN)
    axes.plot(t, own["shuffled_mean"], ":", color=INK, label="the same, sites shuffled")
    axes.plot(t, t, "-", color=GREY, linewidth=0.8)
    read = [x for x in result["rows"][0]["at"][-1]["readings"]["T_NN"] if x is not None]
    if read:
        axes.axhline(np.mean(read), color=BLUE, linewidth=1.2, label="end of the first row")
    axes.set(xlabel="$T$", ylabel="$T$ read by the network")
    axes.legend(fontsize=10)


def _spectra(axes: Axes, result: Mapping[str, Any]) -> None:
    for (colour, marker), row in zip(_series(len(result["rows"])), result["rows"], strict=True):
        x = np.array([value for value in row["at"][-1]["singular"] if value > 0])
        axes.plot(np.arange(1, len(x) + 1), x, "-", marker=marker, color=colour, markersize=3, linewidth=0.8)
    scale = "log" if any(len(np.atleast_1d(line.get_xdata())) for line in axes.lines) else "linear"
    axes.set(xlabel="number", ylabel=r"singular value of $W$", xscale=scale, yscale=scale)


def _series(n: int) -> list[tuple[str, str]]:
    return [SERIES[i % len(SERIES)] for i in range(n)]


@styled
def field_flow_figure(result: Mapping[str, Any], labels: list[str]) -> Figure:
    """Of `checks.field_flow`: ends in the plane of T and H beside the line of the largest specific heat, and
    in the plane of m and u beside independent spins."""
    figure, (left, right) = panels(11, 4.6, 1, 2)
    h, t, _ = np.array(result["line"]).T
    left.plot(t, h, "-", color=VERMILLION, label="largest $C$, exact")
    m = np.linspace(0, 1, 100)
    right.plot(m, -2 * m**2, ":", color=GREY, label=r"independent spins, $u = -2m^2$")
    null = result["mixture"]
    if null["found"]:
        left.plot(null["t"], null["h"], "P", color=GREEN, markersize=10, label="mixture of the grid")
    right.plot(null["m"], null["u"], "P", color=GREEN, markersize=10, label="mixture of the grid")
    for (colour, marker), row, words in zip(_series(len(labels)), result["rows"], labels, strict=True):
        if "t" in row:
            left.errorbar(
                row["t"][0], row["h"][0], row["h"][1], row["t"][1], fmt=marker, color=colour, label=words
            )
        right.errorbar(
            row["m"][0], row["u"][0], row["u"][1], row["m"][1], fmt=marker, color=colour, label=words
        )
    left.set(xlabel="$T$", ylabel="$H$")
    right.set(xlabel=r"$\langle m\rangle$", ylabel=r"$u$")
    left.legend(fontsize=10)
    right.legend(fontsize=10)
    return figure


@styled
def real_space_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.real_space`: T_E of block spins against the stage, K of the recursion against its step."""
    figure, (left, right) = panels(11, 4.4, 1, 2)
    for (colour, marker), row in zip(_series(len(result["rows"])), result["rows"], strict=True):
        read = [(i, s["t_e"]["t"], s["t_e"]["error"]) for i, s in enumerate(row["stages"])]
        finite = [x for x in read if None not in x and np.isfinite(x[1:]).all() and x[1] > 0]
        i, t, error = np.array(finite).reshape(-1, 3).T
        left.errorbar(i, t, error, fmt=marker, linestyle="-", color=colour, label=f"$T = {row['t']:.4g}$")
    left.set(xlabel="times blocked", ylabel=r"$T_E$ of the blocks")
    if any(len(np.atleast_1d(line.get_xdata())) for line in left.lines):
        left.set_yscale("log")
        left.legend()
    for (colour, _), (start, k) in zip(_series(len(result["recursion"])), result["recursion"].items()):
        k = np.array(k)
        right.plot(np.arange(len(k)), np.maximum(k, 1e-3), ".-", color=colour, label=f"$K_0 = {start}$")
    right.axhline(result["fixed_point"], color=GREY, linewidth=1.0)
    right.set(
        xlabel="step", ylabel="$K$", yscale="log", ylim=(1e-2, 20), title=r"$K' = \frac{3}{8}\ln\cosh 4K$"
    )
    right.legend(fontsize=10)
    return figure


@styled
def spins_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.spins`: T_E and T_m of data, raw and weighted spins."""
    figure, axes = panels(6.6, 3.4)
    for y, found in enumerate(result["sets"].values()):
        for label, marker, colour in (("T_E", "o", BLUE), ("T_m", "s", VERMILLION)):
            t, error = found[label]
            if t is not None:
                words = f"${label[0]}_{label[2]}$" if y == 0 else None
                axes.errorbar(t, -y, xerr=error, fmt=marker, color=colour, label=words)
    axes.axvline(result["t"], color=INK, linewidth=1.0)
    axes.set_yticks(-np.arange(len(result["sets"])), list(result["sets"]))
    axes.set(xlabel="$T$ read off the spins")
    axes.legend()
    return figure
