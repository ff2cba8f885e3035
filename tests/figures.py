"""Figures of results, drawn as strictly as a test can."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def drawn(make: Callable[[Any], Figure], result: dict[str, Any], n: int, render: bool = False) -> Figure:
    """The figure with n axes, once rendered: any warning is an error, limits are finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = make(result)
        if render:
            figure.canvas.draw()
    assert len(figure.axes) == n
    for axes in figure.axes:
        assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()
    return figure
