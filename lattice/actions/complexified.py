"""The action of complex fields stored as real ones: phi (n, 2, *shape), axis 1 = (x, y), z = x + iy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lattice.actions.protocol import Holomorphic, NotPhi4
from lattice.errors import InputError


@dataclass(frozen=True)
class Complexified(NotPhi4):
    """The action of an ensemble of complex fields stored as phi (n, 2, *shape): Re S(x + iy).

    `grad` is (Re S', Im S') on axis 1, minus the drift of complex Langevin; it is not the gradient of
    `action` (that is its mirror image, (Re S', -Im S')): the drift is no gradient, which is what is complex
    about complex Langevin.

    >>> Complexified(ComplexGaussian(1 + 1j)).grad(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).tolist()
    [[-1.0, 3.0]]
    """

    inner: Holomorphic

    def field(self, phi: Tensor) -> Tensor:
        """phi (n, 2, *shape) -> z (n, *shape); InputError for another axis 1."""
        if phi.dim() < 2 or phi.shape[1] != 2:
            raise InputError(f"complex fields are stored as (n, 2, *shape), x and y, got {tuple(phi.shape)}")
        return torch.complex(phi[:, 0], phi[:, 1])

    def action(self, phi: Tensor) -> Tensor:
        return self.inner.action(self.field(phi)).real

    def action_im(self, phi: Tensor) -> Tensor:
        """Im S(x + iy), (n,)."""
        return self.inner.action(self.field(phi)).imag

    def grad(self, phi: Tensor) -> Tensor:
        drift = self.inner.grad(self.field(phi))
        return torch.stack([drift.real, drift.imag], dim=1)

    def as_dict(self) -> dict[str, Any]:
        return {**self.inner.as_dict(), "field": "x+iy"}
