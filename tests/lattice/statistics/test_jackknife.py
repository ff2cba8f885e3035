"""Jackknife: agreement with the Gamma method, blocks inside chains, exact answers with importance weights."""

import math

import numpy as np
import pytest
from series import ar1, assert_coverage, binder, coverage, wide_gaussian

from lattice.errors import InputError
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.jackknife import jackknife, jackknife_weighted


def moments(seed, shape=(4000, 4), a=0.8):
    """M^2 and M^4 of Gaussian M on AR(1) chains: (n_chain, n, 2); Binder is exactly 0."""
    m = ar1(np.random.default_rng([41, seed]), shape[0], a, shape[1:]).T
    return np.stack([m**2, m**4], axis=-1)


@pytest.mark.parametrize("f", [binder, lambda x: x[0], lambda x: x[1] - 3 * x[0] ** 2], ids=["U", "M2", "k4"])
def test_gamma_and_jackknife_agree(f):
    """Two methods with nothing in common but the data: the same errors within those errors' errors."""
    gamma, jack = zip(*((gamma_method(x, f), jackknife(x, f)) for x in map(moments, range(60))))
    ratio = np.array([j.error / g.error for j, g in zip(jack, gamma)])
    # blocks of (2 N tau^2)^(1/3) = 5 tau_int^(-1/3) N^(1/3) leave tau/(2B), about 3 %, off the error
    assert abs(ratio.mean() - 0.985) < 0.03
    assert ratio.std() < 4 * np.mean([j.error_of_error / j.error for j in jack])
    for j, g in zip(jack, gamma):
        assert j.value == pytest.approx(g.value, rel=1e-9, abs=1e-12)
        assert (j.tau_int, j.tau_int_error, j.window) == (g.tau_int, g.tau_int_error, g.window)
        assert j.blocks > 60


def test_coverage_and_error_of_error():
    binders = [jackknife(moments(seed, (1000, 4), 0.5), binder) for seed in range(300)]
    assert_coverage(np.array([e.value / e.error for e in binders]))
    series = (ar1(np.random.default_rng([47, seed]), 4000, 0.5) for seed in range(300))
    estimates = [jackknife(x) for x in series]
    assert_coverage(np.array([e.value / e.error for e in estimates]))
    errors = np.array([e.error for e in estimates])
    assert 0.6 < errors.std() / np.mean([e.error_of_error for e in estimates]) < 1.4


def test_blocks_of_one_ignore_the_autocorrelation():
    """Negative control: configurations as blocks do not cover, by a factor sqrt(2 tau_int) = 3."""
    pulls = []
    for seed in range(200):
        x = ar1(np.random.default_rng([42, seed]), 4000, 0.8)
        pulls.append(x.mean() / jackknife(x, block_length=1).error)
    assert coverage(np.array(pulls)) < 0.4


