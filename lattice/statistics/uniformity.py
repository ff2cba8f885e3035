"""Ranks of a truth among draws, and whether they are uniform: chi^2, mean, spread, many tests at once.

For the mathematics see diffsq/calibration.py; nothing here knows of fields.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange, reduce
from scipy import stats

from lattice.arrays import Floats, Integers, integer_array, real_array
from lattice.errors import InputError

MIN_COUNT = 5.0  # expected count per bin below which chi^2 is not chi^2: neighbouring ranks are merged
SIGNIFICANT = 3.0  # standard errors from which the words name a direction
BIASED = 12 * (1 - 3**-0.5)


def weighted_rank(truth: Floats, draws: Floats, weights: Floats, ties: Floats) -> Integers:
    """Rank in 0 ... K of truth (n,) among draws (n, K): floor((K+1) U), with v the tie-breaker,

        U = [sum_{k>=1} w_k 1(T_k < T_0) + v sum_{T_k = T_0, k = 0 too} w_k] / sum_{k>=0} w_k.

    weights (n, K+1), the truth's own first; ties v (n,) uniform in (0, 1). Raises `InputError` on values that
    are not finite.

    >>> draws = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 2.0]])
    >>> weighted_rank(np.array([2.5, 1.0]), draws, np.ones((2, 4)), ties=np.array([0.1, 0.9]))
    array([2, 2])
    """
    truth, draws, weights, ties = (
        real_array(x, name)
        for name, x in (("truth", truth), ("draws", draws), ("weights", weights), ("ties", ties))
    )
    n, n_draws = draws.shape
    if truth.shape != (n,) or ties.shape != (n,) or weights.shape != (n, n_draws + 1):
        raise InputError(
            f"draws {draws.shape} need truth and ties ({n},) and weights ({n}, {n_draws + 1}), got "
            f"{truth.shape}, {ties.shape}, {weights.shape}"
        )
    if not (np.isfinite(truth).all() and np.isfinite(draws).all()):
        raise InputError("a statistic of the fields is NaN or infinite: it has no rank")
    truth = rearrange(truth, "n -> n 1")
    below = (weights[:, 1:] * (draws < truth)).sum(1)
    equal = (weights[:, 1:] * (draws == truth)).sum(1) + weights[:, 0]
    n_ranks = draws.shape[1] + 1
    u = (below + ties * equal) / weights.sum(1)
    return np.asarray(np.minimum(np.floor(n_ranks * u), n_ranks - 1), dtype=np.int64)


@dataclass(frozen=True)
class Uniformity:
    """Test of n ranks in 0 ... K. counts (K+1,); chi2 of `n_bins` equal bins and its p-value.

    mean: of (rank + 1/2)/(K+1), 1/2 if calibrated, above it where the draws are too low. variance: over that
    of uniform ranks, 1 if calibrated, above it where the draws are too narrow; errors of uniform ranks.
    """

    counts: list[int]
    n_bins: int
    chi2: float
    p: float
    mean: float
    mean_error: float
    variance: float
    variance_error: float

    def words(self, passed: bool = True) -> str:
        """What is wrong with the draws, as far as it is significant at three standard errors.

        A bias alone also narrows the ranks, by 12 (1 - 1/sqrt(3)) (mean - 1/2)^2 for a Gaussian posterior.
        """
        shift = (self.mean - 0.5) / self.mean_error
        spread = (self.variance + BIASED * (self.mean - 0.5) ** 2 - 1) / self.variance_error
        found = []
        if abs(shift) > SIGNIFICANT:
            found.append("too low" if shift > 0 else "too high")
        if abs(spread) > SIGNIFICANT:
            found.append("too narrow" if spread > 0 else "too wide")
        return "draws " + ", ".join(found) if found else ("uniform" if passed else "not uniform")


def uniformity(ranks: Integers, n_draws: int) -> Uniformity:
    """chi^2, mean and variance of ranks (n,) among n_draws draws.

    Neighbouring ranks are merged until 5 are expected per bin. Raises `InputError` for fewer than 10 ranks,
    or ranks outside 0 ... n_draws.

    >>> uniformity(np.arange(160) % 16, 15).p
    1.0
    """
    ranks, n_ranks = integer_array(ranks, "ranks"), n_draws + 1
    n = len(ranks)
    if n < 2 * MIN_COUNT:
        raise InputError(f"{n} ranks are too few to test for uniformity; at least {2 * MIN_COUNT:.0f} fields")
    if ranks.min() < 0 or ranks.max() > n_draws:
        raise InputError(f"ranks among {n_draws} draws must lie in 0 ... {n_draws}")
    counts = np.bincount(ranks, minlength=n_ranks)
    fit = [d for d in range(2, n_ranks + 1) if n_ranks % d == 0 and n / d >= MIN_COUNT]
    if not fit:
        raise InputError(f"{n} ranks are too few for {n_ranks} values; more fields, or fewer draws")
    n_bins = fit[-1]
    chi2, p = stats.chisquare(reduce(counts, "(bin rank) -> bin", "sum", bin=n_bins))
    u = (ranks + 0.5) / n_ranks
    variance, mean_error, variance_error = uniform_moments(n, n_draws)
    return Uniformity(
        counts.tolist(), n_bins, float(chi2), float(p), float(u.mean()), mean_error,
        float(u.var(ddof=1) / variance), variance_error,
    )  # fmt: skip


def uniform_moments(n: int, n_draws: int) -> tuple[float, float, float]:
    """Of n uniform (rank + 1/2)/(K+1): the variance, and the errors of their mean and relative variance."""
    n_ranks = n_draws + 1
    variance = (n_ranks**2 - 1) / (12 * n_ranks**2)
    kurtosis = 0.6 * (3 * n_ranks**2 - 7) / (n_ranks**2 - 1)
    return variance, math.sqrt(variance / n), math.sqrt((kurtosis - 1) / n)


def sensitivity(n: int, n_draws: int, n_sigma: float = 4.0) -> tuple[float, float]:
    """Bias (in posterior standard deviations) and relative error of the width that n ranks see at n_sigma.

    For a Gaussian posterior, u = Phi(z): a bias b moves <u> by b/(2 sqrt(pi)), a width off by a fraction e
    changes Var u by a fraction 6 e/(pi sqrt(3)); K draws see K/(K+1) and (K-1)/(K+2) of that.

    >>> bias, width = sensitivity(1000, 15)
    >>> round(bias, 2), round(width, 2)
    (0.14, 0.12)
    """
    _, mean_error, variance_error = uniform_moments(n, n_draws)
    bias = mean_error * 2 * math.sqrt(math.pi) * (n_draws + 1) / n_draws
    width = variance_error * (n_draws + 2) / (n_draws - 1) * math.pi * math.sqrt(3) / 6
    return n_sigma * bias, n_sigma * width


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family of tests, corrected by Holm's method (Scand. J. Stat. 6 (1979) 65).

    The smallest is the p-value of the whole family, equal to Bonferroni's.

    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    order = np.argsort(real_array(p, "p"), kind="stable")
    adjusted, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * float(p[i])))
        adjusted[i] = largest
    return adjusted
