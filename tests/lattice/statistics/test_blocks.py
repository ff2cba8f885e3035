"""Blocks and the jackknife that leaves them out: errors of means, of chains, and where blocks begin."""

import math

import numpy as np
import pytest
from series import ar1

from lattice.errors import InputError
from lattice.statistics.blocks import (
    block_edges,
    chain_blocks,
    jackknife_error,
    jackknife_errors,
    jackknife_of,
)
from lattice.statistics.gamma import EstimatorError


def test_jackknife_error_of_a_mean_is_the_standard_error():
    x = np.random.default_rng(17).normal(size=50)
    left_out = (x.sum() - x) / 49
    assert jackknife_error(left_out) == pytest.approx(x.std(ddof=1) / math.sqrt(50), rel=1e-12)
    with pytest.raises(InputError, match="two or more blocks"):
        jackknife_error([1.0])


def test_many_estimates_at_once_are_each_on_its_own():
    left_out = np.random.default_rng(18).normal(size=(7, 30, 3))
    errors = jackknife_errors(left_out, axis=1)
    assert errors.shape == (7, 3)
    assert errors[4, 2] == pytest.approx(jackknife_error(left_out[4, :, 2]), rel=1e-14)


def test_errors_of_a_ratio_are_the_spread_of_repetitions():
    """<x>/<y> of 400 pairs: jackknife errors against the spread of 300 samples, within 4 of its errors."""
    values, errors = [], []
    for seed in range(300):
        x, y = np.random.default_rng([19, seed]).normal(size=(2, 400)) + [[0.0], [1.0]]
        found = jackknife_of(lambda d: float(d[:, 0].mean() / d[:, 1].mean()), np.stack([x, y], 1))
        values.append(found[0])
        errors.append(found[1])
    assert np.std(values) == pytest.approx(np.mean(errors), rel=4 / math.sqrt(600))


def test_stretches_are_of_time_however_the_rows_are_stored():
    """Rows in random order: with their time the blocks are those of the ordered rows, without it they are not
    (the error of a mean was then 0.55 of the right one at tau_int = 3)."""
    order = np.random.default_rng(20).permutation(3 * 40)
    chain, time = np.arange(120) % 3, np.arange(120) // 3
    ordered = chain_blocks(chain)
    assert (chain_blocks(chain, time) == ordered).all()
    assert (chain_blocks(chain[order], time[order]) == ordered[order]).all()
    assert (chain_blocks(chain[order]) != ordered[order]).any()


def test_correlated_data_need_their_chains():
    """20 chains of tau_int = 4.5: leaving out chains covers, leaving out hundredths of them does not."""
    rng, n = np.random.default_rng(20), 100
    data = np.stack([ar1(rng, 20 * 40, 0.8) for _ in range(n)]).reshape(n, 20, 40)
    chain = np.repeat(np.arange(20), 40)
    shuffled = rng.permutation(800)
    pulls = {"chains": [], "blind": []}
    for x in data.reshape(n, 800):
        for name, (values, labels) in {"chains": (x, chain), "blind": (x[shuffled], None)}.items():
            mean, error = jackknife_of(lambda d: float(d.mean()), values, chain=labels)
            pulls[name].append(mean / error)
    assert np.std(pulls["chains"]) < 1 + 4 / math.sqrt(2 * n)
    assert np.std(pulls["blind"]) > 2  # sqrt(2 tau_int) = 3


def test_fewer_than_ten_chains_are_cut_into_twentieths():
    x = np.arange(100.0)
    whole = jackknife_of(lambda d: float(d.mean()), x, chain=np.zeros(100, dtype=np.int64))
    assert whole == jackknife_of(lambda d: float(d.mean()), x, n_blocks=20)


def test_where_blocks_begin():
    edges = block_edges(103, 10)
    assert edges[0] == 0
    assert set(np.diff([*edges, 103])) == {10, 11}
    assert len(block_edges(30, 100)) == 30  # no more blocks than configurations
    with pytest.raises(InputError, match="n_blocks must be at least 2"):
        block_edges(100, 1)
    with pytest.raises(EstimatorError, match="19 configurations, the jackknife needs 20"):
        block_edges(19, 5)
