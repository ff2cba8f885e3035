r"""Exact moments and cumulants of the models of `lattice.actions.one_variable` and of tiny complex lattices.

Averages are ratios of integrals over the real axis, <O> = int O exp(-S) / int exp(-S), summed on a uniform
grid (Trefethen, Weideman, SIAM Review 56 (2014) 385: faster than any power of the spacing for integrands that
fall off at both ends).  The one-link model integrates over the circle: <e^{inz}> = I_n(beta)/I_0(beta).
Nothing here knows of complex Langevin, except its stationary law for the complex Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special
import torch

from lattice.actions.one_variable import ComplexGaussian, TwoPeak
from lattice.actions.protocol import Action, says_itself
from lattice.actions.u1 import OneLink
from lattice.arrays import Complexes, Floats, integer_array
from lattice.errors import InputError
from lattice.exact.quadrature import real_grid
from lattice.statistics.cumulants import cumulants_from_moments

POINTS = 8001


def toy_moments(action: Action, orders: Sequence[int]) -> Complexes:
    """<z^n> for n in `orders`, complex (len(orders),); of the one-link model <e^{inz}>.

    Raises `InputError` for the action of a lattice (use `phi4_exact`), and where the integral of exp(-S)
    vanishes to working precision (a zero of I_0(beta)).

    >>> toy_moments(ComplexGaussian(1 + 1j), [2, 4]).round(12).tolist()           # 1/sigma0, 3/sigma0^2
    [(0.5-0.5j), -1.5j]
    """
    orders = integer_array(orders, "orders").tolist()
    model = action.holomorphic
    if model.derivative is not None and model.derivative.hop:
        raise InputError("a lattice has more than one moment of each order: use phi4_exact")
    if isinstance(model, OneLink) and says_itself(model, "kind"):
        return np.array([_bessel_ratio(n, model.beta) for n in orders])
    z, weight = _weights(model)
    norm = normalisation(weight)
    return np.array([np.sum(weight * z**n) / norm for n in orders])


def toy_cumulants(action: Action, n_max: int) -> Complexes:
    """kappa_1..kappa_{n_max} of z, complex (n_max,); the two-peak model in closed form.

    Raises as `toy_moments`, and for the one-link model (z is an angle).

    >>> toy_cumulants(TwoPeak(1.0, 0.25), 8).real[1::2].tolist()
    [1.0625, -2.0, 16.0, -272.0]
    """
    n_max = int(integer_array(n_max, "n_max"))
    if n_max < 1:
        raise InputError(f"n_max must be at least 1, got {n_max}")
    model = action.holomorphic
    if isinstance(model, OneLink):
        raise InputError("z of the one-link model is an angle: it has moments <e^{inz}>, no cumulants")
    if isinstance(model, TwoPeak) and says_itself(model, "kind"):
        peaks = [model.mu0**n if n % 2 == 0 else 0.0 for n in range(1, n_max + 1)]
        kappa = cumulants_from_moments(peaks).astype(np.complex128)
        kappa[1:2] += model.sigma0**2
        return kappa
    return np.asarray(cumulants_from_moments(toy_moments(model, range(1, n_max + 1))), dtype=np.complex128)


def gaussian_covariance(action: ComplexGaussian, imaginary_noise: float = 0.0) -> Floats:
    """The stationary covariance of (x, y) under complex Langevin, (2, 2): with sigma0 = A + iB,

        d(x, y) = -M (x, y) dt + noise,   M = [[A, -B], [B, A]],   M C + C M^T = 2 diag(1 + N_I, N_I).

    >>> gaussian_covariance(ComplexGaussian(1 + 1j)).round(12).tolist()
    [[0.75, -0.25], [-0.25, 0.25]]
    """
    a, b = action.sigma0.real, action.sigma0.imag
    noise = 2.0 * np.diag([1.0 + imaginary_noise, imaginary_noise])
    return np.asarray(scipy.linalg.solve_continuous_lyapunov(np.array([[a, -b], [b, a]]), noise))


def _weights(action: Action) -> tuple[Floats, Complexes]:
    """The grid and exp(-S) on it, its largest modulus 1."""
    z = real_grid(action, POINTS, drop=60.0)
    s = action.action(torch.from_numpy(z)).numpy()
    return z, np.exp(s.real.min() - s).astype(np.complex128)


def normalisation(weight: Complexes) -> complex:
    norm, size = complex(weight.sum()), float(np.abs(weight).sum())
    if abs(norm) < 1e-12 * size:
        raise InputError("the integral of exp(-S) vanishes to working precision: no averages")
    return norm


def _bessel_ratio(n: int, beta: complex) -> complex:
    ratio = complex(scipy.special.ive(n, beta)), complex(scipy.special.ive(0, beta))
    if abs(ratio[1]) < 1e-12:
        raise InputError(f"I_0(beta) vanishes to working precision at beta = {beta}: no averages")
    return ratio[0] / ratio[1]
