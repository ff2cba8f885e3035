"""What the network learned: loss, path KL per noise level and momentum shell; and the level schedule."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from diffsq.plots.style import BASE, BLUE, GREY, INK, MODEL, WIENER, light_grid, new_figure, styled

Array = NDArray[np.float64]


@styled
def training_history(
    step: ArrayLike,
    loss: ArrayLike,
    *,
    val_step: ArrayLike = (),
    val_kl_base: ArrayLike = (),
    val_kl_model: ArrayLike = (),
) -> Figure:
    """Training loss (n,) and held-out path KL of base and model (m,) against step, in nats per field."""
    figure = new_figure(11.0, 4.0)
    left, right = figure.subplots(1, 2)
    steps, losses = np.asarray(step, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    left.plot(steps, losses, color=GREY, alpha=0.45, linewidth=0.8, label="minibatch")
    if len(losses) > 10:
        width = max(len(losses) // 40, 3)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        left.plot(steps[width - 1 :], smooth, color=BLUE, label=f"mean of last {width} points")
    if len(losses) and (losses > 0).all() and losses.max() > 5 * losses.min():
        left.set_yscale("log")
    left.set(xlabel="optimizer step", ylabel="training loss [nats per field]")
    if len(losses):
        left.legend()
    base, model = np.asarray(val_kl_base, dtype=np.float64), np.asarray(val_kl_model, dtype=np.float64)
    if len(model):
        right.plot(val_step, base, color=BASE, dashes=(5, 2), label="regression base")
        right.plot(val_step, model, color=MODEL, marker="o", label="base + U-Net")
        right.legend()
    else:
        right.text(0.5, 0.5, "no validation yet", ha="center", va="center", transform=right.transAxes)
    right.set(xlabel="optimizer step", ylabel="held-out path KL [nats per field]")
    for axes in (left, right):
        light_grid(axes)
    return figure


@styled
def kl_per_level(
    sigma: ArrayLike, curves: Mapping[str, ArrayLike], totals: Mapping[str, float] | None = None
) -> Figure:
    """Held-out path KL of each level ``sigma`` (S,) for the predictors in ``curves``: "wiener", "base",
    "model" -> (S,).

    ``totals`` (the sum over levels) is printed in the legend, in nats per field.
    """
    styles = {
        "wiener": ("Wiener (free field)", WIENER, "s", (0, (1, 1))),
        "base": ("regression base", BASE, "D", (0, (5, 2))),
        "model": ("base + U-Net", MODEL, "o", (0, ())),
    }
    figure = new_figure(7.6, 4.6)
    axes = figure.subplots()
    levels = np.asarray(sigma, dtype=np.float64)
    order = np.argsort(levels)
    positive = True
    for key, values in curves.items():
        label, colour, marker, dash = styles.get(key, (key, INK, "^", (0, ())))
        data = np.asarray(values, dtype=np.float64)[order]
        positive &= bool((data > 0).all())
        if totals and key in totals:
            label += rf": $\Sigma$ = {totals[key]:.3g}"
        axes.plot(levels[order], data, color=colour, marker=marker, linestyle=dash, label=label)
    axes.set(
        xscale="log",
        xlabel=r"noise level $\sigma$ [$\kappa$–$\lambda$ field]",
        ylabel="path KL of the level [nats]",
    )
    axes.set_yscale("log" if positive else "symlog", **({} if positive else {"linthresh": 1e-3}))
    axes.legend()
    light_grid(axes)
    return figure


@styled
def kl_per_shell(
    sigma: ArrayLike,
    shells: Sequence[str],
    kl_base: ArrayLike,
    kl_model: ArrayLike,
    multiplicity: Sequence[int] = (),
) -> Figure:
    """Heat maps over (sigma, momentum shell): the model's path KL, and the U-Net's change log2(model/base).

    ``kl_base`` and ``kl_model`` are (S, n_shell).  Blue in the second panel: the network helps; red: it
    harms.
    """
    order = np.argsort(np.asarray(sigma, dtype=np.float64))
    levels = np.asarray(sigma, dtype=np.float64)[order]
    base, model = (np.asarray(kl, dtype=np.float64)[order].T for kl in (kl_base, kl_model))
    figure = new_figure(12.0, max(3.4, 0.32 * len(shells) + 2.0))
    left, right = figure.subplots(1, 2, sharey=True)
    positive = model[model > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    norm = LogNorm(max(low, high * 1e-5), high if high > low else 2 * low)
    image = left.imshow(
        np.where(model > 0, model, np.nan), aspect="auto", origin="lower", cmap="cividis", norm=norm
    )
    figure.colorbar(image, ax=left, pad=0.015).set_label("path KL of level and shell [nats]")
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where((model > 0) & (base > 0), np.log2(model / base), np.nan)
    reach = min(max(float(np.nanmax(np.abs(change), initial=0.0)), 0.1), 3.0)
    image = right.imshow(
        change, aspect="auto", origin="lower", cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -reach, reach)
    )
    figure.colorbar(image, ax=right, pad=0.015, extend="both").set_label(r"$\log_2$(model / base)")
    names = (
        [f"{name}  (×{n})" for name, n in zip(shells, multiplicity, strict=False)]
        if len(multiplicity)
        else list(shells)
    )
    ticks = np.unique(np.linspace(0, len(levels) - 1, min(7, len(levels))).round().astype(int))
    for axes, title in ((left, "base + U-Net"), (right, "change by the U-Net")):
        axes.set_title(title)
        axes.set_xticks(ticks, [f"{levels[i]:.2g}" for i in ticks])
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(r"noise level $\sigma$ [$\kappa$–$\lambda$ field]")
        axes.tick_params(which="both", length=0)
    left.set_ylabel(r"momentum shell (× modes)")
    return figure


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
def level_kl(sigma: ArrayLike, kl: ArrayLike, variance: ArrayLike | None = None) -> Figure:
    """Each reverse step's part of the path KL and of Var log w against the level's sigma; all (N,)."""
    levels = np.asarray(sigma, dtype=np.float64)
    figure = new_figure(9.6, 3.8)
    panels = figure.subplots(1, 2 if variance is not None else 1, squeeze=False)[0]
    _stem(panels[0], levels, np.asarray(kl, dtype=np.float64), "path KL of the step [nats]")
    if variance is not None:
        _stem(
            panels[1], levels, np.asarray(variance, dtype=np.float64), r"Var $\log w$ of the step [nats$^2$]"
        )
    return figure


def _stem(axes: Axes, sigma: Array, value: Array, label: str) -> None:
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
