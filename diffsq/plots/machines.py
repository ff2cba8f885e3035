"""Figures of Gaussian machines: spectrum, learning, Gibbs sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREEN, GREY, INK, PURPLE, SERIES, VERMILLION, panels, styled


@styled
def machine_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.machine`: lambda over kappa, the propagator, KL of cuts, action density of cuts."""
    figure, axes = panels(11, 8, 2, 2)
    _spectrum(axes[0, 0], result)
    _propagator(axes[0, 1], result["propagator"])
    _divergence(axes[1, 0], result)
    _density(axes[1, 1], result["cuts"])
    return figure


def _spectrum(axes: Axes, result: Mapping[str, Any]) -> None:
    kappa, lam, known = (np.array(result[key]) for key in ("kappa", "lambda", "predicted"))
    axes.plot(kappa, known, "-", color=INK, label="closed form")
    axes.plot(kappa, lam, "o", color=BLUE, markersize=4, label="learned")
    axes.axhline(result["mu2"], color=VERMILLION, linestyle="--", label=r"$\mu^2$")
    scale = "log" if kappa[-1] > 20 * kappa[0] else "linear"
    axes.set(xlabel=r"$\kappa$ of the data", ylabel=r"$\lambda$ of the machine", xscale=scale, yscale=scale)
    axes.legend()


def _propagator(axes: Axes, p: Mapping[str, Any]) -> None:
    k2 = np.array(p["khat2"])
    axes.errorbar(k2, p["G"], p["error"], fmt="o", color=INK, markersize=4, label=r"$G(k)$ learned from")
    order = np.argsort(k2)
    axes.plot(k2[order], np.array(p["machine"])[order], "-", color=BLUE, label=r"$1/\lambda(k)$")
    axes.set(xlabel=r"$\hat k^2$", ylabel=r"$G(k)$", yscale="log")
    axes.legend()


def _divergence(axes: Axes, result: Mapping[str, Any]) -> None:
    nodes, masses = result["nodes"], result["masses"]
    n = np.arange(len(nodes["kl"]))
    low = 0.5 * min(kl for kl in nodes["kl"] if kl > 1e-12)
    for key, colour, dash, words in (
        ("kl", BLUE, "-", r"$\mu^2$ fixed"), ("kl_best", GREEN, "--", r"best $\mu^2$"),
    ):  # fmt: skip
        axes.plot(n, np.maximum(nodes[key], low / 10), dash, color=colour, label=words)
    axes.set(xlabel=r"hidden nodes $N_h$", ylabel="KL [nats per field]", yscale="log")
    twin = axes.twiny()
    twin.plot(masses["mu2"], np.maximum(masses["kl"], low / 10), ":", color=VERMILLION)
    twin.set_xlabel(r"mass $\mu^2$, $N_h = V$ (dotted)", color=VERMILLION)
    axes.set_ylim(low, 2 * max(*nodes["kl"], *masses["kl"]))
    axes.legend()


def _density(axes: Axes, cuts: list[Mapping[str, Any]]) -> None:
    full = max(row["n_hidden"] for row in cuts)
    of_mass = [row for row in cuts if row["n_hidden"] == full]
    of_nodes = [row for row in cuts if row["mu2"] == max(r["mu2"] for r in cuts)]
    for rows, colour, marker, words in (
        (of_mass, VERMILLION, "s", r"cut by the mass $\mu^2$"),
        (of_nodes, BLUE, "o", r"cut by the nodes $N_h$"),
    ):  # fmt: skip
        rows = sorted(rows, key=lambda row: row["n_modes"])
        n = [row["n_modes"] for row in rows]
        axes.plot(n, [row["action_density"] for row in rows], "-", color=colour)
        values = np.array([row["action_density_drawn"] for row in rows])
        axes.errorbar(n, values[:, 0], values[:, 1], fmt=marker, color=colour, label=words)
    axes.axhline(0.5, color=INK, linewidth=1)
    axes.set(xlabel="modes learned", ylabel=r"$\frac{1}{2V}\sum\kappa\,\langle|\phi_a|^2\rangle$")
    axes.legend()


