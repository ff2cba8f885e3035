"""Fits in the step size: their errors are right, bad ones are not trusted."""

import numpy as np
import pytest
import scipy.stats

from lattice.errors import InputError
from lattice.statistics.extrapolation import extrapolate_step


@pytest.mark.parametrize("order", [1, 2])
def test_extrapolation_errors_are_right(order):
    """Pulls of value and slope ~ N(0, 1) and p-values uniform, over 2000 synthetic sets of points."""
    rng = np.random.default_rng(3)
    h, e = np.array([0.01, 0.02, 0.04, 0.05, 0.08]), np.array([0.03, 0.01, 0.02, 0.01, 0.02])
    line = 1.5 - 2.0 * h + (0 if order == 1 else 7.0 * h**2)
    fits = [extrapolate_step(h, line + e * rng.normal(size=5), e, order) for _ in range(2000)]
    for values in (
        [(f.value - 1.5) / f.error for f in fits],
        [(f.slopes[0] + 2.0) / f.slope_errors[0] for f in fits],
    ):
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-4
    assert scipy.stats.kstest([f.p_value for f in fits], "uniform").pvalue > 1e-4
    assert all(f.dof == 4 - order and len(f.slopes) == order for f in fits)


def test_a_bad_fit_is_not_trusted():
    h = np.array([0.1, 0.2, 0.3, 0.4])
    curved = extrapolate_step(h, 1 + h**2, np.full(4, 1e-3))
    assert not curved.trusted
    assert curved.p_value < 1e-3
    assert "order 1" in curved.reason
    cured = extrapolate_step(h, 1 + h**2, np.full(4, 1e-3), order=2)
    assert cured.trusted
    assert cured.value == pytest.approx(1.0, abs=1e-12)
    assert cured.slopes == pytest.approx((0.0, 1.0), abs=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [0.1, 0.2], "values": [1, 1], "errors": [1, 1]}, "at least 3 steps, got 2"),
        ({"order": 2}, "at least 4 steps"),
        ({"order": 0}, "order .* must be >= 1"),
        ({"values": [1.0, np.nan, 1.0]}, "values .* must be finite"),
        ({"errors": [1.0, np.inf, 1.0]}, "errors .* must be finite"),
        ({"errors": [1.0, 0.0, 1.0]}, "errors .* must be positive"),
        ({"steps": [0.1, 0.1, 0.2]}, "positive and distinct"),
        ({"steps": [0.0, 0.1, 0.2]}, "positive and distinct"),
        ({"values": [1.0, 1.0]}, "1-d and alike"),
    ],
)
def test_extrapolation_refuses(change, message):
    args = {"steps": [0.1, 0.2, 0.3], "values": [1.0, 1.0, 1.0], "errors": [0.1, 0.1, 0.1], **change}
    with pytest.raises(InputError, match=message):
        extrapolate_step(**args)
