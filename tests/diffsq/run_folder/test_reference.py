"""Measured points beside published values: conventions, verdicts, what cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import pytest

from diffsq.run_folder.reference import compare_with_references, format_references


def measured(values: dict[str, tuple[float, float]], reference: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "p", "status": "certified", "note": {"reference": reference},
        "request": {"shape": [8, 8], "action": {"kappa": 0.25, "lam": 0.5}},
        "observables": {name: {"value": v, "error": e} for name, (v, e) in values.items()},
    }  # fmt: skip


def test_pulls_in_the_convention_of_the_reference() -> None:
    reference = {"convention": "flow", "values": {"phi2": "0.25(1)", "abs_magnetization": "0.5(1)",
                                                  "binder": "0.6(1)", "kappa4_ratio": "-1.0(1)"}}  # fmt: skip
    ours = {"phi2": (1.0, 0.03), "abs_magnetization": (1.0, 0.1), "binder": (0.7, 0.1),
            "kappa4_ratio": (-1.0, 0.1)}  # fmt: skip
    result = compare_with_references([measured(ours, reference)])
    assert result is not None
    rows = {row["name"]: row for row in result["rows"]}  # kappa = 1/4: their field is half of ours
    assert rows["phi2"]["value"] == pytest.approx(0.25)
    assert rows["phi2"]["error_ratio"] == pytest.approx(0.75)
    assert rows["abs_magnetization"]["value"] == pytest.approx(0.5)
    assert rows["binder"]["pull"] == pytest.approx(1 / math.sqrt(2))
    assert rows["kappa4_ratio"]["pull"] == pytest.approx(0)
    assert (result["verdict"], result["n"]) == ("agree", 4)
    assert result["large_pulls"] == result["large_errors"] == []
    assert "verdict: agree; of 4 values 0 with |pull| > 3 (largest 0.71)" in format_references(result)


def test_forgetting_the_convention_is_found() -> None:
    ours = {"phi2": (1.0, 0.01)}
    theirs = {"convention": "kappa-lambda", "values": {"phi2": "0.25(1)"}}
    wrong = compare_with_references([measured(ours, theirs)])
    assert wrong is not None
    assert (wrong["verdict"], wrong["large_errors"]) == ("differ", [])
    assert [row["name"] for row in wrong["large_pulls"]] == ["phi2"]
    assert "|pull| > 3: p phi2 +53.03" in format_references(wrong)


@pytest.mark.parametrize(
    ("value", "error", "pulls", "errors"),
    [
        (1.000, 0.010, 0, 0),  # an error as large as theirs is enough
        (1.000, 0.011, 0, 1),
        (1.042, 0.010, 0, 0),  # 2.97 combined errors
        (1.043, 0.010, 1, 0),  # 3.04
        (1.080, 0.020, 1, 1),
    ],
)
def test_three_errors_and_no_larger_error_than_theirs(
    value: float, error: float, pulls: int, errors: int
) -> None:
    reference = {"convention": "kappa-lambda", "values": {"phi2": "1.000(10)", "binder": "0.5(1)"}}
    result = compare_with_references([measured({"phi2": (value, error), "binder": (0.5, 0.05)}, reference)])
    assert result is not None
    assert (len(result["large_pulls"]), len(result["large_errors"])) == (pulls, errors)
    assert result["verdict"] == ("differ" if pulls or errors else "agree")
    text = format_references(result)
    assert ("|pull| > 3: p phi2" in text, "error larger than the reference's: p phi2" in text) == (
        bool(pulls), bool(errors))  # fmt: skip


def test_many_rows_may_have_a_large_pull_by_chance() -> None:
    """The family-wise false alarm of |pull| <= 3 is printed, and does not enter the verdict."""
    reference = {"convention": "kappa-lambda", "values": {"phi2": "1.0(1)"}}
    result = compare_with_references([measured({"phi2": (1.0, 0.1)}, reference)] * 59)
    assert result is not None
    assert result["false_alarm"] == pytest.approx(1 - 0.9973002039**59)
    assert "(59 independent right values have one beyond 3 in 15% of all cases" in format_references(result)
    off = {"phi2": (1.0 + 3.5 * math.hypot(0.1, 0.1), 0.1)}  # beyond 3, within the threshold for all, 4.30
    right = measured({"phi2": (1.0, 0.1)}, reference)
    one = compare_with_references([measured(off, reference), *[right] * 58])
    assert one is not None
    assert one["threshold"] > 3.5
    assert one["verdict"] == "differ"


def test_what_cannot_be_compared_is_listed() -> None:
    values = {"binder": "0.6666", "xi_2nd": "3(1)", "phi2": "1(1)"}
    reference = {"convention": "kappa-lambda", "values": values}
    ours = measured({"binder": (0.66, 0.01), "phi2": (1.0, 0.1)}, reference)
    failed = {"name": "q", "status": "failed", "reason": "no disk", "note": {"reference": reference}}
    result = compare_with_references([ours, failed, {**ours, "note": None}])
    assert result is not None
    assert result["n"] == 1
    assert [row["pull"] is None for row in result["rows"]] == [True, False]
    assert {(m["point"], m["name"]) for m in result["not_compared"]} == {("p", "xi_2nd"), ("q", "all")}
    assert "no disk" in format_references(result)
    assert "reference without error, not judged: p binder" in format_references(result)
    assert compare_with_references([{**ours, "note": None}]) is None
    none = compare_with_references([failed])
    assert none is not None
    assert none["verdict"] == "none"
    assert "no value could be compared" in format_references(none)
