"""Series with gaps have the errors of what they hold."""

import math

import numpy as np
import pytest
from series import ar1, assert_coverage, coverage

from lattice.errors import InputError
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.irregular import grid_of, pairs_of

TAU = 4.5  # of AR(1) with a = 0.8


def gapped(seed, share):
    """Two chains of AR(1) of which a random `share` is kept, and their times."""
    rng = np.random.default_rng([61, seed])
    series = [ar1(rng, 3000, 0.8), ar1(rng, 2000, 0.8)]
    times = [7 + 10 * np.flatnonzero(rng.random(len(x)) < share) for x in series]
    return [x[(t - 7) // 10] for x, t in zip(series, times)], times


@pytest.mark.parametrize("share", [0.95, 0.3])
def test_errors_of_chains_with_gaps_cover(share):
    found = [
        (data, gamma_method(data, times=times)) for data, times in (gapped(s, share) for s in range(150))
    ]
    pulls = np.array([estimate.value / estimate.error for _, estimate in found])
    assert_coverage(pulls)
    assert abs(pulls.std() - 1) < 4 / math.sqrt(300)
    taus = np.array([estimate.tau_int for _, estimate in found])  # in steps of 10, whatever is missing
    assert abs(taus.mean() / TAU - 1) < 0.03 + 4 * taus.std() / math.sqrt(150) / TAU
    # the error of a mean of so many, exactly: (1/N)(1 + 2 share sum_t a^t)
    n = np.mean([estimate.n for _, estimate in found])
    errors = np.array([estimate.error for _, estimate in found])
    exact = math.sqrt((1 + 8 * share) / n)
    assert abs(errors.mean() / exact - 1) < 0.02 + 4 * errors.std() / math.sqrt(150) / exact


def test_without_autocorrelation_or_without_the_shares_errors_do_not_cover():
    """Negative controls: configurations taken as independent; tau_int of the grid taken for theirs."""
    naive, grid = [], []
    for seed in range(150):
        data, times = gapped(seed, 0.3)
        x, estimate = np.concatenate(data), gamma_method(data, times=times)
        naive.append(x.mean() / (x.std() / math.sqrt(len(x))))
        grid.append(x.mean() / (x.std() * math.sqrt(2 * estimate.tau_int / len(x))))
    assert coverage(np.array(naive)) < 0.55
    assert coverage(np.array(grid)) > 0.8


def test_strides_of_their_own():
    """A chain saved at every step and one at every fifth: tau_int in steps, errors that cover."""
    pulls, taus = [], []
    for seed in range(150):
        rng = np.random.default_rng([62, seed])
        data = [ar1(rng, 2000, 0.8), ar1(rng, 4000, 0.8)[::5]]
        estimate = gamma_method(data, times=[np.arange(2000), 5 * np.arange(800)])
        pulls.append(estimate.value / estimate.error)
        taus.append(estimate.tau_int)
    assert_coverage(np.array(pulls))
    assert abs(np.mean(taus) / TAU - 1) < 0.03 + 4 * np.std(taus) / math.sqrt(150) / TAU


def test_a_shift_by_less_than_the_spacing_spoils_nothing():
    """Every tenth, then after a step of 13 every tenth again: two pairs at distance 23 say nothing of rho."""
    taus, errors = [], []
    for seed in range(40):
        x = ar1(np.random.default_rng([65, seed]), 20003, 0.97)
        times = np.r_[0:10000:10, 10003:20003:10]
        estimate = gamma_method([x[times]], times=[times])
        taus.append(estimate.tau_int)
        errors.append(estimate.error)
    tau = 0.5 * 1.97 / 0.03
    assert abs(np.mean(taus) / tau - 1) < 0.05 + 4 * np.std(taus) / math.sqrt(40) / tau
    exact = math.sqrt((1 + 0.97**10) / (1 - 0.97**10) / 2000)
    assert abs(np.mean(errors) / exact - 1) < 0.02 + 4 * np.std(errors) / math.sqrt(40) / exact


def test_complete_series_are_as_ever():
    rng = np.random.default_rng(63)
    data = [ar1(rng, 500, 0.8), ar1(rng, 300, 0.8)]
    assert gamma_method(data, times=[3 * np.arange(500), 4 + 3 * np.arange(300)]) == gamma_method(data)
    # one that misses none but is sent through the pairs all the same: to rounding
    short = [*data, ar1(rng, 5, 0.8)]
    with pytest.raises(EstimatorError, match="a replica has 5 configurations, at least 10"):
        gamma_method(short)
    with_it = gamma_method(short, times=[np.arange(len(x)) for x in short])
    assert with_it.value == pytest.approx(np.concatenate(short).mean(), rel=1e-12)
    assert with_it.error == pytest.approx(gamma_method(data).error, rel=0.02)
    with pytest.raises(EstimatorError, match="a replica has 5"):  # a quarter at most
        gamma_method([ar1(rng, 30, 0.1), *(ar1(rng, 5, 0.1) for _ in range(3))],
                     times=[np.arange(30), *([np.arange(5)] * 3)])  # fmt: skip


def test_pairs_are_counted_one_by_one():
    times, x = [np.array([0, 2, 4, 10]), np.array([1, 5])], np.array([1.0, -2.0, 3.0, 5.0, -1.0, 4.0])
    grid = grid_of(times)
    assert (grid.unit, grid.regular) == (2, False)
    found = pairs_of(x, grid, 5)
    chains, products = np.repeat([0, 1], [4, 2]), {t: [] for t in range(5)}
    where = np.concatenate(times)
    for i in range(6):
        for j in range(i, 6):
            if chains[i] == chains[j]:
                products.setdefault((where[j] - where[i]) // 2, []).append(x[i] * x[j])
    for t in range(5):
        assert found.gamma[t] == pytest.approx(np.mean(products[t]))
    # 2 pairs at distance 1 of the first chain, of at most 5 on 6 points; 0 of the second, of at most 2 on 3
    assert found.share[1] == pytest.approx(2 * 6 / 5 / 6)
    assert grid_of([[0, 3], [1]]).regular


def test_a_stretch_that_is_missing_counts_for_nothing():
    """tau_int of two quarters of a series is as well known as N says; of a random half as all of it is."""
    rng, half = np.random.default_rng(64), np.arange(1000)
    for times, points in (
        (np.concatenate([half, 3000 + half]), 2000),
        (np.flatnonzero(rng.random(4000) < 0.5), 4000),
        (2 * np.arange(2000), 2000),  # a grid of its own, with nothing missing
    ):
        grid = grid_of([times])
        pairs = pairs_of(rng.normal(size=len(times)), grid, 100)
        counted = pairs.independent(np.full(100, 5.0), grid)[10:]
        assert counted == pytest.approx(np.full(90, points), rel=0.1)


def test_times_that_are_none():
    x = np.random.default_rng(64).normal(size=100)
    for times in ([np.arange(99)], [np.arange(100)[::-1]], [np.zeros(100, int)], [np.arange(100.0)], [[]]):
        with pytest.raises(InputError, match="times"):
            gamma_method(x, times=times)
