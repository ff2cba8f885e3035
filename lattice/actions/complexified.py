"""The action of complex fields stored as real ones: phi (n, 2, *shape), axis 1 = (x, y), z = x + iy.

Fields with components of their own keep them behind (x, y): links of two-dimensional U(1) are phi
(n, 2, 2, L0, L1), axis 1 = (x, y), axis 2 = the direction of the link, z (n, 2, L0, L1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lattice.actions.protocol import Action

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Complexified(Action):
    """The action of an ensemble of complex fields stored as phi (n, 2, *shape): Re S(x + iy).

    `grad` is (Re S', Im S') on axis 1, minus the drift of complex Langevin; it is not the gradient of
    `action` (that is its mirror image, (Re S', -Im S')): the drift is no gradient, which is what is complex
    about complex Langevin.

    >>> import torch
    >>> from lattice.actions.one_variable import ComplexGaussian
    >>> Complexified(ComplexGaussian(1 + 1j)).grad(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).tolist()
    [[-1.0, 3.0]]
    """

    inner: Action
    field = "complex"
    components = (2,)

    def __post_init__(self) -> None:
        for fact in ("even", "one_variable", "period"):
            object.__setattr__(self, fact, getattr(self.inner, fact))
        object.__setattr__(self, "components", (2, *self.inner.components))

    @property
    def holomorphic(self) -> Action:
        return self.inner

    def z(self, phi: Tensor) -> Tensor:
        """phi (n, 2, *components, *shape) -> z (n, *components, *shape); InputError for other axes."""
        self.lattice_of(tuple(phi.shape[1:]))
        return phi[:, 0] + 1j * phi[:, 1]

    def action(self, phi: Tensor) -> Tensor:
        return self.inner.action(self.z(phi)).real

    def action_im(self, phi: Tensor) -> Tensor:
        """Im S(x + iy), (n,)."""
        return self.inner.action(self.z(phi)).imag

    def grad(self, phi: Tensor) -> Tensor:
        import torch

        drift = self.inner.grad(self.z(phi))
        return torch.stack([drift.real, drift.imag], dim=1)

    def order(self, phi: Tensor) -> Tensor:
        """The order parameter of Re z, (n,), where the inner action has components; else the mean of phi."""
        return self.inner.order(phi[:, 0]) if self.inner.components else super().order(phi)

    def as_dict(self) -> dict[str, Any]:
        return {**self.inner.as_dict(), "field": "x+iy"}
