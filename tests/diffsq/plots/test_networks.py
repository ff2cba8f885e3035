"""Figures of networks: what is drawn, finite limits, no warnings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from figures import drawn

from diffsq.plots.networks import networks_figure, phi4_figure, score_figure

ROW = {"value": 0.1, "error": 0.01, "exact": 0.11, "pull": -1.0}


def tables(known: bool, n_laws: int) -> dict[str, Any]:
    pairs = [{**ROW, "r": r, "exact": 0.1 * 0.5**r if known else None} for r in range(5)]
    table = [
        {
            **ROW,
            "order": n,
            "width": w,
            "value": (-1) ** n * 1.0 / w,
            "floor": 0.01,
            "seen": w < 10,
            "needed": 9.0,
            "exact": 1e-18 if n == 6 else 1.0 / w,
            "vanishes": n == 6,
        }
        for n in (2, 4, 6, 8)
        for w in (1, 3, 10)
    ]
    scanned = [{"name": f"net {i}", "point": x, "table": table} for i in range(n_laws) for x in (0.2, 1.0)]
    curves = {"plane waves": [0.1, 0.05, 0.02, 0.02, 0.05]} if known else {}
    return {"pairs": pairs, "siblings": curves, "widths": scanned}


@pytest.mark.parametrize(("known", "n_laws", "n_axes"), [(True, 2, 3), (False, 0, 1), (True, 5, 4)])
def test_tables(known: bool, n_laws: int, n_axes: int) -> None:
    figure = drawn(networks_figure, tables(known, n_laws), n_axes, render=True)
    last = figure.axes[-1]
    labels = {text for _, text in zip(*last.get_legend_handles_labels(), strict=True)}
    assert ("exact" in labels, "plane waves" in labels) == (known, known)
    if n_laws:  # open where it cannot be seen, one point of each law
        assert figure.axes[0].get_title() == "net 0"
        assert figure.axes[0].get_yscale() == "log"
        assert figure.axes[0].get_ylim()[0] > 1e-4  # no line at what vanishes


def test_curves_and_couplings() -> None:
    sigma = [0.0, 0.2, 0.5, 1.0]

    def curve(n: int) -> dict[str, Any]:
        value = np.ones((4, n)).tolist()
        one = {"value": value, "error": np.full((4, n), 0.1).tolist()}
        return {"orders": [2, 4, 6, 8][:n], "exact": value, "forward": one, "backward": one, "samples": one}

    level = {"value": 0.2, "error": 0.01, "exact": 0.2, "first": 0.21, "free": 0.25, "pull": 0.0}
    couplings = [{"sigma": s, "mass": level, "lam": level, "kappa": level} for s in (0.2, 0.5)]
    result = {"sigma": sigma, "curves": {"site": curve(4), "M": curve(2)}, "couplings": couplings}
    figure = drawn(score_figure, result, 8, render=True)
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        r"$\kappa_2$ of a site", r"$\kappa_4$ of a site", r"$\kappa_2$ of $M$"
    ]  # fmt: skip


def test_phi4_over_n() -> None:
    laws = {"normal": 0.7, "signs": -0.1}
    table = [{"law": k, "width": n, "phi2": [0.5 - x / n, 0.01]} for k, x in laws.items() for n in (4, 8, 16)]
    result = {
        "table": table,
        "limits": {"phi2": {"value": [0.5, 0.001]}},
        "exact": {"phi2": [0.5, 0.0]},
        "free": 0.7,
    }
    figure = drawn(phi4_figure, result, 1, render=True)
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert {"normal", "signs", "limit", r"$\phi^4$", "free"} == set(labels)