def test_blocks_lie_inside_the_chains():
    """Against leaving out each block by hand; blocks across chain boundaries give another number."""
    rng = np.random.default_rng(43)
    chains = [rng.normal(size=(n, 1)) + shift for n, shift in ((57, 0.0), (83, 4.0), (50, -2.0))]
    found = jackknife(chains, lambda x: x[0] ** 2, block_length=10)
    everything, blocks, start = np.concatenate(chains)[:, 0], [], 0
    for chain in chains:
        blocks += [start + part for part in np.array_split(np.arange(len(chain)), len(chain) // 10)]
        start += len(chain)
    values = np.array([np.delete(everything, block).mean() ** 2 for block in blocks])
    assert found.blocks == len(blocks) == 5 + 8 + 5
    by_hand = math.sqrt((len(values) - 1) * values.var())
    assert found.error == pytest.approx(by_hand, rel=0.01)  # the longer blocks come at other places
    assert found.bias == pytest.approx((len(values) - 1) * (values.mean() - everything.mean() ** 2), rel=0.05)
    across = np.array([np.delete(everything, b).mean() ** 2 for b in np.array_split(np.arange(190), 18)])
    assert abs(math.sqrt(17 * across.var()) / found.error - 1) > 0.005


def test_many_short_chains_are_blocks_themselves():
    """64 chains of 8 tau_int: too short for blocks inside; the order of the chains cannot matter."""
    pulls = []
    for seed in range(300):
        data = ar1(np.random.default_rng([44, seed]), 36, 0.8, (64,)).T[:, :, None]
        estimate = jackknife(data)
        assert estimate.blocks == 64
        pulls.append(estimate.value / estimate.error)
    assert_coverage(np.array(pulls))
    assert jackknife(data[::-1]).error == pytest.approx(estimate.error, rel=1e-12)
    # so short that the Gamma method refuses them: no tau_int, but an error
    with pytest.raises(EstimatorError, match="at least 10"):
        gamma_method(data[:, :6])
    short = jackknife(data[:, :6])
    assert short.error == pytest.approx(data[:, :6].mean(axis=1).std(ddof=1) / 8, rel=1e-9)
    assert math.isnan(short.tau_int)


def test_bias_of_a_square_is_known():
    """<mean^2> = 1 + var/N; the jackknife's bias is exact on average for a quadratic function."""
    biases = [
        jackknife(1 + np.random.default_rng([45, s]).normal(size=200), lambda x: x[0] ** 2).bias
        for s in range(300)
    ]
    assert abs(np.mean(biases) - 1 / 200) < 4 * np.std(biases) / math.sqrt(300)
    assert np.mean(biases) > 10 * np.std(biases) / math.sqrt(300)


def test_refusals():
    rng = np.random.default_rng(46)
    x = ar1(rng, 200, 0.8, (4,)).T[:, :, None]
    with pytest.raises(EstimatorError, match="fewer than 5 blocks of 50, and 4 replicas"):
        jackknife(x, block_length=50)
    with pytest.raises(EstimatorError, match="fewer than 5 blocks"):
        jackknife(x[:, :60])
    with pytest.raises(EstimatorError, match="series too short"):
        jackknife(ar1(rng, 1000, 0.999))
    with pytest.raises(EstimatorError, match="constant"):
        jackknife(np.ones(1000))
    with pytest.raises(EstimatorError, match="no fluctuations"):
        jackknife(np.ones((40, 5, 1)))
    with pytest.raises(EstimatorError, match="1 of 1000 numbers are NaN"):
        jackknife(np.where(np.arange(1000) == 3, math.nan, 1.0))
    with pytest.raises(InputError, match="block_length"):
        jackknife(x, block_length=0)
    with pytest.raises(InputError, match="2 primaries but no function"):
        jackknife([rng.normal(size=(100, 2))])
    with pytest.raises(InputError, match="no configurations"):
        jackknife([rng.normal(size=100), np.empty(0)])


class TestWeighted:
    """Samples of N(0, s^2) reweighted to N(0, 1): <x^2> = 1, <x^4>/<x^2>^2 = 3, ESS known."""

    @pytest.mark.parametrize("kind", ["second moment", "binder"])
    def test_coverage(self, kind):
        pulls = []
        for seed in range(300):
            x, logw = wide_gaussian(seed)
            if kind == "binder":
                estimate = jackknife_weighted(np.stack([x**2, x**4], axis=1), logw, binder)
                pulls.append(estimate.value / estimate.error)
            else:
                estimate = jackknife_weighted(x**2, logw)
                pulls.append((estimate.value - 1) / estimate.error)
        pulls = np.array(pulls)
        assert abs(pulls.mean()) < 4 / math.sqrt(300) + 0.05
        assert_coverage(pulls)

    def test_without_weights_or_with_a_frozen_norm_it_fails(self):
        frozen, unweighted = [], []
        for seed in range(300):
            x, logw = wide_gaussian(seed)
            w = np.exp(logw - logw.max())
            y = 10 + x**2
            estimate = jackknife_weighted(y, logw)
            frozen.append((estimate.value - 11) / (np.std(w * y) / w.mean() / math.sqrt(len(x))))
            plain = jackknife_weighted(y, np.zeros(len(x)))
            unweighted.append((plain.value - 11) / plain.error)
        assert coverage(np.array(frozen)) > 0.99
        assert coverage(np.array(unweighted)) < 0.01

    def test_a_common_factor_of_the_weights_drops_out(self):
        x, logw = wide_gaussian(0)
        a, b = jackknife_weighted(x**2, logw), jackknife_weighted(x**2, logw - 1e5)
        assert a.value == pytest.approx(b.value, rel=1e-9)
        assert a.error == pytest.approx(b.error, rel=1e-6)

    def test_zero_log_weights_are_the_plain_jackknife_and_agree_with_gamma(self):
        x = ar1(np.random.default_rng(22), 50000, 0.8)
        jackknife, gamma = jackknife_weighted(x, np.zeros(len(x))), gamma_method(x)
        assert jackknife.value == pytest.approx(gamma.value, rel=1e-9)
        assert jackknife.error == pytest.approx(gamma.error, rel=4 / math.sqrt(2 * 100))

    def test_refusals(self):
        x, logw = wide_gaussian(0, n=200)
        bad = logw.copy()
        bad[:3] = [math.nan, math.inf, -math.inf]
        with pytest.raises(EstimatorError, match="3 of 200 log-weights"):
            jackknife_weighted(x, bad)
        with pytest.raises(EstimatorError, match="NaN or infinite"):
            jackknife_weighted(np.full(200, math.nan), logw)
        with pytest.raises(EstimatorError, match="200 configurations|effective configurations"):
            jackknife_weighted(x, 1e3 * logw)
        with pytest.raises(EstimatorError, match="needs 20"):
            jackknife_weighted(x[:19], logw[:19])
        with pytest.raises(EstimatorError, match="no fluctuations"):
            jackknife_weighted(np.ones(200), logw)
        with pytest.raises(InputError, match="200 configurations but 100"):
            jackknife_weighted(x, logw[:100])
