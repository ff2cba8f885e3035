"""Distributions of the three ensembles side by side: P(M), G(k), and the log-weights that connect them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from diffsq.exactness.weights import forward_spread
from diffsq.plots import style
from diffsq.plots.estimators import Curve, curve_ratio, histogram_density
from diffsq.plots.style import BLUE, FIELD, INK, MONTE_CARLO, VERMILLION, band, panels, styled
from lattice.arrays import Floats, real_array
from lattice.statistics.weights import spread_of

STYLES = {"raw": ("raw", style.RAW, "s", -0.18), "weighted": ("weighted (exact)", style.WEIGHTED, "o", 0.18)}


@styled
def magnetization_distribution(
    monte_carlo: ArrayLike, samples: ArrayLike | None = None, log_weight: ArrayLike | None = None, *,
    n_bins: int = 40,
) -> Figure:  # fmt: skip
    """P(M) of Monte Carlo (n,) and of the sampler (m,), raw and weighted, and the ratio to Monte Carlo.

    Error bars are blocked jackknife errors; the band in the ratio is Monte Carlo's own error.
    """
    drawn = [real_array(part, "values") for part in (monte_carlo, samples) if part is not None]
    reach = 1.02 * max(float(np.abs(part).max()) for part in drawn)
    edges = np.linspace(-reach, reach, n_bins + 1)
    curves = {}
    if samples is not None:
        curves["raw"] = histogram_density(samples, edges)
        if log_weight is not None:
            curves["weighted"] = histogram_density(samples, edges, log_weight)
    figure, (top, bottom) = panels(8.2, 6.2, 2, 1, sharex=True, height_ratios=(2.4, 1))
    mc = histogram_density(monte_carlo, edges)
    _density(top, edges, mc, MONTE_CARLO, 0.22, linewidth=1.6, label="Monte Carlo")
    _compare(top, bottom, mc, curves, float(edges[1] - edges[0]))
    top.set_ylabel(r"$P(M)$  [per unit $M$]")
    top.set_ylim(bottom=0)
    bottom.set_xlabel(rf"$M = V^{{-1}}\sum_x \phi_x$  {FIELD}")
    top.legend()
    return figure


def _density(axes: Axes, edges: Floats, curve: Curve, colour: str, alpha: float, **line: Any) -> None:
    """A histogram as a line with its one-sigma band."""
    axes.stairs(curve.value, edges, color=colour, **line)
    low, high = curve.value - curve.error, curve.value + curve.error
    axes.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=alpha)


@styled
def two_point_function(monte_carlo: Curve, samples: Mapping[str, Curve] | None = None) -> Figure:
    """G(k) against khat^2 for Monte Carlo and for ``samples`` ("raw", "weighted"), with the ratio to Monte
    Carlo below.

    ``x`` of the curves is khat^2, k = 0 included: G, G_error of ``lattice.observables.measure.two_point``.
    The zero mode stands at the left edge of a log axis.
    """
    positive = monte_carlo.x[monte_carlo.x > 0]
    first = float(positive.min()) if positive.size else 1.0
    place = np.where(monte_carlo.x > 0, monte_carlo.x, first / 2.5)
    figure, (top, bottom) = panels(8.2, 6.2, 2, 1, sharex=True, height_ratios=(2.4, 1))
    mc, *others = (Curve(place, c.value, c.error) for c in (monte_carlo, *(samples or {}).values()))
    top.errorbar(
        place, mc.value, mc.error, color=MONTE_CARLO, fmt="_", markersize=10, markeredgewidth=1.6,
        label="Monte Carlo",
    )  # fmt: skip
    _compare(top, bottom, mc, dict(zip(samples or {}, others)), 0.0)
    for axes in (top, bottom):
        axes.set_xscale("log")
        axes.axvline(first / 1.6, color=INK, linewidth=0.8, dashes=(1, 2))
    top.set_yscale("log")
    if np.nanmax(mc.value) < 1e3 * np.nanmin(mc.value):  # few decades: label 1, 2, 5 as plain numbers
        top.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        top.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        top.yaxis.set_minor_formatter(NullFormatter())
    top.set_ylabel(r"$G(k)=\langle|\tilde\phi_k|^2\rangle/V$")
    ticks = [value for value in (0.01, 0.1, 1.0, 10.0) if value >= first]
    bottom.set_xticks([first / 2.5, *ticks], ["$k=0$", *[f"{value:g}" for value in ticks]])
    bottom.set_xlim(first / 3.2, 1.25 * float(place.max()))
    bottom.set_xlabel(r"$\hat k^2 = \sum_\mu 4\sin^2(k_\mu/2)$  [lattice units]")
    top.legend()
    return figure


def _compare(top: Axes, bottom: Axes, mc: Curve, curves: Mapping[str, Curve], shift: float) -> None:
    """Points of each curve above, their ratio to ``mc`` below; ``shift`` (bin width) separates markers."""
    own = curve_ratio(mc, mc).error
    band(bottom, mc.x, 1, own, MONTE_CARLO, 0.18)
    bottom.axhline(1.0, color=MONTE_CARLO, linewidth=1.2)
    extent = [own]
    for name, curve in curves.items():
        label, colour, marker, offset = STYLES.get(name, (name, BLUE, "^", 0.0))
        face = colour if name == "weighted" else "none"
        ratio, x = curve_ratio(curve, mc), mc.x + shift * offset
        for axes, points in ((top, curve), (bottom, ratio)):
            axes.errorbar(
                x, points.value, points.error, fmt=marker, color=colour, markerfacecolor=face,
                markersize=4.5, elinewidth=1.2, label=label,
            )  # fmt: skip
        extent.append(np.abs(ratio.value - 1))
    finite = np.concatenate([part[np.isfinite(part)] for part in extent])
    reach = float(np.clip(1.35 * np.quantile(finite, 0.97), 0.01, 1.0)) if finite.size else 1.0
    bottom.set(ylim=(1 - reach, 1 + reach), ylabel="ratio to MC")


@styled
def log_weights(
    reverse: ArrayLike, forward: ArrayLike, ln_z: float, *,
    ess: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:  # fmt: skip
    """Histograms of log w - ln Z on generated (n,) and on noised Monte Carlo paths (m,), and their log ratio.

    With u = log w - ln Z the two densities obey P_F(u)/P_R(u) = e^u, so the lower panel must be the
    diagonal and the histograms cross at u = 0.  Annotated: <e^u>_R and <e^-u>_F, both one if ln Z is right,
    and ESS/N = 1/<e^u>_F.  ``ess`` maps "reverse" and "forward" to published (value, error), shown with
    e^-Var(log w) and the largest weight of one sample.
    """
    u_r, u_f = (real_array(log_w, "log_weight") - ln_z for log_w in (reverse, forward))
    low, high = np.quantile(np.concatenate([u_r, u_f]), [0.002, 0.998])
    pad = 0.08 * max(float(high - low), 1e-6)
    edges = np.linspace(low - pad, high + pad, 46)
    densities = [histogram_density(values, edges) for values in (u_r, u_f)]
    figure, (top, bottom) = panels(8.2, 6.2, 2, 1, sharex=True, height_ratios=(2.0, 1))
    for curve, colour, dash, label in zip(
        densities, (BLUE, VERMILLION), ("solid", (0, (5, 1))),
        (r"reverse: generated paths, $P_R$", r"forward: noised Monte Carlo, $P_F$"),
    ):  # fmt: skip
        _density(top, edges, curve, colour, 0.2, linestyle=dash, linewidth=1.8, label=label)
    top.axvline(0.0, color=INK, linewidth=0.8)
    top.set_ylabel(r"density  [per nat]")
    top.set_ylim(bottom=0)
    top.legend(loc="upper left")
    top.set_title("\n".join(_identities(u_r, u_f, ess)), fontsize=12.5, linespacing=1.5)
    _crooks(bottom, *densities)
    bottom.set_xlabel(r"$u = \log w - \ln Z$  [nats]")
    return figure


def _identities(reverse: Floats, forward: Floats, ess: Mapping[str, tuple[float, float]] | None) -> list[str]:
    one = {r"\langle e^{u}\rangle_R": np.exp(reverse), r"\langle e^{-u}\rangle_F": np.exp(-forward)}
    means = [rf"${name} = {v.mean():.3f} \pm {v.std() / np.sqrt(len(v)):.3f}$" for name, v in one.items()]
    spread = {"reverse": spread_of(reverse), "forward": forward_spread(forward)}
    sizes = [
        rf"ESS/N {side} $= {value:.3f} \pm {error:.3f}$  "
        rf"[$e^{{-\mathrm{{Var}}\,\log w}}$ {spread[side]['exp_minus_var']:.3f}, "
        f"largest weight {spread[side]['largest_weight']:.2g}]"
        for side, (value, error) in (ess or {}).items()
    ]
    return ["     ".join(means), *sizes]


def _crooks(axes: Axes, reverse: Curve, forward: Curve) -> None:
    """ln[P_F/P_R] against u with the line of slope one that exact weights require."""
    both = (reverse.value > 0) & (forward.value > 0)
    (r, r_error), (f, f_error) = ((side.value[both], side.error[both]) for side in (reverse, forward))
    x, ratio, error = reverse.x[both], np.log(f / r), np.hypot(f_error / f, r_error / r)
    seen = error < 1.0
    axes.plot(reverse.x, reverse.x, color=INK, linewidth=1.0, label="exact: slope 1")
    axes.errorbar(x[seen], ratio[seen], error[seen], fmt="o", color=BLUE, markersize=4, elinewidth=1.2)
    axes.set_ylabel(r"$\ln\,[P_F/P_R]$")
    axes.legend(loc="upper left")
