"""The sampler's chain of N levels: its schedule, its absolute path KL and the scatter of each step."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from diffsq.plots import style
from diffsq.plots.style import BLUE, FIELD, INK, MODEL, SIGMA, new_figure, note, panels, rows, styled
from lattice.arrays import real_array
from lattice.statistics.notation import format_value

KERNELS = (
    ("wiener", "Wiener (free field)", style.WIENER),
    ("base", "regression base", style.BASE),
    ("model", "base + U-Net", MODEL),
)


@styled
def level_schedule(levels: ArrayLike) -> Figure:
    """The noise levels sigma_0 = 0 < ... < sigma_N against n, and the growth sigma_(n+1)/sigma_n."""
    sigma = real_array(levels, "levels")
    figure, (left, right) = panels(9.6, 3.4, 1, 2)
    n = np.flatnonzero(sigma > 0)
    left.plot(n, sigma[n], color=BLUE, marker="o", markersize=4)
    left.set(yscale="log", xlabel=r"level $n$", ylabel=rf"$\sigma_n$ {FIELD}")
    ends = rf"$\sigma_0 = 0$, $\sigma_{{{len(sigma) - 1}}} = {sigma[-1]:.3g}$"
    left.annotate(ends, (0.96, 0.06), ha="right", xycoords="axes fraction")
    n = n[n < len(sigma) - 1]
    right.plot(n, sigma[n + 1] / sigma[n], color=BLUE, marker="o", markersize=4)
    right.set(xlabel=r"level $n$", ylabel=r"$\sigma_{n+1}/\sigma_n$")
    right.ticklabel_format(axis="y", useOffset=False)
    low, high = right.get_ylim()
    if high - low < 0.02 * high:  # a geometric schedule: show the constant, not its rounding
        right.set_ylim(0.95 * high, 1.05 * high)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def path_kl(kl: Mapping[str, float | None]) -> Figure:
    """Absolute path KL(F||R) of the chain with the kernels "wiener", "base" and "model", in nats per field,
    with their NAME_error, and the U-Net's "gain" over its base with its paired "gain_error".

    Kernels missing from ``kl`` leave no bar; without "gain" there is no second panel.
    """
    of_wiener = kl.get("wiener") is not None and kl.get("base") is None
    known = [(*kernel, float(v)) for kernel in KERNELS if (v := kl.get(kernel[0])) is not None]
    bars = [
        ("Wiener + U-Net" if of_wiener and key == "model" else label, colour, value)
        for key, label, colour, value in known
    ]
    errors = [kl.get(f"{key}_error") or 0.0 for key, *_ in known]
    gain = kl.get("gain")
    ratios = (2, 1) if gain is not None else (1,)
    figure = new_figure(10.4, 3.2)
    left, *right = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    values = [value for _, _, value in bars]
    places = rows(left, [label for label, _, _ in bars])
    left.barh(places, values, height=0.55, color=[colour for _, colour, _ in bars])
    left.errorbar(values, places, xerr=errors, color=INK, linestyle="none", elinewidth=1.5)
    for place, value, error in zip(places, values, errors):
        shown = format_value(value, error) if error else f"{value:.4g}"
        note(left, shown, (max(value + error, 0.0), place), (6, 0), va="center")
    left.margins(x=0.16)
    left.axvline(0.0, color=INK, linewidth=0.9)
    left.set_xlim(left=min([0.0, *values]))
    left.set(xlabel="path KL of the chain [nats per field]")
    if gain is not None:
        _gain(right[0], gain, kl.get("gain_error"))
    for axes in (left, *right):
        axes.grid(True, axis="x", which="major")
        axes.set_axisbelow(True)
    return figure


def _gain(axes: Axes, gain: float, error: float | None) -> None:
    width = None if error is None else [error]
    axes.errorbar([gain], [0.0], xerr=width, color=MODEL, marker="o", elinewidth=2)
    axes.axvline(0.0, color=INK, linewidth=0.9)
    reach = 1.15 * (abs(gain) + 2 * (error or 0.0)) or 1.0
    axes.set_xlim((-0.25 * reach, reach) if gain >= 0 else (-reach, 0.25 * reach))
    axes.set(ylim=(-1, 1), yticks=[], xlabel="gain of the U-Net [nats per field]")
    axes.set_title(f"gain {format_value(gain, error) if error else format(gain, '.4g')} nats")
    axes.tick_params(axis="y", which="both", length=0)


@styled
def level_variance(sigma: ArrayLike, variance: ArrayLike) -> Figure:
    """Variance over forward paths of each step's part of log F - log R, Gaussian part removed, against the
    step's sigma; both (N,)."""
    place, value = real_array(sigma, "sigma").copy(), real_array(variance, "variance")
    positive = place > 0
    place[~positive] = place[positive].min() / 2 if positive.any() else 1.0  # zero has no logarithm
    figure, axes = panels(8.2, 4.0)
    axes.vlines(place, np.minimum(value, 0), np.maximum(value, 0), color=BLUE, alpha=0.5, linewidth=2.5)
    axes.plot(place, value, "o", color=BLUE)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set(xscale="log", xlabel=SIGMA, ylabel=r"Var$[\log F - \log R]$ of the step [nats$^2$]")
    total = rf"$\Sigma$ = {value.sum():.3g}"
    axes.annotate(total, (0.97, 0.94), xycoords="axes fraction", ha="right", va="top")
    return figure
