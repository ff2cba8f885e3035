"""From log-weights to exact answers: partition function, forward ESS, path KL, independence Metropolis.

Reverse weights w come from the sampler: E_R[w] = Z. Forward weights belong to equilibrium fields noised
forward: E_F[1/w] = 1/Z and E_F[w] = E_R[w^2]/Z, hence ESS/N = E_R[w]^2/E_R[w^2] = 1/(E_F[w] E_F[1/w]). A
proposal with thin tails can show a fine reverse ESS for a long time; the forward one collapses at once.
"""

import math
import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.arrays import Floats, real_array
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.rng import uniforms
from lattice.seeds import check_seed
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.weights import check_log_weights, ess_of_log, log_moments, spread_of


def log_mean_exp(log_weight: Floats) -> float:
    """log of the mean of e^{log_weight}, without overflow."""
    log_weight = real_array(log_weight, "log_weight")
    top = float(log_weight.max())
    return top + float(np.log(np.mean(np.exp(log_weight - top))))


def ln_z(log_weight: Floats) -> tuple[float, float]:
    """ln Z from reverse log-weights (n,), Z = E_R[w], with its error (`lattice.statistics.weights`).

    >>> round(float(np.exp(ln_z(np.log(np.array([1.0, 3.0, 1.0, 3.0])))[0])), 12)
    2.0
    """
    return log_moments(log_weight, {1: 1.0})


def ln_z_forward(log_weight: Floats, chain: NDArray[np.int64] | None = None) -> tuple[float, float]:
    """ln Z from forward log-weights (n,) of equilibrium fields of these chains, 1/Z = E_F[1/w]."""
    return log_moments(log_weight, {-1: -1.0}, chain=chain)


def forward_ess(log_weight: Floats, chain: NDArray[np.int64] | None = None) -> tuple[float, float]:
    """ESS/N = 1/(E_F[w] E_F[1/w]) from forward log-weights (n,), with its error, over chains."""
    return ess_of_log(*log_moments(log_weight, {1: -1.0, -1: -1.0}, chain=chain))


def forward_spread(log_weight: Floats, chain: NDArray[np.int64] | None = None) -> dict[str, float]:
    """What is printed beside `forward_ess`: its two sums are of w and 1/w, the largest share is of either."""
    both = spread_of(log_weight, chain), spread_of(-np.asarray(log_weight), chain)
    return {**both[0], "largest_weight": max(each["largest_weight"] for each in both)}


def reverse_kl(log_weight: Floats) -> tuple[float, float]:
    """Path KL(R||F) = ln Z - E_R[ln w] of the sampler from reverse log-weights (n,), and its error.

    ln Z and the mean are of the same samples: the error is of their difference.
    """
    return log_moments(log_weight, {1: 1.0}, -1.0)


def forward_kl(
    log_weight: Floats, ln_z: tuple[float, float], chain: NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """Path KL(F||R) = E_F[ln w] - ln Z from forward log-weights (n,), and its error.

    ln_z: value and error of an independent estimate, the reverse one, whose error adds in quadrature; the
    mean is over chains.
    """
    value, error = log_moments(log_weight, {}, 1.0, chain=chain)
    return value - ln_z[0], math.hypot(error, ln_z[1])


def independence_metropolis(log_weight: Floats, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The independence-Metropolis chain of proposals with log-weights (n,), accepted with min(1, w'/w).

    Returns indices (n,) of the state after each proposal, starting in proposal 0, and accepted (n,), the
    first True. All proposals must come from one law; the random number of proposal i depends on seed, i and
    the first weight only: other sets of proposals have others, a longer set the same.
    Tierney, Ann. Stat. 22 (1994) 1701.
    """
    log_weight = check_log_weights(log_weight)
    own = np.array([zlib.crc32(log_weight[:1].tobytes())])
    log_u = np.log(uniforms(seed, "exactness/metropolis", own, 0, len(log_weight))[0])
    indices = np.zeros(len(log_weight), dtype=np.int64)
    accepted = np.ones(len(log_weight), dtype=bool)
    for i in range(1, len(log_weight)):
        accepted[i] = log_u[i] < log_weight[i] - log_weight[indices[i - 1]]
        indices[i] = i if accepted[i] else indices[i - 1]
    return indices, accepted


def acceptance(log_weight: Floats, seed: int) -> tuple[float, float]:
    """Acceptance of `independence_metropolis` and its error, the first proposal not counted."""
    return acceptance_of(independence_metropolis(log_weight, seed)[1])


def acceptance_of(accepted: ArrayLike) -> tuple[float, float]:
    """The acceptance of an independence-Metropolis chain, accepted (n,) with the first True not counted, and
    its error.

    By the Gamma method: a state of large weight rejects many proposals in a row. Chains too short for it, and
    those in which nothing or everything is accepted, have the binomial error of (a + 1)/(n + 2) with the
    repeats' factor (2 - a)/a.
    """
    series = np.asarray(accepted, dtype=np.float64)[1:]
    rate, n = float(series.mean()), len(series)
    try:
        return rate, gamma_method([series]).error
    except EstimatorError:
        a = (rate * n + 1) / (n + 2)
        return rate, math.sqrt(a * (1 - a) * (2 - a) / a / n)


def metropolis_ensemble(ensemble: Ensemble, seed: int) -> Ensemble:
    """The independence-Metropolis chain of a weighted ensemble, as one Markov chain without weights.

    Raises `InputError` for an ensemble without log-weights.
    """
    if ensemble.log_weight is None:
        raise InputError("this ensemble has no log-weights: Metropolis needs samples of the path sampler")
    if isinstance((ensemble.attrs.get("generated") or {}).get("seed"), list):
        raise InputError("samples of several seeds are proposals of several laws: Metropolis needs one seed")
    indices, accepted = independence_metropolis(ensemble.log_weight, seed)
    chain = ensemble.select(indices)
    chain.log_weight = None
    chain.chain = np.zeros(len(indices), dtype=np.int64)
    chain.trajectory = np.arange(len(indices), dtype=np.int64)
    chain.series = {**chain.series, "accepted": accepted.astype(np.float64)}
    rate, error = acceptance_of(accepted)
    about = {"seed": check_seed(seed), "acceptance": rate, "acceptance_error": error}
    chain.attrs = {**chain.attrs, "metropolis": about}
    return chain
