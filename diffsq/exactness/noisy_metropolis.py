"""What noise in log q does to Metropolis: why path weights are the default.

With log q noisy, Metropolis is biased: E min(1, e^(Delta + eta)) is not
min(1, e^Delta). If the estimate made with a proposal is kept as long as the chain stays there, the chain is
exact for the density pi(phi) E[e^eta | phi], and the noise of Hutchinson's estimate does depend on the field:
E[e^eta | phi] ~ e^(v(phi)/2), v its variance. If it is drawn afresh at every decision, two states exchange in
the ratio of two smeared acceptances (`noisy_odds`). The weights of `diffsq.sampling.lattice_path` have no
such noise: they are the default.
"""

import numpy as np
from scipy.special import log_ndtr

from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.weights import check_log_weights, normalised_weights


def noisy_acceptance(delta: Floats | float, noise: Floats | float) -> Floats:
    """E min(1, e^(delta + eta)) for eta ~ N(0, noise^2), in closed form.

    Phi(d/s) + e^(d + s^2/2) Phi(-d/s - s); without noise min(1, e^d).

    >>> [round(float(noisy_acceptance(0.0, s)), 4) for s in (0.0, 0.5, 1.0)]
    [1.0, 0.8496, 0.7616]
    """
    d, s = np.broadcast_arrays(real_array(delta, "delta"), real_array(noise, "noise"))
    if not (np.isfinite(d).all() and np.isfinite(s).all() and (s >= 0).all()):
        raise InputError("delta must be finite and the noise a standard deviation >= 0")
    safe = np.maximum(s, 1e-12)
    smeared = np.exp(log_ndtr(d / safe)) + np.exp(d + safe**2 / 2 + log_ndtr(-d / safe - safe))
    return np.asarray(np.where(s > 1e-12, smeared, np.minimum(1.0, np.exp(np.minimum(d, 0.0)))))


def noisy_odds(delta: Floats | float, noise: Floats | float) -> Floats:
    """How often a chain is in B for once in A, ln(w_B/w_A) = delta, when each decision has fresh noise.

    Exact is e^delta; with noise the ratio of the two acceptances, nearer to one.

    >>> round(float(noisy_odds(1.0, 0.0)), 4), round(float(noisy_odds(1.0, 1.0)), 4)
    (2.7183, 2.0421)
    """
    return np.asarray(noisy_acceptance(delta, noise) / noisy_acceptance(-real_array(delta, "delta"), noise))


def kept_noise_bias(observable: Floats, log_weight: Floats, noisy: Floats) -> tuple[float, float]:
    """Bias of <observable> in a Metropolis chain that keeps its noisy log q, and the jackknife error of it.

    observable and exact log_weight (n,) of proposals, noisy (n_estimates, n) the same with independent
    estimates of log q. The chain is exact for the weights w e^eta, so the bias is the difference of two
    weighted means over the same proposals.
    """
    exact, noisy = check_log_weights(log_weight), real_array(noisy, "noisy")
    observable = real_array(observable, "observable")
    if observable.shape != (n := len(exact),) or noisy.shape[1:] != (n,):
        raise InputError(
            f"{n} log-weights need observable ({n},), noisy (n_estimates, {n}): got {observable.shape}, "
            f"{noisy.shape}"
        )
    columns = [observable, normalised_weights(exact), *(normalised_weights(row - exact) for row in noisy)]
    scale = np.array([float((row - exact).max()) for row in noisy])
    relative = np.exp(scale - scale.max())  # all estimates in one unit

    def estimate(rows: Floats) -> float:
        value, weight, factors = rows[:, 0], rows[:, 1], rows[:, 2:] @ relative
        bent = weight * factors
        return float((bent * value).sum() / bent.sum() - (weight * value).sum() / weight.sum())

    return jackknife_of(estimate, np.stack(columns, 1))
