"""Phi^4 on a periodic lattice, with a real or a complex mass.

The project's own convention, stored by name in every file, is "kappa-lambda":

    S = sum_x [ -2 kappa sum_mu phi_x phi_{x+mu} + (1 - 2 lam) phi_x^2 + lam phi_x^4 ],

and with any complex `mass` in place of 1 - 2 lam for `ComplexPhi4`, in 1 to 4 dimensions.  An axis of extent
2 counts its bond twice and an axis of extent 1 couples a site to itself, exactly as the sum says.  This is
the only place where S and its gradient are written for tensors; the compiled loops are tested equal to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lattice.actions.protocol import (
    CONVENTION,
    check_shape,
    complex_coupling,
    pair,
    plain,
    real_coupling,
    sum_sites,
)
from lattice.errors import InputError


@dataclass(frozen=True)
class ScalarPhi4:
    """Real scalar field with quartic self-coupling, kappa-lambda convention.

    `kappa` is the hopping parameter (any sign), `lam` >= 0 the quartic coupling.  Raises `InputError` for
    values that are not finite or for lam < 0.

    >>> phi = torch.ones(1, 4, 4, dtype=torch.float64)
    >>> ScalarPhi4(kappa=0.27, lam=0.022).action(phi) / 16       # -4 kappa + 1 - lam
    tensor([-0.1020], dtype=torch.float64)
    """

    kappa: float
    lam: float

    def __post_init__(self) -> None:
        for name, value in (("kappa", self.kappa), ("lam", self.lam)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"action.{name} must be a finite number, got {value!r}")
        if self.lam < 0:
            raise InputError(f"action.lam must be >= 0 (the action has no minimum otherwise), got {self.lam}")

    def action(self, phi: Tensor) -> Tensor:
        """S of each field: phi (n, *shape) -> (n,)."""
        axes = _lattice_axes(phi)
        forward = sum((torch.roll(phi, -1, axis) for axis in axes), torch.zeros_like(phi))
        phi2 = phi * phi
        density = -2.0 * self.kappa * phi * forward + (1.0 - 2.0 * self.lam) * phi2 + self.lam * phi2 * phi2
        # axis by axis: one reduction of a single large field would be split by the number of threads
        for _ in axes:
            density = density.sum(dim=-1)
        return density

    def grad(self, phi: Tensor) -> Tensor:
        """dS/dphi, minus the force: phi (n, *shape) -> (n, *shape)."""
        axes = _lattice_axes(phi)
        pairs = (torch.roll(phi, 1, axis) + torch.roll(phi, -1, axis) for axis in axes)
        neighbours = sum(pairs, torch.zeros_like(phi))
        local = 2.0 * (1.0 - 2.0 * self.lam) + 4.0 * self.lam * phi * phi
        return local * phi - 2.0 * self.kappa * neighbours

    def as_dict(self) -> dict[str, Any]:
        """The couplings and the convention they are in, as stored in files."""
        return {"kind": "phi4", "convention": CONVENTION, "kappa": float(self.kappa), "lam": float(self.lam)}


@dataclass(frozen=True)
class FreeScalar(ScalarPhi4):
    """The Gaussian theory, lam = 0: S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + phi_x^2].

    Normalisable on every lattice in d dimensions for |kappa| < 1/(2d).

    >>> FreeScalar(kappa=0.2).as_dict()["kind"]
    'free'
    """

    kappa: float
    lam: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam != 0:
            raise InputError(f"a free action has lam = 0, got {self.lam}; use kind 'phi4'")

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "kind": "free"}


def _lattice_axes(phi: Tensor) -> tuple[int, ...]:
    check_shape(tuple(phi.shape[1:]))
    return tuple(range(1, phi.dim()))


@dataclass(frozen=True)
class ComplexPhi4:
    """Holomorphic action of z (n, *shape); lam >= 0, and Re mass > 0 where lam = 0 (InputError otherwise).

    >>> z = torch.ones(1, 2, 2, dtype=torch.complex128)
    >>> ComplexPhi4(kappa=0.1, lam=0.5, mass=1 + 1j).action(z).tolist()        # 4 (-4 kappa + mass + lam)
    [(4.4+4j)]
    """

    kappa: float
    lam: float
    mass: complex
    period: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", real_coupling("kappa", self.kappa))
        object.__setattr__(self, "lam", real_coupling("lam", self.lam))
        object.__setattr__(self, "mass", complex_coupling("mass", self.mass))
        if self.lam < 0:
            raise InputError(f"action.lam must be >= 0 (exp(-S) is not integrable otherwise), got {self.lam}")
        if self.lam == 0 and self.mass.real <= 0:
            raise InputError(f"action.mass with lam = 0 must have a positive real part, got {self.mass}")

    def action(self, z: Tensor) -> Tensor:
        """S of each field: z (n, *shape) -> (n,)."""
        axes = _axes(z)
        forward = sum((torch.roll(z, -1, axis) for axis in axes), torch.zeros_like(z))
        z2 = z * z
        return sum_sites(-2.0 * self.kappa * z * forward + plain(self.mass) * z2 + self.lam * z2 * z2)

    def grad(self, z: Tensor) -> Tensor:
        """dS/dz, minus the drift: z (n, *shape) -> (n, *shape)."""
        pairs = (torch.roll(z, 1, axis) + torch.roll(z, -1, axis) for axis in _axes(z))
        neighbours = sum(pairs, torch.zeros_like(z))
        return (2.0 * plain(self.mass) + 4.0 * self.lam * z * z) * z - 2.0 * self.kappa * neighbours

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "complex_phi4",
            "kappa": self.kappa,
            "lam": self.lam,
            "mass": pair(self.mass),
        }


def _axes(z: Tensor) -> tuple[int, ...]:
    check_shape(tuple(z.shape[1:]))
    return tuple(range(1, z.dim()))