@styled
def learning_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.learning`: y(t)/y* of aligned machines, and lambda of the run's machine by step."""
    figure, (left, right) = panels(11, 4.2, 1, 2)
    kappa, t = np.array(result["kappa"]), np.array(result["t"])
    star = result["mu2"] - kappa
    exact, y = np.array(result["exact"]) / star, np.array(result["y"]) / star
    for i, value in enumerate(kappa):
        colour, marker = SERIES[i % len(SERIES)]
        left.plot(t, exact[:, i], "-", color=colour, linewidth=1.2)
        left.plot(t[::2], y[::2, i], marker, color=colour, markersize=4, label=rf"$\kappa = {value:.3g}$")
    left.set(
        xlabel=r"time $t$ = rate × steps", ylabel=r"$y/y^*$", title="aligned machines on the closed form"
    )
    left.legend(fontsize=10)
    history = [h for h in result["history"] if h["step"] > 0] or result["history"]
    steps = [max(h["step"], 0.5) for h in history]
    spectra = np.array([h["spectrum"] for h in history])
    chosen = np.unique(np.linspace(0, spectra.shape[1] - 1, min(10, spectra.shape[1])).round().astype(int))
    known = np.array(result["all_kappa"])
    for place, i in enumerate(chosen):
        colour = SERIES[place % len(SERIES)][0]
        right.plot(steps, spectra[:, i], "-", color=colour, linewidth=1.4)
        right.axhline(min(known[i], result["mu2"]), color=colour, linewidth=0.7, linestyle=":")
    right.axhline(result["mu2"], color=INK, linestyle="--", linewidth=1, label=r"$\mu^2$; dotted: $\kappa_a$")
    ratio = known[np.isfinite(known)]
    right.set(
        xlabel="step", ylabel=r"$\lambda$", xscale="log", title="the run's machine",
        yscale="log" if ratio[-1] > 20 * ratio[0] else "linear",
    )  # fmt: skip
    right.legend()
    return figure


@styled
def gibbs_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.gibbs`: tau_int in sweeps against lambda/mu^2."""
    figure, axes = panels(6.4, 4.4)
    x = np.array([row["lambda"] for row in result["modes"]]) / result["mu2"]
    grid = np.geomspace(x.min() / 1.2, 1, 200)
    axes.plot(grid, 1 / grid - 0.5, "-", color=INK, label=r"$\mu^2/\lambda - 1/2$")
    tau = [row["tau"] for row in result["modes"]]
    axes.errorbar(
        x, tau, [row["tau_error"] for row in result["modes"]], fmt="o", color=BLUE, label="measured"
    )
    axes.set(xlabel=r"$\lambda/\mu^2$", ylabel=r"$\tau_{\rm int}$ [sweeps]", xscale="log", yscale="log")
    axes.legend()
    return figure


@styled
def quartic_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.quartic`: K(k) by score matching, with the quartic term and without."""
    figure, axes = panels(6.8, 4.6)
    k2 = np.array(result["khat2"])
    axes.errorbar(
        k2,
        result["kernel"],
        result["kernel_error"],
        fmt="o",
        color=BLUE,
        label=r"$K(k)$ beside $\lambda\phi^4$",
    )
    axes.plot(k2, result["gaussian"], "s", color=GREY, markersize=4, label=r"$1/G(k)$, no quartic term")
    if result.get("true") is not None:
        order = np.argsort(k2)
        axes.plot(k2[order], np.array(result["true"])[order], "-", color=INK, label="the action's own")
    axes.axhline(0, color=PURPLE, linewidth=0.8)
    axes.set(xlabel=r"$\hat k^2$", ylabel=r"$K(k)$")
    axes.legend()
    return figure


@styled
def pictures_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.pictures`: pictures, what machines of fewer nodes make of them, and what they draw."""
    rows = [("data", result["shown"], None), *(
        (f"{row['n_hidden']}", row["rebuilt"], row["drawn"]) for row in result["regenerated"]
    )]  # fmt: skip
    figure, axes = panels(11, 1.05 * len(rows) + 0.6, len(rows), 17, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for line, (words, left, right) in zip(axes, rows, strict=True):
        line[0].text(0.9, 0.5, words, ha="right", va="center", transform=line[0].transAxes, fontsize=12)
        for place, image in zip(line[1:9], left, strict=False):
            place.imshow(np.array(image), cmap="gray", vmin=0, vmax=1)
        for place, image in zip(line[9:], right or [], strict=False):
            place.imshow(np.array(image), cmap="gray", vmin=0, vmax=1)
    figure.suptitle(
        r"$N_h$: mean of $\phi$ after one sweep from a picture (left), draws, sign chosen (right)"
    )
    return figure
