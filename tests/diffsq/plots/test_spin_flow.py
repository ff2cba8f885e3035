"""Figures of the flow of binary machines, of results made up: what is drawn, at edges of settings too."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
from figures import drawn

from diffsq.plots.spin_flow import field_flow_figure, real_space_figure, spin_flow_figure
from lattice.exact.ising import CRITICAL

NAMES = ("e", "abs_m", "m2", "c1")


def followed(step: int, e: float = -1.2) -> dict[str, Any]:
    """One step of a row: five seeds, their flow, its end."""
    n = [0, 1, 3, 10, 40]
    end = np.array([e, 0.7, 0.5, 0.05])
    curve = {"mean": (end + np.exp(-np.array(n))[:, None] * 0.1).tolist(), "spread": [[0.01] * 4] * len(n),
             "T_E": [[0.0, 1.0, 2.0, 2.4, 2.5], [None, 0.9, 1.9, 2.3, 2.4], [0.1, 1.1, 2.1, 2.5, None]],
             "T_m": [[0.0, 0.5, 1.0, 2.0, 2.3], [0.0, 0.4, 0.9, 1.9, 2.2], [0.0, 0.6, None, None, None]],
             }  # fmt: skip
    return {
        "step": step, "end": {name: [float(x), 0.01] for name, x in zip(NAMES, end, strict=True)},
        "curves": {"n": n, "cold": curve, "hot": deepcopy(curve)},
        "mixture": {"e": -1.4, "abs_m": 0.6, "m2": 0.5, "c1": 0.1, "t_e": 2.3, "t_m": 2.4},
        "readings": {"T_E": [2.5, 2.6, 2.4, 2.5, 2.7], "T_m": [2.3, 2.2, 2.3, None, 2.4], "T_NN": [2.0] * 5},
        "singular": [3.0, 1.0, 0.5], "network": None, "verdict": "mean-field",
    }  # fmt: skip


def flow_result(n_rows: int = 2, network: bool = True, q: int = 2) -> dict[str, Any]:
    t = np.linspace(0, 4, 5)
    own = {"t": t.tolist(), "mean": (0.5 + 0.8 * t).tolist(), "sd": [0.3] * 5, "error": [0.01] * 5,
           "shuffled_mean": [0.5, 1.0, 1.4, 1.8, 2.0], "shuffled_sd": [0.3] * 5}  # fmt: skip
    rows = [
        {"name": f"flow-{i}", "at": [followed(100), followed(400, -1.4 - 0.1 * i)]} for i in range(n_rows)
    ]
    if not network:
        for row in rows:
            for at in row["at"]:
                del at["readings"]["T_NN"]
    return {"rows": rows, "q": q, "t_critical": CRITICAL, "thermometer": own if network else None,
            "critical": {"e": -1.48, "abs_m": 0.76, "m2": 0.6, "c1": 0.15}}  # fmt: skip


def labelled(result: dict[str, Any]) -> Any:
    return partial(spin_flow_figure, labels=[f"row {i}" for i in range(len(result["rows"]))])


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def level(axes: Any, label: str) -> float:
    """Of the horizontal line of this name."""
    line = next(line for line in axes.get_lines() if line.get_label() == label)
    return float(np.asarray(line.get_ydata())[0])


def test_a_flow_beside_what_it_is_held_to() -> None:
    """Temperatures; e and c1 with those of T_c and of the mixture as lines; the flow's own ends; three
    thermometers; calibration."""
    result = flow_result()
    figure = drawn(labelled(result), result, 6, render=True)
    for axes, name, i in zip(figure.axes[1:3], ("e", "c1"), (0, 3), strict=True):
        assert level(axes, "at $T_c$") == result["critical"][name]
        assert level(axes, "mixture") == result["rows"][0]["at"][-1]["mixture"][name]
        flow = next(line for line in axes.get_lines() if line.get_label() == "cold start")
        known = np.array(result["rows"][0]["at"][-1]["curves"]["cold"]["mean"])[:, i]
        np.testing.assert_allclose(np.asarray(flow.get_ydata()), known)
    assert figure.axes[0].get_title() == "row 0"
    plane, temperatures, calibration = figure.axes[3:]
    assert {"mean field, $e = -2m^2$", "$T_c$", "mixture (first row)"} <= set(legend(plane))
    assert legend(temperatures) == ["$T_{E}$", "$T_{m}$", "$T_{NN}$"]
    assert [text.get_text() for text in temperatures.get_yticklabels()] == ["row 0", "row 1"]
    assert level(calibration, "end of the first row") == 2.0
    assert "the same, sites shuffled" in legend(calibration)


@pytest.mark.parametrize("q", [2, 3])
def test_without_a_network_spectra_are_shown(q: int) -> None:
    """Of Potts spins there is no line of independent ones."""
    result = flow_result(network=False, q=q)
    figure = drawn(labelled(result), result, 6)
    spectra = figure.axes[5]
    assert (spectra.get_xscale(), spectra.get_yscale()) == ("log", "log")
    assert len(spectra.get_lines()) == 2
    assert any("mean field" in label for label in legend(figure.axes[3])) is (q == 2)


@pytest.mark.parametrize("n", [1, 15])
def test_other_numbers_of_rows(n: int) -> None:
    """More rows than colours; one seed, of one step."""
    result = flow_result(n)
    result["rows"][0]["at"] = result["rows"][0]["at"][:1]
    for name in ("T_E", "T_m", "T_NN"):
        result["rows"][0]["at"][0]["readings"][name] = [2.4]
    drawn(labelled(result), result, 6)


def test_temperatures_of_the_first_row() -> None:
    """T_E and T_m with bands, cold solid and hot dashed, T_c and those of the mixture as lines; beyond all a
    band ends at the edge."""
    result = flow_result()
    last = result["rows"][0]["at"][-1]
    last["curves"]["hot"]["T_E"][0] = [None, 4.0, 3.0, 2.6, 2.5]
    axes = drawn(labelled(result), result, 6, render=True).axes[0]
    assert legend(axes) == ["$T_E$", "$T_m$", "$T_c$", "mixture"]
    assert level(axes, "$T_c$") == CRITICAL
    assert level(axes, "mixture") == last["mixture"]["t_e"]
    lines = [one for one in axes.get_lines() if len(np.asarray(one.get_xdata())) == 5]
    assert [one.get_linestyle() for one in lines] == ["-", "-", "--", "--"]
    shown = [last["curves"][start][name][0] for start in ("cold", "hot") for name in ("T_E", "T_m")]
    for one, t in zip(lines, shown, strict=True):
        np.testing.assert_allclose(np.asarray(one.get_ydata()), np.array(t, dtype=float))
    bands = [np.concatenate([path.vertices[:, 1] for path in c.get_paths()]) for c in axes.collections]
    assert len(bands) == 4
    assert all(np.isfinite(y).all() and y.max() == 3 * CRITICAL for y in bands)
    assert axes.get_ylim() == (0, 3 * CRITICAL)
    last["network"] = {"n": [0, 10, 40], "cold": [0.5, 1.0, 2.0], "hot": [3.0, 2.5, 2.0]}
    axes = drawn(labelled(result), result, 6).axes[0]
    read = [one for one in axes.get_lines() if len(np.asarray(one.get_xdata())) == 3]
    assert [np.asarray(one.get_ydata()).tolist() for one in read] == [[0.5, 1, 2], [3, 2.5, 2]]
    assert "$T_{NN}$" in legend(axes)


def test_rows_without_an_end_get_a_cross() -> None:
    """And none of the temperatures that are no end's."""
    result = flow_result(3)
    result["rows"][1]["at"][-1]["verdict"] = "not converged"
    axes = drawn(labelled(result), result, 6).axes[4]
    crosses = [one for one in axes.get_lines() if one.get_marker() == "x"]
    assert [np.asarray(one.get_ydata()).tolist() for one in crosses] == [[-1]]
    drawn_rows = [round(c.get_children()[0].get_ydata()[0]) for c in axes.containers]
    assert sorted(drawn_rows) == [-2, -2, -2, 0, 0, 0]


