"""Real-space renormalisation: majority and ties, which way couplings flow, the fixed point and nu."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_spins import ising

from lattice.errors import InputError
from lattice.exact.ising import CRITICAL, torus
from lattice.exact.real_space import (
    EXACT_K,
    EXACT_NU,
    block_spins,
    fixed_point,
    flow,
    recursion,
    slope,
    thermal_exponent,
)
from lattice.rng import uniforms

ROWS = np.arange(500)


def test_the_majority_of_each_block() -> None:
    """By hand, of spins and of states; blocks of 3 x 3 have no ties of spins."""
    u = uniforms(1, "test/blocks", ROWS, 0, 36).reshape(-1, 6, 6)
    s = np.where(u < 0.5, -1, 1)
    for b in (2, 3):
        found = block_spins(s, b, 1, ROWS)
        assert found.shape == (500, 6 // b, 6 // b)
        for i in range(6 // b):
            for j in range(6 // b):
                total = s[:, b * i : b * i + b, b * j : b * j + b].sum((1, 2))
                clear = total != 0
                np.testing.assert_array_equal(found[clear, i, j], np.sign(total[clear]))
                assert bool(clear.all()) is (b == 3)
    states = (3 * u).astype(int)
    of_states = block_spins(states, 2, 1, ROWS, q=3)
    counts = np.stack([(states == a).reshape(-1, 3, 2, 3, 2).sum((2, 4)) for a in range(3)], -1)
    picked = np.take_along_axis(counts, of_states[..., None], -1)[..., 0]
    np.testing.assert_array_equal(picked, counts.max(-1))


def test_ties_are_drawn_evenly() -> None:
    """Of 2 + 2 spins, and of four states once each; 4.5 sigma of a binomial law."""
    tie = np.array([[1, -1], [-1, 1]])
    n = 20_000
    found = block_spins(np.broadcast_to(tie, (n, 2, 2)), 2, 3, np.arange(n))
    assert abs(found.mean()) < 4.5 / math.sqrt(n)
    four = block_spins(np.broadcast_to([[0, 1], [2, 3]], (n, 2, 2)), 2, 3, np.arange(n), q=4)
    shares = np.bincount(four.ravel(), minlength=4) / n
    assert np.abs(shares - 0.25).max() < 4.5 * math.sqrt(0.1875 / n)
    two = block_spins(np.broadcast_to([[0, 2], [2, 0]], (n, 2, 2)), 2, 3, np.arange(n), q=4)
    assert set(np.unique(two)) == {0, 2}


def test_a_row_has_its_own_ties() -> None:
    s = np.where(uniforms(1, "test/blocks", ROWS, 0, 16).reshape(-1, 4, 4) < 0.5, -1, 1)
    whole = block_spins(s, 2, 5, ROWS)
    np.testing.assert_array_equal(block_spins(s[100:200], 2, 5, ROWS[100:200]), whole[100:200])
    assert (block_spins(s, 2, 6, ROWS) != whole).any()
    np.testing.assert_array_equal(block_spins(s, 1, 5, ROWS), s)


def energy(s: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> tuple[float, float]:
    """e and its error over rows."""
    e = -(s * np.roll(s, 1, 1) + s * np.roll(s, 1, 2)).mean((1, 2))
    return float(e.mean()), float(e.std(ddof=1)) / math.sqrt(len(e))


def test_block_spins_flow_away_from_the_critical_point() -> None:
    """Of 16 x 16 to 8 x 8: hotter spins become hotter, colder ones colder, than 8 x 8 of the same T has;
    10 sigma. The spins themselves have the exact e."""
    for t, sign in ((1.8, -1), (3.4, 1)):
        s = ising(500, 16, np.array([t]), 100).reshape(-1, 16, 16)
        e, error = energy(s)
        assert abs(e - torus((16, 16), t).e) < 4.5 * error
        e, error = energy(block_spins(s, 2, 1, np.arange(len(s))))
        assert sign * (e - torus((8, 8), t).e) > 10 * error


def test_the_fixed_point_and_nu() -> None:
    """K* = 0.507 and nu = 0.934, each 15 % and less from exact; beyond rounding they are no exact ones."""
    k = fixed_point()
    assert recursion(k) == pytest.approx(k, abs=1e-14)
    assert k == pytest.approx(0.50698, abs=1e-5)
    assert 0.06 < k - EXACT_K < 0.07
    y, nu = thermal_exponent()
    assert nu == pytest.approx(0.934, abs=1e-3)
    assert 0.06 < EXACT_NU - nu < 0.07
    assert 1 / EXACT_K == pytest.approx(CRITICAL)
    h = 1e-6
    assert slope(k) == pytest.approx((recursion(k + h) - recursion(k - h)) / (2 * h), rel=1e-8)
    # a departure from K* grows by b^y a step
    steps = np.abs(flow(k + 1e-9, 10) - k)
    assert steps[10] / steps[0] == pytest.approx(math.sqrt(2) ** (10 * y), rel=1e-5)


def test_both_ends_of_the_flow() -> None:
    below, above = flow(0.45, 60), flow(0.56, 60)
    assert (np.diff(below[:12]) < 0).all()
    assert below[-1] < 1e-9
    assert (np.diff(above) > 0).all()
    assert above[-1] > 1e6
    assert recursion(1e3) == pytest.approx(1500 - 3 / 8 * math.log(2), rel=1e-14)
    assert recursion(1e-4) == pytest.approx(3e-8, rel=1e-6)  # 3 K^2
    assert flow(0.3, 0).tolist() == [0.3]


def test_what_is_no_block_and_no_coupling() -> None:
    s = np.ones((2, 4, 6), dtype=int)
    for arguments, words in (
        ((s, 4, 1, np.arange(2)), "multiples of 4"), ((s, 0, 1, np.arange(2)), "blocks of 0"),
        ((s[0], 2, 1, np.arange(2)), r"need spins \(n, L, M\)"),
        ((0 * s, 2, 1, np.arange(2)), "there are others"), ((s, 2, 1, np.arange(2), 1), "there are others"),
        ((3 * s, 2, 1, np.arange(2), 3), "there are others"),
        ((0.5 * s, 2, 1, np.arange(2)), "must be integers"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            block_spins(*arguments)  # type: ignore[arg-type]
    for k in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match="a coupling"):
            recursion(k)
    with pytest.raises(InputError, match="0 steps or more"):
        flow(0.5, -1)
