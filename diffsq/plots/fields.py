"""Fields as pictures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from diffsq.plots.style import new_figure, spread, styled
from lattice.arrays import Floats, real_array
from lattice.errors import InputError

SPAN = 2.5  # colour scale in units of a frame's own root mean square


@styled
def denoising_sequence(phi: ArrayLike, sigma: ArrayLike, *, n_frames: int = 12, per_row: int = 6) -> Figure:
    """One field from noise to a configuration: ``phi`` (n, *shape) at the noise levels ``sigma`` (n,).

    Every frame is divided by its own root mean square sqrt(<phi^2>_x), printed above it, and all share one
    diverging colour scale symmetric about zero, so that structure is visible at every sigma.  At most
    ``n_frames`` frames, the first and the last among them, are shown; of a lattice in three or more
    dimensions the plane through the origin.
    """
    frames, levels = real_array(phi, "phi"), real_array(sigma, "sigma")
    if len(frames) != len(levels) or not len(frames):
        raise InputError(f"need one sigma per frame, got {len(frames)} frames and {len(levels)} sigmas")
    shown = spread(len(frames), n_frames)
    columns = min(per_row, len(shown))
    rows = -(-len(shown) // columns)
    height, width = _plane(frames[0]).shape
    panel = 1.75
    figure = new_figure(panel * columns + 0.9, rows * (panel * np.clip(height / width, 0.25, 2.0) + 0.62))
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel_axes, frame in zip(axes.flat, shown):
        image, rms = show(panel_axes, frames[frame])
        noise = f"{levels[frame]:.3g}" if levels[frame] > 0 else "0"
        panel_axes.set_title(rf"$\sigma = {noise}$" + "\n" + rf"rms $\phi$ = {rms:.3g}", fontsize=11.5)
    for panel_axes in axes.flat[len(shown) :]:
        panel_axes.set_axis_off()
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=28, pad=0.015, extend="both")
    bar.set_label(r"$\phi_x$ / rms of the frame")
    return figure


def show(axes: Axes, phi: Floats) -> tuple[Any, float]:
    """Draw one field over its root mean square; the image, and that number."""
    rms = float(np.sqrt(np.mean(phi**2)))
    image = axes.imshow(_plane(phi) / (rms or 1.0), cmap="RdBu_r", vmin=-SPAN, vmax=SPAN, origin="lower")
    axes.set(xticks=[], yticks=[])
    axes.minorticks_off()
    return image, rms


def _plane(phi: Floats) -> Floats:
    """One field in two dimensions: itself, a strip in d = 1, the plane through the origin in d >= 3."""
    while phi.ndim > 2:
        phi = phi[0]
    return np.atleast_2d(phi)
