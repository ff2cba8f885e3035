"""Importance weights: the effective sample size against its exact value, and what is refused."""

import math

import numpy as np
import pytest
from series import wide_gaussian

from lattice.errors import InputError
from lattice.statistics.gamma import EstimatorError
from lattice.statistics.weights import check_log_weights, effective_sample_size, normalised_weights


def test_ess_against_its_exact_value():
    s = 1.4
    exact = math.sqrt(2 * s**2 - 1) / s**2  # <w>^2/<w^2> of the two Gaussians
    pulls = []
    for seed in range(200):
        ess, error = effective_sample_size(wide_gaussian(seed)[1])
        pulls.append((ess - exact) / error)
    pulls = np.array(pulls)
    assert abs(pulls.mean()) < 0.3
    assert abs(pulls.std() - 1) < 4 / math.sqrt(400)


def test_ess_does_not_depend_on_the_norm_and_falls_with_the_width():
    _, logw = wide_gaussian(0)
    ess, error = effective_sample_size(logw)
    shifted = effective_sample_size(logw - 1e5)
    assert shifted == (pytest.approx(ess, rel=1e-9), pytest.approx(error, rel=1e-6))
    assert effective_sample_size(2 * logw)[0] < ess - 10 * error
    one = np.zeros(1000)
    one[3] = 800.0  # all the weight on one sample
    assert effective_sample_size(one)[0] == pytest.approx(1 / 1000)


def test_weights_are_at_most_one():
    weights = normalised_weights([700.0, 710.0, -1e4])
    assert weights.tolist() == [math.exp(-10.0), 1.0, 0.0]


def test_refusals():
    bad = [math.nan, math.inf, -math.inf, *[0.0] * 197]
    for refuse in (effective_sample_size, normalised_weights, check_log_weights):
        with pytest.raises(EstimatorError, match="3 of 200 log-weights are NaN or infinite"):
            refuse(bad)
    with pytest.raises(InputError, match=r"need 2 or more log-weights in an \(n,\) array, got shape \(1,\)"):
        check_log_weights([0.0])
    with pytest.raises(InputError, match=r"got shape \(5, 2\)"):
        effective_sample_size(np.zeros((5, 2)))
