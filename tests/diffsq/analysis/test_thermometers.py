"""Exact thermometers of Ising tori: inverses, errors, tables to digits, the mixture of a training grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_spins import enumerated

from diffsq.analysis.thermometers import (
    COLDER,
    HOTTER,
    Curve,
    exact_values,
    far_correlation,
    mixture,
    read_energy,
    read_magnetisation,
)
from lattice.errors import InputError
from lattice.exact.ising import CRITICAL, magnetisation_law, magnetisation_moments, torus

EIGHT = (8, 8)


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("t", [1.2, CRITICAL, 5.0])
def test_far_correlation_by_all_states(size: int, t: float) -> None:
    states, p = enumerated(size, t)
    s = states.reshape(-1, size, size)
    known = float((p * (s * np.roll(s, size // 2, 2)).mean((1, 2))).sum())
    assert far_correlation(size, t) == pytest.approx(known, abs=1e-13)
    near = float((p * (s * np.roll(s, 1, 2)).mean((1, 2))).sum())
    found = exact_values(t, (size, size))
    assert found["c1"] == pytest.approx(near - known, abs=1e-12)
    assert found["e"] == pytest.approx(-2 * near, abs=1e-12)
    assert found["abs_m"] == pytest.approx(float((p * np.abs(s.mean((1, 2)))).sum()), abs=1e-12)


def test_neighbours_without_the_far_of_ten_by_ten() -> None:
    """c1 at four temperatures, by Monte Carlo of another program."""
    for t, known in ((2.0, 0.041), (CRITICAL, 0.147), (2.5, 0.278), (3.0, 0.346)):
        assert -torus((10, 10), t).e / 2 - far_correlation(10, t) == pytest.approx(known, abs=3e-3)


@pytest.mark.parametrize("t", [0.6, 1.5, CRITICAL, 3.0, 40.0])
def test_exact_curves_are_inverted(t: float) -> None:
    """T_E to rounding, T_m by the table to 1e-4 of T where |m| falls; errors by the derivatives."""
    e, abs_m = torus(EIGHT, t).e, magnetisation_moments(magnetisation_law(EIGHT, t))["abs_m"]
    one, other = read_energy(e, 1e-3, EIGHT), read_magnetisation(abs_m, 1e-3, EIGHT)
    assert one.t == pytest.approx(t, rel=1e-3 if t < 1 else 1e-7)
    assert one.error == pytest.approx(1e-3 / torus(EIGHT, t).c, rel=1e-2)
    if 1 < t < 10:
        assert other.t == pytest.approx(t, rel=1e-4)
        h = 1e-4
        up, down = (magnetisation_moments(magnetisation_law(EIGHT, t + x))["abs_m"] for x in (h, -h))
        assert other.error == pytest.approx(1e-3 * 2 * h / abs(up - down), rel=1e-2)


def test_beyond_every_temperature() -> None:
    for value in (-2.0, -2.1):
        assert read_energy(value, 0.1, EIGHT) == COLDER
    for value in (0.0, 0.4):
        assert read_energy(value, 0.1, EIGHT) == HOTTER
    assert read_magnetisation(1.0, 0.1, EIGHT) == COLDER
    free = exact_values(math.inf, EIGHT)["abs_m"]
    assert read_magnetisation(free - 1e-9, 0.1, EIGHT) == HOTTER
    assert read_magnetisation(free + 0.01, 0.1, EIGHT).t < 100
    assert (COLDER.t, HOTTER.t) == (0.0, math.inf)
    for reader in (read_energy, read_magnetisation):
        with pytest.raises(InputError, match="read off NaN"):
            reader(math.nan, 0.1, EIGHT)


def test_free_spins_and_the_ground_state() -> None:
    free = exact_values(math.inf, (3, 3))
    states, _ = enumerated(3, 1.0)
    assert free["abs_m"] == pytest.approx(float(np.abs(states.mean(1)).mean()), abs=1e-14)
    assert (free["e"], free["c1"]) == (0.0, 0.0)
    assert exact_values(0.0, (3, 3)) == {"e": -2.0, "abs_m": 1.0, "m2": 1.0, "c1": 0.0}


# grid and T_E of 10 x 10, from another program
GRIDS = (
    (np.arange(0, 6.01, 0.25), 2.5616), (np.r_[0:2.01:0.25, 4:6.01:0.25], 2.4916),
    (np.arange(4, 6.01, 0.25), 4.8972), (np.arange(0, 2.01, 0.25), 1.5010),
    (np.arange(0, 3.01, 0.25), 2.0646), (np.arange(1, 3.51, 0.25), 2.3267),
)  # fmt: skip


def test_mixtures_of_training_grids() -> None:
    """The null hypothesis: e and T_E to the digits of its table, <|m|> to 5e-5; none is at T_c, and no two
    thermometers agree, since a mixture has no temperature."""
    for i, (grid, t_e) in enumerate(GRIDS):
        found = mixture(grid, (10, 10))
        assert found["t_e"] == pytest.approx(t_e, abs=6e-5)
        assert abs(found["t_e"] - CRITICAL) > 0.05
        assert abs(found["t_e"] - found["t_m"]) > 0.015
        if i in (0, 5):  # the transfer matrix itself at T_m
            law = magnetisation_law((10, 10), found["t_m"])
            assert magnetisation_moments(law)["abs_m"] == pytest.approx(found["abs_m"], abs=5e-5)
        if i == 0:
            assert found["e"] == pytest.approx(-1.119016, abs=6e-7)
            assert found["abs_m"] == pytest.approx(0.506769, abs=5e-6)
            assert found["t_m"] == pytest.approx(2.5365, abs=1e-4)


def test_a_mixture_is_the_mean_of_its_parts() -> None:
    t, shape = (0.0, 1.4, 2.6, math.inf), (6, 6)
    found, parts = mixture(t, shape), [exact_values(x, shape) for x in t]
    for name in ("e", "abs_m", "m2", "c1"):
        assert found[name] == pytest.approx(np.mean([part[name] for part in parts]), abs=1e-4)
    one = mixture([2.4], shape)
    assert one["t_e"] == pytest.approx(2.4, abs=1e-9)
    assert one["t_m"] == pytest.approx(2.4, abs=1e-3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_measured_curve(sign: float) -> None:
    """Of a falling and a rising quantity; the error of the curve and that of the value in quadrature."""
    t = np.linspace(0.5, 2.0, 16)
    curve = Curve(t, sign * t**2, np.full(16, 0.03))
    found = curve.read(sign * 1.21, 0.04)
    assert found.t == pytest.approx(1.1, abs=1e-3)
    assert found.error == pytest.approx(0.05 / 2.2, rel=0.02)
    assert curve.read(sign * 0.2) == COLDER
    assert curve.read(sign * 4.1) == HOTTER
    assert Curve(t, sign * t).read(sign * 1.0).error == 0


def test_what_is_no_thermometer() -> None:
    t = np.array([1.0, 2.0, 3.0])
    for values, errors, words in (
        ([1.0, 2.0, 2.0], [], "rise or fall throughout"), ([1.0, 3.0, 2.0], [], "rise or fall throughout"),
        ([1.0, 2.0], [], "three points or more"), ([1.0, 2.0, 3.0], [0.1], "as many errors or none"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            Curve(t, np.array(values), np.array(errors))
    with pytest.raises(InputError, match="rising T"):
        Curve(t[::-1], t)
    with pytest.raises(InputError, match="read off NaN"):
        Curve(t, t).read(math.nan)
    for shape in ((4, 6), (14, 14), (2, 2)):
        with pytest.raises(InputError, match="square tori of 3 to 12"):
            read_magnetisation(0.5, 0.1, shape)
    for grid in ([], [-1.0], [math.nan]):
        with pytest.raises(InputError):
            mixture(grid, (4, 4))
    with pytest.raises(InputError, match="temperature must be positive"):
        far_correlation(4, 0.0)
