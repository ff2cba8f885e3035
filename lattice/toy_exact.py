r"""Exact moments and cumulants of the models of `lattice.toys` and of tiny complex lattices.

Averages are ratios of integrals over the real axis, <O> = int O exp(-S) / int exp(-S), summed on a uniform
grid (Trefethen, Weideman, SIAM Review 56 (2014) 385: faster than any power of the spacing for integrands that
fall off at both ends).  The one-link model integrates over the circle: <e^{inz}> = I_n(beta)/I_0(beta).
Nothing here knows of complex Langevin, except its stationary law for the complex Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
import torch
from numpy.typing import NDArray

from lattice.action import check_shape
from lattice.complex_phi4 import ComplexPhi4
from lattice.cumulants import cumulants_from_moments
from lattice.errors import InputError
from lattice.toys import ComplexGaussian, Complexified, ComplexQuartic, OneLink, TwoPeak, real_grid

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
POINTS = 8001
MAX_RING = 64


def toy_moments(action: Any, orders: Sequence[int]) -> Complexes:
    """<z^n> for n in `orders`, complex (len(orders),); of the one-link model <e^{inz}>.

    Raises `InputError` for an action without exact moments here (use `phi4_exact` for a lattice), and where
    the integral of exp(-S) vanishes to working precision (a zero of I_0(beta)).

    >>> toy_moments(ComplexGaussian(1 + 1j), [2, 4]).round(12).tolist()           # 1/sigma0, 3/sigma0^2
    [(0.5-0.5j), -1.5j]
    """
    model = action.inner if isinstance(action, Complexified) else action
    if isinstance(model, ComplexPhi4):
        raise InputError("a lattice has more than one moment of each order: use phi4_exact")
    if isinstance(model, OneLink):
        return np.array([_bessel_ratio(int(n), model.beta) for n in orders])
    z, weight = _weights(model)
    norm = _normalisation(weight)
    return np.array([np.sum(weight * z**int(n)) / norm for n in orders])


def toy_cumulants(action: Any, n_max: int) -> Complexes:
    """kappa_1..kappa_{n_max} of z, complex (n_max,); the two-peak model in closed form.

    Raises as `toy_moments`, and for the one-link model (z is an angle).

    >>> toy_cumulants(TwoPeak(1.0, 0.25), 8).real[1::2].tolist()
    [1.0625, -2.0, 16.0, -272.0]
    """
    if n_max < 1:
        raise InputError(f"n_max must be at least 1, got {n_max}")
    model = action.inner if isinstance(action, Complexified) else action
    if isinstance(model, OneLink):
        raise InputError("z of the one-link model is an angle: it has moments <e^{inz}>, no cumulants")
    if isinstance(model, TwoPeak):
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


@dataclass(frozen=True)
class SmallComplex:
    """Exact averages of a tiny complex lattice: <phi^2>, <phi^4> per site and <phi_x phi_0> (*shape)."""

    phi2: complex
    phi4: complex
    two_point: Complexes

    @property
    def zero_mode(self) -> complex:
        """G(k=0) = sum_x <phi_x phi_0>."""
        return complex(self.two_point.sum())


def complex_propagator(action: ComplexPhi4, shape: tuple[int, ...]) -> Complexes:
    """G(k) = 1/[2 (mass - 2 kappa sum_mu cos k_mu)] of the free field on all momenta of `shape`, in the order
    of `numpy.fft.fftn`.  Raises `InputError` for lam > 0 and where Re of some mode is not damped.

    >>> complex_propagator(ComplexPhi4(0.1, 0.0, 1 + 1j), (1,)).round(6).tolist()       # 1/(1.6 + 2i)
    [(0.243902-0.304878j)]
    """
    check_shape(shape)
    if action.lam != 0:
        raise InputError(f"the propagator is known in closed form at lam = 0 only, got lam = {action.lam}")
    axes = np.meshgrid(*(np.cos(2 * np.pi * np.arange(extent) / extent) for extent in shape), indexing="ij")
    inverse = 2.0 * (action.mass - 2.0 * action.kappa * np.sum(axes, axis=0))
    if not inverse.real.min() > 0:
        raise InputError(f"kappa={action.kappa}, mass={action.mass} on {tuple(shape)} has a mode that grows")
    return np.asarray(1.0 / inverse)


def phi4_exact(action: ComplexPhi4, shape: tuple[int, ...], n_grid: int = 400) -> SmallComplex:
    """Exact averages: lam = 0 on any shape, else one site, a ring, or 2 x 2 sites by transfer matrix.

    Axes of extent 1 are allowed beside these (they shift the mass by -2 kappa); 2 x 2 is a ring of four with
    2 kappa. `InputError` for any other shape.
    """
    check_shape(shape)
    if action.lam == 0:
        two_point = np.fft.ifftn(complex_propagator(action, shape))
        phi2 = complex(two_point.reshape(-1)[0])
        return SmallComplex(phi2, 3.0 * phi2**2, np.asarray(two_point))
    long = tuple(extent for extent in shape if extent > 1)
    mass = action.mass - 2.0 * action.kappa * (len(shape) - len(long))
    if not (len(long) <= 1 or long == (2, 2)) or math.prod(long) > MAX_RING:
        raise InputError(
            f"exact averages at lam > 0: one site, a ring of up to {MAX_RING} sites or 2 x 2, not {shape}"
        )
    length, kappa = (4, 2.0 * action.kappa) if long == (2, 2) else (math.prod(long), action.kappa)
    phi2, phi4, correlator = _ring(mass, action.lam, kappa, length, n_grid)
    if long == (2, 2):
        correlator = correlator[[0, 1, 1, 2]]  # around the square: (0,0), (0,1), (1,1), (1,0)
    return SmallComplex(phi2, phi4, correlator.reshape(shape))


def _ring(
    mass: complex, lam: float, kappa: float, length: int, n_grid: int
) -> tuple[complex, complex, Complexes]:
    """<phi^2>, <phi^4> and <phi_0 phi_r> (length,) of a ring of `length` sites (1: a site without bonds)."""
    damped = ComplexQuartic(complex(2.0 * mass.real - 4.0 * abs(kappa), 2.0 * mass.imag), 4.0 * lam)
    phi = real_grid(damped, n_grid)
    site = np.exp(-mass * phi**2 - lam * phi**4)
    if length == 1:
        norm = _normalisation(site)
        phi2, phi4 = (complex(np.sum(site * phi**n) / norm) for n in (2, 4))
        return phi2, phi4, np.array([phi2])
    root = np.exp(0.5 * (-mass * phi**2 - lam * phi**4))
    transfer = root[:, None] * np.exp(2.0 * kappa * np.outer(phi, phi)) * root[None, :]
    transfer /= np.abs(transfer).sum(axis=1).max()
    powers = [np.eye(n_grid, dtype=np.complex128)]
    for _ in range(length):
        powers.append(powers[-1] @ transfer)
    diagonal = np.diagonal(powers[length])
    z = complex(diagonal.sum())
    scale = abs(powers[length]).sum()
    if abs(z) < 1e-10 * scale:
        raise InputError("the partition function vanishes to working precision: no averages")
    phi2, phi4 = (complex(np.sum(diagonal * phi**n) / z) for n in (2, 4))
    correlator = [
        np.einsum("a,ab,b,ba->", phi, powers[r], phi, powers[length - r], optimize=True) / z
        for r in range(length)
    ]
    return phi2, phi4, np.array(correlator)


def _weights(action: Any) -> tuple[Floats, Complexes]:
    """The grid and exp(-S) on it, its largest modulus 1."""
    try:
        z = real_grid(action, POINTS, drop=60.0)
        s = action.action(torch.from_numpy(z)).numpy()
    except AttributeError:
        raise InputError(f"no exact moments of {type(action).__name__} here") from None
    return z, np.exp(s.real.min() - s).astype(np.complex128)


def _normalisation(weight: Complexes) -> complex:
    norm, size = complex(weight.sum()), float(np.abs(weight).sum())
    if abs(norm) < 1e-12 * size:
        raise InputError("the integral of exp(-S) vanishes to working precision: no averages")
    return norm


def _bessel_ratio(n: int, beta: complex) -> complex:
    ratio = complex(scipy.special.ive(n, beta)), complex(scipy.special.ive(0, beta))
    if abs(ratio[1]) < 1e-12:
        raise InputError(f"I_0(beta) vanishes to working precision at beta = {beta}: no averages")
    return ratio[0] / ratio[1]
