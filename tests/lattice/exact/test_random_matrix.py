"""Laws of random matrices against quadrature, limits, tables, drawn matrices; each with what is not it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest

from lattice.errors import InputError
from lattice.exact import random_matrix as rm
from lattice.rng import normals

N = 4000


def at(function: object, *more: float) -> object:
    return lambda x: float(function(np.array(x), *more))  # type: ignore[operator]


def pairs(v: float) -> np.ndarray:
    """Eigenvalues (N, 2) of 2 x 2 matrices, variance v on the diagonal and v/2 off it."""
    a, d, b = (
        normals(1, "test/two", np.arange(N), 0, 3).T * np.sqrt(v) * np.array([[1], [1], [math.sqrt(0.5)]])
    )
    return np.linalg.eigvalsh(np.stack([a, b, b, d], 1).reshape(N, 2, 2))


@pytest.mark.parametrize("q", [0.05, 0.5, 0.99, 1.0])
def test_marchenko_pastur(q: float) -> None:
    """Mean 1, second moment 1 + q, the closed-form distribution the integral of the density."""
    low, high = rm.edges(q)
    for power, known in ((0, 1.0), (1, 1.0), (2, 1 + q)):
        found = quad(lambda x, k=power: x**k * at(rm.marchenko_pastur, q)(x), low, high, limit=400)[0]  # type: ignore[operator]
        assert found == pytest.approx(known, abs=1e-7)
    for x in np.linspace(low, high, 7)[1:-1]:
        known = quad(at(rm.marchenko_pastur, q), low, x, limit=400)[0]
        assert float(rm.marchenko_pastur_cdf(x, q)) == pytest.approx(known, abs=1e-8)
    outside = np.array([low - 1, low, high, high + 1])
    np.testing.assert_allclose(rm.marchenko_pastur_cdf(outside, q), [0, 0, 1, 1], atol=1e-7)
    assert float(rm.marchenko_pastur_cdf(np.array(rm.marchenko_pastur_median(q)), q)) == pytest.approx(0.5)


def test_a_drawn_matrix_has_that_density_and_its_transpose_has_not() -> None:
    n, m = 400, 800
    w = normals(3, "test/mp", np.arange(1), 0, n * m).reshape(n, m)
    x = np.linalg.eigvalsh(w @ w.T / m)
    distance = kstest(x, lambda t: rm.marchenko_pastur_cdf(t, n / m)).statistic
    assert distance < 0.01  # eigenvalues repel: far less than the 0.048 of independent ones
    assert kstest(x, lambda t: rm.marchenko_pastur_cdf(t, 0.6)).statistic > 0.03
    assert x[-1] < rm.upper_edge(n, m, 0.9999)


def test_semicircle() -> None:
    n, v = 400, 0.3
    a = normals(5, "test/semicircle", np.arange(1), 0, n * n).reshape(n, n)
    x, radius = np.linalg.eigvalsh((a + a.T) * math.sqrt(v / 2)), 2 * math.sqrt(n * v)
    assert kstest(x, lambda t: rm.semicircle_cdf(t, radius)).statistic < 0.01
    assert kstest(x, lambda t: rm.semicircle_cdf(t, 1.1 * radius)).statistic > 0.02
    for end in (-0.5, 0.3, 1.0):
        known = quad(at(rm.semicircle, radius), -radius, end * radius)[0]
        assert float(rm.semicircle_cdf(np.array(end * radius), radius)) == pytest.approx(known, abs=1e-7)


def test_tracy_widom() -> None:
    """Quantiles as Bornemann and Johnstone print them, mean and variance as Tracy and Widom do."""
    for probability, known in (
        (0.01, -3.8954),
        (0.5, -1.2686),
        (0.9, 0.4501),
        (0.95, 0.9793),
        (0.99, 2.0234),
    ):
        assert rm.tracy_widom_quantile(probability) == pytest.approx(known, abs=1e-4)
    grid = np.linspace(-9, 7, 1601)
    f = np.array([rm.tracy_widom(s) for s in grid[::4]])
    assert (np.diff(f) > -1e-13).all()
    density, centre = np.diff(f), (grid[::4][1:] + grid[::4][:-1]) / 2
    mean = float((density * centre).sum())
    assert mean == pytest.approx(-1.2065335746, abs=1e-4)
    assert float((density * (centre - mean) ** 2).sum()) == pytest.approx(1.6077810345, abs=1e-3)


def test_the_edge_is_passed_once_in_a_hundred() -> None:
    n, m, count = 32, 96, 4000
    w = normals(7, "test/edge", np.arange(count), 0, n * m).reshape(count, n, m)
    largest = np.linalg.eigvalsh(w @ w.transpose(0, 2, 1) / m)[:, -1]
    for probability in (0.9, 0.99):
        passed, expected = float((largest > rm.upper_edge(n, m, probability)).mean()), 1 - probability
        assert passed < expected + 4 * math.sqrt(expected / count)
        assert passed > expected / 2 - 4 * math.sqrt(expected / count)  # of order n^(-2/3) too few


def test_two_levels() -> None:
    """Spacings by Wigner, <S> = sqrt(pi v), <S^2>/<S>^2 = 4/pi, and the density of both levels."""
    v = 0.7
    levels = pairs(v)
    s = levels[:, 1] - levels[:, 0]
    assert abs(s.mean() - math.sqrt(math.pi * v)) < 4 * s.std() / math.sqrt(N)
    assert (s**2).mean() / s.mean() ** 2 == pytest.approx(rm.SPREAD_GOE, abs=0.02)
    assert kstest(s / math.sqrt(math.pi * v), rm.wigner_cdf).pvalue > 1e-4
    for wrong in (s / math.sqrt(2 * math.pi * v), -np.log(np.linspace(1, 0, N, endpoint=False))):  # Poisson
        assert kstest(wrong, rm.wigner_cdf).pvalue < 1e-20
    spread = math.sqrt(v)
    cdf = np.vectorize(lambda x: quad(at(rm.two_level_density, spread), -12, x)[0])
    grid = np.linspace(-4, 4, 33)
    found = (levels.ravel()[:, None] < grid).mean(0)
    assert np.abs(found - cdf(grid)).max() < 4 * 0.5 / math.sqrt(N)
    assert quad(at(rm.wigner_surmise), 0, 1.3)[0] == pytest.approx(float(rm.wigner_cdf(np.array(1.3))))


def test_bad_input() -> None:
    for q in (0.0, 1.5, math.nan):
        with pytest.raises(InputError, match="transpose"):
            rm.edges(q)
    with pytest.raises(InputError, match="quantile"):
        rm.tracy_widom_quantile(1.0)
