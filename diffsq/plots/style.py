"""The look shared by all figures: colours, rc settings, and SVG that follows the page's light or dark theme.

Colours are those of Okabe and Ito (2008), distinguishable with the common colour-vision deficiencies; every
curve also has its own marker or dash, so the figures survive a black-and-white printer.
"""

import functools
import io
import re
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

P = ParamSpec("P")

INK = "#1b2430"  # text, axes, Monte Carlo
GRID = "#c9ced6"
BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#009e73"
PURPLE = "#b6548f"
GREY = "#7f8894"

# The same thing has the same colour, marker and dash in every figure of a talk.
MONTE_CARLO, RAW, WEIGHTED, METROPOLIS = INK, VERMILLION, BLUE, GREEN
WIENER, BASE, MODEL = GREY, PURPLE, BLUE
HOT, COLD = VERMILLION, BLUE
SERIES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (INK, "v"), (GREY, "P"))

FIELD = r"[$\kappa$–$\lambda$ field]"
SIGMA = rf"noise level $\sigma$ {FIELD}"

# Hexadecimal colour in the SVG -> CSS variable of the report's page.
THEME = {
    INK: "--ink", GRID: "--grid", BLUE: "--blue", VERMILLION: "--vermillion", GREEN: "--green",
    PURPLE: "--purple", GREY: "--grey",
}  # fmt: skip

RC: Any = {
    "font.family": "STIXGeneral", "mathtext.fontset": "stix", "font.size": 13.0,
    "axes.titlesize": 14.0, "axes.labelsize": 14.0, "legend.fontsize": 12.0,
    "xtick.labelsize": 12.0, "ytick.labelsize": 12.0, "xtick.direction": "in", "ytick.direction": "in",
    "xtick.top": True, "ytick.right": True, "xtick.minor.visible": True, "ytick.minor.visible": True,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.linewidth": 0.9, "grid.color": GRID, "grid.linewidth": 0.6, "lines.linewidth": 1.8,
    "lines.markersize": 5.0, "legend.frameon": False, "figure.facecolor": "white", "axes.facecolor": "white",
    "savefig.dpi": 200, "errorbar.capsize": 0.0, "svg.fonttype": "path", "image.interpolation": "nearest",
}  # fmt: skip


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run ``draw`` under the house rc settings and lay the figure out before they are restored."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            figure = draw(*args, **kwargs)
            engine = figure.get_layout_engine()
            if engine is not None:  # which makes the ticks, too: later they would take the caller's rc
                engine.execute(figure)
            return figure

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches with an Agg canvas and constrained layout."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(width: float, height: float, *grid: int, **layout: Any) -> tuple[Figure, Any]:
    """A new figure, and its axes as `Figure.subplots` gives them, with a faint grid behind the data."""
    figure = new_figure(width, height)
    axes = figure.subplots(*grid, **layout)
    light_grid(*np.ravel(axes))
    return figure, axes


def light_grid(*panels: Axes) -> None:
    """A faint grid behind the data."""
    for axes in panels:
        axes.grid(True, which="major")
        axes.set_axisbelow(True)


def band(
    axes: Axes, x: ArrayLike, value: Any, error: Any, colour: str, alpha: float = 0.25, **style: Any
) -> None:
    """The one-sigma band value +- error over x."""
    axes.fill_between(x, value - error, value + error, color=colour, alpha=alpha, linewidth=0, **style)


def note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Text at a point, moved by ``offset`` printer's points."""
    axes.annotate(text, at, xytext=offset, textcoords="offset points", **style)


def rows(axes: Axes, labels: list[str]) -> list[int]:
    """A vertical axis of named rows, the first on top, without ticks: the place of each."""
    places = list(range(len(labels)))[::-1]
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", which="both", length=0)
    return places


def spread(n: int, most: int) -> list[int]:
    """At most ``most`` of 0 ... n - 1, evenly spread, both ends among them.

    >>> spread(9, 3), spread(2, 5)
    ([0, 4, 8], [0, 1])
    """
    return sorted(set(np.linspace(0, n - 1, min(most, n)).round().astype(int).tolist()))


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element for inlining: no prologue, no links, ids prefixed with ``name``.

    Ink and series colours become CSS variables (``THEME``), so the page decides how they look on a dark
    background. ``name`` keeps ids (clip paths, glyphs) of several figures on one page apart; it also seeds
    them, so the same figure gives the same bytes.
    """
    buffer = io.StringIO()
    figure.set_layout_engine("none")  # laid out when drawn; once more would double the time of a page
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    for size in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?)\s{size}="[^"]*"', r"\1", text, count=1)
    # an image's id is a hash of its pixels, so two equal colour bars would share one; nothing refers to it
    text = re.sub(r'(<image\b[^>]*?)\sid="[^"]*"', r"\1", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var({variable})")
    return text.strip()
