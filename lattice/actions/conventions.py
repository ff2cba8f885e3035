"""Couplings of phi^4 as others quote them, to and from the kappa-lambda convention."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import MAX_DIM, real_coupling
from lattice.errors import InputError, nearest


@dataclass(frozen=True)
class Convention:
    """A way to quote the couplings: mass2 = (1-2 lam)/kappa - 2d, coupling = quartic * lam / kappa^2,
    field = sqrt(field * kappa) * phi.  One quadratic for kappa serves them all."""

    quartic: float
    field: float
    action: str


CONVENTIONS: dict[str, Convention] = {
    "bare": Convention(6.0, 2.0, "1/2 (d phi0)^2 + 1/2 m0^2 phi0^2 + (lambda0/4!) phi0^4"),
    # Albergo, Kanwar, Shanahan 1904.12072: no 1/2 in front of the kinetic term
    "flow": Convention(1.0, 1.0, "sum_mu (Delta phi)^2 + m^2 phi^2 + lambda phi^4"),
    # Schaich, Loinaz 0902.0045
    "schaich-loinaz": Convention(1.0, 2.0, "1/2 sum (Delta psi)^2 + 1/2 mu0^2 psi^2 + 1/4 lambda psi^4"),
}


@dataclass(frozen=True)
class ForeignCouplings:
    """Couplings in another convention; `field_scale` is (their field) / (our phi)."""

    convention: str
    mass2: float
    coupling: float
    field_scale: float


def from_kappa_lambda(convention: str, kappa: float, lam: float, dim: int) -> ForeignCouplings:
    """Couplings of `convention` ("bare", "flow", "schaich-loinaz") for (kappa > 0, lam) in `dim` dimensions.

    >>> c = from_kappa_lambda("flow", kappa=0.5, lam=0.5, dim=2)
    >>> c.mass2, c.coupling
    (-4.0, 2.0)
    """
    conv = _convention(convention, dim)
    ScalarPhi4(kappa, lam)  # validates
    if kappa <= 0:
        raise InputError(f"only kappa > 0 can be converted to convention {convention!r}, got {kappa}")
    mass2 = (1.0 - 2.0 * lam) / kappa - 2.0 * dim
    return ForeignCouplings(convention, mass2, conv.quartic * lam / kappa**2, math.sqrt(conv.field * kappa))


def to_kappa_lambda(convention: str, mass2: float, coupling: float, dim: int) -> ScalarPhi4:
    """The action with couplings (mass2, coupling >= 0) of `convention`, any of `CONVENTIONS`.

    kappa is the positive root of 2 g kappa^2 + (2d + mass2) kappa = 1 with lam = g kappa^2.  Raises
    `InputError` where there is none.

    >>> round(to_kappa_lambda("flow", mass2=-4.0, coupling=4.572, dim=2).kappa, 6)    # 1/sqrt(2 lambda)
    0.330698
    """
    conv = _convention(convention, dim)
    mass2, coupling = real_coupling("mass2", mass2), real_coupling("coupling", coupling)
    g, b = coupling / conv.quartic, 2.0 * dim + mass2
    if not (math.isfinite(g) and math.isfinite(b)) or g < 0:
        raise InputError(f"{convention!r} needs finite mass2 and coupling >= 0, got {mass2}, {coupling}")
    root = math.sqrt(b * b + 8.0 * g)
    if b + root <= 0:
        raise InputError(f"no kappa > 0 has {convention!r} couplings {mass2}, {coupling} in {dim} dimensions")
    # two forms of the same root: each is free of cancellation for its own sign of b
    kappa = 2.0 / (b + root) if b >= 0 else (root - b) / (4.0 * g)
    return ScalarPhi4(kappa, g * kappa**2)


def _convention(name: str, dim: int) -> Convention:
    if name not in CONVENTIONS:
        hint = nearest(name, CONVENTIONS)
        raise InputError(f"unknown convention {name!r}{hint}; known: {', '.join(CONVENTIONS)}")
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"dim must be 1 to {MAX_DIM}, got {dim}")
    return CONVENTIONS[name]
