"""Free energies: ln Z of a coupling, and differences of ln Z between couplings.

    one coupling    Z = E_R[w], 1/Z = E_F[1/w]                      `diffsq.exactness`: ln_z, ln_z_forward
    difference      ln Z_b - ln Z_a of two weighted ensembles       `difference`
    reweighting     Z'/Z = E[w e^(S - S')] / E[w]                   `reweighted`
    Bennett         two ensembles, the estimator of least variance  `bennett`, `path_bennett`

Bennett's acceptance ratio (J. Comput. Phys. 22 (1976) 245): with r = log of (unnormalised density of B over
that of A) and d = ln(Z_B/Z_A), a configuration seen in a mixture of n_A and n_B belongs to B with probability

    p = 1/(1 + (n_A/n_B) e^(d - r)),        and d solves    n_A E_A[p] = n_B E_B[1 - p].

A and B can be equilibrium ensembles at two couplings (r = S_A - S_B), ensembles with importance weights
(means are then weighted, n the number times the ESS), or the reverse and the forward paths of one sampler: A
is the proposal R, normalised, B its target, r = log w of both, and d = ln Z from both kinds of weights.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from diffsq.exactness.weights import ln_z, log_mean_exp
from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers, batches, real_array
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.weights import (
    check_log_weights,
    effective_sample_size,
    ess_words,
    normalised_weights,
    spread_of,
)

MIN_ESS = 0.05  # fraction of the configurations that reweighting must leave, and
MIN_EFFECTIVE = 50  # how many of them: below, the largest weight decides


@dataclass(frozen=True)
class FreeEnergy:
    """ln Z, or a difference of two, with its error and the ESS/N that it rests on (the smaller of two)."""

    value: float
    error: float
    ess: float


def difference(log_weight_a: ArrayLike, log_weight_b: ArrayLike) -> FreeEnergy:
    """ln Z_b - ln Z_a from the reverse log-weights of two independent samples, (n_a,) and (n_b,).

    >>> round(difference(np.zeros(40), np.full(40, 1.5)).value, 12)
    1.5
    """
    (a, a_error), (b, b_error) = (ln_z(check_log_weights(w)) for w in (log_weight_a, log_weight_b))
    ess = min(effective_sample_size(w)[0] for w in (log_weight_a, log_weight_b))
    return FreeEnergy(b - a, float(np.hypot(a_error, b_error)), ess)


def action_values(action: Action, phi: ArrayLike, chunk: int = 4096) -> Floats:
    """S of fields (n, *shape), float64: (n,)."""
    fields = real_array(phi, "phi")
    parts = [action.action(torch.from_numpy(fields[rows])) for rows in batches(len(fields), chunk)]
    return real_array(torch.cat(parts), "the action S of real fields")


def reweighted(
    action: Action, other: Action, phi: ArrayLike, log_weight: ArrayLike | None = None,
    chain: Integers | None = None, min_ess: float = MIN_ESS,
) -> FreeEnergy:  # fmt: skip
    """ln Z(other) - ln Z(action) from one ensemble phi (n, *shape) of `action`, and the ESS/N that is left.

    log_weight (n,) of a weighted ensemble, None for an equilibrium one, whose correlated fields come with
    their `chain` (n,). The error of a sum of a few large weights is itself too small, so an ESS/N below
    `min_ess`, or fewer than 50 effective configurations, raises `InputError`: take a point in between, or
    `bennett` with an ensemble at the other end.
    """
    shift = action_values(action, phi) - action_values(other, phi)
    log_w = np.zeros(len(shift)) if log_weight is None else check_log_weights(log_weight)
    if log_w.shape != shift.shape:
        raise InputError(f"{len(shift)} fields but {len(log_w)} log-weights")
    ess, ess_error = effective_sample_size(check_log_weights(log_w + shift))
    if ess < min_ess or ess * len(shift) < MIN_EFFECTIVE:
        left = ess_words(ess, ess_error, spread_of(log_w + shift))
        raise InputError(
            f"reweighting from {action} to {other} leaves ESS/N = {left} of {len(shift)} fields; needed: "
            f"{min_ess:g} and {MIN_EFFECTIVE} fields. Go in smaller steps"
        )

    def estimate(rows: Floats) -> float:
        return log_mean_exp(rows[:, 0] + rows[:, 1]) - log_mean_exp(rows[:, 0])

    value, error = jackknife_of(estimate, np.stack([log_w, shift], 1), chain=chain)
    return FreeEnergy(value, error, ess)


def bennett(
    ratio_a: ArrayLike, ratio_b: ArrayLike, *,
    log_weight_a: ArrayLike | None = None, log_weight_b: ArrayLike | None = None,
    chain_a: Integers | None = None, chain_b: Integers | None = None,
) -> FreeEnergy:  # fmt: skip
    """ln(Z_B/Z_A) from r = log(density of B/density of A), unnormalised, on configurations of A and of B.

    ratio_a (n_a,), ratio_b (n_b,); log-weights where an ensemble is weighted, chains where it is correlated.
    `ess` is the overlap, E_A[p]/(share of B in the mixture): 1 where A and B are the same, 0 where they do
    not meet. The error is a jackknife over both, with the solution linearised. Raises `InputError` for values
    that are not finite.

    >>> round(bennett(np.full(30, 0.7), np.full(50, 0.7)).value, 12)
    0.7
    """
    (r_a, w_a, n_a), (r_b, w_b, n_b) = _side(ratio_a, log_weight_a), _side(ratio_b, log_weight_b)
    shift = float(np.log(n_a / n_b))

    def balance(d: float) -> float:
        return n_a * _mean(expit(r_a - d - shift), w_a) - n_b * _mean(expit(d + shift - r_b), w_b)

    low = min(float(r_a.min()), float(r_b.min())) - abs(shift) - 1.0
    high = max(float(r_a.max()), float(r_b.max())) + abs(shift) + 1.0
    d = float(brentq(balance, low, high, xtol=1e-13, rtol=1e-14))
    p_a, p_b = expit(r_a - d - shift), expit(r_b - d - shift)
    # d(balance)/dd = -n_A E_A[p (1-p)] - n_B E_B[p (1-p)]: errors of both means, carried over to d
    slope = n_a * _mean(p_a * (1 - p_a), w_a) + n_b * _mean(p_b * (1 - p_b), w_b)
    error_a = _mean_error(p_a, w_a, chain_a) * n_a
    error_b = _mean_error(1 - p_b, w_b, chain_b) * n_b
    overlap = _mean(p_a, w_a) * (n_a + n_b) / n_b
    return FreeEnergy(d, float(np.hypot(error_a, error_b)) / slope, overlap)


def path_bennett(reverse: ArrayLike, forward: ArrayLike, chain: Integers | None = None) -> FreeEnergy:
    """ln Z from reverse log-weights (n,) and forward ones (m,) of held-out fields of these chains."""
    return bennett(reverse, forward, chain_b=chain)


def _side(ratio: ArrayLike, log_weight: ArrayLike | None) -> tuple[Floats, Floats, float]:
    """Checked ratios, weights with largest 1, and the effective number of configurations."""
    r = check_log_weights(ratio)
    if log_weight is None:
        return r, np.ones(len(r)), float(len(r))
    w = normalised_weights(log_weight)
    if w.shape != r.shape:
        raise InputError(f"{len(r)} log-ratios but {len(w)} log-weights")
    return r, w, float(w.sum() ** 2 / (w**2).sum())


def _mean(values: Floats, weight: Floats) -> float:
    return float((weight * values).sum() / weight.sum())


def _mean_error(values: Floats, weight: Floats, chain: Integers | None) -> float:
    rows = np.stack([values, weight], 1)
    return jackknife_of(lambda d: _mean(d[:, 0], d[:, 1]), rows, chain=chain)[1]
