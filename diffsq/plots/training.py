"""Training: losses, and what a model gains in path KL, step by step, by noise level and by momentum shell."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots import style
from diffsq.plots.style import BLUE, GREY, INK, MODEL, SERIES, SIGMA, note, panels, spread, styled
from lattice.arrays import Floats
from lattice.statistics.notation import format_value

DASHES = ("-", "--", "-.", ":")


@styled
def losses(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Loss against step of each model, name -> (step (n,), loss (n,)), both axes as they serve."""
    figure, axes = panels(8.2, 3.8)
    for i, (name, (step, loss)) in enumerate(curves.items()):
        colour, dash = SERIES[i % len(SERIES)][0], DASHES[i % len(DASHES)]
        axes.plot(step, loss, dash, color=colour, linewidth=1.4, label=name)
    axes.set(yscale="log", xlabel="step", ylabel="loss")
    axes.legend(ncols=2)
    return figure


@styled
def training_history(
    step: ArrayLike, loss: ArrayLike, *, val_step: ArrayLike = (), val_gain: ArrayLike = (),
    val_gain_error: ArrayLike = (), base: str = "regression base", flow: bool = False,
) -> Figure:  # fmt: skip
    """Training loss (n,) against step, and the held-out path KL that the U-Net gains over the ``base``,
    (m,) with errors (m,) or none, in nats per field; through the ``flow`` half of what Var log w falls.
    """
    figure, (left, right) = panels(11.0, 4.0, 1, 2)
    _loss(left, np.asarray(step, dtype=np.float64), np.asarray(loss, dtype=np.float64))
    gain, error = (np.asarray(given, dtype=np.float64) for given in (val_gain, val_gain_error))
    if len(gain):
        right.errorbar(val_step, gain, error if len(error) else None, color=MODEL, marker="o", linewidth=1.2)
        right.axhline(0.0, color=INK, linewidth=0.9, dashes=(4, 2))
        note(
            right, base, (0.985, 0.0), (0, 3), xycoords=("axes fraction", "data"), ha="right",
            va="bottom", fontsize=12,
        )  # fmt: skip
    else:
        right.text(0.5, 0.5, "no validation yet", ha="center", va="center", transform=right.transAxes)
    gained = r"held-out Var $\log w$ gained, half" if flow else "held-out path KL gained"
    right.set(xlabel="optimizer step", ylabel=f"{gained} [nats per field]")
    if flow:
        left.set(ylabel="training loss")
    return figure


def _loss(axes: Axes, step: Floats, loss: Floats) -> None:
    axes.plot(step, loss, color=GREY, alpha=0.45, linewidth=0.8, label="minibatch")
    if len(loss) > 10:
        width = max(len(loss) // 40, 3)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes.plot(step[width - 1 :], smooth, color=BLUE, label=f"mean of last {width} points")
    if len(loss) and (loss > 0).all() and loss.max() > 5 * loss.min():
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel="training loss [nats per field]")
    if len(loss):
        axes.legend()


@styled
def gain_per_level(
    sigma: ArrayLike, gain_base: ArrayLike | None, gain_unet: ArrayLike, *,
    unet_error: ArrayLike | None = None,
    totals: Mapping[str, tuple[float | None, float | None]] | None = None, network: str = "U-Net",
) -> Figure:  # fmt: skip
    """Path KL gained at each ``sigma`` (S,): by the regression base over the Wiener filter, and by the U-Net
    over the base, (S,) each; ``unet_error`` (S,).  None for the base: the U-Net is over the Wiener filter.

    Left both on one scale, right the U-Net alone on its own: it may be a small part of the whole, or
    negative.  ``totals`` holds (value, error) of "base" and "unet", summed over sigma, for the legend.
    """
    order = np.argsort(np.asarray(sigma, dtype=np.float64))
    given = (sigma, gain_base, gain_unet, unet_error)
    levels, base, unet, error = (None if g is None else np.asarray(g, dtype=np.float64)[order] for g in given)
    over = "Wiener" if gain_base is None else "regression"
    names = {"base": "regression over Wiener", "unet": f"{network} over {over}"}
    for key in names:
        if totals and key in totals:
            names[key] += rf": $\Sigma$ = {_value(*totals[key])}"
    size = (6.4, 4.4, 1, 1) if base is None else (11.0, 4.4, 1, 2)
    figure, axes_of = panels(*size, squeeze=False)
    left, *rest = axes_of[0]
    if base is not None:
        left.plot(levels, base, color=style.BASE, marker="D", dashes=(5, 2), label=names["base"])
    for axes in (left, *rest):
        label = names["unet"] if axes is left else None
        axes.errorbar(levels, unet, error, color=MODEL, marker="o", elinewidth=1.2, label=label)
        axes.axhline(0.0, color=INK, linewidth=0.9)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.set(xscale="log", xlabel=SIGMA)
    left.set_ylabel(r"path KL gained per $\sigma$ bin [nats]")
    for axes in rest:
        axes.set_ylabel(rf"gained by the {network} per $\sigma$ bin [nats]")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _value(value: float | None, error: float | None) -> str:
    known = value is None or error
    return format_value(value, error) if known else f"{value:.3g}"


