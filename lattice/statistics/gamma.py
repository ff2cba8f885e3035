r"""Errors of Monte Carlo averages.

Gamma method (U. Wolff, hep-lat/0306017): for a derived quantity F(a_1, a_2, ...) of primary means,

    delta_i  = sum_a (dF/da) (a_i - mean a)            fluctuations projected on the gradient
    Gamma(t) = <delta_i delta_{i+t}>                   averaged over all pairs inside the replicas
    tau_int  = 1/2 + sum_{t=1}^{W} Gamma(t)/Gamma(0)
    error^2  = 2 tau_int Gamma(0) / N

with the window W chosen automatically (Wolff sec. 3.3) and the O(1/N) bias of Gamma corrected (Wolff eq. 49).
The convention is tau_int = 1/2 + sum rho (Madras-Sokal, Wolff, pyerrors); emcee's tau is twice that.
The second opinion, and the only one for importance weights, is `lattice.statistics.jackknife`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.fft
from einops import rearrange

from lattice.arrays import Floats, Integers, real_array, real_number
from lattice.errors import InputError
from lattice.statistics.irregular import MAX_GRID, Grid, grid_of, pairs_of
from lattice.statistics.notation import format_value

Derived = Callable[[Floats], float]
MIN_REPLICA = 10  # configurations; fewer say nothing about autocorrelation
MIN_N_OVER_TAU = 20.0  # N < 20 tau_int: the error's own relative error passes about 1/3


class EstimatorError(InputError):
    """The estimator cannot answer for this series; the message names the reason and the numbers."""


@dataclass(frozen=True)
class Estimate:
    """A mean or derived quantity with its error; tau_int in units of the series' own step.

    bias estimates the O(1/N) bias of a derived quantity's `value`, from which it is not subtracted (nan: not
    known, as for one replica by the Gamma method). blocks is the number of jackknife blocks, else 0.

    >>> print(Estimate(0.314981, 0.00072, 0.5, 0.01, 1, 1000))
    0.31498(72)
    """

    value: float
    error: float
    tau_int: float
    tau_int_error: float
    window: int
    n: int
    bias: float = math.nan
    blocks: int = 0

    @property
    def error_of_error(self) -> float:
        """Statistical error of `error`: error sqrt((W + 1/2)/N) (Wolff, sec. 3) or error/sqrt(2(b - 1))."""
        if self.blocks:
            return self.error / math.sqrt(2 * (self.blocks - 1))
        return self.error * math.sqrt((self.window + 0.5) / self.n)

    def __str__(self) -> str:
        return format_value(self.value, self.error)


def gamma_method(
    data: npt.ArrayLike | Sequence[npt.ArrayLike], f: Derived | None = None, s_tau: float = 2.0, *,
    centre: Literal["common", "replica"] = "common", times: Sequence[npt.ArrayLike] | None = None,
) -> Estimate:  # fmt: skip
    """Mean (f is None) or derived quantity f(means) with error and tau_int, by the Gamma method.

    data: (n_replica, n, n_obs) array, or a list of replicas (n_i, n_obs) or (n_i,) of unequal length, or one
    series (n,). f maps the means (n_obs,) to a number; its gradient is taken numerically and projected on the
    fluctuations of all primaries together, so denominators are never frozen. s_tau: Wolff's S.

    centre="common" subtracts the mean over all replicas (as Wolff does): replicas that disagree enlarge the
    error. centre="replica" subtracts each replica's own mean, as pyerrors does (equal for one replica); many
    short replicas then bias the error low. Two or more replicas also give `Estimate.bias` (Wolff sec. 3.1).

    times: of series with gaps, when the configurations of each replica were made (n_i,), whole numbers that
    increase. Gamma(t) is then the average over pairs at equal distance (`lattice.statistics.irregular`),
    tau_int in units of the greatest common divisor of all spacings, and short replicas are pooled with the
    others where they hold at most a quarter of the configurations.

    Refused with EstimatorError: NaN or infinity; a constant series or a derived quantity without
    fluctuations; a replica of fewer than 10 configurations; an autocorrelation that has not decayed within
    half of the longest replica; N < 20 tau_int. tau_int < 1/2 (anticorrelated series) is raised to 1/2, as in
    pyerrors: the error is then conservative.

    >>> series = np.random.default_rng(1).normal(size=4000)
    >>> estimate = gamma_method(series)
    >>> abs(estimate.value) < 4 * estimate.error and abs(estimate.tau_int - 0.5) < 0.1
    True
    """
    if not (math.isfinite(s_tau) and s_tau > 0):
        raise InputError(f"s_tau must be a positive number, got {s_tau}; 1 to 3 is usual")
    if centre not in ("common", "replica"):
        raise InputError(f"centre must be 'common' or 'replica', got {centre!r}")
    everything, lengths = as_replicas(data)
    f = f and real_valued(f)
    grid = None if times is None else _grid(times, lengths)
    short = int(lengths[lengths < MIN_REPLICA].sum())
    if short > (0 if grid is None else len(everything) / 4):
        raise EstimatorError(
            f"series too short: a replica has {min(lengths)} configurations, "
            f"at least {MIN_REPLICA} are needed to see its autocorrelation"
        )
    means, scale = everything.mean(axis=0), everything.std(axis=0)
    own = np.add.reduceat(everything, starts_of(lengths)) / lengths[:, None]  # the means of each replica
    bias = math.nan
    if f is None:
        value, gradient, bias = float(one_column(everything).mean()), np.ones(1), 0.0
    else:
        value, gradient = value_at(f, means), _gradient(f, means, scale)
        if len(lengths) > 1:
            bias = _replica_bias(f, value, own, lengths)
    projected = (everything - (means if centre == "common" else np.repeat(own, lengths, axis=0))) @ gradient
    _check_fluctuations(projected, gradient, means, scale, derived=f is not None)
    return _windowed(projected, lengths, value, bias, s_tau, grid)


def as_replicas(data: npt.ArrayLike | Sequence[npt.ArrayLike]) -> tuple[Floats, Integers]:
    """All replicas one after the other, finite float64 (n, n_obs), and their lengths.

    Raises `InputError` for other shapes and for data that are no real numbers (complex, masked, objects).
    """
    many = isinstance(data, list | tuple) and len(data) > 0 and np.ndim(data[0]) >= 1
    if isinstance(data, np.ndarray):
        if data.ndim not in (1, 3):
            raise InputError(
                f"data of shape {data.shape}: expected (n_replica, n, n_obs), one series (n,), "
                "or a list of replicas (n_i, n_obs)"
            )
        many = data.ndim == 3
    parts: Any = data if many else [data]
    replicas = [real_array(part, "data", booleans=True) for part in parts]
    replicas = [rearrange(r, "n -> n 1") if r.ndim == 1 else r for r in replicas]
    if not replicas or any(r.ndim != 2 or r.shape[1] != replicas[0].shape[1] for r in replicas):
        raise InputError(
            "data: every replica must be (n_i,) or (n_i, n_obs) with the same n_obs; got shapes "
            + ", ".join(str(r.shape) for r in replicas[:8])
        )
    if any(len(r) == 0 for r in replicas):
        raise InputError("data: a replica has no configurations; leave it out")
    everything = np.concatenate(replicas)
    bad = int(np.count_nonzero(~np.isfinite(everything)))
    if bad:
        raise EstimatorError(f"{bad} of {everything.size} numbers are NaN or infinite")
    return everything, np.array([len(r) for r in replicas], dtype=np.int64)


def starts_of(lengths: Integers) -> Integers:
    """Where each replica begins in the array of all of them."""
    return np.asarray(np.cumsum(lengths) - lengths, dtype=np.int64)


def one_column(x: Floats) -> Floats:
    """The only column of x (n, 1); InputError where a function of several means is missing."""
    if x.shape[1] != 1:
        raise InputError(f"{x.shape[1]} primaries but no function f of their means; pass one column or f")
    return x[:, 0]


def _replica_bias(f: Derived, value: float, own: Floats, lengths: Integers) -> float:
    """(mean of f over the replicas - f of the common means)/(R - 1) (Wolff sec. 3.1); nan where undefined.

    Replicas are joined to 20 at most, so that f is taken at means that are good enough.
    """
    n = min(len(lengths), 20)
    groups = np.arange(n) * len(lengths) // n
    sizes = np.add.reduceat(lengths, groups)
    joined = np.add.reduceat(own * lengths[:, None], groups) / sizes[:, None]
    with np.errstate(all="ignore"):
        values = np.array([f(means) for means in joined])
    return (float(sizes @ values) / float(sizes.sum()) - value) / (len(groups) - 1)


def real_valued(f: Derived) -> Derived:
    """f, refused where what it returns is not one real number."""
    return lambda means: real_number(f(means), "the derived quantity")


def value_at(f: Derived, means: Floats) -> float:
    """f(means); EstimatorError where it is not finite."""
    with np.errstate(all="ignore"):
        value = f(means)
    if not math.isfinite(value):
        raise EstimatorError("the derived quantity is not finite at the measured means")
    return value


def _gradient(f: Derived, means: Floats, scale: Floats) -> Floats:
    """df/da at the means by sixth-order central differences with steps of 0.3 % of each primary's spread.

    Truncation (step^6) and rounding (eps/step) are then both below 1e-10 of the gradient for rational
    functions; a primary that does not fluctuate needs no derivative.
    """
    weights = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))
    gradient = np.zeros_like(means)
    with np.errstate(all="ignore"):
        for i in np.flatnonzero(scale > 0):
            step = np.zeros_like(means)
            step[i] = 3e-3 * scale[i]
            gradient[i] = sum(c * (f(means + j * step) - f(means - j * step)) for j, c in weights) / step[i]
    if not np.all(np.isfinite(gradient)):
        raise EstimatorError(
            "the derived quantity has no finite gradient at the measured means "
            "(it is undefined within 1 % of the spread of its primaries)"
        )
    return gradient


def _check_fluctuations(
    projected: Floats, gradient: Floats, means: Floats, scale: Floats, *, derived: bool
) -> None:
    spread = math.sqrt(float(projected @ projected) / len(projected))
    if np.all(scale <= 8 * np.finfo(float).eps * np.abs(means)):
        one = len(means) == 1 and not derived  # the value of a primary is not that of the derived quantity
        all_the_same = f"every value is {means[0]:.10g}" if one else "no primary fluctuates"
        raise EstimatorError(f"constant series: {all_the_same}")
    # 1e-9: the accuracy of the numeric gradient; e.g. f = a/b with a = 2b everywhere
    if spread <= 1e-9 * float(np.abs(gradient) @ scale):
        vanish = "the fluctuations of the derived quantity vanish identically, so it has no statistical error"
        raise EstimatorError(f"{vanish} here" if derived else "constant series within each replica")


def _grid(times: Sequence[npt.ArrayLike], lengths: Integers) -> Grid | None:
    """The grid of the times, None where nothing is missing; EstimatorError where they share no spacing."""
    grid = grid_of(times)
    if [len(part) for part in grid.positions] != lengths.tolist():
        raise InputError("times must be as many as the configurations, replica by replica")
    if grid.extents.sum() > MAX_GRID * lengths.sum():
        raise EstimatorError(
            f"the spacings have only {grid.unit} in common, {int(grid.extents.sum())} steps for "
            f"{int(lengths.sum())} configurations: too few pairs at equal distance"
        )
    return None if grid.regular and lengths.min() >= MIN_REPLICA else grid


def _windowed(
    projected: Floats, lengths: Integers, value: float, bias: float, s_tau: float, grid: Grid | None = None
) -> Estimate:
    """Automatic window (Wolff sec. 3.3), bias correction (eq. 49), error of tau_int (eq. 42).

    On a grid with gaps tau_int is that of the grid, and the error counts the pairs there are.
    """
    n, longest = len(projected), int(max(lengths if grid is None else grid.extents))
    share = np.ones(longest // 2)
    if grid is None:
        gamma = autocovariance(projected, lengths, longest // 2)
    else:
        pairs = pairs_of(projected, grid, longest // 2)
        gamma, share = pairs.gamma, pairs.share
    smallest = 0.5 + np.finfo(float).eps
    tau = np.maximum(np.cumsum(np.concatenate(([0.5], gamma[1:] / gamma[0]))), smallest)
    w = np.arange(1, len(tau))
    independent = np.full(len(tau), float(n)) if grid is None else pairs.independent(tau, grid)
    decay = s_tau / np.log((2 * tau[1:] + 1) / (2 * tau[1:] - 1))
    hits = np.flatnonzero(np.exp(-w / decay) - decay / np.sqrt(w * independent[1:]) < 0)
    if len(hits) == 0:
        raise EstimatorError(
            f"series too short: the autocorrelation has not decayed within half of the "
            f"longest replica ({longest} configurations, tau_int > {tau[-1]:.3g})"
        )
    window = int(w[hits[0]])
    # pyerrors' form of eq. (49): the correction of Gamma(0) is taken out of tau_int and put back in the error
    tau_int = float(tau[window]) * (1 + (2 * window + 1) / n) / (1 + 1 / n)
    in_error = tau_int
    if grid is not None:
        shared = max(0.5 + float(share[1 : window + 1] @ gamma[1 : window + 1]) / float(gamma[0]), smallest)
        in_error = shared * (1 + (1 + 2 * float(share[1 : window + 1].sum())) / n) / (1 + 1 / n)
    if n < MIN_N_OVER_TAU * in_error:
        raise EstimatorError(
            f"series too short: N = {n} configurations, fewer than {MIN_N_OVER_TAU:g} "
            f"tau_int with tau_int = {in_error:.3g}"
        )
    error = math.sqrt(2 * in_error * float(gamma[0]) * (1 + 1 / n) / n)
    tau_error = (
        2 * float(tau[window]) * math.sqrt(abs(window + 0.5 - float(tau[window])) / independent[window])
    )
    return Estimate(value, error, tau_int, tau_error, window, n, bias)


def autocovariance(projected: Floats, lengths: Integers, n_times: int) -> Floats:
    """Gamma(t), t < n_times, of fluctuations (n,), averaged over the pairs inside replicas."""
    starts = starts_of(lengths)
    gamma, pairs, t = np.zeros(n_times), np.zeros(n_times), np.arange(n_times)
    for length in np.unique(lengths):
        equal = projected[starts[lengths == length][:, None] + np.arange(length)]  # (replicas, length)
        reach = min(int(length), n_times)
        size = scipy.fft.next_fast_len(int(length) + reach, real=True)  # zero padding: no wrap-around
        spectrum = scipy.fft.rfft(equal, size, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
        gamma[:reach] += scipy.fft.irfft(power, size)[:reach]
        pairs += len(equal) * np.maximum(length - t, 0)
    return gamma / np.maximum(pairs, 1.0)
