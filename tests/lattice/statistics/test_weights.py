"""Importance weights: the effective sample size against its exact value, and what is refused."""

import math

import numpy as np
import pytest
from series import ar1, wide_gaussian

from lattice.errors import InputError
from lattice.statistics.gamma import EstimatorError
from lattice.statistics.jackknife import jackknife_weighted
from lattice.statistics.weights import (
    check_log_weights,
    distrusted,
    effective_sample_size,
    ess_words,
    largest_variance,
    log_moments,
    normalised_weights,
    spread_of,
)

N, RUNS = 2048, 400


def gaussian(v, runs=RUNS, n=N):
    """Log-weights (runs, n), normal with variance v and mean -v/2: ESS/N = e^-v, Z = 1."""
    z = np.random.default_rng([12, round(100 * v)]).normal(size=(runs, n))
    return -v / 2 + math.sqrt(v) * z


def block_jackknife_ess(logw):
    """What was quoted until 0.2: the block jackknife of (sum w)^2/(N sum w^2)."""
    w = np.exp(logw - logw.max()).reshape(128, -1)
    first, second, n = w.sum(1), (w**2).sum(1), w.size
    left_out = (first.sum() - first) ** 2 / ((n - w.shape[1]) * (second.sum() - second))
    error = math.sqrt((len(w) - 1) * left_out.var())
    return first.sum() ** 2 / (n * second.sum()), error


def misses(pairs, truth):
    """Fraction of (value, error) beyond three errors from the truth, and the mean pull."""
    value, error = np.array(pairs).T
    pulls = (value - truth) / error
    return float(np.mean(np.abs(pulls) > 3)), float(pulls.mean())


@pytest.mark.parametrize("v", [0.1, 0.5, 1.2, 1.5])
def test_errors_cover_the_truth_of_gaussian_log_weights(v):
    """At most 2 % beyond three errors (nominal 0.3 %, of 400 runs), mean pull below 0.3."""
    runs = gaussian(v)
    for estimate, truth in (
        (effective_sample_size, math.exp(-v)),
        (lambda x: log_moments(x, {1: 1.0}), 0.0),  # ln Z
        (lambda x: log_moments(x, {1: 1.0}, -1.0), v / 2),  # path KL
    ):
        beyond, mean = misses([estimate(x) for x in runs], truth)
        assert beyond <= 0.02
        assert abs(mean) < 0.3


def test_the_block_jackknife_alone_does_not_cover():
    """Negative control: the errors of 0.2 fail the gate at v = 1.2, and pass at 0.1."""
    beyond, mean = misses([block_jackknife_ess(x) for x in gaussian(1.2)], math.exp(-1.2))
    assert beyond > 0.04
    assert mean > 0.5
    beyond, mean = misses([block_jackknife_ess(x) for x in gaussian(0.1)], math.exp(-0.1))
    assert beyond <= 0.02
    assert abs(mean) < 0.3


def test_errors_cover_in_a_correlated_series():
    """AR(1), tau_int = 3/2: the jackknife's blocks and the number of independent samples see it."""
    v, rng = 1.2, np.random.default_rng(5)
    runs = [-v / 2 + math.sqrt(v) * ar1(rng, N, 0.5) for _ in range(RUNS)]
    beyond, mean = misses([effective_sample_size(x) for x in runs], math.exp(-v))
    assert beyond <= 0.02
    assert abs(mean) < 0.3


def scatter(estimate, runs):
    """rms of the quoted errors over the standard deviation of the values, of 300 runs known to 4 %."""
    value, error = np.array([estimate(x) for x in runs]).T
    return math.sqrt(float(np.mean(error**2))) / float(value.std())


@pytest.mark.parametrize("skew", [0.0, 1.0, -1.0])
def test_what_cancels_in_ess_and_path_kl_cancels_in_their_errors(skew):
    """Both are of second order in a small ln w. Tails that differ, of a skewed law or by chance, left a part
    of first order in the error: 2.4 times too large for a Gaussian ln w, and 9 (path KL), 4 (forward ESS) for
    a skewed one."""
    rng = np.random.default_rng(15)
    z = rng.normal(size=(300, N)) if skew == 0 else skew * (rng.gamma(4.0, size=(300, N)) - 4) / 2
    for powers, mean in (({1: 1.0}, -1.0), ({1: 2.0, 2: -1.0}, 0.0), ({1: -1.0, -1: -1.0}, 0.0)):
        assert 0.8 < scatter(lambda x, a=powers, b=mean: log_moments(x, a, b), 0.1 * z) < 1.2
    assert 0.8 < scatter(lambda x: log_moments(x, {1: 1.0}), 0.1 * z) < 1.2  # ln Z is of first order


