"""A quantity that is zero up to rounding deviates from 0 by no sigmas; one that is not still does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffsq.run_folder.compare import compare
from lattice.certificates.check import equality, mean_is
from lattice.certificates.stationarity import drift_checks, start_checks
from lattice.statistics.gamma import EstimatorError
from lattice.statistics.jackknife import jackknife
from lattice.statistics.pulls import mean_and_error, mean_of_chains, pull, sigmas_of
from lattice.statistics.rounding import ROUNDING, rms, rounding_of, with_rounding

RNG = np.random.default_rng(3)
NOISE = RNG.normal(size=(16, 40))


def test_rms_of_numbers_whose_squares_are_none() -> None:
    for scale in (1e-200, 1.0, 1e200):
        assert rms(scale * NOISE) == pytest.approx(scale * math.sqrt((NOISE**2).mean()))
    assert rms(3j * np.ones(5)) == pytest.approx(3.0)
    assert rms(np.zeros(3)) == rms(np.zeros(0)) == 0.0


@pytest.mark.parametrize("tiny", [1e-186, 1e-40, 1e-17])
def test_rounding_is_no_deviation(tiny: float) -> None:
    """Means of terms of size 1 that leave 1e-17, with a scatter that is smaller still."""
    value, error = mean_and_error(tiny * (1 + 1e-3 * NOISE[0]), scale=1.0)
    assert sigmas_of(value, error, 15) < 1
    value, error, dof = mean_of_chains(list(tiny * (1 + 1e-3 * NOISE)), scale=1.0)
    assert sigmas_of(value, error, dof) < 1
    assert sigmas_of(tiny, 0.0, scale=1.0) < 1
    assert abs(pull(1.0 + 1e-15, 0.0, 1.0, 0.0)) < 1
    assert equality("x", 1.0 + tiny, 0.0, 15, 1.0)["passed"]


@pytest.mark.parametrize("size", [1e-186, 1e-10, 1.0])
def test_what_is_beyond_rounding_is_found(size: float) -> None:
    """Negative control: a shift by many of its own errors, whatever its size; and one without any error."""
    x = size * (1 + 0.01 * NOISE[0])
    assert sigmas_of(*mean_and_error(x)) > 100
    assert sigmas_of(1e-9, 0.0, scale=1.0) > 1000
    assert sigmas_of(1e-9, 1e-11, scale=1.0) == pytest.approx(100)
    assert pull(1.0 + 1e-9, 1e-11, 1.0, 0.0) == pytest.approx(100)
    assert not equality("x", 1.0 + 1e-9, 1e-11, math.inf, 1.0)["passed"]
    assert not mean_is("x", list(size * (1 + 0.1 * NOISE)), 0.0, "")["passed"]


def test_constants_up_to_rounding_have_not_drifted() -> None:
    """A series that never changes but for its last bit, in starts and halves of the run."""
    steady = 0.1 + 0.2 - 0.3 + 1.0 + 1e-16 * np.sign(NOISE)
    steady[:, 20:] = np.nextafter(steady[:, 20:], 2.0)
    names = ("abs_magnetization", "m2", "action_density", "phi2", "walls")
    data = {name: list(steady) for name in names}
    assert all(check["passed"] for check in drift_checks(data))
    starts = ["hot", "cold"] * 8
    assert all(
        check["passed"] for check in start_checks({**data, "magnetization": data["m2"]}, starts, False)
    )
    few = {name: list(steady[:4]) for name in names}
    assert all(check["passed"] for check in drift_checks(few))
    drifting = {name: list(steady + 1e-9 * np.arange(40)) for name in names}
    assert not any(check["passed"] for check in drift_checks(drifting))


def test_rounding_of_a_function_of_means() -> None:
    """kappa_4 = m4 - 3 m2^2 of a unit Gaussian is 0, of terms of size 3."""
    x = np.stack([NOISE[0] ** 2, NOISE[0] ** 4], axis=1)
    floor = rounding_of(lambda m: m[..., 1] - 3 * m[..., 0] ** 2, np.array([1.0, 3.0]), x)
    assert ROUNDING < floor < 100 * ROUNDING
    assert with_rounding(1.0, 1.0) == 1.0


def test_blocks_that_cancel_have_no_fluctuations() -> None:
    """+-1 in turn: every block gives 0 up to rounding, which is no error to divide by."""
    x = np.tile([1.0, -1.0, 0.1, -0.1], 100) + 1e-17
    with pytest.raises(EstimatorError, match="no fluctuations"):
        jackknife(x[None, :, None], block_length=4)
    assert jackknife(NOISE[:, :, None], block_length=4).error == pytest.approx(0.04, rel=0.3)


def test_tables_do_not_differ_by_rounding() -> None:
    def table(x: float, error: float) -> dict[str, object]:
        row = {"value": x, "error": error}
        return {"ensemble": {"action": None, "shape": [1]}, "observables": {"Re m2": row}}

    assert compare(table(0.3, 1e-18), table(0.1 + 0.2, 1e-18))["verdict"] == "agree"
    assert compare(table(0.3, 1e-11), table(0.3 + 1e-9, 1e-11))["verdict"] == "differ"
