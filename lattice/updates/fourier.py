r"""Fourier acceleration: HMC whose kinetic term knows the propagator.

    H = 1/2 sum_k A(k) |p(k)|^2 / V + S(phi),      p(k) ~ A(k)^(-1/2),      d phi(k)/dt = A(k) p(k)

Any positive A gives an exact algorithm. With A = G, the propagator, every mode of a Gaussian theory has
frequency 1 in HMC time, so one trajectory of length about pi/2 renews them all, where A = 1 leaves the long
waves slow (Parisi, in Progress in Gauge Field Theory (1984); Batrouni et al., PRD 32 (1985) 2736; for HMC:
Duane, Kennedy, Pendleton, Roweth 1987, section 5). A is called the inverse mass; a first one is
`lattice.exact.scalar.free_propagator`.

The compiled loops multiply by A in the real Fourier basis of each axis, 1, cos, sin, ...; that needs A to be
even in every k_mu.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from lattice.actions.protocol import check_shape
from lattice.arrays import Floats, real_array
from lattice.errors import InputError


def measured_inverse_mass(phi: Floats) -> Floats:
    """A(k) = <|phi~(k)|^2>/V of equilibrium fields phi (n, *shape) -> (*shape), made even in every k_mu.

    A(0) = V (<M^2> - w <|M|>^2), w = 1.8 U_L within [0, 1]: where M has two peaks, its force is that of a
    well of width chi, not V <M^2>, and with the latter the zero mode would oscillate many times faster than
    all others. Noise costs efficiency only, never exactness; use a few hundred fields. Raises `InputError`
    when a mode is empty (all fields alike).
    """
    phi = real_array(phi, "phi")
    check_shape(phi.shape[1:])
    axes = tuple(range(1, phi.ndim))
    power: Floats = (np.abs(np.fft.fftn(phi, axes=axes)) ** 2).mean(axis=0) / phi[0].size
    m = phi.mean(axis=axes)
    m2, peaks = float((m**2).mean()), float(np.abs(m).mean()) ** 2
    if m2 > 0:
        weight = min(max(1.8 * (1.0 - float((m**4).mean()) / (3.0 * m2**2)), 0.0), 1.0)
        power.flat[0] *= max(1.0 - weight * peaks / m2, 1e-4)
    for axis in range(power.ndim):
        power = 0.5 * (power + _reflected(power, axis))
    return check_inverse_mass(power, phi.shape[1:])


def check_inverse_mass(inverse_mass: Floats, shape: tuple[int, ...]) -> Floats:
    """`inverse_mass` as float64 (*shape), or `InputError`: it must be positive and even in every k_mu."""
    values = real_array(inverse_mass, "inverse_mass")
    if values.shape != tuple(shape):
        raise InputError(f"inverse_mass must have the lattice's shape {tuple(shape)}, got {values.shape}")
    if not (np.isfinite(values).all() and values.min() > 0):
        raise InputError("inverse_mass must be positive and finite for every momentum")
    for axis in range(values.ndim):
        if not np.allclose(values, _reflected(values, axis), rtol=1e-9, atol=0):
            raise InputError(f"inverse_mass must be even in every momentum component, it is not along {axis}")
    return values


def _reflected(values: Floats, axis: int) -> Floats:
    """values(k) with k_axis -> -k_axis."""
    return np.roll(np.flip(values, axis), 1, axis)


@functools.lru_cache(maxsize=32)
def real_basis(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Orthonormal cosines and sines of every axis, (modes, half the sites), and the same transposed.

    Each is a pair (cosines of every axis, sines of every axis), as the compiled loops take them.
    """
    pairs = [_axis_basis(extent) for extent in shape]
    forward = tuple(tuple(pair[i] for pair in pairs) for i in (0, 1))
    return forward, tuple(tuple(np.ascontiguousarray(m.T) for m in kind) for kind in forward)


def _axis_basis(extent: int) -> tuple[Floats, Floats]:
    n_cos, n_sin = extent // 2 + 1, (extent - 1) // 2
    x = np.arange(n_cos)
    norm = np.full(n_cos, math.sqrt(2.0 / extent))
    norm[0] = math.sqrt(1.0 / extent)
    if extent % 2 == 0:
        norm[-1] = math.sqrt(1.0 / extent)
    angle = 2 * np.pi * np.outer(x, x) / extent
    cosines = norm[:, None] * np.cos(angle)
    sines = math.sqrt(2.0 / extent) * np.sin(angle)[1 : n_sin + 1, 1 : n_sin + 1]
    return np.ascontiguousarray(cosines), np.ascontiguousarray(sines)


def in_real_basis(values: Floats) -> Floats:
    """values(k) (*shape) in the order of the real basis, flat (V,)."""
    index = []
    for extent in values.shape:
        cos = np.arange(extent // 2 + 1)
        index.append(np.concatenate([cos, np.arange(1, (extent - 1) // 2 + 1)]))
    return np.ascontiguousarray(values[np.ix_(*index)]).ravel()