def test_a_temperature_beyond_all_is_left_out() -> None:
    result = flow_result()
    result["rows"][1]["at"][-1]["readings"] = {"T_E": [None] * 5, "T_m": [None] * 5, "T_NN": [2.0] * 5}
    figure = drawn(labelled(result), result, 6)
    drawn_rows = [round(c.get_children()[0].get_ydata()[0]) for c in figure.axes[4].containers]
    assert sorted(drawn_rows) == [-1, 0, 0, 0]


def test_a_first_row_beyond_all_temperatures() -> None:
    """Random weights, no network: nothing to name."""
    result = flow_result(network=False)
    result["rows"][0]["at"][-1]["readings"] = {"T_E": [None] * 5, "T_m": [None] * 5}
    drawn(labelled(result), result, 6)


def test_weights_of_width_zero() -> None:
    result = flow_result(1, network=False)
    result["rows"][0]["at"][-1]["singular"] = [0.0, 0.0, 0.0]
    drawn(labelled(result), result, 6)


def field_result(places: tuple[bool, ...] = (True, False), found: bool = True) -> dict[str, Any]:
    rows = [
        {"u": [-1.5, 0.01], "m": [0.8, 0.01]} | ({"t": [2.5, 0.1], "h": [0.6, 0.1]} if x else {})
        for x in places
    ]
    line = [[h, 2.4 + h, 1.0 - 0.1 * h] for h in (0.1, 0.5, 1.0, 2.0)]
    return {"rows": rows, "line": line, "mixture": {"u": -1.2, "m": 0.7, "t": 3.0, "h": 0.8, "found": found}}


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("places", [(True, False), (False,), (True,)])
def test_ends_in_the_plane_of_temperature_and_field(places: tuple[bool, ...], found: bool) -> None:
    """A row without a place is in the other plane alone, and so is a mixture."""
    result = field_result(places, found)
    words = [f"row {i}" for i in range(len(places))]
    left, right = drawn(partial(field_flow_figure, labels=words), result, 2).axes
    assert [word in legend(left) for word in words] == list(places)
    assert all(word in legend(right) for word in words)
    assert ("mixture of the grid" in legend(left)) is found
    line = next(one for one in left.get_lines() if one.get_label() == "largest $C$, exact")
    np.testing.assert_allclose(np.asarray(line.get_xdata()), [2.5, 2.9, 3.4, 4.4])
    spins = next(one for one in right.get_lines() if str(one.get_label()).startswith("independent"))
    m = np.asarray(spins.get_xdata())
    np.testing.assert_allclose(np.asarray(spins.get_ydata()), -2 * m**2)


def blocks_result(*read: list[float]) -> dict[str, Any]:
    rows = [
        {"t": t[0], "stages": [{"t_e": {"t": x, "error": 0.01 if 0 < x < math.inf else math.inf}} for x in t]}
        for t in read
    ]
    recursion = {"0.45": [0.45, 0.4, 0.3, 0.0], "0.507": [0.507] * 4, "0.6": [0.6, 0.7, 0.9, 5.0]}
    return {"rows": rows, "recursion": recursion, "fixed_point": 0.507}


def test_blocks_and_the_recursion() -> None:
    result = blocks_result([2.1, 2.0, 1.8], [2.27, 2.28, 2.3], [2.5, 2.8, math.inf], [1.0, 0.6, 0.0])
    left, right = drawn(real_space_figure, result, 2).axes
    assert legend(left) == ["$T = 2.1$", "$T = 2.27$", "$T = 2.5$", "$T = 1$"]
    shown = [len(c.get_children()[0].get_xdata()) for c in left.containers]
    assert shown == [3, 3, 2, 2], "what has no temperature is left out"
    assert len(legend(right)) == 3
    assert (left.get_yscale(), right.get_yscale()) == ("log", "log")
