"""The general recursion against laws whose cumulants are known."""

import math

import numpy as np
import pytest

from lattice.errors import InputError
from lattice.statistics.cumulants import (
    cumulant,
    cumulant_ratio,
    cumulant_ratio_z2,
    cumulants_from_moments,
    moments_from_cumulants,
)
from lattice.statistics.gamma import gamma_method

TWO_PEAKS = [0, 1.0625, 0, -2, 0, 16, 0, -272]  # mu = 1, s = 1/4


def sample_moments(x, order=8):
    return np.array([np.mean(x**n) for n in range(1, order + 1)])


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
    np.testing.assert_allclose(kappa, TWO_PEAKS, atol=1e-11)


def test_explicit_low_orders():
    m1, m2, m3, m4 = 0.3, 1.1, 0.7, 2.9
    np.testing.assert_allclose(
        cumulants_from_moments([m1, m2, m3, m4]),
        [
            m1,
            m2 - m1**2,
            m3 - 3 * m2 * m1 + 2 * m1**3,
            m4 - 4 * m3 * m1 - 3 * m2**2 + 12 * m2 * m1**2 - 6 * m1**4,
        ],
        rtol=1e-13,
    )


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
    np.testing.assert_allclose(back[1, 0], cumulants_from_moments(moments[1, 0]), rtol=1e-10)
    assert cumulants_from_moments(moments.real).dtype == np.float64


def test_one_cumulant_and_its_ratio():
    m = moments_from_cumulants([0.3, 1.7, -0.4, 0.9, 2.0, -3.0, 1.1, 0.5])
    kappa = cumulants_from_moments(m)
    for n in range(1, 9):
        assert cumulant(m[:n]) == pytest.approx(kappa[n - 1], rel=1e-9, abs=1e-9)
    for n in range(2, 9):
        assert cumulant_ratio(m[:n]) == pytest.approx(kappa[n - 1] / 1.7 ** (n / 2), rel=1e-9, abs=1e-9)
    assert math.isnan(cumulant_ratio(np.array([1.0, 1.0, 1.0])))  # a constant: kappa_2 = 0


@pytest.mark.parametrize("order", [4, 6, 8])
def test_z2_ratio_is_exact_for_a_symmetric_law_and_wrong_for_another(order):
    symmetric = moments_from_cumulants(TWO_PEAKS)[:order]
    assert cumulant_ratio_z2(symmetric[1::2]) == pytest.approx(cumulant_ratio(symmetric), rel=1e-11)
    # negative control: Exp(1) has odd moments
    shifted = np.array([float(math.factorial(n)) for n in range(1, order + 1)])
    assert cumulant_ratio(shifted) == pytest.approx(math.factorial(order - 1), rel=1e-9)
    assert abs(cumulant_ratio_z2(shifted[1::2]) / math.factorial(order - 1) - 1) > 0.2


def test_z2_ratio_in_the_broken_phase():
    """Slow flips between two narrow peaks: unequal populations dominate the general ratio, not the other."""
    truth = {4: -2 / 1.0625**2, 6: 16 / 1.0625**3}
    pulls, errors = {4: [], 6: []}, {4: [], 6: []}
    for seed in range(200):
        rng = np.random.default_rng([51, seed])
        sign = np.where(np.cumsum(rng.random(2000) < 0.2) % 2, 1.0, -1.0)
        x = sign + 0.25 * rng.normal(size=2000)
        powers = x[:, None] ** np.arange(1, 7)
        for n in (4, 6):
            z2 = gamma_method([powers[:, 1:n:2]], cumulant_ratio_z2)
            general = gamma_method([powers[:, :n]], cumulant_ratio)
            pulls[n].append((z2.value - truth[n]) / z2.error)
            errors[n].append((abs(z2.value - truth[n]), abs(general.value - truth[n])))
    for n in (4, 6):
        p, (z2, general) = np.array(pulls[n]), np.array(errors[n]).T
        assert abs(p.mean()) < 4 / math.sqrt(200)
        assert abs(p.std() - 1) < 4 / math.sqrt(400)
        assert np.sqrt(np.mean(general**2) / np.mean(z2**2)) > 1.5


def test_the_input_is_left_alone():
    moments = np.array([1.0, 2.0, 6.0])
    cumulants_from_moments(moments)
    np.testing.assert_array_equal(moments, [1.0, 2.0, 6.0])


def test_empty_input_is_refused():
    with pytest.raises(InputError, match="m_1..m_n"):
        cumulants_from_moments([])
    with pytest.raises(InputError, match="n >= 1"):
        moments_from_cumulants([])
