"""`check teacher-student`: students with the exact <S^2> pass; of a wrong one, or Poisson levels, not."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffsq.checks import teacher_student
from diffsq.checks.perform import serves
from diffsq.config.config import config_from_dict
from diffsq.config.dynamics import TeacherRun
from diffsq.run_folder.finished import DynamicsBench
from diffsq.training.dynamics import read_rows, train_rows
from lattice.errors import InputError
from lattice.progress import Silent


def make_bench(folder: Path) -> DynamicsBench:
    config = config_from_dict({
        "name": "students", "seed": 4, "models": ["teacher_student"],
        "training": {"n_replicas": 512, "n_steps": 300, "rows": [
            {"rate": 0.3, "batch": 4}, {"rate": 0.3, "batch": 4, "n_data": 64, "n_sets": 3},
        ]},
    })  # fmt: skip
    assert isinstance(config, TeacherRun)
    train_rows(config, folder / "train", Silent())
    return DynamicsBench(folder, config, read_rows(config, folder / "train"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> DynamicsBench:
    return make_bench(tmp_path_factory.mktemp("students"))


def run(bench: DynamicsBench) -> dict[str, Any]:
    found = teacher_student.run(bench, Silent())
    json.dumps(found, allow_nan=False)
    return found


def changed(bench: DynamicsBench, name: str, **values: float) -> DynamicsBench:
    rows = deepcopy(bench.rows)
    rows[name].update(values)
    return replace(bench, rows=rows)


def test_students_pass(bench: DynamicsBench) -> None:
    """Fresh data between the formulas c = 0 and 3, single data sets at their own exact <S^2>."""
    found = run(bench)
    assert found["passed"] is True
    fresh, sets = found["rows"]
    assert (fresh["n_data"], fresh["n_sets"], sets["n_data"], sets["n_sets"]) == (None, 1, 64, 3)
    low, high = fresh["formula"]
    assert (low, high) == pytest.approx((1.92250, 2.06393), abs=1e-5)
    value, error = fresh["a"]
    assert low - 4.5 * error < value < high + 4.5 * error
    assert len(sets["all"]) == 3
    assert sets["spread"] > 0
    for row in found["rows"]:
        assert row["largest_pull"] < 4.5
        assert row["from_poisson"] > 10


@pytest.mark.parametrize("name", ["students-0", "students-1-1"])
def test_a_wrong_exact_number_fails(bench: DynamicsBench, name: str) -> None:
    """<S^2> of the law of small alpha, or that of fresh data for a single set."""
    for factor in (0.7, 1.4):
        found = run(changed(bench, name, s2_exact=factor * bench.rows[name]["s2_exact"]))
        assert found["passed"] is False
        assert max(row["largest_pull"] for row in found["rows"]) > 8
        assert teacher_student.text(found).endswith("NOT passed")


def test_the_exact_number_of_another_data_set_fails(bench: DynamicsBench) -> None:
    """Quenched averages differ: the formula of fresh data is not that of a set, nor one set's another's."""
    exact = [row["s2_exact"] for row in bench.rows.values()]
    furthest = max(exact[1:], key=lambda value: abs(value / exact[1] - 1))
    assert abs(furthest / exact[1] - 1) > 0.05
    pulls = run(changed(bench, "students-1-0", s2_exact=furthest))["rows"][1]["largest_pull"]
    assert pulls > run(bench)["rows"][1]["largest_pull"] + 1


def test_poisson_levels_fail(bench: DynamicsBench) -> None:
    for name in ("students-0", "students-1-2"):
        error = bench.rows[name]["s2_ratio_error"]
        for ratio in (2.0, 2 - 5 * error):
            assert run(changed(bench, name, s2_ratio=ratio))["passed"] is False


def test_words_figure_and_kind(bench: DynamicsBench) -> None:
    found = run(bench)
    told = teacher_student.text(found)
    assert told.isascii()
    assert told.splitlines()[-1] == "passed"
    assert "3 sets of 64" in told
    assert "one data set for all replicas differs from another by" in told
    (axes,) = teacher_student.figure(found).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.3, 4", "0.3, 4"]
    assert serves("teacher-student", bench)
    other: Any = config_from_dict({"name": "text", "models": ["transformer"]})
    with pytest.raises(InputError, match=r"is for a run with models: \[teacher_student\]"):
        run(replace(bench, config=other))


def test_one_data_set_alone_has_no_spread(bench: DynamicsBench) -> None:
    rows = {name: row for name, row in bench.rows.items() if not name.endswith(("-1", "-2"))}
    found = run(replace(bench, rows=rows))
    assert found["passed"] is True
    assert found["rows"][1]["spread"] == 0
    assert found["rows"][1]["a"][1] == rows["students-1-0"]["a_error"]
    assert "differs from" not in teacher_student.text(found)
    assert teacher_student.figure(found).axes
