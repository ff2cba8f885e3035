"""Potts thermometers against sums over all states, and of two states against the exact ones of Ising."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from diffsq.analysis.potts_thermometers import PottsValues, potts_values
from diffsq.analysis.thermometers import NAMES, Curve, exact_values
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.ising import potts_torus

WARM = [0.7, 1.0, 1.4]


def enumerated(q: int, shape: tuple[int, int], t: float) -> Floats:
    """e, |m|, m^2 and c1 of all states."""
    s = np.array(list(itertools.product(range(q), repeat=shape[0] * shape[1]))).reshape(-1, *shape)
    alike = [(s == np.roll(s, 1, axis)).mean((1, 2)) for axis in (1, 2)]
    far = np.mean([(s == np.roll(s, shape[axis - 1] // 2, axis)).mean((1, 2)) for axis in (1, 2)], axis=0)
    shares = np.array([(s == a).mean((1, 2)) for a in range(q)])
    e, m = -np.sum(alike, axis=0), (q * shares.max(0) - 1) / (q - 1)
    m2 = (q * (shares**2).sum(0) - 1) / (q - 1)
    w = np.exp(-(e - e.min()) * s[0].size / t)
    c1 = q / (q - 1) * (np.mean(alike, axis=0) - far)  # both correlations are (q <delta> - 1)/(q - 1)
    return np.array([w @ x / w.sum() for x in (e, m, m2, c1)])


@pytest.fixture(scope="module")
def three() -> PottsValues:
    return potts_values(3, (2, 4), [0.0, *WARM], 4)


def test_a_transfer_matrix_is_solved_once_for_each_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is all the time that values of 4^5 states of a row take: T = 0 needs none, others three between."""
    solved, solve = [], np.linalg.eigh

    def counted(matrix: Floats) -> tuple[Floats, Floats]:
        solved.append(len(matrix))
        return solve(matrix)

    monkeypatch.setattr(np.linalg, "eigh", counted)
    potts_values(3, (2, 2), [0.0, *WARM], 4)
    assert solved == [9] * (1 + 4 * (len(WARM) - 1))


def test_values_by_all_states(three: PottsValues) -> None:
    """e to rounding, the rest within 4.5 sigma; those of the next temperature are 10 off."""
    known = np.array([enumerated(3, (2, 4), t) for t in WARM])
    np.testing.assert_allclose(three.values[1:, 0], known[:, 0], atol=1e-11)
    assert (three.errors[1:, 0] == 0).all()
    off = (three.values[1:, 1:] - known[:, 1:]) / three.errors[1:, 1:]
    assert np.abs(off).max() < 4.5
    assert (three.errors[1:, 1:] < 0.01).all()
    shifted = (three.values[2:, 1:3] - known[:-1, 1:3]) / three.errors[2:, 1:3]
    assert np.abs(shifted).min() > 10
    assert known[1, 3] / three.errors[2, 3] > 10, "c1 is measured, not taken for 0"


def test_the_ground_state(three: PottsValues) -> None:
    np.testing.assert_array_equal(three.values[0], [-2, 1, 1, 0])
    np.testing.assert_array_equal(three.errors[0], 0)
    known = {"e": -2, "abs_m": 1, "m2": 1, "c1": 0}
    assert three.at(0.0) == known | {f"{name}_error": 0 for name in NAMES}


def test_two_states_are_ising_at_half_the_temperature() -> None:
    """e = e_Ising/2 - 1, the order and c1 the same, exactly known."""
    temperatures = [0.8, 1.2, 2.0]
    found = potts_values(2, (4, 4), temperatures, 5)
    known = np.array([[exact_values(2 * t, (4, 4))[name] for name in NAMES] for t in temperatures])
    np.testing.assert_allclose(found.values[:, 0], known[:, 0] / 2 - 1, atol=1e-11)
    assert np.abs((found.values - known) / np.where(found.errors > 0, found.errors, np.inf)).max() < 4.5


