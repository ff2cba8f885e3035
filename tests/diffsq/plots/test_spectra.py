"""The figure of spectra: a panel for each matrix, the most different first, outliers marked."""

from __future__ import annotations

import numpy as np

from diffsq.models.spectra import spectrum, table
from diffsq.plots.spectra import MOST, spectra_figure
from lattice.rng import normals


def test_a_panel_for_each_matrix() -> None:
    w = normals(2, "test/figure", np.arange(15), 0, 16 * 32).reshape(15, 16, 32)
    w[3] += 4 * np.outer(w[0, :, 0], w[0, 0])
    found = {f"layer {i}": spectrum(x) for i, x in enumerate(w)}
    figure = spectra_figure(table(found, {}))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == MOST
    distances = [found[name].ks for name in titles]
    assert distances == sorted(distances, reverse=True)
    alone = spectra_figure(table({"one": found["layer 3"]}, {}))
    words = [text.get_text() for text in alone.axes[0].get_legend().get_texts()]
    assert any(word.startswith("1 outlier, to ") for word in words)
