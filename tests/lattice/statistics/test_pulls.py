"""Differences in units of their error: means of chains cover, thresholds hold for many at once."""

import math

import numpy as np
import pytest
import scipy.stats
from series import ar1, assert_coverage

from lattice.statistics.gamma import gamma_method
from lattice.statistics.pulls import mean_of_chains, pull, sidak_threshold, sigmas_of


def test_means_of_chains_cover_as_sigmas_of_says():
    """12 chains of 20 tau_int each: Student t of 11 degrees of freedom, told as sigmas of a normal law."""
    found = []
    for seed in range(400):
        data = ar1(np.random.default_rng([51, seed]), 90, 0.8, (12,)).T
        mean, error, dof = mean_of_chains(list(data))
        assert dof == 11
        found.append(sigmas_of(mean, error, dof))
    assert_coverage(np.array(found))
    naive = ar1(np.random.default_rng(52), 90, 0.8, (400, 12))  # all configurations called independent
    with pytest.raises(AssertionError):
        assert_coverage(naive.mean(axis=(0, 2)) / (naive.std(axis=(0, 2)) / math.sqrt(90 * 12)))


def test_few_chains_are_left_to_the_gamma_method():
    data = ar1(np.random.default_rng(53), 2000, 0.8, (4,)).T
    mean, error, dof = mean_of_chains(list(data))
    estimate = gamma_method(data[:, :, None])
    assert (mean, error, dof) == (estimate.value, estimate.error, math.inf)


@pytest.mark.parametrize("dof", [3, 11, 100])
def test_sigmas_have_the_probability_of_student_t(dof):
    for t in (0.5, 2.0, 6.0):
        sigmas = sigmas_of(-t, 1.0, dof)
        assert scipy.stats.norm.sf(sigmas) == pytest.approx(scipy.stats.t.sf(t, dof), rel=1e-9)
        assert sigmas < t == sigmas_of(t, 1.0, math.inf)
    assert sigmas_of(0.0, 0.0, dof) == 0.0
    assert sigmas_of(1e-9, 0.0, dof) == math.inf


def test_the_largest_of_many_pulls_exceeds_its_threshold_as_often_as_said():
    """2000 tables of 24 rows at 5 %, within 4 binomial errors; the threshold of one row fails."""
    rng, n, p = np.random.default_rng(54), 2000, 0.05
    a, b = rng.normal(size=(2, n, 24)) * np.array([0.3, 0.4])[:, None, None]
    largest = np.abs([[pull(x, 0.3, y, 0.4) for x, y in zip(*rows)] for rows in zip(a, b)]).max(axis=1)
    allowed = 4 * math.sqrt(p * (1 - p) / n)
    assert abs(np.mean(largest > sidak_threshold(24, p)) - p) < allowed
    assert np.mean(largest > sidak_threshold(1, p)) > p + 10 * allowed
