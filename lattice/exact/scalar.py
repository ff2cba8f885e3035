"""Truth by closed form and quadrature: the free propagator, one-site moments, the smallest lattices.

Everything here is exact to 1e-9 or better and knows nothing of Monte Carlo.  Smooth integrands that fall
off at both ends are summed on a uniform grid, where the trapezoidal rule converges faster than any power of
the spacing (Trefethen, Weideman, SIAM Review 56 (2014) 385).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.protocol import Phi4Form, check_shape
from lattice.arrays import integer_array
from lattice.errors import InputError

DROP = 40.0  # integrands are cut where they have fallen by e^-40
MAX_SITES = 4


def free_propagator(kappa: float, shape: tuple[int, ...], mass: complex = 1.0) -> NDArray[Any]:
    """G(k) = <phi_k phi_-k>/V = 1 / [2 (mass - 2 kappa sum_mu cos k_mu)] of the free field of this `mass`.

    The action is S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + mass phi_x^2].

    On all momenta of `shape`, in the order of `numpy.fft.fftn`; complex for a complex mass; mass = 1 is
    `FreeScalar(kappa)`.  Raises `InputError` where some mode is not damped.

    >>> float(free_propagator(0.2, (4, 4))[0, 0])       # 1 / (2 - 8 kappa)
    2.5...
    """
    check_shape(shape)
    axes = np.meshgrid(*(np.cos(2 * np.pi * np.arange(extent) / extent) for extent in shape), indexing="ij")
    inverse = 2.0 * (mass - 2.0 * kappa * np.sum(axes, axis=0))
    if not inverse.real.min() > 0:
        raise InputError(
            f"kappa={kappa}, mass={mass} on shape {tuple(shape)} has a flat mode, or one that grows: "
            "it needs Re mass > 2 |kappa| d"
        )
    return np.asarray(1.0 / inverse)


def one_site_moments(action: Phi4Form, orders: tuple[int, ...], dim: int = 0) -> NDArray[np.float64]:
    """<phi^n>, n in `orders`, of one site with weight exp[-(1 - 2 lam - 2 kappa dim) phi^2 - lam phi^4].

    dim = 0 is one site of any lattice at kappa = 0; dim = d is the lattice of one site that neighbours
    itself along d axes.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> one_site_moments(ScalarPhi4(0.0, 0.0), (2, 4)).round(12).tolist()
    [0.5, 0.75]
    """
    phi, weight, _ = _one_site(action, dim)
    powers = integer_array(orders, "orders").tolist()
    return np.array([np.sum(weight * phi**n) / weight.sum() for n in powers])


def ln_z_site(action: Phi4Form, dim: int = 0) -> float:
    """ln of the one-site integral with the weight of `one_site_moments`: ln Z / V at kappa = 0.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> round(ln_z_site(ScalarPhi4(0.0, 0.022)), 8)
    0.57827798
    """
    phi, weight, shift = _one_site(action, dim)
    return float(np.log(weight.sum() * (phi[1] - phi[0])) + shift)


@dataclass(frozen=True)
class SmallLattice:
    """Expectation values on a lattice of at most 4 sites: M moments, site moments, action density, ln Z."""

    abs_m: float
    m2: float
    m4: float
    phi2: float
    phi4: float
    action_density: float
    ln_z: float


def small_lattice(action: Phi4Form, shape: tuple[int, ...], spacing: float = 0.3) -> SmallLattice:
    """The whole truth about a lattice of at most 4 sites, by quadrature of exp(-S) over every site.

    phi = Q c with an orthogonal Q whose first column is constant, so that c_0 = sqrt(V) M: <|M|> then has
    its kink at the end of a Gauss-Legendre interval, and everything else is smooth on a uniform grid of
    this `spacing`. Relative errors are below 1e-8 for the couplings of interest (|kappa| <= 0.5, lam <= 1);
    a smaller spacing checks. Raises `InputError` for larger lattices.
    """
    check_shape(shape)
    v = math.prod(shape)
    if v > MAX_SITES:
        raise InputError(f"quadrature needs a lattice of at most {MAX_SITES} sites, got shape {tuple(shape)}")
    radius, shift = _radius(1.0 - 2.0 * action.lam - 2.0 * abs(action.kappa) * len(shape), action.lam / v)
    points = max(56, math.ceil(2 * radius / spacing) + 1)
    node, weight = np.polynomial.legendre.leggauss(points)
    m_mode, m_weight = 0.5 * radius * (node + 1.0), radius * weight  # both signs of M: twice the half line
    grid = np.linspace(-radius, radius, points)
    others = np.array(list(itertools.product(grid, repeat=v - 1))).reshape(points ** (v - 1), v - 1)
    others = others[(others**2).sum(1) <= radius**2]
    q = _modes(v)
    rest = torch.from_numpy(others @ q[:, 1:].T)
    sums = np.zeros(7)
    for c, w in zip(m_mode, m_weight, strict=True):
        phi = rest + c / math.sqrt(v)
        s = action.action(phi.reshape(-1, *shape))
        p = w * torch.exp(shift - s)
        m = c / math.sqrt(v)
        total, mean2, mean4 = float(p.sum()), (phi**2).mean(1), (phi**4).mean(1)
        averages = [float((p * a).sum()) for a in (mean2, mean4, s / v)]
        sums += np.array([total, m * total, m**2 * total, m**4 * total, *averages])
    ln_z = math.log(sums[0]) + (v - 1) * math.log(grid[1] - grid[0]) - shift
    abs_m, m2, m4, phi2, phi4, density = (sums[1:] / sums[0]).tolist()
    return SmallLattice(abs_m, m2, m4, phi2, phi4, density, ln_z)


def _one_site(action: Phi4Form, dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Grid, weights exp(-U - shift') and the shift that brings them back to exp(-U)."""
    mass = 1.0 - 2.0 * action.lam - 2.0 * action.kappa * dim
    radius, shift = _radius(mass, action.lam)
    phi = np.linspace(-radius, radius, 2001)
    return phi, np.exp(shift - mass * phi**2 - action.lam * phi**4), -shift


def _radius(mass: float, quartic: float) -> tuple[float, float]:
    """Where U(r) = mass r^2 + quartic r^4 has risen `DROP` above its minimum, and that minimum."""
    if quartic <= 0 and mass <= 0:
        raise InputError(f"exp(-S) is not integrable: quadratic term {mass}, quartic term {quartic}")
    lowest = -(mass**2) / (4 * quartic) if mass < 0 else 0.0
    rise = DROP + lowest
    root = math.sqrt(mass * mass + 4 * quartic * rise)
    square = (root - mass) / (2 * quartic) if mass < 0 else 2 * rise / (root + mass)
    return math.sqrt(square), lowest


def _modes(v: int) -> NDArray[np.float64]:
    """An orthogonal (v, v) matrix whose first column is constant."""
    basis = np.eye(v)
    basis[:, 0] = 1.0
    q, _ = np.linalg.qr(basis)
    return np.asarray(q * np.sign(q[0, 0]))
