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
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from lattice.actions.protocol import (
    CONVENTION,
    Action,
    Derivative,
    Range,
    check_shape,
    field_values,
    plain,
    says_itself,
    sum_sites,
)
from lattice.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

LAM = Range(0.0, why="exp(-S) is not integrable otherwise")


def hopping(phi: Tensor, shifts: tuple[int, ...]) -> Tensor:
    """sum_mu phi(x - shift mu), for phi (n, *shape): (-1,) the forward neighbours, (1, -1) all."""
    check_shape(tuple(phi.shape[1:]))
    return reduce(add, [reduce(add, [phi.roll(s, axis) for s in shifts]) for axis in range(1, phi.dim())])


def action_of(phi: Tensor, kappa: float, mass: complex, lam: float) -> Tensor:
    """S of each field (n, *shape) -> (n,)."""
    phi2 = field_values(phi) * phi
    return sum_sites(-2.0 * kappa * phi * hopping(phi, (-1,)) + mass * phi2 + lam * phi2 * phi2)


def grad_of(phi: Tensor, kappa: float, mass: complex, lam: float) -> Tensor:
    """dS/dphi (n, *shape)."""
    local = 2.0 * mass + 4.0 * lam * field_values(phi) * phi
    return local * phi - 2.0 * kappa * hopping(phi, (1, -1))


def check_damped(kappa: float, mass: float, lam: float, shape: tuple[int, ...]) -> None:
    """A free field needs mass - 2 kappa sum_mu cos k_mu > 0 for every lattice momentum; InputError if not."""
    cosines = [[math.cos(2 * math.pi * n / extent) for n in range(extent)] for extent in shape]
    highest = max(kappa * sum(map(end, cosines)) for end in (max, min))
    if lam == 0 and mass - 2.0 * highest <= 0:
        raise InputError(
            f"action.kappa = {kappa:g} with lam = 0 has no normalisable distribution on {tuple(shape)}: "
            f"|kappa| < {mass:g}/(2d) is needed"
        )


@dataclass(frozen=True)
class ScalarPhi4(Action):
    """Real scalar field with quartic self-coupling, kappa-lambda convention.

    `kappa` is the hopping parameter (any sign), `lam` >= 0 the quartic coupling.  Raises `InputError` for
    values that are not finite or out of range.

    >>> import torch
    >>> phi = torch.ones(1, 4, 4, dtype=torch.float64)
    >>> ScalarPhi4(kappa=0.27, lam=0.022).action(phi) / 16       # -4 kappa + 1 - lam
    tensor([-0.1020], dtype=torch.float64)
    """

    kappa: float
    lam: float
    kind = "phi4"
    even = True
    ranges = {"lam": LAM}

    def action(self, phi: Tensor) -> Tensor:
        return action_of(phi, self.kappa, 1.0 - 2.0 * self.lam, self.lam)

    def grad(self, phi: Tensor) -> Tensor:
        return grad_of(phi, self.kappa, 1.0 - 2.0 * self.lam, self.lam)

    def as_dict(self) -> dict[str, Any]:
        """The couplings and the convention they are in, as stored in files."""
        return {**super().as_dict(), "convention": CONVENTION}

    @property
    def phi4(self) -> ScalarPhi4 | None:
        """Itself, unless a subclass has another S."""
        return self if says_itself(self, "phi4") else None

    @property
    def derivative(self) -> Derivative:
        return Derivative(2.0 * (1.0 - 2.0 * self.lam), 4.0 * self.lam, 2.0 * self.kappa)

    def tree_mass2(self, dim: int) -> float:
        """(1 - 2 lam)/|kappa| - 2 dim, in lattice units; infinite at kappa = 0."""
        return (1.0 - 2.0 * self.lam) / abs(self.kappa) - 2.0 * dim if self.kappa else math.inf

    def classical_field(self, dim: int) -> float | None:
        """The uniform field that minimises S, phi^2 = (2 dim kappa - 1 + 2 lam)/(2 lam), 1 where that is 0.

        >>> ScalarPhi4(0.5, 0.5).classical_field(2), ScalarPhi4(0.1, 0.022).classical_field(2)
        (1.4142135623730951, 1.0)
        """
        if self.lam <= 0:
            return None
        square = (2 * dim * self.kappa - 1 + 2 * self.lam) / (2 * self.lam)
        return math.sqrt(square) if square > 0 else 1.0

    def check_normalisable(self, shape: tuple[int, ...]) -> None:
        check_damped(self.kappa, 1.0, self.lam, shape)


@dataclass(frozen=True)
class FreeScalar(ScalarPhi4):
    """The Gaussian theory, lam = 0: S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + phi_x^2].

    Normalisable on every lattice in d dimensions for |kappa| < 1/(2d).

    >>> FreeScalar(kappa=0.2).as_dict()["kind"]
    'free'
    """

    kappa: float
    lam: float = 0.0
    kind = "free"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam != 0:
            raise InputError(f"action.lam must be 0 for kind free, got {self.lam}; use kind phi4")


@dataclass(frozen=True)
class ComplexPhi4(Action):
    """Holomorphic action of z (n, *shape); lam >= 0, and Re mass > 0 where lam = 0 (InputError otherwise).

    >>> import torch
    >>> z = torch.ones(1, 2, 2, dtype=torch.complex128)
    >>> ComplexPhi4(kappa=0.1, lam=0.5, mass=1 + 1j).action(z).tolist()        # 4 (-4 kappa + mass + lam)
    [(4.4+4j)]
    """

    kappa: float
    lam: float
    mass: complex
    kind = "complex_phi4"
    field = "complex"
    even = True
    ranges = {"lam": LAM}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam == 0 and self.mass.real <= 0:
            raise InputError(f"action.mass with lam = 0 must have a positive real part, got {self.mass}")

    def action(self, z: Tensor) -> Tensor:
        return action_of(z, self.kappa, plain(self.mass), self.lam)

    def grad(self, z: Tensor) -> Tensor:
        return grad_of(z, self.kappa, plain(self.mass), self.lam)

    @property
    def derivative(self) -> Derivative:
        return Derivative(2.0 * self.mass, 4.0 * self.lam, 2.0 * self.kappa)

    def check_normalisable(self, shape: tuple[int, ...]) -> None:
        check_damped(self.kappa, self.mass.real, self.lam, shape)
