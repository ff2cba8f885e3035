"""What the verdict on a complex Langevin run rests on: the tail of the drift, and the boundary terms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREY, SERIES, panels, styled
from lattice.arrays import Floats

POWERS = (4 / 3, 2)  # tails of P(|K| > k) where cubic and exponential drifts are not confined


@styled
def drift_histogram(verdict: Mapping[str, Any]) -> Figure:
    """Density of the drift magnitude u = |K| on log-log axes, and Hill's exponent of its tail.

    verdict: the JSON of `lattice.certificates.complex_langevin.verdict`.
    """

    def read(name: str, *keys: str) -> list[Floats]:
        return [np.array(verdict[name][key], dtype=float) for key in keys]

    figure, (left, right) = panels(9.6, 4.0, 1, 2)
    edges, density, error = read("drift_histogram", "edges", "density", "error")
    seen = density > 0
    centre = np.sqrt(edges[1:] * edges[:-1])
    left.errorbar(centre[seen], density[seen], error[seen], fmt="o", color=BLUE, markersize=3.5)
    left.set(xscale="log", yscale="log", xlabel=r"drift magnitude $u = |K|$", ylabel="$p(u)$")
    right.errorbar(*read("tail", "m", "exponent", "error"), fmt="o", color=BLUE)
    for power in POWERS:
        right.axhline(power, color=GREY, linestyle="--", linewidth=1.2)
    label = r"Hill exponent $\alpha$ of $P(|K| > u) \sim u^{-\alpha}$"
    right.set(xscale="log", xlabel="$m$ largest values", ylabel=label)
    right.set_ylim(bottom=0)
    return figure


@styled
def boundary_terms(verdict: Mapping[str, Any]) -> Figure:
    """B_O(Y) against the weight beyond the cut-off Y, one panel per real or imaginary part of O."""
    curves = verdict["boundary"]
    n_rows = (len(curves) + 1) // 2
    figure, grid = panels(9.6, 3.1 * n_rows, n_rows, 2, squeeze=False, sharex=True)
    for axes, (name, curve), (colour, marker) in zip(grid.ravel(), curves.items(), SERIES):
        x = np.array(curve["Y"], dtype=float)
        axes.errorbar(x, curve["value"], curve["error"], fmt=marker, color=colour, markersize=4)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set(title=f"$B_O(Y)$, $O$ = {math_name(name)}", xlabel="cut-off $Y$ on $|y|$")
    for axes in grid.ravel()[len(curves) :]:
        axes.set_axis_off()
    return figure


def math_name(name: str) -> str:
    r"""The name of an observable as mathtext.

    >>> math_name("Re z^2"), math_name("Im e^{iz}")
    ('Re $z^2$', 'Im $e^{iz}$')
    """
    part, _, rest = name.partition(" ")
    return f"{part} ${rest}$"
