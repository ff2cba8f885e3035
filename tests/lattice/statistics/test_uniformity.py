"""Ranks and their uniformity: exact with weights at any K, uniform p-values, stated errors, words, input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lattice.errors import InputError
from lattice.statistics.uniformity import holm, sensitivity, uniformity, weighted_rank

K = 15
PASSES, FAILS = 1e-4, 1e-12


def test_weighted_ranks_are_exact_at_any_k() -> None:
    """Truth N(0, 1), draws N(0.8, 0.7^2), too narrow and biased; without the truth's own weight they fail."""
    rng, n, k = np.random.default_rng(1), 40000, 5
    truth, draws = rng.normal(size=n), 0.8 + 0.7 * rng.normal(size=(n, k))
    values = np.concatenate([truth[:, None], draws], 1)
    weights = stats.norm.pdf(values) / stats.norm.pdf(values, 0.8, 0.7)
    ties = rng.random(n)
    assert uniformity(weighted_rank(truth, draws, weights, ties), k).p > PASSES
    assert uniformity(weighted_rank(truth, draws, np.ones_like(weights), ties), k).p < FAILS
    weights[:, 0] = weights[:, 1:].mean(1)
    assert uniformity(weighted_rank(truth, draws, weights, ties), k).p < FAILS


def test_p_values_of_uniform_ranks_are_uniform() -> None:
    rng = np.random.default_rng(2)
    p = [uniformity(rng.integers(0, K + 1, 400), K).p for _ in range(2000)]
    assert stats.kstest(p, "uniform").pvalue > PASSES
    families = [min(holm(rng.permutation(p)[:6].tolist())) for _ in range(500)]
    assert np.mean(np.array(families) < 0.2) == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 333))


def test_mean_and_variance_have_the_stated_errors() -> None:
    rng = np.random.default_rng(3)
    tests = [uniformity(rng.integers(0, K + 1, 300), K) for _ in range(2000)]
    for value, error, exact in (
        ([t.mean for t in tests], tests[0].mean_error, 0.5),
        ([t.variance for t in tests], tests[0].variance_error, 1.0),
    ):
        assert np.mean(value) == pytest.approx(exact, abs=4 * error / math.sqrt(2000))
        assert np.std(value) == pytest.approx(error, rel=4 / math.sqrt(2 * 2000))


@pytest.mark.parametrize(
    ("draws_from", "words"),
    [
        ((0.0, 1.0), "uniform"),
        ((0.5, 1.0), "draws too high"),
        ((-0.5, 1.0), "draws too low"),
        ((0.0, 0.7), "draws too narrow"),
        ((0.0, 1.4), "draws too wide"),
    ],
)
def test_words(draws_from: tuple[float, float], words: str) -> None:
    rng = np.random.default_rng(4)
    truth, draws = rng.normal(size=2000), rng.normal(*draws_from, size=(2000, K))
    rank = weighted_rank(truth, draws, np.ones((2000, K + 1)), rng.random(2000))
    assert uniformity(rank, K).words() == words


def test_sensitivity_is_what_a_small_error_does() -> None:
    rng, n = np.random.default_rng(5), 400_000
    bias, width = (value / 4 for value in sensitivity(n, K))  # one standard error each
    truth, white = rng.normal(size=n), rng.normal(size=(n, K))
    for draws, shift, spread in ((white - 10 * bias, 10, 0), (white / (1 + 20 * width), 0, 20)):
        found = uniformity(weighted_rank(truth, draws, np.ones((n, K + 1)), rng.random(n)), K)
        assert (found.mean - 0.5) / found.mean_error == pytest.approx(shift, abs=4)
        assert (found.variance - 1) / found.variance_error == pytest.approx(spread, abs=4.5)


def test_ties_are_broken_at_random() -> None:
    n = 8000
    rng = np.random.default_rng(6)
    truth, draws = rng.integers(0, 2, n).astype(float), rng.integers(0, 2, (n, K)).astype(float)
    ones = np.ones((n, K + 1))
    assert uniformity(weighted_rank(truth, draws, ones, rng.random(n)), K).p > PASSES
    assert uniformity(weighted_rank(truth, draws, ones, np.zeros(n)), K).p < FAILS


def test_neighbouring_ranks_are_merged_when_fields_are_few() -> None:
    found = uniformity(np.arange(48) % 16, 15)
    assert (found.n_bins, len(found.counts), found.p) == (8, 16, 1.0)


def test_bad_input_is_one_line() -> None:
    with pytest.raises(InputError, match="too few"):
        uniformity(np.arange(9), K)
    with pytest.raises(InputError, match="too few for 17"):
        uniformity(np.arange(20) % 17, 16)
    with pytest.raises(InputError, match="0 ... 15"):
        uniformity(np.arange(20), K)
    with pytest.raises(InputError, match="NaN"):
        weighted_rank(np.array([math.nan]), np.zeros((1, 2)), np.ones((1, 3)), np.zeros(1))
