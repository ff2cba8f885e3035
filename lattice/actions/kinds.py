"""The kinds of action by name: from the dictionary in a file or a config to the action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.actions.phi4 import ComplexPhi4, FreeScalar, ScalarPhi4
from lattice.actions.protocol import CONVENTION, Action
from lattice.actions.u1 import OneLink
from lattice.errors import InputError, nearest

PHI4: dict[str, type[ScalarPhi4]] = {"phi4": ScalarPhi4, "free": FreeScalar}
TOYS = ("complex_gaussian", "complex_quartic", "one_link", "real_quartic", "two_peak", "complex_phi4")
KINDS = (*PHI4, *TOYS)


def action_from_dict(d: Mapping[str, Any]) -> Action:
    """The action that `as_dict` described.  Raises `InputError` on an unknown kind, key or convention.

    The kinds of `lattice.actions.one_variable` and `lattice.actions.phi4` come back as the holomorphic
    action, and with "field": "x+iy" as the action of fields stored as (x, y).

    >>> action_from_dict({"kind": "phi4", "convention": "kappa-lambda", "kappa": 0.27, "lam": 0.022})
    ScalarPhi4(kappa=0.27, lam=0.022)
    """
    kind = d.get("kind", "phi4")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(str(kind), KINDS)
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
            raise InputError(f"unknown key action.{key}{nearest(key, known)}; known: {', '.join(known)}")
    if "kappa" not in d or (kind == "phi4" and "lam" not in d):
        raise InputError(f"an action of kind {kind!r} needs kappa{' and lam' if kind == 'phi4' else ''}")
    return PHI4[kind](kappa=d["kappa"], lam=d.get("lam", 0.0))


def _toy(d: Mapping[str, Any]) -> Action:
    couplings = {key: value for key, value in d.items() if key != "field"}
    action = toy_from_dict(couplings, {**ONE_VARIABLE, "complex_phi4": ComplexPhi4})
    if "field" not in d:
        return cast(Action, action)
    if d["field"] != "x+iy":
        raise InputError(f"action.field must be 'x+iy' (or absent), got {d['field']!r}")
    return Complexified(action)


ToyAction = ComplexGaussian | ComplexQuartic | OneLink | RealQuartic | TwoPeak
ONE_VARIABLE: dict[str, type] = {
    "complex_gaussian": ComplexGaussian,
    "complex_quartic": ComplexQuartic,
    "one_link": OneLink,
    "real_quartic": RealQuartic,
    "two_peak": TwoPeak,
}


def toy_from_dict(d: Mapping[str, Any], kinds: Mapping[str, type] = ONE_VARIABLE) -> Any:
    """The action that `as_dict` described, with its "kind" and couplings; InputError on unknown or missing
    keys."""
    cls = kinds[d["kind"]]
    names = [f.name for f in fields(cls)]
    for key in d:
        if key not in ("kind", *names):
            raise InputError(f"unknown key action.{key} of kind {d['kind']!r}; known: {', '.join(names)}")
    if missing := [name for name in names if name not in d]:
        raise InputError(f"an action of kind {d['kind']!r} needs {' and '.join(missing)}")
    return cls(**{name: d[name] for name in names})
