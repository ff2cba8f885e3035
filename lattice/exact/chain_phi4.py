r"""phi^4 on a ring of n sites, exactly, by its transfer matrix in phi.

    Z = tr T^n,    T(phi, phi') = exp[-U(phi)/2 + 2 kappa phi phi' - U(phi')/2],
    U = (1 - 2 lam) phi^2 + lam phi^4,

on a uniform grid, where the trapezoidal rule converges faster than any power of the spacing. With T = Q t Q^T
<phi_0^2 phi_r^2> = tr(phi^2 T^r phi^2 T^(n-r))/Z, every power of t being in units of its largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lattice.actions.protocol import Phi4Form
from lattice.arrays import Floats
from lattice.errors import InputError

DROP = 50.0  # the grid ends where T has fallen by e^-50


@dataclass(frozen=True, eq=False)
class Ring:
    """One-site moments <phi^2>, <phi^4>, <phi_0 phi_r> (n,), <phi_0^2 phi_r^2> (n,), and ln Z."""

    phi2: float
    phi4: float
    correlations: Floats
    squares: Floats
    ln_z: float

    @property
    def kappa4(self) -> float:
        """<phi^4> - 3 <phi^2>^2 of one site."""
        return self.phi4 - 3 * self.phi2**2

    @property
    def propagator(self) -> Floats:
        """G(k) (n,) in the order of `numpy.fft.fft`."""
        return np.asarray(np.fft.fft(self.correlations).real)

    @property
    def four_point(self) -> Floats:
        """kappa_4(0, 0, r, r) (n,)."""
        return self.squares - self.phi2**2 - 2 * self.correlations**2


def ring(action: Phi4Form, n: int, points: int = 301) -> Ring:
    """All that `Ring` holds, to 1e-10 for couplings of order 1 (more points check).

    Raises `InputError` for n < 1, and where exp(-S) has no integral.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> round(ring(ScalarPhi4(0.2, 0.1), 8).phi2, 8)
    0.50566091
    """
    if n < 1:
        raise InputError(f"a ring has n >= 1 sites, got {n}")
    phi = _grid(action, points)
    h = float(phi[1] - phi[0])
    u = (1 - 2 * action.lam) * phi**2 + action.lam * phi**4
    exponent = -(u[:, None] + u[None]) / 2 + 2 * action.kappa * np.outer(phi, phi)
    top = float(exponent.max())
    values, modes = np.linalg.eigh(h * np.exp(exponent - top))
    unit = float(np.abs(values).max())
    t = values / unit
    z = float((t**n).sum())
    one, two, four = (modes.T @ (phi[:, None] ** power * modes) for power in (1, 2, 4))
    powers = np.stack([t**r for r in range(n + 1)])

    def pair(a: Floats) -> Floats:
        return np.array([powers[r] @ (a * a) @ powers[n - r] / z for r in range(n)])

    phi2, phi4 = (float((np.diag(a) * powers[n]).sum() / z) for a in (two, four))
    return Ring(phi2, phi4, pair(one), pair(two), math.log(z) + n * (math.log(unit) + top))


def _grid(action: Phi4Form, points: int) -> Floats:
    """Symmetric, to where (1 - 2 lam - 2 |kappa|) phi^2 + lam phi^4 has risen by `DROP` above its minimum."""
    mass, lam = 1 - 2 * action.lam - 2 * abs(action.kappa), action.lam
    if lam <= 0 and mass <= 0:
        raise InputError(f"exp(-S) has no integral on a ring: kappa = {action.kappa:g} with lam = {lam:g}")
    rise = DROP + (mass**2 / (4 * lam) if mass < 0 else 0.0)
    root = math.sqrt(mass**2 + 4 * lam * rise)
    square = (root - mass) / (2 * lam) if mass < 0 else 2 * rise / (root + mass)
    radius = math.sqrt(square)
    return np.linspace(-radius, radius, points)