def test_curves_are_inverted(three: PottsValues) -> None:
    """Its own values read as their temperatures, with the error of the curve; between and beyond."""
    for name in ("e", "abs_m"):
        curve = three.curve(name)
        for i, t in enumerate(three.t[:-1]):
            value, error = three.values[i, NAMES.index(name)], three.errors[i, NAMES.index(name)]
            reading = curve.read(float(value))
            assert reading.t == pytest.approx(t, abs=1e-9)
            assert (reading.error > 0) is bool(error > 0)
    between = three.curve("e").read(potts_torus((2, 4), 3, 1.2).e)
    assert between.t == pytest.approx(1.2, abs=1e-6), "one of the temperatures of e"
    assert three.curve("e").read(-0.5).t == np.inf
    at = three.at(1.0)
    assert (at["abs_m"], at["abs_m_error"]) == (three.values[2, 1], three.errors[2, 1])
    assert at["abs_m_error"] > at["e_error"] == 0


def test_the_energy_is_known_between_temperatures(three: PottsValues) -> None:
    """Exactly at three between any two, T = 0 left out; temperatures read in the middle of these are right to
    1e-4 (the coldest to 0.005), of the curve of the given ones they are out by 0.02."""
    t, e = three.fine
    assert {0.0, *WARM} <= set(t.tolist())
    assert len(t) == 2 + 2 * 4
    known = [enumerated(3, (2, 4), x)[0] for x in t[1:].tolist()]
    np.testing.assert_allclose(e, [-2.0, *known], atol=1e-11)
    middle, coarse = ((t[1:] + t[:-1]) / 2)[1:].tolist(), Curve(three.t, three.values[:, 0])
    known = [enumerated(3, (2, 4), x)[0] for x in middle]
    off = [three.curve("e").read(y).t - x for x, y in zip(middle, known, strict=True)]
    assert abs(off[0]) < 0.005
    assert np.abs(off[1:]).max() < 1e-4
    assert max(abs(coarse.read(y).t - x) for x, y in zip(middle, known, strict=True)) > 0.02


def test_numbers_depend_on_seed_and_place_alone(three: PottsValues) -> None:
    again = potts_values(3, (2, 4), [0.0, 0.7], 4)
    np.testing.assert_array_equal(again.values, three.values[:2])
    other = potts_values(3, (2, 4), [0.0, 0.7], 5)
    assert (other.values[1, 1:] != three.values[1, 1:]).all()


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="at most 2048 states; 5 states on 5 have 3125"):
        potts_values(5, (5, 5), [1.0], 1)
    for t in (-1.0, float("nan")):
        with pytest.raises(InputError, match="temperature must be"):
            potts_values(3, (2, 4), [t], 1)
    with pytest.raises(InputError, match="^q >= 2"):
        potts_values(1, (4, 4), [1.0], 1)


def test_the_ends_of_a_curve_are_read() -> None:
    """Of 50 curves the values at both ends, as those of a mixture of one temperature are."""
    for seed in range(50):
        t = np.arange(5.0) + 0.3 * seed
        curve = Curve(t, np.sort(np.random.default_rng(seed).normal(size=5)))
        for end in (0, -1):
            assert curve.read(float(curve.values[end])).t == pytest.approx(t[end], abs=1e-9)


def test_frozen_temperatures_are_left_out_of_a_thermometer() -> None:
    """At T = 0 and 0.1 all spins are alike: one of the two is kept, and others are read."""
    found = potts_values(3, (3, 3), [0.0, 0.1, 0.6, 1.0, 1.6], 1)
    for name, t in (("e", found.fine[0][1:]), ("abs_m", found.t[1:])):
        curve = found.curve(name)
        np.testing.assert_array_equal(curve.t, t)
        assert curve.t[0] == 0.1
        assert len(curve.t) == (13 if name == "e" else 4)
        assert curve.read(found.at(1.0)[name]).t == pytest.approx(1.0, abs=1e-6)
