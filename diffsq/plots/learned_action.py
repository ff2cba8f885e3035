"""The learned effective action of one real variable over the true one, with its error band."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffsq.analysis.learned_action import DROP, LearnedAction
from diffsq.plots.style import BLUE, GREY, INK, VERMILLION, band, panels, styled
from lattice.arrays import Floats


@styled
def figure(found: Sequence[LearnedAction], titles: Sequence[str]) -> Figure:
    """One column per action: S_DM with its band over S and S_sigma; below, the differences to S_sigma."""
    page, grid = panels(
        5.4 * len(found), 6.4, 2, len(found), squeeze=False, sharex="col", height_ratios=(1.6, 1)
    )
    for (above, below), one, title in zip(grid.T, found, titles):
        _draw(above, one, 0.0)
        above.set(title=title, ylim=(one.action.min() - 0.8, one.action.min() + DROP + 1.0))
        _draw(below, one, one.noised)
        weighty = one.density > math.exp(-4) * one.density.max()
        top = max(float(np.abs(one.learned - one.noised + s * one.spread)[weighty].max()) for s in (-1, 1))
        top = 1.3 * max(top, float(np.abs(one.action - one.noised)[weighty].max()))
        below.set(ylim=(-top, top), xlabel=r"$\phi$")
    grid[0, 0].set_ylabel(r"$S(\phi)$")
    grid[1, 0].set_ylabel(r"$S - S_\sigma$")
    grid[0, 0].legend(loc="upper center", fontsize=11)
    return page


def _draw(axes: Axes, one: LearnedAction, base: Floats | float) -> None:
    band(axes, one.phi, one.learned - base, one.spread, BLUE, 0.3)
    axes.plot(one.phi, one.learned - base, color=BLUE, label=r"learned, $S_{\rm DM}$ (band: one model)")
    axes.plot(one.phi, one.action - base, color=INK, linewidth=1.3, dashes=(4, 2), label=r"$S$")
    label = rf"$S_\sigma$, $\sigma = {one.sigma:g}$"
    axes.plot(one.phi, one.noised - base, color=VERMILLION, linewidth=1.3, dashes=(1, 1.5), label=label)
    low, high = axes.get_ylim()
    axes.fill_between(
        one.phi, 0, 0.25 * one.density / one.density.max(), color=GREY, alpha=0.25, linewidth=0,
        transform=axes.get_xaxis_transform(), label=r"$e^{-S}$",
    )  # fmt: skip
    axes.set_ylim(low, high)
