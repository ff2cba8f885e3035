"""The few estimates that a figure needs and a table does not: histograms, ratios and rho(t), all with errors.

Conventions: rho(t) = Gamma(t)/Gamma(0), tau_int(W) = 1/2 + sum_{t=1}^{W} rho(t) in the spacing of the
series.  Errors of histograms are blocked jackknife errors: configurations are taken in the order given, so
pass them sorted by chain and trajectory, and blocks of consecutive ones absorb the autocorrelation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffsq.process.cumulants import slices
from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_errors
from lattice.statistics.gamma import as_replicas, autocovariance
from lattice.statistics.weights import normalised_weights


@dataclass(frozen=True)
class Curve:
    """Points ``x`` (m,) with ``value`` (m,) and one-sigma ``error`` (m,)."""

    x: Floats
    value: Floats
    error: Floats


@dataclass(frozen=True)
class Autocorrelation:
    """rho(t) and tau_int(W) for t, W = 0..t_max, each (t_max + 1,), with their statistical errors."""

    rho: Floats
    rho_error: Floats
    tau_int: Floats
    tau_int_error: Floats


def histogram_density(samples: ArrayLike, edges: ArrayLike, log_weight: ArrayLike | None = None) -> Curve:
    """Probability density of ``samples`` (n,) in bins ``edges`` (m + 1,), weighted by ``log_weight`` (n,).

    Normalised by all samples, those outside the edges included, so that it estimates the true density. Blocks
    are left out of numerator and denominator, which keeps the fluctuation of the sum of weights.

    >>> curve = histogram_density([0.1, 0.2, 0.7, 0.9], [0.0, 0.5, 1.0])
    >>> curve.value.tolist()
    [1.0, 1.0]
    """
    data, bins = real_array(samples, "samples"), real_array(edges, "edges")
    if data.ndim != 1 or bins.ndim != 1:
        raise InputError(f"samples and edges are (n,) and (m + 1,), got {data.shape} and {bins.shape}")
    if len(data) < 2:
        raise InputError(f"a jackknife error needs at least 2 configurations, got {len(data)}")
    block, m = slices(len(data)), len(bins) - 1
    weight = np.ones(len(data)) if log_weight is None else normalised_weights(log_weight)
    index = np.searchsorted(bins, data, side="right") - 1
    inside = (index >= 0) & (index < m)
    n_blocks = int(block[-1]) + 1
    counts = np.bincount(block[inside] * m + index[inside], weight[inside], n_blocks * m).reshape(n_blocks, m)
    total = np.bincount(block, weight)[:, None]
    left_out = (counts.sum(0) - counts) / np.maximum(total.sum(0) - total, np.finfo(float).tiny)
    width = np.diff(bins)
    value, error = counts.sum(0) / total.sum(0) / width, jackknife_errors(left_out) / width
    return Curve(0.5 * (bins[1:] + bins[:-1]), value, error)


def curve_ratio(numerator: Curve, denominator: Curve, max_relative_error: float = 0.5) -> Curve:
    """``numerator`` / ``denominator`` on the same points, with the numerator's error alone.

    The denominator's own error is the same for every numerator and is drawn as a band around one.  Points
    where it exceeds ``max_relative_error`` carry no information and are NaN.

    >>> x = np.array([0.0, 1.0])
    >>> curve_ratio(Curve(x, 2 * x, x), Curve(x, x, 0.1 * x)).value.tolist()
    [nan, 2.0]
    """
    usable = (denominator.value > 0) & (denominator.error <= max_relative_error * denominator.value)
    safe = np.where(usable, denominator.value, np.nan)
    return Curve(numerator.x, numerator.value / safe, numerator.error / safe)


def autocorrelation_function(replicas: Sequence[ArrayLike], t_max: int) -> Autocorrelation:
    """rho(t) and tau_int(W) of a primary over chains ``replicas`` (each (n_r,)), for t, W <= ``t_max``.

    Fluctuations are taken about the mean over all replicas, as in the Gamma method.  Errors: rho from the
    Madras-Sokal approximation [Luescher, hep-lat/0409106, eq. (E.11)], tau_int from var = 4/N (W + 1/2 -
    tau) tau^2 [Wolff, hep-lat/0306017, eq. (42)].  Raises InputError if every chain is shorter than two or
    the series is constant.
    """
    everything, lengths = as_replicas(list(replicas))
    longest, n_total, mean = int(lengths.max()), len(everything), float(everything.mean())
    if longest < 2:
        raise InputError("rho(t) needs a chain of at least 2 measurements")
    limit = min(longest - 1, 3 * t_max + 100)  # (E.11) sums over k up to t + Lambda
    gamma = autocovariance(everything[:, 0] - mean, lengths, limit + 1)
    if not gamma[0] > 1e-24 * max(mean * mean, 1e-300):
        raise InputError("rho(t) of a constant series is undefined")
    rho = gamma / gamma[0]
    t_max = min(t_max, limit // 3 if limit >= 3 else limit)
    rho_error = np.sqrt(_rho_variance(rho, t_max) / n_total)
    window = np.arange(t_max + 1)
    tau = 0.5 + np.cumsum(np.where(window > 0, rho[: t_max + 1], 0.0))
    tau_error = np.abs(tau) * np.sqrt(4.0 / n_total * np.maximum(window + 0.5 - tau, 0.0))
    return Autocorrelation(rho[: t_max + 1], rho_error, tau, tau_error)


def _rho_variance(rho: Floats, t_max: int) -> Floats:
    """sum_{k>=1} [rho(k+t) + rho(k-t) - 2 rho(k) rho(t)]^2, rho(-t) = rho(t), for t = 0..t_max."""
    k, t = np.ix_(np.arange(1, len(rho) - t_max), np.arange(t_max + 1))
    return np.asarray(((rho[k + t] + rho[np.abs(k - t)] - 2 * rho[k] * rho[t]) ** 2).sum(0))
