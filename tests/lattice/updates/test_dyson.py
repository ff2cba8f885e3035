"""Matrices and their eigenvalues reach the same equilibrium; without repulsion they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from lattice.errors import InputError
from lattice.exact.random_matrix import SPREAD_GOE, semicircle_cdf, wigner_cdf
from lattice.rng import normals
from lattice.updates.dyson import _implicit, eigenvalue_step, matrix_step, white_matrices

V = 0.7


def spread(n: int, m: int) -> np.ndarray:
    return np.tile(np.linspace(-1, 1, n), (m, 1))


def test_white_matrices() -> None:
    w = white_matrices(1, "test/white", np.arange(20_000), 0, 3)
    assert np.array_equal(w, w.transpose(0, 2, 1))
    variance = w.var(0)
    np.testing.assert_allclose(variance.diagonal(), 1, atol=0.06)
    np.testing.assert_allclose(variance[np.triu_indices(3, 1)], 0.5, atol=0.03)
    assert abs(np.corrcoef(w[:, 0, 1], w[:, 0, 2])[0, 1]) < 0.04


def test_matrices_relax_exactly() -> None:
    """One step of any size: mean e^{-gamma dt} x, variance v (1 - e^{-2 gamma dt})."""
    m, x = 20_000, np.array([[1.0, 0.4], [0.4, -2.0]])
    for dt in (0.01, 0.5, 20.0):
        found = matrix_step(np.tile(x, (m, 1, 1)), V, dt, seed=2, chains=np.arange(m), step=0)
        variance = V * (1 - math.exp(-2 * dt))
        assert np.abs(found.mean(0) - math.exp(-dt) * x).max() < 4.5 * math.sqrt(variance / m)
        assert found[:, 0, 0].var() == pytest.approx(variance, rel=0.05)
        assert found[:, 0, 1].var() == pytest.approx(variance / 2, rel=0.05)
    parts = np.tile(x, (m, 1, 1))
    for step in range(10):
        parts = matrix_step(parts, V, 0.05, seed=3, chains=np.arange(m), step=step)
    whole = matrix_step(np.tile(x, (m, 1, 1)), V, 0.5, seed=4, chains=np.arange(m), step=0)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        assert ks_2samp(parts[:, i, j], whole[:, i, j]).pvalue > 1e-4


def test_two_eigenvalues_repel_as_wigner_surmised() -> None:
    m, x = 4000, spread(2, 4000)
    for step in range(150):
        x = eigenvalue_step(x, V, 0.03, seed=5, chains=np.arange(m), step=step)
    s = x[:, 1] - x[:, 0]
    mean = math.sqrt(math.pi * V)
    assert s.mean() == pytest.approx(mean, rel=4 * 0.52 / math.sqrt(m) + 0.015)
    assert (s**2).mean() / s.mean() ** 2 == pytest.approx(SPREAD_GOE, abs=0.03)
    assert kstest(s / s.mean(), wigner_cdf).pvalue > 1e-3
    assert x.sum(1).var() == pytest.approx(2 * V, rel=0.12)
    free = np.sort(math.sqrt(V) * normals(6, "test/free", np.arange(m), 0, 2), axis=1)
    assert kstest(np.diff(free)[:, 0] / np.diff(free).mean(), wigner_cdf).pvalue < 1e-20  # the control


def test_the_error_falls_nearly_like_dt() -> None:
    """<tr X^2> = v n (n + 1)/2 in equilibrium; the implicit step is off by a part of order dt ln(1/dt), where
    sqrt(dt) would leave a half at a quarter of dt."""
    n, m, off = 3, 40_000, []
    exact = V * n * (n + 1) / 2
    for dt in (0.4, 0.1):
        x = spread(n, m)
        for step in range(round(4 / dt)):
            x = eigenvalue_step(x, V, dt, seed=7, chains=np.arange(m), step=step)
        off.append(float((x**2).sum(1).mean()) - exact)
    error = exact * math.sqrt(2 / 6 / m)
    assert abs(off[0]) > 20 * error
    assert abs(off[1] / off[0]) + 4 * error / abs(off[0]) < 0.48


def test_many_eigenvalues_have_the_semicircle() -> None:
    n, m = 40, 40
    x = spread(n, m)
    for step in range(120):
        x = eigenvalue_step(x, V, 0.03, seed=8, chains=np.arange(m), step=step)
    radius = math.sqrt(2 * n * V)
    assert kstest(x.ravel(), lambda t: semicircle_cdf(t, radius)).statistic < 0.02
    assert kstest(x.ravel(), lambda t: semicircle_cdf(t, math.sqrt(2) * radius)).statistic > 0.05
    w = matrix_step(np.zeros((m, n, n)), V, 30.0, seed=9, chains=np.arange(m), step=0)
    assert ks_2samp(np.linalg.eigvalsh(w).ravel(), x.ravel()).statistic < 0.03


def test_no_crossing_for_any_step_and_the_equation_is_solved() -> None:
    target, start, push, pull = 5 * normals(10, "test/target", np.arange(50), 0, 6), spread(6, 50), 0.3, 0.1
    x = _implicit(target, start, push, pull)
    assert (np.diff(x) > 0).all()
    apart = x[:, :, None] - x[:, None] + np.where(np.eye(6), np.inf, 0)
    miss = (1 + pull) * x - push * (1 / apart).sum(2) - target
    assert np.abs(miss).max() < 1e-8
    huge = eigenvalue_step(spread(6, 50), V, 10.0, seed=1, chains=np.arange(50), step=0)
    assert (np.diff(huge) > 0).all()
    small = _implicit(1e-9 * target, 1e-9 * start, 1e-18 * push, pull)
    np.testing.assert_allclose(small, 1e-9 * x, rtol=1e-9)


def test_numbers_do_not_depend_on_the_batch() -> None:
    x = spread(4, 6)
    whole = eigenvalue_step(x, V, 0.1, seed=1, chains=np.arange(6), step=3)
    part = eigenvalue_step(x[2:4], V, 0.1, seed=1, chains=np.arange(2, 4), step=3)
    np.testing.assert_array_equal(whole[2:4], part)


def test_bad_input() -> None:
    one: dict[str, object] = {"seed": 1, "chains": np.arange(1), "step": 0}
    with pytest.raises(InputError, match="symmetric matrices"):
        matrix_step(np.array([[[1.0, 2], [3, 4]]]), V, 0.1, **one)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="each rising"):
        eigenvalue_step(np.array([[1.0, 0.5]]), V, 0.1, **one)  # type: ignore[arg-type]
    for v, dt in ((0.0, 0.1), (1.0, -0.1), (math.nan, 0.1)):
        with pytest.raises(InputError, match="must be positive"):
            eigenvalue_step(np.array([[0.5, 1.0]]), v, dt, **one)  # type: ignore[arg-type]
