"""Figures of training watched: what is drawn, finite limits, no warnings, at the edges of settings too."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from figures import drawn

from diffsq.plots.dynamics import pairs_figure, students_figure, text_figure

KINDS = ("q", "k", "v", "proj", "fc", "out")


def legend(axes: Any) -> list[str]:
    """What its legend says."""
    return [text.get_text() for text in axes.get_legend().get_texts()]


def pair(unit: float, kappa: float = 5.0) -> dict[str, Any]:
    s = np.random.default_rng(1).rayleigh(math.sqrt(2 / math.pi), 500)
    a = math.sqrt(2 * math.pi)
    size = a * math.sqrt(unit * (9 - kappa))
    levels = np.concatenate([-s, s]) * math.sqrt(math.pi) / 2
    return {
        "kappa": kappa, "x": 9 - kappa, "a": [a, 0.05], "a_sorted": [0.9 * a, 0.05], "a_formula": a,
        "spacing": [size, 0.01 * size], "sorted": [0.9 * size, 0.01 * size], "ratio": [1.27, 0.02],
        "histogram": np.histogram(s, np.linspace(0, 4, 33))[0].tolist(),
        "levels": np.histogram(levels, np.linspace(-4, 4, 65))[0].tolist(),
    }  # fmt: skip


def pairs_row(rate: float, batch: int, noise: str = "data") -> dict[str, Any]:
    unit = rate / batch
    pairs = [pair(unit, kappa) for kappa in (5.0, 7.0)] if rate else [{"kappa": 5.0, "x": 4.0,
        "spacing": [0.0, 0.0], "sorted": [0.0, 0.0], "over_kappa": [1.0, 0.0]}]  # fmt: skip
    return {"rate": rate, "batch": batch, "noise": noise, "noise_per_step": unit, "pairs": pairs}


def test_pairs_show_the_row_of_least_noise_and_two_laws() -> None:
    rows = [pairs_row(0.1, 16), pairs_row(0.1, 64), pairs_row(0.1, 256, "chains"), pairs_row(0.0, 16)]
    figure = drawn(pairs_figure, {"rows": rows}, 4, render=True)
    spacing, levels, root, amplitudes = figure.axes
    assert "64" in spacing.get_title()
    for axes, law in ((spacing, "Wigner's surmise"), (levels, "GOE")):
        curve = next(line for line in axes.get_lines() if law in str(line.get_label()))
        x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
        assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
        points = next(line for line in axes.get_lines() if "kappa" in str(line.get_label()))
        x, y = np.asarray(points.get_xdata()), np.asarray(points.get_ydata())
        assert y.sum() * (x[1] - x[0]) == pytest.approx(1)
    labels = legend(amplitudes)
    assert "own block, noise of chains" in labels
    assert len(labels) == len(set(labels))
    slope = next(line for line in root.get_lines() if "slope" in str(line.get_label()))
    assert np.asarray(slope.get_ydata())[-1] / np.asarray(slope.get_xdata())[-1] == pytest.approx(
        2.5066, abs=1e-4
    )


@pytest.mark.parametrize("noise", ["data", "chains", "both"])
def test_a_single_row_of_pairs(noise: str) -> None:
    figure = drawn(pairs_figure, {"rows": [pairs_row(0.1, 64, noise)]}, 4)
    assert "64" in figure.axes[0].get_title()


def test_pairs_that_do_not_move() -> None:
    """rate 0 alone: nothing but the laws to draw."""
    drawn(pairs_figure, {"rows": [pairs_row(0.0, 16)]}, 4)


def student(n_data: int | None, n: int = 1) -> dict[str, Any]:
    return {"alpha": 0.3, "batch": 16, "n_data": n_data, "n_sets": n, "a": [1.95, 0.02], "spread": 0.1,
            "all": [1.9 + 0.02 * i for i in range(n)], "formula": [1.9225, 1.9551]}  # fmt: skip


def test_students() -> None:
    rows = [student(None), student(64, 3), student(64, 1), student(None)]
    (axes,) = drawn(students_figure, {"rows": rows}, 1, render=True).axes
    labels = legend(axes)
    assert sorted(labels) == sorted({"fresh data", "one data set each", r"formula, $c = 0$ to $3$"})
    assert len(axes.get_xticks()) == 4
    for alone in (rows[:1], rows[1:2]):
        drawn(students_figure, {"rows": alone}, 1)


def text_result(
    n_layers: int = 2, steps: tuple[int, ...] = (0, 30, 300), error: float = 0.01
) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    matrices = {
        f"{layer}.{kind}": np.linalg.svd(
            rng.normal(size=(16, 64 if kind in ("fc", "out") else 16)), compute_uv=False
        )[::-1] ** 2 / (64 if kind in ("fc", "out") else 16)
        for layer in range(n_layers) for kind in KINDS
    }  # fmt: skip
    x = {name: values.tolist() for name, values in matrices.items()}
    grown = deepcopy(x)
    for values in grown.values():
        values[-1] *= 10
    kinds = {
        kind: {name: [0.1 * i + 0.05, error] for i, name in enumerate(("ks", "outliers"))} for kind in KINDS
    }
    table = [{"step": step, "kinds": kinds} for step in steps]
    both = {str(steps[0]): x, str(steps[-1]): grown}
    return {"null": {kind: [0.05, 0.08] for kind in KINDS}, "text": table, "shuffled": table[:2],
            "eigenvalues": {"text": both, "shuffled": both}}  # fmt: skip


def test_text() -> None:
    """Densities of two matrices at the first and the last step, their outliers counted; KS and outliers."""
    figure = drawn(text_figure, text_result(), 4, render=True)
    labels = legend(figure.axes[0])
    assert labels[0].startswith("step 0: 0 outliers")
    assert labels[1].startswith("step 300: 1 outliers")
    assert any(label.startswith("Marchenko") for label in labels)
    for axes in figure.axes[:2]:
        law = next(line for line in axes.get_lines() if str(line.get_label()).startswith("Marchenko"))
        x, y = np.asarray(law.get_xdata()), np.asarray(law.get_ydata())
        assert 0.75 < np.trapezoid(y, x) < 1.01, "of q = 1 the pole at 0 is cut"
    assert [axes.get_xscale() for axes in figure.axes[2:]] == ["log", "log"]


@pytest.mark.parametrize("n_layers", [1, 3])
def test_text_of_other_depths(n_layers: int) -> None:
    """training.n_layers is 1 to 16."""
    drawn(text_figure, text_result(n_layers), 4)


def test_text_of_the_start_alone_and_of_one_seed() -> None:
    drawn(text_figure, text_result(steps=(0,)), 4)
    drawn(text_figure, text_result(error=0.0), 4)
