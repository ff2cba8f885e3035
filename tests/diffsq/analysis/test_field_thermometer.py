"""Temperature and field of u and m: inverted exactly, independent spins have none; where C is largest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffsq.analysis.field_thermometer import Place, hottest_in_field, place_of
from lattice.errors import InputError
from lattice.exact.ising import enumerated, hottest, moments_in_field

SHAPE = (4, 4)


def by_states(t: float, h: float) -> tuple[float, float]:
    """u and m of 4 x 4, by all states."""
    s = (1.0 - 2.0 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)).reshape(-1, *SHAPE)
    bonds = (s * np.roll(s, 1, 1)).sum((1, 2)) + (s * np.roll(s, 1, 2)).sum((1, 2))
    log_w = (bonds + h * s.sum((1, 2))) / t
    w = np.exp(log_w - log_w.max())
    return float(-(w @ bonds) / w.sum() / 16), float(w @ s.mean((1, 2)) / w.sum())


@pytest.mark.parametrize(
    ("t", "h"),
    [(1.5, 0.2), (2.269, 0.05), (2.3, 0.4), (3.0, 1.5), (2.5, -0.7), (6.0, 4.0), (10.0, 4.5), (9.5, -0.5),
     (40.0, 10.0)],
)  # fmt: skip
def test_a_place_is_found_again(t: float, h: float) -> None:
    place = place_of(*by_states(t, h), SHAPE)
    assert place.found
    assert place.t == pytest.approx(t, abs=1e-5)
    assert place.h == pytest.approx(h, abs=1e-5)


def test_without_a_field() -> None:
    """m = 0 reads H = 0."""
    place = place_of(*moments_in_field(SHAPE, 3.0, 0.0), SHAPE)
    assert (place.t, place.h) == (pytest.approx(3.0, abs=1e-6), pytest.approx(0, abs=1e-6))


@pytest.mark.parametrize("m", [-0.8, -0.3, 0.1, 0.3, 0.6, 0.9, 0.95])
def test_independent_spins_have_no_place(m: float) -> None:
    """u = -2 m^2 is T -> infinity; and nothing lies above it."""
    assert not place_of(-2 * m**2, m, SHAPE).found
    assert not place_of(-2 * m**2 + 0.05, m, SHAPE).found
    assert place_of(*moments_in_field(SHAPE, 5.0, 5 * m), SHAPE).found


def test_found_is_a_matter_of_the_miss() -> None:
    assert Place(2.0, 0.1, 1e-9).found
    assert not Place(2.0, 0.1, 1e-3).found
    assert not Place(math.nan, math.nan, math.inf).found


@pytest.mark.parametrize(
    ("u", "m"), [(-2.1, 0.0), (2.1, 0.0), (-1.0, 1.2), (-1.0, -1.2), (math.nan, 0.0), (-1.0, math.nan)]
)
def test_values_that_no_spins_have(u: float, m: float) -> None:
    with pytest.raises(InputError, match=r"spins have -2 <= u <= 2 and \|m\| <= 1"):
        place_of(u, m, SHAPE)


@pytest.mark.parametrize("h", [0.1, 0.5, 2.0, 4.5])
def test_the_largest_specific_heat_by_all_states(h: float) -> None:
    t, c = hottest_in_field((3, 4), h)
    assert c == pytest.approx(enumerated((3, 4), t, h).c, abs=1e-7)
    for other in np.arange(1.0, 12.0, 0.25):
        assert enumerated((3, 4), float(other), h).c <= c + 1e-9
    assert enumerated((3, 4), t + 0.05, h).c < c
    assert enumerated((3, 4), t - 0.05, h).c < c


def test_the_line_begins_at_the_hottest_without_a_field() -> None:
    assert hottest_in_field((6, 6), 0.0) == pytest.approx(hottest(6), abs=1e-3)
    high = hottest_in_field(SHAPE, 2.0)[0]
    assert high == pytest.approx(4.5567, abs=0.02), "of 10 x 10, where the field cuts correlations off"
    assert high - hottest_in_field(SHAPE, 0.5)[0] > 1


def test_spins_so_cold_that_t_and_h_cannot_be_told_have_no_place() -> None:
    t, h = 1.0, 3.0
    place = place_of(*moments_in_field(SHAPE, t, h), SHAPE)
    assert not place.found or place.t == pytest.approx(t, abs=0.01)


def test_the_corner_of_a_training_grid_has_its_place() -> None:
    place = place_of(*moments_in_field(SHAPE, 3.0, 4.0), SHAPE)
    assert place.found
    assert place.t == pytest.approx(3.0, abs=0.01)


def test_large_fields_have_their_own_largest_specific_heat() -> None:
    t, c = hottest_in_field((3, 4), 8.0)
    assert max(enumerated((3, 4), float(x), 8.0).c for x in np.arange(t, t + 4, 0.1)) <= c + 1e-9
