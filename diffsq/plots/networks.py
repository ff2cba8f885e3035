"""Figures of random networks: cumulants against width and distance, cumulants along a diffusion, phi^4 in
1/N."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREY, INK, SERIES, VERMILLION, band, panels, styled

DASHES = ("-", "--", ":")


@styled
def networks_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.networks`: |kappa_2n| against N with exact lines and noise floor for each law, if there are
    widths, and kappa_4(0, 0, r, r)."""
    shown = _first_points(result["widths"])
    figure, axes = panels(5.5 * (len(shown) + 1), 4.4, 1, len(shown) + 1, squeeze=False)
    for place, each in zip(axes[0], shown, strict=False):
        _widths(place, each)
    _distances(axes[0, -1], result)
    return figure


def _first_points(scanned: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One table of each law, at most three."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in scanned:
        found.setdefault(each["name"], each)
    return list(found.values())[:3]


def _widths(axes: Axes, each: Mapping[str, Any]) -> None:
    for (colour, marker), order in zip(SERIES, (2, 4, 6, 8), strict=False):
        rows = [x for x in each["table"] if x["order"] == order]
        n = [x["width"] for x in rows]
        exact = [np.nan if x["vanishes"] else abs(x["exact"]) for x in rows]
        axes.plot(n, exact, "-", color=colour)
        axes.plot(n, [x["floor"] for x in rows], ":", color=colour, linewidth=1)
        for seen, fill in ((True, colour), (False, "none")):
            own = [x for x in rows if x["seen"] is seen]
            place, size = [x["width"] for x in own], [abs(x["value"]) for x in own]
            axes.errorbar(place, size, [x["error"] for x in own], fmt=marker, color=colour,
                          markerfacecolor=fill, label=rf"$|\kappa_{order}|$" if seen else None)  # fmt: skip
    axes.set(xlabel="$N$", ylabel=r"$|\kappa_{2n}|$", xscale="log", yscale="log", title=each["name"])
    axes.legend(fontsize=10, title="lines exact, dotted noise")


def _distances(axes: Axes, result: Mapping[str, Any]) -> None:
    rows = result["pairs"]
    r = [x["r"] for x in rows]
    for (name, values), dash in zip(result["siblings"].items(), DASHES, strict=False):
        axes.plot(r, values, dash, color=GREY, label=name)
    known = [x for x in rows if x["exact"] is not None]
    if known:
        axes.plot([x["r"] for x in known], [x["exact"] for x in known], "-", color=INK, label="exact")
    axes.errorbar(
        r, [x["value"] for x in rows], [x["error"] for x in rows], fmt="o", color=BLUE, label="sampled"
    )
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set(xlabel="$r$", ylabel=r"$\kappa_4(0,0,r,r)$", yscale="symlog" if known else "linear")
    if known:
        axes.set_yscale("symlog", linthresh=max(1e-4, 1e-3 * max(abs(x["exact"]) for x in known)))
    axes.legend(fontsize=10)


@styled
def score_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.network_score`: kappa_n of a site along the diffusion, and the couplings by sigma."""
    figure, axes = panels(14, 7.5, 2, 4)
    sigma, c = np.array(result["sigma"]), result["curves"]["site"]
    places = [axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1]]
    for i, (place, order) in enumerate(zip(places, c["orders"], strict=True)):
        _along(place, sigma, c, i)
        place.set(title=rf"$\kappa_{order}$ of a site", xlabel=r"$\sigma$")
    m = result["curves"]["M"]
    for i, (place, order) in enumerate(zip(axes[:, 2], m["orders"], strict=True)):
        _along(place, sigma, m, i)
        place.set(title=rf"$\kappa_{order}$ of $M$", xlabel=r"$\sigma$")
    places[0].legend(fontsize=10)
    for place, names in ((axes[0, 3], ("mass", "kappa")), (axes[1, 3], ("lam",))):
        _couplings(place, result["couplings"], names)
    return figure


def _along(axes: Axes, sigma: Any, c: Mapping[str, Any], i: int) -> None:
    axes.plot(sigma, np.array(c["exact"])[:, i], "-", color=INK, label="exact")
    for side, colour, dash in (("forward", BLUE, "--"), ("backward", VERMILLION, ":")):
        value, error = (np.array(c[side][key])[:, i] for key in ("value", "error"))
        axes.plot(sigma, value, dash, color=colour, label=side)
        band(axes, sigma, value, error, colour)
    exact = np.array(c["exact"])[0, i]
    if c["orders"][i] > 2:
        spread = 4 * max(abs(exact), np.array(c["samples"]["error"])[0, i])
        axes.set_ylim(exact - spread, exact + spread)


def _couplings(axes: Axes, levels: list[Mapping[str, Any]], names: tuple[str, ...]) -> None:
    labels = {"mass": r"$\phi^2$", "lam": r"$\phi^4$", "kappa": "hopping"}
    sigma = [level["sigma"] for level in levels]
    for (colour, marker), name in zip(SERIES, names, strict=False):
        own = [level[name] for level in levels]
        axes.errorbar(sigma, [c["value"] for c in own], [c["error"] for c in own], fmt=marker, color=colour,
                      label=f"{labels[name]}, learned")  # fmt: skip
        for kind, dash in (("exact", "-"), ("first", "--"), ("free", ":")):
            axes.plot(sigma, [c[kind] for c in own], dash, color=colour, linewidth=1.2)
    axes.set(xlabel=r"$\sigma$", xscale="log", title="full: exact, dashed: 1/N, dotted: free")
    axes.legend(fontsize=10)


@styled
def phi4_figure(result: Mapping[str, Any]) -> Figure:
    """Of `checks.network_phi4`: <phi^2> against 1/N for each law of weights, exact and free values."""
    figure, axes = panels(6.8, 4.6)
    for (colour, marker), law in zip(SERIES, dict.fromkeys(x["law"] for x in result["table"]), strict=False):
        own = [x for x in result["table"] if x["law"] == law]
        x, y = [1 / row["width"] for row in own], np.array([row["phi2"] for row in own])
        axes.errorbar(x, y[:, 0], y[:, 1], fmt=marker, color=colour, label=law)
        axes.plot(
            [0, x[-1]], [result["limits"]["phi2"]["value"][0], y[-1, 0]], ":", color=colour, linewidth=1
        )
    value, error = result["limits"]["phi2"]["value"]
    axes.errorbar([0], [value], [error], fmt="*", color=INK, markersize=9, label="limit")
    axes.axhline(result["exact"]["phi2"][0], color=INK, linewidth=1, label=r"$\phi^4$")
    axes.axhline(result["free"], color=GREY, linestyle="--", linewidth=1, label="free")
    axes.set(xlabel="$1/N$", ylabel=r"$\langle\phi^2\rangle$")
    axes.legend(fontsize=10)
    return figure
