"""Figures of Gaussian machines: what is drawn, finite limits, no warnings, at the edges of settings too."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from figures import drawn

from diffsq.analysis.gaussian_machines import by_mass, by_nodes, cut_row
from diffsq.plots.machines import (
    gibbs_figure,
    learning_figure,
    machine_figure,
    pictures_figure,
    quartic_figure,
)
from lattice.exact.gaussian_rbm import divergence, lattice_kernel, learned, trajectory

KAPPA = lattice_kernel((4, 4), 0.2)


def machine_result(mu2: float = 4.0, n_hidden: int = 16) -> dict[str, Any]:
    lam = learned(KAPPA, mu2, n_hidden)
    masses = np.geomspace(1.02 * KAPPA[0], 1.3 * KAPPA[-1], 9).tolist()
    cuts = [(1.5, 16), (2.5, 16), (3.6, 16), (3.78, 1), (3.78, 4), (3.78, 16)]
    return {
        "kappa": KAPPA.tolist(), "lambda": np.sort(lam).tolist(), "predicted": np.sort(lam).tolist(),
        "mu2": mu2, "n_hidden": n_hidden, "kl": divergence(KAPPA, lam), "nodes": by_nodes(KAPPA, 4.0),
        "masses": {"mu2": masses, "kl": by_mass(KAPPA, masses)},
        "cuts": [cut_row(KAPPA, m, n, 64, 1, i) for i, (m, n) in enumerate(cuts)],
        "propagator": {"khat2": [0.0, 4.0, 2.0], "G": [2.5, 0.5, 0.9], "machine": [2.4, 0.5, 0.9],
                       "multiplicity": [1, 4, 4], "error": [0.0, 0.0, 0.0]},
    }  # fmt: skip


def test_the_machine() -> None:
    """Four panels and the twin axis of the mass; the curve of 1/lambda in order of momenta."""
    figure = drawn(machine_figure, machine_result(), 5, render=True)
    spectrum, propagator = figure.axes[:2]
    lines = {line.get_label(): line for line in spectrum.get_lines()}
    np.testing.assert_allclose(np.asarray(lines["closed form"].get_xdata(), dtype=float), KAPPA)
    np.testing.assert_allclose(np.asarray(lines["learned"].get_ydata(), dtype=float), KAPPA)
    curve = [line for line in propagator.get_lines() if "lambda" in str(line.get_label())]
    assert list(np.asarray(curve[0].get_xdata())) == [0.0, 2.0, 4.0]
    assert list(np.asarray(curve[0].get_ydata())) == [2.4, 0.9, 0.5]
    assert spectrum.get_xscale() == "linear"


@pytest.mark.parametrize(("mu2", "n_hidden"), [(1.0, 16), (4.0, 1), (0.41, 2)])
def test_machines_that_are_cut(mu2: float, n_hidden: int) -> None:
    drawn(machine_figure, machine_result(mu2, n_hidden), 5)


def test_wide_spectra_are_logarithmic() -> None:
    result = machine_result()
    wide = np.geomspace(0.006, 4, 16)
    result |= {"kappa": wide.tolist(), "lambda": wide.tolist(), "predicted": wide.tolist()}
    axes = drawn(machine_figure, result, 5).axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def learning_result(steps: list[int]) -> dict[str, Any]:
    kappa, t = np.array([0.4, 2.0]), np.linspace(0, 5, 33)
    exact = np.stack([trajectory(t, 0.01 * (4 - k), float(k), 4.0) for k in kappa], 1)
    history = [{"step": step, "spectrum": np.minimum(KAPPA + 1 / (step + 1), 4).tolist()} for step in steps]
    return {"kappa": kappa.tolist(), "t": t.tolist(), "mu2": 4.0, "y": exact.tolist(),
            "exact": exact.tolist(), "history": history, "all_kappa": KAPPA.tolist()}  # fmt: skip


@pytest.mark.parametrize("steps", [[0, 1, 10, 100], [0, 1]])
def test_learning(steps: list[int]) -> None:
    left, right = drawn(learning_figure, learning_result(steps), 2).axes
    curves = [line for line in left.get_lines() if line.get_linestyle() == "-"]
    assert len(curves) == 2
    for line in curves:
        y = np.asarray(line.get_ydata())
        assert y[0] == pytest.approx(0.01)
        assert 0.5 < y[-1] < 1.001 or y[-1] > y[0]
    assert right.get_xscale() == "log"


def test_learning_of_no_steps() -> None:
    """training.n_steps 0: the machine as it begins."""
    drawn(learning_figure, learning_result([0]), 2)


def test_learning_of_modes_without_variance() -> None:
    result = learning_result([0, 1, 5])
    result["all_kappa"] = [*result["all_kappa"][:-2], np.inf, np.inf]
    drawn(learning_figure, result, 2)


def test_gibbs() -> None:
    modes = [{"lambda": k, "tau": 4 / k - 0.5, "tau_error": 0.1} for k in (0.4, 1.2, 3.6)]
    (axes,) = drawn(gibbs_figure, {"modes": modes, "mu2": 4.0}, 1, render=True).axes
    curve = next(line for line in axes.get_lines() if r"\mu^2" in str(line.get_label()))
    x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    np.testing.assert_allclose(y, 1 / x - 0.5)
    drawn(gibbs_figure, {"modes": modes[:1], "mu2": 4.0}, 1)


def quartic_result(true: list[float] | None) -> dict[str, Any]:
    return {"khat2": [0.0, 4.0, 2.0], "kernel": [-0.25, 1.5, 0.6], "kernel_error": [0.02, 0.01, 0.01],
            "gaussian": [0.02, 1.7, 0.7], "true": true}  # fmt: skip


def test_the_quartic_prior() -> None:
    (axes,) = drawn(quartic_figure, quartic_result([-0.24, 1.51, 0.61]), 1, render=True).axes
    own = next(line for line in axes.get_lines() if "own" in str(line.get_label()))
    assert list(np.asarray(own.get_xdata())) == [0.0, 2.0, 4.0]
    (alone,) = drawn(quartic_figure, quartic_result(None), 1).axes
    assert not [line for line in alone.get_lines() if "own" in str(line.get_label())]


@pytest.mark.parametrize("n_shown", [1, 8])
def test_pictures(n_shown: int) -> None:
    """Eight places on either side, filled as far as there are pictures."""
    images = np.random.default_rng(1).random((n_shown, 8, 8)).tolist()
    rows = [{"n_hidden": n, "rebuilt": images, "drawn": deepcopy(images)} for n in (9, 4)]
    figure = drawn(pictures_figure, {"shown": images, "regenerated": rows}, 3 * 17)
    assert sum(len(axes.images) for axes in figure.axes) == 5 * n_shown
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words == ["data", "9", "4"]


def test_more_pictures_than_places_keep_to_their_side() -> None:
    images = np.random.default_rng(1).random((10, 8, 8)).tolist()
    rows = [{"n_hidden": 4, "rebuilt": images, "drawn": images}]
    figure = drawn(pictures_figure, {"shown": images, "regenerated": rows}, 2 * 17)
    assert sum(len(axes.images) for axes in figure.axes) == 8 + 8 + 8
