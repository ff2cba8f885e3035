r"""Jackknife errors: the second opinion on the Gamma method, and the only one for importance weights.

Leave out one block of configurations at a time and recompute everything (M. H. Quenouille, Biometrika 43
(1956) 353; J. W. Tukey, Ann. Math. Stat. 29 (1958) 614):

    error^2 = (b - 1)/b sum_j (f_j - mean f)^2,     bias = (b - 1)(mean f - f)       f_j: without block j of b

No derivative is taken and no window chosen, so the two methods fail in different ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.statistics import gamma
from lattice.statistics.blocks import block_edges, jackknife_error
from lattice.statistics.gamma import Derived, Estimate, EstimatorError, as_replicas, starts_of
from lattice.statistics.rounding import rounding_of, with_rounding
from lattice.statistics.weights import normalised_weights

MIN_CHAIN_BLOCKS = 5  # blocks per chain; fewer cut too much off the autocorrelation
MIN_BLOCK_OVER_TAU = 5.0  # shorter blocks lower the error by more than 5 %
MIN_CHAINS = 20  # so many chains are blocks themselves
MIN_EFFECTIVE = 10.0  # weighted configurations below which a jackknife error is meaningless


def jackknife(
    data: npt.ArrayLike | Sequence[npt.ArrayLike], f: Derived | None = None, s_tau: float = 2.0, *,
    block_length: int | None = None, times: Sequence[npt.ArrayLike] | None = None,
) -> Estimate:  # fmt: skip
    """Mean or derived quantity with the blocked-jackknife error: the second opinion on `gamma_method`.

    data, f, s_tau as there. Blocks lie inside the replicas, never across; by default (2 N tau_int^2)^(1/3)
    configurations long (Wolff's optimum for binning, sec. 3.3: cut correlations against few blocks), down to
    5 tau_int where a replica would have fewer than 5 blocks. Shorter replicas are blocks themselves if there
    are 20 or more: that needs no tau_int, which is nan where the Gamma method refuses it. tau_int and its
    error are those of the Gamma method, which takes `times`; with these, replicas that hold at most a quarter
    of the configurations may be shorter than a block, and are one each. Blocks of B leave a fraction of about
    tau_int/(2B) off the error.

    Refused with EstimatorError: NaN or infinity, no fluctuations, fewer than 5 blocks per replica and fewer
    than 20 replicas, and what the Gamma method refuses where block_length is None and replicas are few.

    >>> print(jackknife(np.random.default_rng(1).normal(size=4000)))
    -0.010(16)
    """
    everything, lengths = as_replicas(data)
    function = _function(f, everything)
    many, shortest = len(lengths) >= MIN_CHAINS, int(min(lengths))
    if shortest == 0:
        raise InputError("a replica has no configurations")
    length, by_gamma = block_length, None
    if block_length is None:
        try:
            by_gamma = gamma.gamma_method(data, f, s_tau, times=times)
            best = (2 * len(everything) * by_gamma.tau_int**2) ** (1 / 3)
            least = MIN_BLOCK_OVER_TAU * by_gamma.tau_int
            shortest = shortest if times is None else _shortest_of_most(lengths)
            length = math.ceil(max(min(best, shortest // MIN_CHAIN_BLOCKS), least))
        except EstimatorError:
            if not many:
                raise
    elif block_length < 1:
        raise InputError(f"block_length must be at least 1, got {block_length}")
    if length is not None and shortest >= MIN_CHAIN_BLOCKS * length:
        counts = np.maximum(lengths // length, 1)
        edges = [s + np.arange(k) * n // k for s, n, k in zip(starts_of(lengths), lengths, counts)]
    elif many:
        edges = [starts_of(lengths)]
    else:
        raise EstimatorError(
            f"series too short: a replica of {shortest} configurations has fewer than "
            f"{MIN_CHAIN_BLOCKS} blocks of {length}, and {len(lengths)} replicas are too "
            f"few to be blocks themselves ({MIN_CHAINS} needed)"
        )
    estimate = _leave_out(everything, np.ones(len(everything)), np.concatenate(edges), function)
    if by_gamma is None:
        return estimate
    return replace(
        estimate, **{key: getattr(by_gamma, key) for key in ("tau_int", "tau_int_error", "window")}
    )


def _shortest_of_most(lengths: Integers) -> int:
    """The length of the shortest replica once the shortest, up to a quarter of the configurations, are left
    out."""
    ordered = np.sort(lengths)
    return int(ordered[np.searchsorted(np.cumsum(ordered), lengths.sum() / 4, side="right")])


def jackknife_weighted(
    data: npt.ArrayLike, log_weight: npt.ArrayLike, f: Derived | None = None, n_blocks: int = 100
) -> Estimate:
    """Self-normalised importance estimate f(sum w a / sum w) with the delete-a-block jackknife error.

    data (n, n_obs) or (n,), log_weight (n,): any common constant drops out. The whole ratio is recomputed
    without each block, so the fluctuation of sum w and its correlation with sum w a are in the error. Blocks
    are contiguous: n/n_blocks must exceed the autocorrelation time where configurations are not independent.
    tau_int is nan, window 0.

    Refused with EstimatorError: NaN or infinity in data or log weights, fewer than 20 configurations, an
    effective number (sum w)^2 / sum w^2 below 10, no fluctuations.
    """
    x, _ = as_replicas([data])
    weights = normalised_weights(log_weight)
    if len(weights) != len(x):
        raise InputError(f"{len(x)} configurations but {len(weights)} log weights")
    function, edges = _function(f, x), block_edges(len(x), n_blocks)
    n_effective = float(weights.sum() ** 2 / (weights**2).sum())
    if n_effective < MIN_EFFECTIVE:
        raise EstimatorError(
            f"the weights leave {n_effective:.3g} effective configurations out of {len(x)}, "
            f"at least {MIN_EFFECTIVE:g} are needed for an error"
        )
    return _leave_out(x, weights, edges, function)


def _function(f: Derived | None, x: Floats) -> Derived:
    """f, or the mean of the only column of x (n, 1)."""
    if f is None:
        gamma.one_column(x)
    return gamma.real_valued(f) if f else (lambda means: float(means[0]))


def _leave_out(x: Floats, weights: Floats, edges: Integers, f: Derived) -> Estimate:
    """Delete-a-block jackknife of f(sum w x / sum w); blocks of x (n, n_obs) begin at edges."""
    centre = x.mean(axis=0)  # shifts keep the block sums free of cancellation
    sums = np.add.reduceat(weights[:, None] * (x - centre), edges)
    norms = np.add.reduceat(weights, edges)
    value = gamma.value_at(f, centre + sums.sum(axis=0) / norms.sum())
    means = centre + (sums.sum(axis=0) - sums) / (norms.sum() - norms)[:, None]
    with np.errstate(all="ignore"):
        left_out = np.array([f(m) for m in means])
    if not np.isfinite(left_out).all():
        raise EstimatorError("the derived quantity is not finite without one of the jackknife blocks")
    error = jackknife_error(left_out)
    with np.errstate(all="ignore"):
        least = float(rounding_of(lambda m: np.apply_along_axis(f, -1, m), centre, x))
    if not error > max(with_rounding(0.0, abs(value)), least if math.isfinite(least) else 0.0):
        raise EstimatorError(f"no fluctuations: every jackknife block gives {value:.10g}")
    bias = (len(left_out) - 1) * float(np.mean(left_out - value))
    return Estimate(value, error, math.nan, math.nan, 0, len(x), bias, len(left_out))
