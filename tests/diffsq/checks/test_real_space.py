"""`check real-space`: blocks run away from T_c on both sides; stages that do otherwise do not pass."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from diffsq.analysis.blocking import Blocked
from diffsq.analysis.thermometers import Reading
from diffsq.checks import real_space
from diffsq.checks.perform import check_options, serves
from diffsq.config.config import config_from_dict
from diffsq.run_folder.finished import DynamicsBench
from lattice.errors import InputError
from lattice.exact.ising import CRITICAL
from lattice.exact.real_space import EXACT_K
from lattice.progress import Silent

RUN: dict[str, Any] = {
    "name": "blocks", "models": ["spin_flow"], "lattice": {"shape": [4, 4]},
    "ensemble": {"temperatures": [2.0]},
    "training": {"thermometer": None, "rows": [{"n_hidden": 4, "rate": 0.1, "n_steps": 1, "units": "bit"}]},
}  # fmt: skip


def bench_of(**ensemble: Any) -> DynamicsBench:
    config: Any = config_from_dict({**RUN, "ensemble": {**RUN["ensemble"], **ensemble}})
    return DynamicsBench(Path(), config, {})


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    result = real_space.run(bench_of(), Silent(), side=16, n_stages=2)
    json.dumps(result, allow_nan=False)
    return result


def stage(extent: int, t: float) -> Blocked:
    return Blocked(extent, (-1.0, 0.01), (0.5, 0.01), Reading(t, 0.01))


def read_as(monkeypatch: pytest.MonkeyPatch, stages: dict[float, list[float]]) -> dict[str, Any]:
    """The result where blocks read these temperatures."""
    made = {t: [stage(16 // 2**i, x) for i, x in enumerate(read)] for t, read in stages.items()}
    monkeypatch.setattr(real_space, "blocked", lambda t, *_: made[t])
    return real_space.run(bench_of(), Silent(), side=16, n_stages=2, temperatures=list(stages))


def test_spins_of_three_temperatures_pass(found: dict[str, Any]) -> None:
    """T falls below T_c, rises above it, at T_c it stays."""
    assert found["passed"] is True
    assert found["reasons"] == []
    assert [row["t"] for row in found["rows"]] == [2.1, CRITICAL, 2.5]
    cold, critical, hot = ([s["t_e"]["t"] for s in row["stages"]] for row in found["rows"])
    assert [s["extent"] for s in found["rows"][0]["stages"]] == [16, 8, 4]
    assert cold[0] > cold[1] > cold[2]
    assert hot[0] < hot[1] < hot[2]
    assert all(abs(t / CRITICAL - 1) < 0.06 for t in critical)


def test_the_recursion_has_its_fixed_point_between(found: dict[str, Any]) -> None:
    """K* and nu of the formula; couplings below it fall to 0, above they rise, on it they stay."""
    k = found["fixed_point"]
    assert 3 / 8 * math.log(math.cosh(4 * k)) == pytest.approx(k, abs=1e-12)
    assert found["nu"] == pytest.approx(math.log(math.sqrt(2)) / math.log(1.5 * math.tanh(4 * k)))
    assert abs(found["nu"] - 1) < 0.1
    paths = sorted((float(start), path) for start, path in found["recursion"].items())
    assert [len(path) for _, path in paths] == [13] * 5
    assert [path[-1] < k / 2 for _, path in paths] == [True, True, False, False, False]
    assert [path[-1] > 2 * k for _, path in paths] == [False, False, False, True, True]
    assert paths[2][1][-1] == pytest.approx(k, abs=1e-9)


def test_words_and_figure(found: dict[str, Any]) -> None:
    lines = real_space.text(found).splitlines()
    assert lines[0].split() == ["T", *["T_E", "at", "L", "=", "16"], *["T_E", "at", "L", "=", "8"],
                                *["T_E", "at", "L", "=", "4"], "|m|,", "last"]  # fmt: skip
    assert lines[3].startswith("2.26919")
    assert any(f"K* = {found['fixed_point']:.6f} (exact K_c {EXACT_K:.6f})" in line for line in lines)
    assert any("the opposite of a flow into it" in line for line in lines)
    assert lines[-1] == "passed"
    assert len(real_space.figure(found).axes) == 2


@pytest.mark.parametrize(
    ("t", "read", "words"),
    [
        (2.0, [2.0, 2.1, 2.2], "T = 2 does not run away from T_c"),
        (2.0, [2.0, 1.8, 1.9], "T = 2 does not run away"),
        (2.6, [2.6, 2.5, 2.4], "T = 2.6 does not run away"),
        (2.6, [2.6, 3.0, 2.9], "T = 2.6 does not run away"),
        (2.6, [2.6, 2.6, 2.6], "T = 2.6 does not run away"),
        (2.6, [2.6, 2.62, 2.64], "T = 2.6 does not run away"),  # steps of 1.4 of their errors
        (2.6, [2.6, math.inf, 9.0], "T = 2.6 does not run away"),
        (4.0, [math.inf] * 3, "T = 4 does not run away"),
        (1.0, [0.0] * 3, "T = 1 does not run away"),
        (1.002 * CRITICAL, [2.27, 2.27, 2.27], "T = 2.27372 does not run away"),
        (CRITICAL, [CRITICAL, CRITICAL, 1.07 * CRITICAL], "at T_c a block reads 7.0 % off T_c"),
    ],
)
def test_blocks_that_do_otherwise_do_not_pass(
    monkeypatch: pytest.MonkeyPatch, t: float, read: list[float], words: str
) -> None:
    """A flow into T_c above all; where no step is seen there is no flow."""
    found = read_as(monkeypatch, {t: read})
    assert found["passed"] is False
    assert len(found["reasons"]) == 1
    assert words in found["reasons"][0]
    assert real_space.text(found).endswith(f"NOT passed: {found['reasons'][0]}")


def test_blocks_hotter_than_all_are_far_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_as(monkeypatch, {3.5: [3.5, 9.0, math.inf]})
    assert found["passed"] is True
    assert "infinite" in real_space.text(found)
    assert len(real_space.figure(found).axes) == 2


@pytest.mark.parametrize("options", [{"side": 12, "n_stages": 3}, {"side": 16, "n_stages": 3},
                                     {"side": 16, "n_stages": 0}])  # fmt: skip
def test_sides_that_cannot_be_halved(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"a side of \d+ cannot be halved \d times to 4 sites or more"):
        real_space.run(bench_of(), Silent(), **options)


def test_refusals() -> None:
    with pytest.raises(InputError, match="of Ising spins"):
        real_space.run(bench_of(q=3), Silent())
    pairs: Any = config_from_dict(
        {"name": "x", "models": ["pairs"], "training": {"rows": [{"rate": 0.1, "batch": 4}]}}
    )
    with pytest.raises(InputError, match=r"is for a run with models: \[spin_flow\] of Ising spins"):
        real_space.run(DynamicsBench(Path(), pairs, {}), Silent())
    assert serves("real-space", bench_of())
    with pytest.raises(InputError, match="side"):
        check_options("real-space", {"side": 16.5})


@pytest.mark.parametrize(
    ("t", "read"),
    [
        (1.0, [1.0, 0.0, 0.0]), (4.0, [4.0, math.inf, math.inf]),
        (2.6, [2.6, 3.0, 2.99]), (2.0, [2.0, 2.01, 1.9]),
        (1.0005 * CRITICAL, [2.27, 2.27, 2.27]),
    ],
)  # fmt: skip
def test_blocks_that_run_away_once_pass(monkeypatch: pytest.MonkeyPatch, t: float, read: list[float]) -> None:
    """Frozen spins stay frozen, and the hottest hot; no step counts within its error; T_c rounded is T_c."""
    assert read_as(monkeypatch, {t: read})["passed"] is True


def test_a_figure_of_frozen_spins_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_as(monkeypatch, {0.2: [0.0, 0.0, 0.0]})
    for one in found["rows"][0]["stages"]:
        one["t_e"]["error"] = math.inf
    assert real_space.figure(found).axes
