"""U(1): the one-link model, and gauge links on a two-dimensional torus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lattice.actions.protocol import (
    Action,
    Derivative,
    field_values,
    plain,
    says_itself,
    sum_sites,
)
from lattice.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

BETAS = (1e-6, 1e6)  # real beta of links, least and largest: exact numbers and draws are good there


@dataclass(frozen=True)
class OneLink(Action):
    """S = -beta cos z, the U(1) one-link model with complex beta; Re z is an angle.

    >>> import torch
    >>> OneLink(0.5).action(torch.zeros(1, dtype=torch.float64)).tolist()
    [-0.5]
    """

    beta: complex
    kind = "one_link"
    field = "complex"
    even = one_variable = True
    period = 2.0 * math.pi

    def action(self, z: Tensor) -> Tensor:
        return sum_sites(-plain(self.beta) * field_values(z).cos())

    def grad(self, z: Tensor) -> Tensor:
        return plain(self.beta) * field_values(z).sin()

    @property
    def derivative(self) -> Derivative:
        return Derivative(0.0, sine=self.beta)


@dataclass(frozen=True)
class U1(Action):
    r"""S = -beta sum_p cos theta_p - i theta Q on a two-dimensional torus, of links phi (n, 2, L0, L1).

    They are angles, a_0 along axis -2 and a_1 along axis -1, and theta_p is what
    `circulation` gives: a_0(x) + a_1(x + 0) - a_0(x + 1) - a_1(x).

    The order parameter is the charge Q = sum_p theta_p/2pi, each theta_p in (-pi, pi]. The theta term here is
    that of the smooth charge sum_p sin theta_p/2pi, which complex Langevin needs: the gradient of Q itself is
    nothing. With it, or with a complex beta, S is complex: `action.field: x+iy` and complex Langevin; the
    law of Q at theta by weights is that of `theta = 0`.

    Raises `InputError` for a real beta that is not in `BETAS`, 1e-6 to 1e6.

    >>> import torch
    >>> U1(2.0).action(torch.zeros(1, 2, 4, 4, dtype=torch.float64)).tolist()
    [-32.0]
    """

    beta: complex
    theta: float = 0.0
    kind = "u1"
    field = "angle"
    components = (2,)
    period = 2.0 * math.pi

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta.imag and self.beta.real <= 0:
            raise InputError(f"action.beta must be > 0, got {self.beta.real:g}")
        if not self.beta.imag and not BETAS[0] <= self.beta.real <= BETAS[1]:
            raise InputError(
                f"action.beta must be between {BETAS[0]:g} and {BETAS[1]:g}, got {self.beta.real:g}"
            )

    @property
    def even(self) -> bool:  # type: ignore[override]
        """Charge conjugation, a -> -a, turns theta around."""
        return not self.theta

    @property
    def is_complex(self) -> bool:
        return bool(self.beta.imag or self.theta)

    def action(self, phi: Tensor) -> Tensor:
        angle = circulation(phi)
        s = -plain(self.beta) * angle.cos()
        return sum_sites(s - self._theta_term * angle.sin() if self.theta else s)

    def grad(self, phi: Tensor) -> Tensor:
        angle = circulation(phi)
        slope = plain(self.beta) * angle.sin()
        if self.theta:
            slope = slope - self._theta_term * angle.cos()
        force = phi.new_empty(phi.shape, dtype=slope.dtype)
        force[..., 0, :, :] = slope - slope.roll(1, -1)
        force[..., 1, :, :] = slope.roll(1, -2) - slope
        return force

    @property
    def _theta_term(self) -> complex:
        return 1j * self.theta / (2 * math.pi)

    def order(self, phi: Tensor) -> Tensor:
        """Q (n,) of links (n, 2, L0, L1)."""
        from lattice.arrays import wrapped  # not above: a config is read without numpy

        return (sum_sites(wrapped(circulation(phi))) / self.period).round()

    def check_normalisable(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or min(shape) < 2:
            raise InputError(
                f"U(1) lives on two periodic extents of at least 2, got lattice.shape {list(shape)}"
            )

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "beta": plain(self.beta)} if not self.beta.imag else super().as_dict()


def circulation(phi: Tensor) -> Tensor:
    """Sums of link angles around the plaquettes, not wrapped: (n, 2, L0, L1) -> (n, L0, L1), complex links
    too."""
    a0, a1 = field_values(phi).unbind(-3)
    return a0 + a1.roll(-1, -2) - a0.roll(-1, -1) - a1


def as_links(action: Action) -> U1 | None:
    """The action as real links with the S of `U1` itself, for which there are compiled loops and exact
    numbers; or None."""
    own = isinstance(action, U1) and says_itself(action, "kind") and not action.is_complex
    return action if own and isinstance(action, U1) else None


def check_links(action: Action, what: str) -> U1:
    """The same; `InputError` "`what` U(1) links only ..." where it is another action, or S is complex."""
    if isinstance(action, U1):
        refuse_complex(action)
    if (links := as_links(action)) is None:
        raise InputError(f"{what} U(1) links only, not {type(action).__name__}")
    return links


def refuse_complex(action: U1) -> None:
    """`InputError` where exp(-S) is no probability."""
    if action.is_complex:
        raise InputError(
            f"S is complex: action.beta = {plain(action.beta):g}, action.theta = {action.theta:g}; real links"
            " have a real beta and theta: 0; use action.field: x+iy and complex Langevin for this one"
        )
