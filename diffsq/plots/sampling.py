"""The sampler's chain of N levels: its schedule, its absolute path KL and the scatter of each step."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from diffsq.plots.style import BASE, BLUE, INK, MODEL, WIENER, light_grid, new_figure, styled
from lattice.arrays import Floats
from lattice.statistics.notation import format_value


@styled
def level_schedule(levels: ArrayLike) -> Figure:
    """The noise levels sigma_0 = 0 < ... < sigma_N against n, and the growth sigma_(n+1)/sigma_n."""
    sigma = np.asarray(levels, dtype=np.float64)
    figure = new_figure(9.6, 3.4)
    left, right = figure.subplots(1, 2)
    n = np.arange(len(sigma))
    left.plot(n[sigma > 0], sigma[sigma > 0], color=BLUE, marker="o", markersize=4)
    left.set(yscale="log", xlabel=r"level $n$", ylabel=r"$\sigma_n$ [$\kappa$–$\lambda$ field]")
    left.annotate(
        rf"$\sigma_0 = 0$, $\sigma_{{{len(sigma) - 1}}} = {sigma[-1]:.3g}$",
        (0.96, 0.06),
        ha="right",
        xycoords="axes fraction",
    )
    positive = sigma[:-1] > 0
    right.plot(
        n[:-1][positive], sigma[1:][positive] / sigma[:-1][positive], color=BLUE, marker="o", markersize=4
    )
    right.set(xlabel=r"level $n$", ylabel=r"$\sigma_{n+1}/\sigma_n$")
    right.ticklabel_format(axis="y", useOffset=False)
    low, high = right.get_ylim()
    if high - low < 0.02 * high:  # a geometric schedule: show the constant, not its rounding
        right.set_ylim(0.95 * high, 1.05 * high)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        light_grid(axes)
    return figure


@styled
def path_kl(kl: Mapping[str, float | None]) -> Figure:
    """Absolute path KL(F||R) of the chain with the kernels "wiener", "base" and "model", in nats per field,
    and the U-Net's "gain" = base - model with its paired "gain_error".

    Kernels missing from ``kl`` leave no bar; without "gain" there is no second panel.
    """
    kernels = (
        ("wiener", "Wiener (free field)", WIENER),
        ("base", "regression base", BASE),
        ("model", "base + U-Net", MODEL),
    )
    shown = [(label, colour, kl.get(key)) for key, label, colour in kernels]
    bars = [(label, colour, float(value)) for label, colour, value in shown if value is not None]
    gain = kl.get("gain")
    figure = new_figure(10.4, 3.2)
    ratios = (2, 1) if gain is not None else (1,)
    panels = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    left = panels[0]
    rows = np.arange(len(bars))[::-1]
    values = [value for _, _, value in bars]
    left.barh(rows, values, height=0.55, color=[colour for _, colour, _ in bars])
    for row, value in zip(rows, values, strict=True):
        left.annotate(
            f"{value:.4g}", (max(value, 0.0), row), xytext=(6, 0), textcoords="offset points", va="center"
        )
    left.set_yticks(rows, [label for label, _, _ in bars])
    left.tick_params(axis="y", which="both", length=0)
    left.margins(x=0.16)
    left.axvline(0.0, color=INK, linewidth=0.9)
    left.set_xlim(left=min([0.0, *values]))
    left.set(xlabel="path KL of the chain [nats per field]")
    if gain is not None:
        _gain(panels[1], gain, kl.get("gain_error"))
    for axes in panels:
        axes.grid(True, axis="x", which="major")
        axes.set_axisbelow(True)
    return figure


def _gain(axes: Axes, gain: float, error: float | None) -> None:
    axes.errorbar(
        [gain], [0.0], xerr=None if error is None else [error], color=MODEL, marker="o", elinewidth=2
    )
    axes.axvline(0.0, color=INK, linewidth=0.9)
    reach = 1.15 * (abs(gain) + 2 * (error or 0.0)) or 1.0
    axes.set_xlim((-0.25 * reach, reach) if gain >= 0 else (-reach, 0.25 * reach))
    axes.set(
        ylim=(-1, 1),
        yticks=[],
        title=f"gain {format_value(gain, error) if error else format(gain, '.4g')} nats",
        xlabel="gain of the U-Net [nats per field]",
    )
    axes.tick_params(axis="y", which="both", length=0)


@styled
def level_variance(sigma: ArrayLike, variance: ArrayLike) -> Figure:
    """Variance over forward paths of each step's part of log F - log R, Gaussian part removed, against the
    step's sigma; both (N,)."""
    figure = new_figure(8.2, 4.0)
    _stem(
        figure.subplots(),
        np.asarray(sigma, dtype=np.float64),
        np.asarray(variance, dtype=np.float64),
        r"Var$[\log F - \log R]$ of the step [nats$^2$]",
    )
    return figure


def _stem(axes: Axes, sigma: Floats, value: Floats, label: str) -> None:
    positive = sigma > 0
    place = np.where(
        positive, sigma, sigma[positive].min() / 2 if positive.any() else 1.0
    )  # sigma = 0 has no logarithm
    axes.vlines(place, np.minimum(value, 0), np.maximum(value, 0), color=BLUE, alpha=0.5, linewidth=2.5)
    axes.plot(place, value, "o", color=BLUE)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set(xscale="log", xlabel=r"noise level $\sigma$ [$\kappa$–$\lambda$ field]", ylabel=label)
    axes.annotate(
        rf"$\Sigma$ = {value.sum():.3g}", (0.97, 0.94), xycoords="axes fraction", ha="right", va="top"
    )
    light_grid(axes)
