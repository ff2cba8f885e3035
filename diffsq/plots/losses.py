"""Training losses of several models in one figure."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots.style import BLUE, GREEN, GREY, PURPLE, VERMILLION, light_grid, new_figure, styled

SERIES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"), (GREY, "-"))


@styled
def losses(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Loss against step of each model, name -> (step (n,), loss (n,)), both axes as they serve."""
    figure = new_figure(8.2, 3.8)
    axes = figure.subplots()
    for i, (name, (step, loss)) in enumerate(curves.items()):
        colour, dash = SERIES[i % len(SERIES)]
        axes.plot(step, loss, dash, color=colour, linewidth=1.4, label=name)
    axes.set(yscale="log", xlabel="step", ylabel="loss")
    axes.legend(ncols=2)
    light_grid(axes)
    return figure
