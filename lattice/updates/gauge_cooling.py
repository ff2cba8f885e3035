r"""Gauge cooling of complexified U(1) links: of all links on a gauge orbit, those nearest to the real ones.

Complexified gauge transformations a_mu(x) -> a_mu(x) + alpha(x) - alpha(x + mu) with complex alpha change
neither the action nor the drift nor any closed loop, but the imaginary parts y of links may drift away along
them without end (Seiler, Sexty, Stamatescu 1211.3709). The unitarity norm is here N = sum y^2 over all links,
and the gauge that makes it least is linear: the divergence of y is nothing there, so

    y_mu(k) -> y_mu(k) - d_mu(k) sum_nu d_nu(k)* y_nu(k) / sum_nu |d_nu(k)|^2,      d_mu(k) = e^{i k_mu} - 1,

exactly and at once, by a Fourier transform; k = 0 is left alone. The drift is free of divergence itself,
since it is the gradient of an invariant: with real noise y stays cooled but for rounding, and what there is
to cool comes from complex starts and from imaginary noise.
"""

from __future__ import annotations

import numpy as np

from lattice.actions.protocol import Action
from lattice.actions.u1 import U1
from lattice.arrays import Complexes, Floats, complex_array
from lattice.errors import InputError


def cooled(z: Complexes) -> Complexes:
    """Links z (n, 2, L0, L1), complex, of the least unitarity norm on their gauge orbits; Re z as it was.

    Raises `InputError` for another shape.

    >>> alpha = np.array([[0.3, -0.1], [0.2, 0.5]])
    >>> gauge = np.stack([alpha - np.roll(alpha, -1, axis) for axis in (0, 1)])[None]
    >>> float(unitarity_norm(1j * gauge)[0]) > 0.1, np.abs(cooled(1j * gauge)).max() < 1e-15
    (True, np.True_)
    """
    z = _links(z)
    y = np.fft.fft2(z.imag)
    d0, d1 = (np.exp(2j * np.pi * np.fft.fftfreq(extent)) - 1.0 for extent in z.shape[-2:])
    d = np.stack(np.broadcast_arrays(d0[:, None], d1[None, :]))
    size = (np.abs(d) ** 2).sum(axis=0)
    size[0, 0] = 1.0  # where d is nothing
    along = (d.conj() * y).sum(axis=1, keepdims=True) / size
    return np.asarray(z.real + 1j * np.fft.ifft2(y - d * along).real)


def unitarity_norm(z: Complexes) -> Floats:
    """sum of (Im z)^2 over the links, (n,)."""
    return np.asarray((_links(z).imag ** 2).sum(axis=(1, 2, 3)))


def has_orbits(action: Action) -> bool:
    """Whether fields are links of two-dimensional U(1), which have a gauge."""
    return isinstance(action, U1)


def in_its_gauge(action: Action, z: Complexes) -> Complexes:
    """`cooled` links of two-dimensional U(1), all other fields as they are."""
    return cooled(z) if has_orbits(action) else z


def _links(z: Complexes) -> Complexes:
    z = complex_array(z, "z")
    if z.ndim != 4 or z.shape[1] != 2:
        raise InputError(f"complexified links are (n, 2, L0, L1), got {z.shape}")
    return z
