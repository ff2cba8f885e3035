"""From the results of a scan to kappa_c: exponents covered, universal values, words."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from scan_points import KAPPA_C, U_STAR, step

from lattice.errors import InputError
from lattice.scans.crossings import ISING, binder_crossings, curve_fit, format_crossings, scan_curves
from lattice.scans.scaling import effective_exponent, extrapolate, level


def result(
    length: int, kappa: float, value: float, error: float, status: str = "certified"
) -> dict[str, Any]:
    entry = {"value": value, "error": error}
    return {
        "name": f"{length}_{kappa}", "status": status, "reason": "",
        "request": {"shape": [length] * 2, "action": {"kappa": kappa, "lam": 0.022}},
        "observables": {"binder": entry, "xi_2nd": {"value": value * length, "error": error * length}},
    }  # fmt: skip


def scan_results(rng: np.random.Generator, error: float, power: float = 2.75) -> list[dict[str, Any]]:
    """Straight curves whose (L, 2L) crossings are at kappa_c - 0.35 L^-power, U* - 0.5 L^(1-power)."""
    points = []
    crossings = {length: KAPPA_C - 0.35 * length**-power for length in (4, 8, 16, 32, 64)}
    values = {length: U_STAR - 0.5 * length ** (1 - power) for length in crossings}
    for length in (8, 16, 32, 64):
        (x0, y0), (x1, y1) = ((crossings[n], values[n]) for n in (length // 2, length))
        slope = (y1 - y0) / (x1 - x0)
        centre = (x0 + x1) / 2
        for kappa in np.linspace(centre - 3 * (x1 - x0), centre + 3 * (x1 - x0), 7):
            value = y0 + slope * (kappa - x0) + error * rng.normal()
            points.append(result(length, float(kappa), float(value), error))
    return points


N = 80


@cache
def limits(error: float, power: float) -> list[dict[str, Any]]:
    """N times the limits of scan_results."""
    rng = np.random.default_rng(9)
    return [binder_crossings(scan_results(rng, error, power))[0]["limit"] for _ in range(N)]


TRUTH = {"kappa": KAPPA_C, "value": U_STAR}


@pytest.mark.parametrize(("power", "end"), [(2.0, 0), (2.75, 1)])
def test_with_the_right_exponent_the_statistical_error_is_right(power: float, end: int) -> None:
    for name, truth in TRUTH.items():
        fits = [found[name] for found in limits(2e-5, power)]
        common = fits[0]["L"], fits[0]["powers"]  # one error for all
        kept = [fit for fit in fits if (fit["L"], fit["powers"]) == common]
        assert len(kept) > 50
        deviations = np.array([fit["limits"][end] - truth for fit in kept])
        assert abs(deviations.mean()) < 4 * deviations.std() / math.sqrt(len(kept))
        if end == 0:  # "error" is the larger one, which is that of the slower corrections
            assert 0.75 < deviations.std() / np.mean([fit["error"] for fit in kept]) < 1.25


@pytest.mark.parametrize("error", [2e-5, 3e-4])
@pytest.mark.parametrize("power", [2.0, 2.3, 2.75])
def test_every_exponent_of_the_range_is_covered(power: float, error: float) -> None:
    """The truth is within two total errors at least as often as 95 %, at either end of the range too."""
    for name, truth in TRUTH.items():
        fits = [found[name] for found in limits(error, power)]
        pulls_ = np.array([(fit["limit"] - truth) / fit["total_error"] for fit in fits])
        assert np.mean(np.abs(pulls_) < 2) > 0.95 - 4 * math.sqrt(0.05 * 0.95 / N)
        assert all(fit["total_error"] == math.hypot(fit["error"], fit["spread"]) for fit in fits)


def test_one_assumed_exponent_does_not_cover_another() -> None:
    """What the range is for: 2.75 assumed for corrections that fall off as L^-2."""
    fits = [found["kappa"] for found in limits(2e-5, 2.0)]
    for fit in fits:
        assert fit["powers"] == [2.0, 2.75]
        assert fit["limits"][1] < KAPPA_C - 4 * fit["error"]  # biased low


def test_the_exponent_is_observed() -> None:
    for power in (2.0, 2.75):
        rows = [row for found in limits(2e-5, power) for row in found["kappa"]["effective"]]
        assert len(rows) > 70
        assert all(row["L"] == [8, 16, 32] for row in rows)
        close = [abs(row["power"] - power) < 2 * row["error"] for row in rows]
        assert np.mean(close) > 0.95 - 4 * math.sqrt(0.05 * 0.95 / len(rows))
    with pytest.raises(InputError, match="not of one sign"):
        effective_exponent([1.0, 2.0, 1.5], np.eye(3))


def test_slower_corrections_than_expected_widen_the_range() -> None:
    block = binder_crossings(scan_results(np.random.default_rng(9), 1e-6, power=1.6))[0]
    fit = block["limit"]["kappa"]
    assert fit["powers"] == [pytest.approx(1.6, abs=0.05), 2.75]
    assert "below the one expected" in fit["warning"]
    assert "below the one expected" in format_crossings(block)
    assert abs(fit["limit"] - KAPPA_C) < 2 * fit["total_error"]
    expected = binder_crossings(scan_results(np.random.default_rng(9), 1e-6, power=2.4))[0]["limit"]["kappa"]
    assert expected["powers"] == [2.0, 2.75]
    assert "below" not in (expected["warning"] or "")
    assert expected["L"] == [16, 32]  # at this precision chi2 rejects both ends of the range


def test_three_pairs_test_the_exponents_and_two_do_not() -> None:
    points = scan_results(np.random.default_rng(12), 3e-4)
    three = binder_crossings(points)[0]["limit"]["kappa"]
    assert (three["L"], three["dof"], three["warning"]) == ([8, 16, 32], 1, None)
    two = binder_crossings([p for p in points if p["request"]["shape"][0] <= 32])[0]
    fit = two["limit"]["kappa"]
    assert (fit["L"], fit["dof"], fit["effective"]) == ([8, 16], 0, [])
    assert "two sizes cannot test the exponents" in fit["warning"]
    assert "warning: two sizes" in format_crossings(two)
    assert abs(fit["limit"] - KAPPA_C) < 3 * fit["total_error"]


def test_points_that_failed_take_no_part() -> None:
    points = scan_results(np.random.default_rng(10), 2e-5)
    spoiled = [result(16, KAPPA_C, 0.1, 1e-5, status="not certified")]
    failed = [{**result(8, KAPPA_C, 0.1, 1e-5), "status": "failed"}]
    failed[0].pop("observables")
    assert binder_crossings(points + spoiled + failed) == binder_crossings(points)
    oblong = result(16, KAPPA_C, 0.1, 1e-5)
    oblong["request"]["shape"] = [16, 8]
    assert scan_curves([*points, oblong]) == scan_curves(points)


def test_too_few_sizes_or_kappas() -> None:
    points = scan_results(np.random.default_rng(11), 2e-5)
    one_size = [p for p in points if p["request"]["shape"] == [8, 8]]
    assert binder_crossings(one_size) == []
    two = [p for p in points if p["request"]["shape"][0] <= 16]
    assert binder_crossings(one_size + two[7:9]) == []
    block = binder_crossings(two)[0]
    assert block["limit"] is None
    why = "no extrapolation of the crossings: it takes 2 pairs of sizes (L, 2L) whose curves cross, found 1"
    assert why in format_crossings(block)
    assert "2D Ising class, which this model is not of" in format_crossings({**block, "ising": False})
    other = binder_crossings(two, "xi_over_L")[0]
    assert "those of xi/L nearly coincide far from their limit" in format_crossings(other)
    with pytest.raises(InputError, match="two sizes"):
        extrapolate([8], [0.27], [[1e-8]], 2.75)


@pytest.mark.parametrize("power", [2.0, 2.4, 2.75])
def test_the_universal_value_leads_to_kappa_c(power: float) -> None:
    """Curves through (kappa_c + 0.3 L^-power, the universal value): coverage, and a wrong value."""
    rng, pulls_, wrong = np.random.default_rng(13), [], []
    for _ in range(100):
        points = []
        for length in (16, 32, 64):
            at = KAPPA_C + 0.3 * length**-power
            kappa = np.linspace(at - 0.03 / length, at + 0.03 / length, 7)
            values = step(length, kappa, at, ISING["binder"]) + 5e-4 * rng.normal(size=7)
            points += [result(length, float(k), float(v), 5e-4) for k, v in zip(kappa, values)]
        block = binder_crossings(points)[0]
        fit = block["universal"]["kappa"]
        assert [s["L"] for s in block["universal"]["sizes"]] == [16, 32, 64]
        pulls_.append((fit["limit"] - KAPPA_C) / fit["total_error"])
        a = curve_fit(block["fits"][-1])
        kappa_64, error = level(a, ISING["binder"] - 0.005)
        wrong.append((KAPPA_C + 0.3 * 64**-power - kappa_64) / error)
    assert np.mean(np.abs(pulls_) < 2) > 0.95 - 4 * math.sqrt(0.05 * 0.95 / 100)
    assert np.min(wrong) > 5
    with pytest.raises(InputError, match="nowhere"):
        level(a, 0.99)


def test_words_and_json() -> None:
    import json

    points = scan_results(np.random.default_rng(12), 2e-5)
    block = binder_crossings(points)[0]
    assert json.loads(json.dumps(block)) == block
    text = format_crossings(block)
    for fragment in (
        "lam = 0.022",
        "chi2/dof",
        "8 x 16",
        "kappa_x = 0.2",
        "kappa_c = 0.2708",
        "L^-2 to L^-2.75",
        "U* = 0.61",
        "from the crossings of L with 2L",
        "(the 2D Ising class has U* = 0.61069)",
    ):
        assert fragment in text
    assert [fit["L"] for fit in block["fits"]] == [8, 16, 32, 64]
    again = curve_fit(block["fits"][0])
    assert again.value(KAPPA_C)[0] == pytest.approx(points[3]["observables"]["binder"]["value"], abs=0.05)
    # what takes U* as input is said to, and kept apart from what does not
    block["universal"] = {"level": 0.61069, "kappa": block["limit"]["kappa"], "sizes": []}
    own, assumed = format_crossings(block).split("of the 2D Ising class as input")
    assert "U* = 0.6" in own
    assert "kappa_c = " in own
    assert "kappa_c = " in assumed
    xi = binder_crossings(points, "xi_over_L")[0]
    assert xi["pairs"][0]["kappa"] == pytest.approx(block["pairs"][0]["kappa"])
    with pytest.raises(InputError, match="binder or xi_over_L"):
        binder_crossings(points, "chi")
