"""The complex plane: where complex Langevin goes, where a learned model goes, and what it says of P."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots.style import INK, VERMILLION, new_figure, styled
from lattice.arrays import Floats, real_array

DECADES = 4.5  # of the colour scale, below the highest density
COLOURS = "viridis"


@styled
def density_map(
    data: ArrayLike, samples: ArrayLike, learned: Mapping[str, Floats] | None = None, *,
    strip: float | None = None, n_bins: int = 160,
) -> Figure:  # fmt: skip
    """Histograms of data (n, 2) and samples (m, 2) in the plane z = x + iy, one logarithmic colour scale.

    learned: the numbers of `diffsq.analysis.fokker_planck.log_density_map`, drawn beside them: log P with the
    drift as arrows (their length is its square root, so that all are seen). strip: dashed lines at y =
    +-strip.
    """
    first, second = real_array(data, "data"), real_array(samples, "samples")
    reach = 1.03 * np.maximum(np.abs(first).max(0), np.abs(second).max(0))
    if strip is not None:
        reach[1] = max(reach[1], 1.06 * strip)
    edges = [np.linspace(-r, r, n_bins + 1) for r in reach]
    densities = [np.histogram2d(x[:, 0], x[:, 1], bins=edges, density=True)[0].T for x in (first, second)]
    top = max(float(density.max()) for density in densities)
    norm = LogNorm(top * 10**-DECADES, top)
    n_panels = 2 if learned is None else 3
    figure = new_figure(4.4 * n_panels + 1.0, 4.1)
    panels = figure.subplots(1, n_panels, sharex=True, sharey=True)
    for axes, density, title in zip(panels, densities, ("data", "model")):
        image = axes.pcolormesh(*edges, density, norm=norm, cmap=COLOURS, rasterized=True)
        axes.set_title(title)
    if learned is not None:
        _learned(panels[2], learned, norm)
    for axes in panels:
        axes.set(xlabel=r"$x = \mathrm{Re}\,z$", xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]))
        for y in () if strip is None else (-strip, strip):
            axes.axhline(y, color=VERMILLION, linewidth=1.2, dashes=(4, 3))
    panels[0].set_ylabel(r"$y = \mathrm{Im}\,z$")
    bar = figure.colorbar(image, ax=panels, pad=0.015, aspect=28, extend="min")
    bar.set_label("$P(x, y)$  [1/field units$^2$]")
    return figure


def _learned(axes: Axes, learned: Mapping[str, Floats], norm: LogNorm) -> None:
    x, y, places, drift = (learned[name] for name in ("x", "y", "places", "drift"))
    density = np.clip(np.exp(learned["log_p"]), 1e-300, None)
    axes.pcolormesh(x, y, density, norm=norm, cmap=COLOURS, shading="nearest", rasterized=True)
    axes.set_title("learned $P$, drift arrows")
    arrows = drift / np.sqrt(np.maximum(np.linalg.norm(drift, axis=1, keepdims=True), 1e-12))
    axes.quiver(*places.T, *arrows.T, color="white", edgecolor=INK, linewidth=0.4, width=0.006)
