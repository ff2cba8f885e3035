"""The general recursion against laws whose cumulants are known."""

import math

import numpy as np
import pytest

from lattice.cumulants import cumulants_from_moments, moments_from_cumulants, sample_moments
from lattice.errors import InputError


def test_exponential_law_needs_the_odd_moments():
    moments = np.array([float(math.factorial(n)) for n in range(1, 9)])
    kappa = cumulants_from_moments(moments)
    np.testing.assert_allclose(kappa, [math.factorial(n - 1) for n in range(1, 9)], rtol=1e-12)
    # negative control: without the odd moments the same recursion misses already the variance
    even_only = np.where(np.arange(1, 9) % 2 == 0, moments, 0.0)
    assert abs(cumulants_from_moments(even_only)[5] - 120) > 100


def test_two_peaks_of_the_reference():
    """Half of N(mu, s^2) and of N(-mu, s^2), mu = 1, s = 1/4: kappa_2,4,6,8 = 1.0625, -2, 16, -272."""
    peak = moments_from_cumulants([1.0, 0.0625, 0, 0, 0, 0, 0, 0])
    moments = np.where(np.arange(1, 9) % 2 == 0, peak, 0.0)
    kappa = cumulants_from_moments(moments)
    np.testing.assert_allclose(kappa, [0, 1.0625, 0, -2, 0, 16, 0, -272], atol=1e-11)


def test_explicit_low_orders():
    m1, m2, m3, m4 = 0.3, 1.1, 0.7, 2.9
    np.testing.assert_allclose(cumulants_from_moments([m1, m2, m3, m4]), [
        m1, m2 - m1**2, m3 - 3 * m2 * m1 + 2 * m1**3,
        m4 - 4 * m3 * m1 - 3 * m2**2 + 12 * m2 * m1**2 - 6 * m1**4], rtol=1e-13)


def test_shift_changes_the_mean_only_and_sums_add():
    rng = np.random.default_rng(1)
    x = rng.gamma(2.0, size=1000)
    a, b = (cumulants_from_moments(sample_moments(y)) for y in (x, x + 0.5))
    assert b[0] == pytest.approx(a[0] + 0.5)
    np.testing.assert_allclose(a[1:], b[1:], rtol=1e-8)
    samples = rng.normal(size=7), rng.gamma(2.0, size=11)
    one, two = (cumulants_from_moments(sample_moments(y)) for y in samples)
    moments_of_sum = moments_from_cumulants(one + two)
    assert moments_of_sum[1] == pytest.approx(one[1] + two[1] + (one[0] + two[0]) ** 2)


def test_inverse_recursion_leading_axes_and_complex():
    kappa = np.random.default_rng(2).normal(size=(3, 2, 8)) + 1j
    moments = moments_from_cumulants(kappa)
    back = cumulants_from_moments(moments)
    np.testing.assert_allclose(back, kappa, atol=1e-8)
    np.testing.assert_allclose(back[1, 0], cumulants_from_moments(moments[1, 0]), rtol=1e-15)
    assert cumulants_from_moments(moments.real).dtype == np.float64


def test_sample_moments_over_the_first_axis():
    x = np.random.default_rng(3).normal(size=(50, 4))
    np.testing.assert_allclose(sample_moments(x, 4)[2], [np.mean(x[:, 2] ** n) for n in (1, 2, 3, 4)])


def test_the_input_is_left_alone():
    moments = np.array([1.0, 2.0, 6.0])
    cumulants_from_moments(moments)
    np.testing.assert_array_equal(moments, [1.0, 2.0, 6.0])


def test_empty_input_is_refused():
    with pytest.raises(InputError, match="m_1..m_n"):
        cumulants_from_moments([])
    with pytest.raises(InputError, match="n >= 1"):
        sample_moments(np.empty((0, 3)))
