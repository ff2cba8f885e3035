"""A small lattice with a complex action: phi^4 with a complex mass,

    S = sum_x [ -2 kappa sum_mu phi_x phi_{x+mu} + mass phi_x^2 + lam phi_x^4 ],      mass complex,

on a periodic lattice of any shape.  mass = 1 - 2 lam is `lattice.action.ScalarPhi4`.  An axis of extent 2
counts its bond twice and an axis of extent 1 couples a site to itself, exactly as the sum says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lattice.action import check_shape
from lattice.errors import InputError
from lattice.holomorphic import complex_coupling, pair, plain, real_coupling, sum_sites


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
