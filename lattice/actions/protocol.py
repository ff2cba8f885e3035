"""What the package asks of a law and of an action: facts as attributes, S and its gradient as methods.

Fields are phi (n, *components, *shape): no components for a real scalar, (2,) for x + iy or O(2). An action
is a function of tensors, in the conventions its class states; code asks it what it is, never for its type.
Importing actions loads no torch: methods of tensors do the work.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from lattice.errors import InputError, shown

if TYPE_CHECKING:
    from torch import Tensor

CONVENTION = "kappa-lambda"
MAX_DIM = 4
Field = Literal["real", "complex", "angle", "spin"]


class Range(NamedTuple):
    """Where a coupling may lie, ends included, and why."""

    low: float = -math.inf
    high: float = math.inf
    why: str = ""


ANY = Range()


class Derivative(NamedTuple):
    """S' = linear z + cubic z^3 - hop (sum of the 2d neighbours of z) + sine sin z, site by site."""

    linear: complex
    cubic: float = 0.0
    hop: float = 0.0
    sine: complex = 0.0


class Phi4Form(Protocol):
    """S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + (1 - 2 lam) phi_x^2 + lam phi_x^4]."""

    @property
    def kappa(self) -> float: ...

    @property
    def lam(self) -> float: ...

    def action(self, phi: Tensor) -> Tensor: ...

    def tree_mass2(self, dim: int) -> float: ...


class Law:
    """A law of fields phi (n, *components, *shape), a dataclass of its couplings; what it does not say of
    itself is as below.

    kind: its name in files, by default, or where S is not that of the class that says it, the name of its
    class. has_action: S is known. even: -phi has the law of phi. one_variable: there is no lattice. period:
    of Re phi, where it is an angle. ranges: where couplings may lie; all that are annotated float or complex
    must be finite (`InputError`).
    """

    kind: str = ""
    has_action: bool = False
    field: Field = "real"
    components: tuple[int, ...] = ()
    even: bool = False
    one_variable: bool = False
    period: float | None = None
    ranges: dict[str, Range] = {}

    def __post_init__(self) -> None:
        for coupling in couplings_of(self):
            name, value = coupling.name, getattr(self, coupling.name)
            if coupling.type in ("complex", complex):
                object.__setattr__(self, name, complex_coupling(name, value))
            elif coupling.type in ("float", float):
                object.__setattr__(self, name, real_coupling(name, value, self.ranges.get(name, ANY)))

    def as_dict(self) -> dict[str, Any]:
        """Kind and couplings as JSON data, as stored in files; a complex number is the pair [re, im]."""
        values = {coupling.name: getattr(self, coupling.name) for coupling in couplings_of(self)}
        for name, x in values.items():
            if isinstance(x, complex | tuple):
                values[name] = [x.real, x.imag] if isinstance(x, complex) else list(x)
        kind = self.kind if says_itself(self, "kind") else ""
        return {"kind": kind or type(self).__name__, **values}

    def order(self, phi: Tensor) -> Tensor:
        """The order parameter M (n,) of fields (n, *components, *shape): the mean of phi."""
        return phi.mean(dim=tuple(range(1, phi.dim())))

    def lattice_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The lattice of fields whose arrays are (n, *shape); `InputError` for other components."""
        n = len(self.components)
        if tuple(shape[:n]) != self.components:
            raise InputError(
                f"fields of {type(self).__name__} are (n, {', '.join(map(str, self.components))}, *shape), "
                f"got (n, {', '.join(map(str, shape))})"
            )
        return tuple(shape[n:])


def couplings_of(law: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The couplings of a law or of its class: the fields of the dataclass; `InputError` if it is none."""
    if not dataclasses.is_dataclass(law):
        name = law.__name__ if isinstance(law, type) else type(law).__name__
        raise InputError(f"{name} must be a dataclass of its couplings, or write its own as_dict()")
    return dataclasses.fields(law)


def says_itself(law: Any, name: str) -> bool:
    """Does a law say `name` of its own S and gradient: is no class below the one that says it theirs?"""
    classes = type(law).__mro__
    at, s, grad = (
        next((i for i, cls in enumerate(classes) if key in vars(cls)), len(classes))
        for key in (name, "action", "grad")
    )
    return at <= min(s, grad)


