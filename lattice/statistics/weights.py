r"""Importance weights: checked, normalised, how many samples they are worth, and when not to believe it.

What is made of log-weights, ln of ESS/N, ln Z, path KL, is A = sum_k a_k ln <w^k> + b <ln w>. Its jackknife
error is too small where the sums hang on weights so rare that they were not drawn: at Var(ln w) = 1.2 and
2048 samples the ESS missed by over three of them in 8 % of runs. A Gaussian ln w, which ln w of a field is in
a large volume, has Cov(w^j, w^k) = (e^{jkv} - 1) <w^j> <w^k> without a rare weight being seen, hence

    N error^2 = (b + sum_k a_k k)^2 v + sum_jk a_j a_k (e^{jkv} - 1 - jkv).

The first term vanishes for ESS and path KL, whatever the law, and so must be one: v there is the smallest of
all and of Var(ln w). Otherwise v is that of the tail that counts, above for powers k > 0 and below for k < 0:
of the Gaussians through the median and the outer decile of ln w, and through the quantiles at one fifth and
one fiftieth, the narrower, as weights that are bounded have no tail to miss. The larger of the two errors is
quoted.

When N is too small: the second moment of w comes from ln w about 2 v above its mean, its relative variance is
(e^{4v} - 1)/N (as N >> e^{KL} for a first moment: Chatterjee, Diaconis, Ann. Appl. Probab. 28 (2018) 1099).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats, Integers, real_array
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_error, jackknife_labels
from lattice.statistics.gamma import MIN_REPLICA, EstimatorError
from lattice.statistics.notation import printed

MAX_SPREAD = 0.5  # relative variance of the mean of w^2 above which it is not believed
TAIL = 0.75  # of that limit, which the upper tail alone must pass: quantiles are rougher than a variance
MAX_SHARE = 0.1  # of the total weight, in one sample
SMALLEST = 1e-300
PAIRS = ((0.5, 0.9), (0.8, 0.98))  # quantiles whose distances measure a tail


def check_log_weights(log_weight: npt.ArrayLike, at_least: int = 2) -> Floats:
    """log_weight as finite float64 (n,), n >= at_least; EstimatorError counts those NaN or infinite."""
    logw = real_array(log_weight, "log_weight")
    if logw.ndim != 1 or len(logw) < at_least:
        raise InputError(f"need {at_least} or more log-weights in an (n,) array, got shape {logw.shape}")
    bad = int(np.count_nonzero(~np.isfinite(logw)))
    if bad:
        raise EstimatorError(f"{bad} of {len(logw)} log-weights are NaN or infinite")
    return logw


def normalised_weights(log_weight: npt.ArrayLike) -> Floats:
    """exp(log w - max), log_weight (n,) -> (n,) in [0, 1]; refuses NaN and infinity, naming their number."""
    logw = check_log_weights(log_weight, at_least=1)
    weights: Floats = np.exp(logw - logw.max())
    return weights


def effective_sample_size(log_weight: npt.ArrayLike, n_blocks: int = 100) -> tuple[float, float]:
    """ESS/N = (sum w)^2 / (N sum w^2) in [1/N, 1] and its error; log_weight (n,), of n >= 20.

    The larger of the block-jackknife error and that of a Gaussian log w, see the module.

    >>> effective_sample_size(np.zeros(50))
    (1.0, 0.0)
    """
    logw = check_log_weights(log_weight, at_least=1)
    if len(logw) < 2 * MIN_REPLICA:
        raise EstimatorError(f"series too short: {len(logw)} log-weights, the ESS needs {2 * MIN_REPLICA}")
    return ess_of_log(*log_moments(logw, {1: 2.0, 2: -1.0}, n_blocks=n_blocks))


def ess_of_log(value: float, error: float) -> tuple[float, float]:
    """ESS/N and its error from those of its logarithm. The error is at most the ESS, which then reaches 0."""
    ess = min(math.exp(value), 1.0)
    return ess, ess * min(error, 1.0)


def log_moments(
    log_weight: npt.ArrayLike, powers: Mapping[int, float], mean: float = 0.0, *, n_blocks: int = 100,
    chain: Integers | None = None,
) -> tuple[float, float]:  # fmt: skip
    """sum_k a_k ln <w^k> + b <ln w> and its error (the module has both sources); powers {k: a_k}, mean b.

    log_weight (n,), n >= 2; chain (n,) of correlated ones: whole chains are then left out of the jackknife,
    and the Gaussian error counts Var(x)/error^2 of <x> independent samples, at most n: x = ln w for what is
    linear in it, its square, which decorrelates faster, for the rest.

    >>> round(log_moments(np.log([1.0, 3.0, 1.0, 3.0]), {1: 1.0})[0], 6)      # ln <w> = ln 2
    0.693147
    """
    logw = check_log_weights(log_weight)
    shift = float(logw.max())
    own, labels = logw - shift, jackknife_labels(len(logw), n_blocks, chain)
    counts = np.bincount(labels)
    rest = len(own) - counts
    sums = np.bincount(labels, own)
    first = (sums.sum() - sums) / rest
    value, left_out = mean * float(own.mean()), mean * first
    for k, factor in powers.items():
        top = float((k * own).max())
        part = np.bincount(labels, np.exp(k * own - top))
        total = float(part.sum())
        value += factor * (top + math.log(total / len(own)))
        left_out = left_out + factor * (top + np.log(np.maximum(total - part, SMALLEST) / rest))
    n = _independent(own, labels), _independent((own - own.mean()) ** 2, labels)
    error = max(jackknife_error(left_out), _gaussian_error(own, powers, mean, n))
    return value + shift * (mean + sum(k * factor for k, factor in powers.items())), error


def tails(log_weight: npt.ArrayLike) -> tuple[float, float]:
    """The variance of ln w below and above its median, by its quantiles; see the module."""
    logw = np.asarray(log_weight, dtype=np.float64)
    below, above = (np.quantile(x, [level for pair in PAIRS for level in pair]) for x in (-logw, logw))
    widths = np.diff([[NormalDist().inv_cdf(level) for level in pair] for pair in PAIRS])[:, 0]
    variances = [float(np.min((q[1::2] - q[::2]) / widths)) ** 2 for q in (below, above)]
    return variances[0], variances[1]


def _independent(x: Floats, labels: Integers) -> float:
    """For how many independent numbers x (n,) count in their mean, by the jackknife: at most n."""
    sums = np.bincount(labels, x)
    error = jackknife_error((sums.sum() - sums) / (len(x) - np.bincount(labels)))
    return min(len(x), float(x.var()) / error**2) if error > 0 else len(x)


def _gaussian_error(
    log_weight: Floats, powers: Mapping[int, float], mean: float, n: tuple[float, float]
) -> float:
    """n: what counts as independent in the mean of ln w, and in that of its square, as in all beyond."""
    below, above = tails(log_weight)
    v = {k: above if k > 0 else below for k in powers}
    with np.errstate(over="ignore"):
        terms = (
            (a * b, j * k * math.sqrt(v[j] * v[k])) for j, a in powers.items() for k, b in powers.items()
        )
        beyond = sum(a * (float(np.expm1(x)) - x) for a, x in terms)
    slope = mean + sum(k * a for k, a in powers.items())
    linear = slope**2 * min([float(log_weight.var()), *v.values()])
    variance = linear / n[0] + max(beyond, 0.0) / n[1]
    # beyond that no average of e^{k ln w} lies: between those of no fluctuations and of a Gaussian
    most = max(1.0, sum(abs(a) * k * k * v[k] / 2 for k, a in powers.items()))
    return min(math.sqrt(variance), most) if math.isfinite(variance) else most


def spread_of(log_weight: npt.ArrayLike, chain: Integers | None = None) -> dict[str, float]:
    """What is printed beside an ESS: exp_minus_var = e^{-Var ln w} with exp_minus_var_error by the jackknife,
    which is ESS/N where ln w is Gaussian, and largest_weight, the largest share of one sample in the total.

    >>> spread_of(np.zeros(4))
    {'exp_minus_var': 1.0, 'exp_minus_var_error': 0.0, 'largest_weight': 0.25}
    """
    logw = check_log_weights(log_weight)
    labels, own = jackknife_labels(len(logw), chain=chain), logw - logw.mean()
    rest = len(own) - np.bincount(labels)
    first, second = (x.sum() - np.bincount(labels, x) for x in (own, own**2))
    value = math.exp(-float(own.var()))
    weights = normalised_weights(logw)
    return {
        "exp_minus_var": value,
        "exp_minus_var_error": value * jackknife_error(second / rest - (first / rest) ** 2),
        "largest_weight": float(weights.max() / weights.sum()),
    }


def ess_words(value: float | None, error: float | None, spread: Mapping[str, float | None]) -> str:
    """ESS/N as it is printed everywhere, with what `spread_of` has to say of it, as far as it is known.

    >>> ess_words(0.3, 0.02, {"exp_minus_var": 0.31, "exp_minus_var_error": 0.01, "largest_weight": 0.021})
    '0.300(20) [e^-Var(log w) 0.310(10), largest weight 0.021]'
    """
    about = spread_words(spread)
    return printed(value, error) + (f" [{', '.join(about)}]" if about else "")


def spread_words(spread: Mapping[str, float | None]) -> list[str]:
    """The numbers of `spread_of` as they are printed, those that are known."""
    var, largest = spread.get("exp_minus_var"), spread.get("largest_weight")
    words = [] if var is None else [f"e^-Var(log w) {printed(var, spread.get('exp_minus_var_error'))}"]
    return words + ([] if largest is None else [f"largest weight {largest:.2g}"])


def largest_variance(n: int, power: int = 2) -> float:
    """Var ln w up to which n samples can give the mean of w^power, p: (e^{p^2 v} - 1)/n = 1/2.

    >>> round(largest_variance(2048), 2), round(largest_variance(8192), 2)
    (1.73, 2.08)
    """
    return math.log1p(MAX_SPREAD * n) / power**2


def distrusted(log_weight: npt.ArrayLike) -> list[str]:
    """One line where ESS and the errors of weighted means with these log-weights (n,) are not to be trusted.

    From Var ln w = `largest_variance` on, if the upper tail alone says so too (a proposal that is too wide
    has a long lower one, which does no harm), or where one sample carries over a tenth of the weight.
    """
    logw = check_log_weights(log_weight)
    n, v, limit = len(logw), float(logw.var()), largest_variance(len(logw))
    share = spread_of(logw)["largest_weight"]
    if v > limit and tails(logw)[1] > TAIL * limit:
        needed = math.expm1(min(4 * v, 700.0)) / MAX_SPREAD
        return [
            f"Var log w = {v:.3g} is above {limit:.3g}, what N = {n} samples can bear: the weights that "
            "decide are too rare to be seen, so ESS and errors of weighted means are not to be trusted; "
            f"take N >= 2 e^(4 Var log w) = {needed:.1g}, or a sampler with a smaller Var log w"
        ]
    if share > max(MAX_SHARE, 2 / n):
        return [
            f"one of N = {n} samples carries {share:.0%} of the weight: ESS and errors of weighted means are "
            "not to be trusted; take more samples, or a sampler with a smaller Var log w"
        ]
    return []
