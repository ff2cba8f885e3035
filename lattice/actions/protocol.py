"""What every part of the package asks of an action: the protocols, couplings checked, the sum over sites.

An action is a function of tensors: S of each field and its gradient, in the conventions its class states.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

from torch import Tensor

from lattice.errors import InputError


class Holomorphic(Protocol):
    """An action of complex fields: S (n,) and S' like z, for z (n, *shape); the `period` of Re z, if any."""

    period: ClassVar[float | None]

    def action(self, z: Tensor) -> Tensor: ...

    def grad(self, z: Tensor) -> Tensor: ...

    def as_dict(self) -> dict[str, Any]: ...


class NotPhi4:
    """The kappa and lam that code for phi^4 alone asks an action for: refused in one line."""

    @property
    def kappa(self) -> float:
        raise InputError(f"{type(self).__name__} has no hopping parameter kappa: this needs a phi^4 action")

    @property
    def lam(self) -> float:
        raise InputError(f"{type(self).__name__} has no phi^4 coupling lam: this needs a phi^4 action")


def real_coupling(name: str, value: Any) -> float:
    """A finite float, or InputError naming the coupling."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"action.{name} must be a finite number, got {value!r}")
    return float(value)


def complex_coupling(name: str, value: Any) -> complex:
    """A finite complex number from a number or the pair [re, im], or InputError naming the coupling.

    >>> complex_coupling("sigma0", [1.0, 0.5])
    (1+0.5j)
    """
    parts = (value.real, value.imag) if isinstance(value, complex) else value
    if isinstance(parts, list | tuple) and len(parts) == 2:
        return complex(*(real_coupling(name, part) for part in parts))
    if isinstance(parts, list | tuple):
        raise InputError(f"action.{name} must be a number or the pair [re, im], got {value!r}")
    return complex(real_coupling(name, parts))


def plain(c: complex) -> complex | float:
    """c as a float where it is real, so that real fields stay real."""
    return c if c.imag else c.real


def sum_sites(density: Tensor) -> Tensor:
    """(n, *shape) -> (n,), axis by axis: one large reduction would be split by the number of threads."""
    for _ in range(density.dim() - 1):
        density = density.sum(dim=-1)
    return density


def pair(c: complex) -> list[float]:
    """[re, im], as complex numbers are stored."""
    return [c.real, c.imag]


CONVENTION = "kappa-lambda"
MAX_DIM = 4


class Action(Protocol):
    """What an update needs of an action: couplings of the kappa-lambda form, S and its gradient.

    An action of another form (lattice.actions.one_variable) raises `InputError` when asked for kappa or lam.
    """

    @property
    def kappa(self) -> float: ...

    @property
    def lam(self) -> float: ...

    def action(self, phi: Tensor) -> Tensor: ...

    def grad(self, phi: Tensor) -> Tensor: ...

    def as_dict(self) -> dict[str, Any]: ...


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless `shape` is a lattice: 1 to 4 positive extents."""
    if not 1 <= len(shape) <= MAX_DIM or any(extent < 1 for extent in shape):
        raise InputError(f"lattice shape must be 1 to {MAX_DIM} positive extents, got {tuple(shape)}")
