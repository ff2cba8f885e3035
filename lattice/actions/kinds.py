"""The kinds of action by name, laws without one among them: from the dictionary in a file or a config to the
action, validated."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, cast

from lattice.actions.complexified import Complexified
from lattice.actions.ising_field import IsingField
from lattice.actions.networks import NETWORKS
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.actions.phi4 import ComplexPhi4, FreeScalar, ScalarPhi4
from lattice.actions.protocol import CONVENTION, Action, Law, couplings_of, no_action
from lattice.actions.spins import Ising, Potts
from lattice.actions.u1 import U1, OneLink
from lattice.errors import InputError, nearest, shown

_OWN: tuple[type[Law], ...] = (
    ScalarPhi4, FreeScalar, ComplexPhi4, ComplexGaussian, ComplexQuartic, OneLink, RealQuartic, TwoPeak,
    Ising, Potts, IsingField, U1, *NETWORKS.values(),
)  # fmt: skip
KINDS: dict[str, type[Law]] = {kind.kind: kind for kind in _OWN}


def action_from_dict(d: Mapping[str, Any]) -> Action:
    """The action that `as_dict` described, or a config's `action` section.

    kind: one of `KINDS` (default phi4), with its couplings in the kappa-lambda convention; "field": "x+iy"
    gives the action of complex fields stored as (x, y). A law without an action (`has_action`) is handed out
    like one, and refuses what asks for S. Raises `InputError`, one line, for whatever is wrong.

    >>> action_from_dict({"kind": "phi4", "convention": "kappa-lambda", "kappa": 0.27, "lam": 0.022})
    ScalarPhi4(kappa=0.27, lam=0.022)
    >>> action_from_dict({"kapa": 0.27, "lam": 0.022})
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: unknown key action.kapa; did you mean action.kappa?
    """
    kind = d.get("kind", "phi4")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(
            f"unknown action.kind {shown(kind)}{nearest(str(kind), KINDS)}; known: {', '.join(KINDS)}"
        )
    couplings = {f.name: f.default is MISSING for f in couplings_of(KINDS[kind])}
    for key in d:
        if key not in (*couplings, "kind", "convention", "field"):
            close = difflib.get_close_matches(str(key), couplings, n=1)
            hint = f"did you mean action.{close[0]}?" if close else f"{kind} has {', '.join(couplings)}"
            raise InputError(f"unknown key action.{key}; {hint}")
    for name, needed in couplings.items():
        if needed and name not in d:
            raise InputError(f"action.{name} is missing ({kind} has {', '.join(couplings)})")
    for key, allowed, advice in (
        ("convention", CONVENTION, "convert it first"),
        ("field", "x+iy", "or none"),
    ):
        if d.get(key, allowed) != allowed:
            raise InputError(f"action.{key} must be {allowed!r}, got {shown(d[key])}; {advice}")
    law = KINDS[kind](**{name: d[name] for name in couplings if name in d})
    if "field" in d and not law.has_action:
        raise InputError(no_action(law, "action.field is for complex ones"))
    action = cast("Action", law)  # or what refuses as one: all that is asked of an ensemble's law it answers
    return Complexified(action) if "field" in d else action