def test_the_square_of_ln_w_decorrelates_faster():
    """Forward ESS of chains with tau_int = 3: with the autocorrelation of ln w 1.36 times too large."""
    rng, rho, (n, chains) = np.random.default_rng(16), 5 / 7, (4096, 16)
    runs = [
        np.stack([ar1(rng, n // chains, rho) for _ in range(chains)], 1).reshape(-1) / math.sqrt(2)
        for _ in range(300)
    ]
    chain = np.arange(n) % chains
    assert 0.85 < scatter(lambda x: log_moments(x, {1: -1.0, -1: -1.0}, chain=chain), runs) < 1.2
    assert 0.85 < scatter(lambda x: log_moments(x, {-1: -1.0}, chain=chain), runs) < 1.2


@pytest.mark.parametrize("v", [0.5, 1.2])
@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_errors_of_weighted_means_cover(v, rho):
    """Of x with correlation rho with ln w, <x> = rho sqrt(v); at rho = 1 the ratio's O(1/N) bias shows."""
    rng, pairs = np.random.default_rng(8), []
    for logw in gaussian(v, 200):
        z = (logw + v / 2) / math.sqrt(v)
        found = jackknife_weighted(rho * z + math.sqrt(1 - rho**2) * rng.normal(size=N), logw)
        pairs.append((found.value, found.error))
    beyond, mean = misses(pairs, rho * math.sqrt(v))
    assert beyond <= 0.02
    assert abs(mean) < 0.4


def test_a_long_lower_tail_does_not_widen_the_error():
    """ln w = -20 for a tenth of the samples: Var ln w is 36, the ESS is 0.9 and known well."""
    logw = np.where(np.random.default_rng(3).random(N) < 0.1, -20.0, 0.0)
    ess, error = effective_sample_size(logw)
    assert ess == pytest.approx(np.mean(logw == 0), rel=1e-3)
    assert error == pytest.approx(math.sqrt(0.09 / N), rel=0.3)
    assert distrusted(logw) == []


def test_the_error_of_a_hopeless_ess_reaches_zero_and_no_further():
    ess, error = effective_sample_size(gaussian(9.0, 1)[0])
    assert 0 < error <= ess
    value, error = log_moments(gaussian(9.0, 1)[0], {1: 1.0})  # ln Z = 0, most of it never seen
    assert abs(value) < 3 * error < 30


@pytest.mark.parametrize("v", [0.1, 1.2, 1.5])
def test_weights_that_can_be_trusted_are(v):
    assert not any(distrusted(x) for x in gaussian(v, 20))


def test_weights_that_cannot_be_trusted_are_named():
    """From (e^{4v} - 1)/N = 1/2 on; more samples bear more."""
    assert largest_variance(N) == pytest.approx(math.log(1 + N / 2) / 4)
    for logw in gaussian(2.2, 20):
        (line,) = distrusted(logw)
        assert "Var log w = " in line
        assert "N = 2048" in line
        assert "take N >= 2 e^(4 Var log w) = " in line
    assert distrusted(gaussian(2.2, 1, 65536)[0]) == []
    assert "N = 100 samples" in distrusted(gaussian(1.2, 1, 100)[0])[0]
    one = 0.1 * gaussian(1.0, 1)[0]
    one[7] = one.max() + math.log(N)  # about half of the weight
    (line,) = distrusted(one)
    assert "% of the weight" in line


def test_what_is_printed_beside_an_ess():
    logw = gaussian(0.5, 1)[0]
    found = spread_of(logw)
    assert found["exp_minus_var"] == pytest.approx(math.exp(-logw.var()))
    assert abs(found["exp_minus_var"] - math.exp(-0.5)) < 4 * found["exp_minus_var_error"]
    exact = math.exp(-0.5) * 0.5 * math.sqrt(2 / N)  # Var of a variance
    assert found["exp_minus_var_error"] == pytest.approx(exact, rel=0.3)
    w = np.exp(logw)
    assert found["largest_weight"] == pytest.approx(w.max() / w.sum())
    assert ess_words(0.6, 0.01, {}) == "0.600(10)"
    assert ess_words(0.6, 0.01, found).endswith(f"largest weight {found['largest_weight']:.2g}]")


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
