"""Binder crossings on synthetic curves whose crossing is known: coverage, propagation, extrapolation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lattice.crossings import binder_crossings, curve_fit, format_crossings, scan_curves
from lattice.errors import InputError
from lattice.scaling import (
    Crossing,
    CurveFit,
    crossing,
    crossing_covariance,
    extrapolate,
    fit_curve,
)

KAPPA_C, U_STAR = 0.27088, 0.61


def step(length: int, kappa: np.ndarray, at: float = KAPPA_C, value: float = U_STAR) -> np.ndarray:
    """A smooth step from 0 to 2/3 that passes through `value` at `at`, steeper for larger L."""
    start = math.log(value / (2 / 3 - value))
    return (2 / 3) / (1 + np.exp(-(start + 14 * length * (kappa - at))))


def noisy(rng: np.random.Generator, length: int, kappa: np.ndarray, error: float, stated: float) -> CurveFit:
    values = step(length, kappa) + error * rng.normal(size=len(kappa))
    errors, scale = np.full(len(kappa), stated), float(np.ptp(kappa))
    return fit_curve(length, kappa, values, errors, centre=KAPPA_C, scale=scale)


def pulls(n: int, error: float, stated: float, seed: int) -> tuple[np.ndarray, list[Crossing]]:
    """(n, 2) pulls of kappa_x and U_x against the truth."""
    rng = np.random.default_rng(seed)
    kappa = np.linspace(KAPPA_C - 0.0016, KAPPA_C + 0.0014, 6)
    found = [crossing(*(noisy(rng, length, kappa, error, stated) for length in (16, 32))) for _ in range(n)]
    table = [((c.kappa - KAPPA_C) / c.kappa_error, (c.value - U_STAR) / c.value_error) for c in found]
    return np.array(table), found


class TestCoverage:
    N = 1500

    def test_intervals_cover_the_truth_as_often_as_they_say(self) -> None:
        table, found = pulls(self.N, 1e-3, 1e-3, 1)
        for column in table.T:
            for level, p in ((1.0, 0.6827), (2.0, 0.9545)):
                covered = float(np.mean(np.abs(column) < level))
                assert abs(covered - p) < 4 * math.sqrt(p * (1 - p) / self.N)
            assert abs(column.mean()) < 0.12  # the order of the fit is chosen from the data
        assert np.corrcoef(table.T)[0, 1] == pytest.approx(np.mean([c.correlation for c in found]), abs=0.02)

    def test_errors_that_are_too_small_do_not_cover(self) -> None:
        table, _ = pulls(300, 1e-3, 0.4e-3, 2)
        assert np.mean(np.abs(table[:, 0]) < 1) < 0.5
        assert np.mean(np.abs(table[:, 0]) < 2) < 0.85

    def test_a_wrong_crossing_is_excluded(self) -> None:
        _, found = pulls(50, 1e-3, 1e-3, 3)
        assert all(abs(c.kappa - (KAPPA_C + 0.001)) > 5 * c.kappa_error for c in found)


class TestPropagation:
    def fits(self) -> tuple[CurveFit, CurveFit]:
        rng = np.random.default_rng(4)
        kappa = np.linspace(KAPPA_C - 0.001, KAPPA_C + 0.001, 7)
        return noisy(rng, 8, kappa, 5e-4, 5e-4), noisy(rng, 16, kappa, 5e-4, 5e-4)

    def test_against_a_parametric_bootstrap(self) -> None:
        a, b = self.fits()
        c = crossing(a, b)
        rng, n, drawn = np.random.default_rng(5), 4000, []
        for _ in range(n):
            x, y = (
                CurveFit(f.length, f.centre, f.scale, rng.multivariate_normal(f.coefficients, f.covariance),
                         f.covariance, f.chi2, f.dof, f.kappas)
                for f in (a, b)
            )  # fmt: skip
            moved = crossing(x, y)
            drawn.append((moved.kappa, moved.value))
        spread = np.std(drawn, axis=0)
        assert spread == pytest.approx([c.kappa_error, c.value_error], rel=5 / math.sqrt(2 * n))
        assert np.corrcoef(np.array(drawn).T)[0, 1] == pytest.approx(c.correlation, abs=0.02)

    def test_shared_curves_correlate_crossings(self) -> None:
        a, b = self.fits()
        kappa = np.linspace(KAPPA_C - 0.001, KAPPA_C + 0.001, 7)
        third = noisy(np.random.default_rng(6), 32, kappa, 5e-4, 5e-4)
        fits = {fit.length: fit for fit in (a, b, third)}
        pair = [crossing(a, b), crossing(b, third)]
        covariance = crossing_covariance(pair, fits, 0)
        assert np.sqrt(np.diag(covariance)) == pytest.approx([c.kappa_error for c in pair])
        assert covariance[0, 1] < 0  # the curve in the middle pulls them apart
        assert np.linalg.eigvalsh(covariance).min() > 0

    def test_a_line_is_solved_exactly(self) -> None:
        x, e = np.linspace(0.0, 1.0, 5), np.full(5, 0.01)
        a, b = (fit_curve(8 * n, x, n * (x - 0.4) + 0.5, e, centre=0.5, scale=0.5) for n in (1, 3))
        c = crossing(a, b)
        assert (c.kappa, c.value) == pytest.approx((0.4, 0.5))
        assert a.slope(0.4) == pytest.approx(1.0)
        assert a.chi2 == pytest.approx(0.0, abs=1e-18)


class TestFit:
    def test_the_order_follows_the_data(self) -> None:
        rng, x, e = np.random.default_rng(7), np.linspace(-1, 1, 9), 0.01
        for power, order in ((1, 2), (2, 3), (3, 3)):
            y = x + (x**power if power > 1 else 0) + e * rng.normal(size=9)
            fit = fit_curve(8, x, y, np.full(9, e))
            assert fit.order == order
            assert fit.n_dropped == 0
            assert fit.p_value > 1e-3

    def test_points_far_from_the_crossing_go_first(self) -> None:
        kappa = np.linspace(KAPPA_C - 0.012, KAPPA_C + 0.003, 16)
        fit = fit_curve(64, kappa, step(64, kappa), np.full(16, 1e-3), near=KAPPA_C)
        assert fit.n_dropped > 0
        assert fit.kappas[0] > kappa[0]
        assert fit.kappas[1] == kappa[-1]
        assert fit.p_value >= 0.01

    @pytest.mark.parametrize(
        ("kappa", "value", "error", "fragment"),
        [
            ([0.1, 0.2], [0.5, 0.6], [0.1, 0.1], "3 different kappas"),
            ([0.1, 0.1, 0.2], [0.5, 0.5, 0.6], [0.1] * 3, "3 different kappas"),
            ([0.1, 0.2, 0.3], [0.5, 0.5, 0.6], [0.1, 0.0, 0.1], "positive errors"),
            ([0.1, 0.2, 0.3], [0.5, math.nan, 0.6], [0.1] * 3, "finite"),
            ([0.1, 0.2, 0.3], [0.5, 0.6], [0.1] * 3, "one length"),
        ],
    )
    def test_refusals(self, kappa: Any, value: Any, error: Any, fragment: str) -> None:
        with pytest.raises(InputError, match=fragment):
            fit_curve(8, kappa, value, error)

    def test_curves_that_do_not_meet(self) -> None:
        x, e = np.linspace(0.0, 1.0, 5), np.full(5, 0.01)
        a, b = (fit_curve(8 * n, x, x + n, e, centre=0.5, scale=0.5) for n in (1, 2))
        with pytest.raises(InputError, match="nowhere"):
            crossing(a, b)
        twice = fit_curve(32, x, x + 1 + 2 * (x - 0.2) * (x - 0.8), e, centre=0.5, scale=0.5)
        with pytest.raises(InputError, match="2 times"):
            crossing(a, twice)


# --- from the results of a scan to kappa_c -----------------------------------------------------------------


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
    """Straight curves whose (L, 2L) crossings are exactly at kappa_c - 0.35 L^-power, U* - 0.5 L^-1.75."""
    points = []
    crossings = {length: KAPPA_C - 0.35 * length**-power for length in (4, 8, 16, 32, 64)}
    level = {length: U_STAR - 0.5 * length**-1.75 for length in crossings}
    for length in (8, 16, 32, 64):
        (x0, y0), (x1, y1) = ((crossings[n], level[n]) for n in (length // 2, length))
        slope = (y1 - y0) / (x1 - x0)
        centre = (x0 + x1) / 2
        for kappa in np.linspace(centre - 3 * (x1 - x0), centre + 3 * (x1 - x0), 7):
            value = y0 + slope * (kappa - x0) + error * rng.normal()
            points.append(result(length, float(kappa), float(value), error))
    return points


def test_the_limit_is_recovered_with_its_error() -> None:
    rng, table = np.random.default_rng(8), []
    for _ in range(150):
        limit = binder_crossings(scan_results(rng, 2e-5))[0]["limit"]
        table.append([(limit["kappa"]["limit"] - KAPPA_C) / limit["kappa"]["error"],
                      (limit["value"]["limit"] - U_STAR) / limit["value"]["error"]])  # fmt: skip
    for column in np.array(table).T:
        assert abs(column.mean()) < 4 / math.sqrt(150)
        assert 0.75 < column.std() < 1.25


def test_a_wrong_exponent_is_seen_in_chi2_and_loses_the_smallest_pair() -> None:
    block = binder_crossings(scan_results(np.random.default_rng(9), 1e-6, power=1.5))[0]
    assert block["limit"]["L"] == [16, 32]
    assert abs(block["limit"]["kappa"]["limit"] - KAPPA_C) > 4 * block["limit"]["kappa"]["error"]
    right = binder_crossings(scan_results(np.random.default_rng(9), 1e-6))[0]
    assert right["limit"]["L"] == [8, 16, 32]


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
    assert "no extrapolation" in format_crossings(block)
    a, b = (curve_fit(entry) for entry in block["fits"])
    with pytest.raises(InputError, match="two crossings"):
        extrapolate([crossing(a, b)], {8: a, 16: b}, 2.75, 0)


def test_words_and_json() -> None:
    import json

    points = scan_results(np.random.default_rng(12), 2e-5)
    block = binder_crossings(points)[0]
    assert json.loads(json.dumps(block)) == block
    text = format_crossings(block)
    for fragment in ("lam = 0.022", "chi2/dof", "8 x 16", "kappa_x = 0.2", "kappa_c = 0.2708", "L^-2.75"):
        assert fragment in text
    assert [fit["L"] for fit in block["fits"]] == [8, 16, 32, 64]
    again = curve_fit(block["fits"][0])
    assert again.value(KAPPA_C)[0] == pytest.approx(points[3]["observables"]["binder"]["value"], abs=0.05)
    xi = binder_crossings(points, "xi_over_L")[0]
    assert xi["pairs"][0]["kappa"] == pytest.approx(block["pairs"][0]["kappa"])
    with pytest.raises(InputError, match="binder or xi_over_L"):
        binder_crossings(points, "chi")
