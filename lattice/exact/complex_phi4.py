"""Exact averages of tiny lattices with a complex mass: free fields, one site, rings, 2 x 2 sites."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lattice.actions.one_variable import ComplexQuartic
from lattice.actions.phi4 import ComplexPhi4
from lattice.actions.protocol import check_shape
from lattice.arrays import Complexes
from lattice.errors import InputError
from lattice.exact.one_variable import normalisation
from lattice.exact.quadrature import real_grid
from lattice.exact.scalar import free_propagator

MAX_RING = 64


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
    """G(k) of the free field on all momenta of `shape`, as `free_propagator`; `InputError` also for lam > 0.

    >>> complex_propagator(ComplexPhi4(0.1, 0.0, 1 + 1j), (1,)).round(6).tolist()       # 1/(1.6 + 2i)
    [(0.243902-0.304878j)]
    """
    if action.lam != 0:
        raise InputError(f"the propagator is known in closed form at lam = 0 only, got lam = {action.lam}")
    return free_propagator(action.kappa, shape, action.mass)


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
        norm = normalisation(site)
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
        np.einsum("a,ab,b,ba->", phi, before, phi, after, optimize=True) / z
        for before, after in zip(powers[:-1], powers[:0:-1], strict=True)
    ]
    return phi2, phi4, np.array(correlator)
