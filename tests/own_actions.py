"""Actions that are not lattice's own, as a user would write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lattice.actions.protocol import Action


def neighbours(phi: torch.Tensor, dim: int) -> torch.Tensor:
    """Sum over the 2 dim nearest neighbours; the lattice is the last axes."""
    return sum((phi.roll(s, -1 - axis) for axis in range(dim) for s in (-1, 1)), torch.zeros_like(phi))


@dataclass(frozen=True)
class Own(Action):
    """phi^4 + g6 phi^6 + h phi in two dimensions, written anew; a gradient times `slip` is wrong unless 1."""

    kappa: float
    lam: float
    g6: float = 0.0
    slip: float = 1.0
    even = True

    def action(self, phi: torch.Tensor) -> torch.Tensor:
        hop = -self.kappa * phi * neighbours(phi, 2)
        local = (1 - 2 * self.lam) * phi**2 + self.lam * phi**4 + self.g6 * phi**6
        return (hop + local).sum((-2, -1))

    def grad(self, phi: torch.Tensor) -> torch.Tensor:
        local = 2 * (1 - 2 * self.lam) * phi + 4 * self.lam * phi**3 + 6 * self.g6 * phi**5
        return self.slip * (local - 2 * self.kappa * neighbours(phi, 2))


@dataclass(frozen=True)
class Tilted(Action):
    """One Gaussian per site around h/2: neither even nor of phi^4."""

    h: float

    def action(self, phi: torch.Tensor) -> torch.Tensor:
        return (phi**2 - self.h * phi).sum((-2, -1))

    def grad(self, phi: torch.Tensor) -> torch.Tensor:
        return 2 * phi - self.h


@dataclass(frozen=True)
class O2(Action):
    """Two components phi (n, 2, L0, L1): -2 kappa sum_mu phi.phi' + (1 - 2 lam) |phi|^2 + lam |phi|^4."""

    kappa: float
    lam: float
    components = (2,)
    even = True

    def action(self, phi: torch.Tensor) -> torch.Tensor:
        r2 = (phi**2).sum(1)
        hop = -self.kappa * (phi * neighbours(phi, 2)).sum(1)
        return (hop + (1 - 2 * self.lam) * r2 + self.lam * r2**2).sum((-2, -1))

    def grad(self, phi: torch.Tensor) -> torch.Tensor:
        r2 = (phi**2).sum(1, keepdim=True)
        return (2 * (1 - 2 * self.lam) + 4 * self.lam * r2) * phi - 2 * self.kappa * neighbours(phi, 2)

    def one_site(self) -> tuple[float, float]:
        """<|phi|^2>, <|phi|^4> of a site at kappa = 0: integrals over r dr."""
        r = np.linspace(0, 12, 200_001)
        weight: Any = r * np.exp(-(1 - 2 * self.lam) * r**2 - self.lam * r**4)
        return float((weight * r**2).sum() / weight.sum()), float((weight * r**4).sum() / weight.sum())
