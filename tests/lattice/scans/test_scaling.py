"""Crossings of synthetic curves whose crossing is known: coverage, propagation, the order of the fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scan_points import KAPPA_C, U_STAR, step

from lattice.errors import InputError
from lattice.scans.scaling import Crossing, CurveFit, crossing, crossing_covariance, fit_curve


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
            for sigmas, p in ((1.0, 0.6827), (2.0, 0.9545)):
                covered = float(np.mean(np.abs(column) < sigmas))
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