@styled
def gain_per_shell(
    sigma: ArrayLike, shells: Sequence[str], gain_base: ArrayLike | None, gain_unet: ArrayLike,
    multiplicity: Sequence[int] = (), network: str = "U-Net",
) -> Figure:  # fmt: skip
    """Heat maps over (sigma, momentum shell) of the path KL gained by the U-Net over the regression base
    (left) and by the base over the Wiener filter (right).

    ``gain_base`` and ``gain_unet`` are (S, n_shell); without a base one map, over the Wiener filter.  Each
    map has its own scale, symmetric about 0.  Blue: gained; red: lost.
    """
    levels = np.asarray(sigma, dtype=np.float64)
    order = np.argsort(levels)
    names = [f"{name}  (×{n})" for name, n in zip(shells, multiplicity)] or list(shells)
    ticks = spread(len(levels), 7)
    maps = [(f"{network} over regression", gain_unet), ("regression over Wiener", gain_base)]
    if gain_base is None:
        maps = [(f"{network} over Wiener", gain_unet)]
    figure = style.new_figure(12.0 if len(maps) == 2 else 6.8, max(3.4, 0.32 * len(shells) + 2.0))
    pair = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for axes, (title, gain) in zip(pair, maps):
        data = np.asarray(gain, dtype=np.float64)[order].T
        reach = float(np.nanmax(np.abs(data), initial=0.0)) or 1.0
        norm = TwoSlopeNorm(0.0, -reach, reach)
        image = axes.imshow(data, aspect="auto", origin="lower", cmap="RdBu", norm=norm)
        bar = figure.colorbar(image, ax=axes, pad=0.015)
        bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]  # ScalarFormatter is its default
        bar.set_label("path KL gained [nats]")
        axes.set(title=title, xlabel=SIGMA)
        axes.set_xticks(ticks, [f"{levels[order][i]:.2g}" for i in ticks])
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(which="both", length=0)
    pair[0].set_ylabel("momentum shell (× modes)")
    return figure


@styled
def score_errors(
    sigma: Sequence[float], shells: Sequence[str],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]],
) -> Figure:  # fmt: skip
    """Error of each predictor in nats against sigma (S,), left, and by momentum shell, right; curves: name ->
    values and errors (S,), values and errors (n_shell,). What is below zero within its error is drawn as its
    upper end."""
    figure, (left, right) = panels(11.0, 4.4, 1, 2)
    for i, (name, (value, error, shell, shell_error)) in enumerate(curves.items()):
        colour, marker = SERIES[i % len(SERIES)][:2]
        at = np.arange(len(shells)) + 0.18 * (i - (len(curves) - 1) / 2)
        for axes, *given in ((left, sigma, value, error), (right, at, shell, shell_error)):
            points, y, e = (np.asarray(q, dtype=np.float64) for q in given)
            seen, line = y > e, "-" if axes is left else ""
            axes.errorbar(
                points[seen], y[seen], e[seen], color=colour, marker=marker, linestyle=line, label=name
            )
            axes.plot(points[~seen], (y + 2 * e)[~seen], "v", color=colour, markerfacecolor="none")
    left.set(xscale="log", yscale="log", xlabel=SIGMA)
    left.set_ylabel(r"error of the score [nats per unit of $\ln\sigma^2$]")
    right.set(yscale="log", ylabel="error of the score [nats per field]")
    right.set_xticks(range(len(shells)), shells, rotation=30, ha="right")
    left.legend()
    return figure