class Action(Law, ABC):
    """A law exp(-S): what a user writes is a dataclass with `action` and `grad`.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Sextic(Action):
    ...     g6: float
    ...     even = True
    ...     def action(self, phi): return (phi**2 + self.g6 * phi**6).flatten(1).sum(1)
    ...     def grad(self, phi): return 2 * phi + 6 * self.g6 * phi**5
    >>> Sextic(0.1).as_dict()
    {'kind': 'Sextic', 'g6': 0.1}
    """

    has_action = True

    @abstractmethod
    def action(self, phi: Tensor) -> Tensor:
        """S of each field: phi (n, *components, *shape) -> (n,)."""

    @abstractmethod
    def grad(self, phi: Tensor) -> Tensor:
        """dS/dphi, minus the force, like phi."""

    @property
    def phi4(self) -> Phi4Form | None:
        """This action as phi^4, for which there are compiled loops, clusters and site integrals; or None."""
        return None

    @property
    def derivative(self) -> Derivative | None:
        """S'(z) in the form that the compiled loop of complex Langevin knows, if it has it; not asked of a
        subclass with an S or gradient of its own."""
        return None

    @property
    def holomorphic(self) -> Action:
        """S(z) of the complex fields z that phi stores as (x, y); otherwise the action itself."""
        return self

    def classical_field(self, dim: int) -> float | None:
        """The uniform field of cold starts, both signs of it in those with walls; None: 1, and no walls."""
        return None

    def check_normalisable(self, shape: tuple[int, ...]) -> None:
        """`InputError` where exp(-S) has no integral on this lattice, if that is known."""


class WithoutAction(Law):
    """A law that is known otherwise, by its cumulants or by how it is drawn: what asks for S or its gradient
    is told so in one line (`InputError`)."""

    phi4 = None
    derivative = None

    @property
    def holomorphic(self) -> WithoutAction:
        """Itself: its fields are real."""
        return self

    def action(self, phi: Tensor) -> Tensor:
        raise InputError(no_action(self, "S is not known"))

    def grad(self, phi: Tensor) -> Tensor:
        raise InputError(no_action(self, "dS/dphi is not known"))

    def check_normalisable(self, shape: tuple[int, ...]) -> None:
        """`InputError` where there is no such law on this lattice."""


def no_action(law: Law, what: str) -> str:
    """The one line that refuses what asks for S."""
    return f"{law.kind or type(law).__name__} is a law without an action: {what}"


def as_phi4(action: Action, what: str, advice: str = "") -> Phi4Form:
    """The phi^4 couplings of an action; InputError "`what` phi^4 only ..." where it has another form."""
    if (form := action.phi4) is None:
        raise InputError(
            f"{what} phi^4 only, not {type(action).__name__}" + (f": {advice}" if advice else "")
        )
    return form


def real_coupling(name: str, value: Any, within: Range = ANY) -> float:
    """A finite float within the range, or InputError naming the coupling.

    >>> real_coupling("lam", -1, Range(0.0))
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: action.lam must be >= 0, got -1
    """
    try:
        number = float(value) if type(value) is not bool and isinstance(value, numbers.Real) else math.nan
    except OverflowError:  # of a whole number
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"action.{name} must be a finite number, got {shown(value)}")
    if not within.low <= number <= within.high:
        ends = [f">= {within.low:g}"] * (within.low > -math.inf) + [f"<= {within.high:g}"] * (
            within.high < math.inf
        )
        why = f" ({within.why})" if within.why else ""
        raise InputError(f"action.{name} must be {' and '.join(ends)}{why}, got {value}")
    return number


def complex_coupling(name: str, value: Any) -> complex:
    """A finite complex number from a number or the pair [re, im], or InputError naming the coupling.

    >>> complex_coupling("sigma0", [1.0, 0.5])
    (1+0.5j)
    """
    is_complex = isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)
    parts = (value.real, value.imag) if is_complex else value
    if isinstance(parts, list | tuple) and len(parts) == 2:
        return complex(*(real_coupling(name, part) for part in parts))
    if isinstance(parts, list | tuple):
        raise InputError(f"action.{name} must be a number or the pair [re, im], got {shown(value)}")
    return complex(real_coupling(name, parts))


def plain(c: complex) -> complex | float:
    """c as a float where it is real, so that real fields stay real."""
    return c if c.imag else c.real


def field_values(phi: Tensor) -> Tensor:
    """phi itself; InputError for what is no tensor, and for integers, whose powers wrap around."""
    if not hasattr(phi, "new_empty"):
        raise InputError(
            f"fields of an action are tensors, not {type(phi).__name__}: pass torch.from_numpy(phi)"
        )
    if not getattr(phi.dtype, "is_floating_point", True) and not phi.dtype.is_complex:
        raise InputError(f"phi is a tensor of {phi.dtype}, whose powers overflow: pass phi.double()")
    return phi


def sum_sites(density: Tensor) -> Tensor:
    """(n, *shape) -> (n,), axis by axis: one large reduction would be split by the number of threads."""
    for _ in range(density.dim() - 1):
        density = density.sum(dim=-1)
    return density


def check_one_variable(shape: tuple[int, ...], what: str) -> None:
    """`InputError` "`what` of one variable ..." unless the shape is () or (1,)."""
    if tuple(shape) not in ((), (1,)):
        raise InputError(f"{what} of one variable: lattice.shape is [1], got {list(shape)}")


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless `shape` is a lattice: 1 to 4 positive extents."""
    if not 1 <= len(shape) <= MAX_DIM or any(extent < 1 or extent % 1 for extent in shape):
        raise InputError(f"lattice shape must be 1 to {MAX_DIM} positive extents, got {tuple(shape)}")
