"""Pulls and verdict: right rate of false alarms, sees a true difference, says what it left out."""

import json
import math

import numpy as np
import pytest

from diffsq.run_folder.compare import compare, format_compare, reference_measurement
from lattice.errors import InputError
from lattice.statistics.pulls import sidak_threshold

ACTION = {"kind": "phi4", "convention": "kappa-lambda", "kappa": 0.27, "lam": 0.022}


def table(values, errors, identity="a", action=ACTION, shape=(16, 16)):
    return {
        "ensemble": {"identity": identity, "action": action, "shape": list(shape)},
        "observables": {
            f"o{i}": {"value": v, "error": e, "tau_int": 1.0, "tau_int_error": 0.1}
            for i, (v, e) in enumerate(zip(values, errors))
        },
        "tau_unit": "saved configurations",
    }


def test_pulls_chi2_and_json():
    result = compare(table([1.0, 2.0], [0.3, 0.1]), table([1.5, 2.0], [0.4, 0.1], "b"))
    assert [row["pull"] for row in result["rows"]] == pytest.approx([-1.0, 0.0])
    assert result["rows"][0] == {
        "name": "o0",
        "a": 1.0,
        "a_error": 0.3,
        "b": 1.5,
        "b_error": 0.4,
        "pull": pytest.approx(-1.0),
    }
    assert (result["chi2"], result["n"], result["max_pull"]) == pytest.approx((1.0, 2, -1.0))
    assert result["p_value"] == pytest.approx(1 - math.erf(1 / math.sqrt(2)) ** 2)
    assert result["verdict"] == "agree"
    json.dumps(result, allow_nan=False)


def test_verdict_turns_at_the_threshold():
    for n in (1, 5, 24):
        threshold = sidak_threshold(n)
        for factor, verdict in ((0.999, "agree"), (1.001, "differ")):
            values = np.zeros(n)
            values[-1] = -factor * threshold
            result = compare(table(values, np.ones(n)), table(np.zeros(n), np.zeros(n), "b"))
            assert result["verdict"] == verdict
            assert result["threshold"] == threshold


def test_false_alarm_rate():
    """At significance 5 % the rate is 5 % for independent rows and below for correlated ones."""
    rng = np.random.default_rng(1)

    def rate(correlation, n=2000, rows=10):
        common = rng.normal(size=(n, 2, 1)) * math.sqrt(correlation)
        data = common + rng.normal(size=(n, 2, rows)) * math.sqrt(1 - correlation)
        one = np.ones(rows)
        verdicts = [compare(table(a, one), table(b, one, "b"), significance=0.05)["verdict"] for a, b in data]
        return np.mean([v == "differ" for v in verdicts])

    sigma = math.sqrt(0.05 * 0.95 / 2000)
    assert abs(rate(0.0) - 0.05) < 4 * sigma
    assert rate(0.8) < 0.05 + 4 * sigma


def test_huge_pulls_do_not_overflow():
    result = compare(table([0.0], [1e-9]), table([1.0], [1e-9], "b"))
    assert result["verdict"] == "differ"
    assert result["p_value"] == 0.0


def test_what_cannot_be_compared_is_listed():
    a, b = table([1.0] * 5, [0.1] * 5), table([1.0] * 4, [0.1] * 4, "b")
    a["observables"]["o1"] = {"value": None, "error": None, "reason": "undefined here"}
    b["observables"]["o2"]["error"] = None
    a["observables"]["o3"]["error"] = b["observables"]["o3"]["error"] = 0.0
    result = compare(a, b)
    assert result["n"] == 1
    assert {item["name"]: item["reason"] for item in result["not_compared"]} == {
        "o1": "no value in the first table (undefined here)",
        "o2": "no error in the second table",
        "o3": "both errors are zero",
        "o4": "not in the second table",
    }
    text = format_compare(result)
    assert "not compared: o1: no value in the first table (undefined here)" in text


def test_different_physics_is_refused_unless_asked_for():
    a = table([1.0], [0.1])
    other = table([1.0], [0.1], "b", action={**ACTION, "kappa": 0.28})
    with pytest.raises(InputError, match="different physics: action .*kappa=0.27.*kappa=0.28"):
        compare(a, other)
    with pytest.raises(InputError, match="shape 16x16 against 32x16"):
        compare(a, table([1.0], [0.1], "b", shape=(32, 16)))
    result = compare(a, other, allow_different=True)
    assert any("different physics" in note for note in result["notes"])
    rounded = table([1.0], [0.1], "b", action={**ACTION, "kappa": 0.27 * (1 + 1e-15)})
    assert compare(a, rounded)["notes"] == []


def test_the_same_configurations_are_noted():
    assert "same configurations" in compare(table([1.0], [0.1]), table([1.0], [0.1]))["notes"][0]


def test_bad_tables_are_refused():
    with pytest.raises(InputError, match="second table is not a measurement"):
        compare(table([1.0], [0.1]), {"rows": []})
    with pytest.raises(InputError, match="nothing to compare"):
        compare(table([1.0], [0.1]), table([], [], "b"))
    with pytest.raises(InputError, match="significance"):
        compare(table([1.0], [0.1]), table([1.0], [0.1]), significance=0.0)


def test_reference_values_become_a_table():
    reference = reference_measurement(
        {"kappa": 0.27, "lam": 0.022, "shape": [16, 16], "values": {"o0": "0.7617(7)", "o1": "0.666628"}}
    )
    result = compare(table([0.7630, 0.66], [0.001, 0.01]), reference)
    assert result["rows"][0]["pull"] == pytest.approx(0.0013 / math.hypot(0.001, 0.0007))
    assert [item["name"] for item in result["not_compared"]] == ["o1"]


def test_the_long_list_of_cumulants_is_compared_on_request():
    def with_names(names, identity, value=1.0):
        result = table([1.0], [0.1], identity)
        result["observables"] |= {n: {"value": value, "error": 0.1} for n in names}
        return result

    a, b = with_names(["kappa4_ratio", "kappa3"], "a"), with_names(["kappa4_ratio", "kappa3"], "b")
    assert [row["name"] for row in compare(a, b)["rows"]] == ["o0", "kappa4_ratio"]
    assert [row["name"] for row in compare(a, b, everything=True)["rows"]] == ["o0", "kappa4_ratio", "kappa3"]
    published = reference_measurement(
        {"kappa": 0.27, "lam": 0.022, "shape": [16, 16], "values": {"kappa3": "1.5(1)"}}
    )
    assert [row["name"] for row in compare(a, published)["rows"]] == ["kappa3"]
    assert "kappa3" not in {item["name"] for item in compare(a, with_names([], "b"))["not_compared"]}


def test_text():
    result = compare(table([0.76301, 5.0], [0.0010, 1.2]), table([0.7617, 6.0], [0.0007, 1.2], "b"))
    lines = format_compare(result, ("mine", "theirs")).splitlines()
    assert lines[0].split() == ["observable", "mine", "theirs", "pull"]
    assert lines[2].split() == ["o0", "0.7630(10)", "0.76170(70)", "+1.07"]
    assert lines[-1].startswith("verdict: agree; largest |pull| 1.07 of 2, threshold 3.48 at 0.001")
