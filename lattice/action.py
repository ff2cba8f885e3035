"""Scalar actions and the conventions their couplings are quoted in.

The project's own convention, stored by name in every file, is "kappa-lambda":

    S = sum_x [ -2 kappa sum_mu phi_x phi_{x+mu} + (1 - 2 lam) phi_x^2 + lam phi_x^4 ]

on a periodic lattice of any shape in 1 to 4 dimensions.  An axis of extent 2 counts its bond twice and an
axis of extent 1 couples a site to itself, exactly as the sum says.  This is the only place where S and its
gradient are written for tensors; the compiled loops in `kernels` are tested equal to them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from lattice.errors import InputError

CONVENTION = "kappa-lambda"
MAX_DIM = 4


class Action(Protocol):
    """What an update needs of an action: couplings of the kappa-lambda form, S and its gradient.

    An action of another form (lattice.toys) raises `InputError` when asked for kappa or lam.
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


PHI4: dict[str, type[ScalarPhi4]] = {"phi4": ScalarPhi4, "free": FreeScalar}
TOYS = ("complex_gaussian", "complex_quartic", "one_link", "real_quartic", "two_peak", "complex_phi4")
KINDS = (*PHI4, *TOYS)


def action_from_dict(d: Mapping[str, Any]) -> Action:
    """The action that `as_dict` described.  Raises `InputError` on an unknown kind, key or convention.

    The kinds of `lattice.toys` and `lattice.complex_phi4` come back as the holomorphic action, and with
    "field": "x+iy" as the action of fields stored as (x, y).

    >>> action_from_dict({"kind": "phi4", "convention": "kappa-lambda", "kappa": 0.27, "lam": 0.022})
    ScalarPhi4(kappa=0.27, lam=0.022)
    """
    kind = d.get("kind", "phi4")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = _nearest(str(kind), KINDS)
        raise InputError(f"unknown action.kind {kind!r}{hint}; known: {', '.join(KINDS)}")
    return _toy(d) if kind in TOYS else phi4_from_dict(d)


def phi4_from_dict(d: Mapping[str, Any]) -> ScalarPhi4:
    """As `action_from_dict`, for the kinds phi4 and free alone."""
    kind = d.get("kind", "phi4")
    if kind not in PHI4:
        raise InputError(f"action.kind must be one of {', '.join(PHI4)} here, got {kind!r}")
    if d.get("convention", CONVENTION) != CONVENTION:
        raise InputError(
            f"action.convention must be {CONVENTION!r}, got {d['convention']!r}; convert it first"
        )
    known = ("kind", "convention", "kappa", "lam")
    for key in d:
        if key not in known:
            raise InputError(f"unknown key action.{key}{_nearest(key, known)}; known: {', '.join(known)}")
    if "kappa" not in d or (kind == "phi4" and "lam" not in d):
        raise InputError(f"an action of kind {kind!r} needs kappa{' and lam' if kind == 'phi4' else ''}")
    return PHI4[kind](kappa=d["kappa"], lam=d.get("lam", 0.0))


def _toy(d: Mapping[str, Any]) -> Action:
    from lattice.complex_phi4 import ComplexPhi4  # these two import this module
    from lattice.toys import KINDS as ONE_VARIABLE
    from lattice.toys import Complexified, toy_from_dict

    couplings = {key: value for key, value in d.items() if key != "field"}
    action = toy_from_dict(couplings, {**ONE_VARIABLE, "complex_phi4": ComplexPhi4})
    if "field" not in d:
        return cast(Action, action)
    if d["field"] != "x+iy":
        raise InputError(f"action.field must be 'x+iy' (or absent), got {d['field']!r}")
    return Complexified(action)


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
        hint = _nearest(name, CONVENTIONS)
        raise InputError(f"unknown convention {name!r}{hint}; known: {', '.join(CONVENTIONS)}")
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"dim must be 1 to {MAX_DIM}, got {dim}")
    return CONVENTIONS[name]


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _lattice_axes(phi: Tensor) -> tuple[int, ...]:
    check_shape(tuple(phi.shape[1:]))
    return tuple(range(1, phi.dim()))
