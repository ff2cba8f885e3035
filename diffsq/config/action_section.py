"""The `action` section: couplings of any action the project knows, in any convention, to the action itself.

Couplings and where they may lie are written once, in `lattice.actions`; here other
conventions of phi^4 (mass2, coupling) are converted, and what is likely a slip is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffsq.config.section import Section, nearest, validated
from diffsq.config.yaml_file import apply_override
from lattice.errors import InputError, shown

if TYPE_CHECKING:
    from lattice.actions.protocol import Action

CONVENTION = "kappa-lambda"
KAPPA, LAM = 10.0, 1000.0  # |kappa| and lam of phi^4 in a config, at most
FOREIGN = ("bare", "flow", "schaich-loinaz")  # of lattice.actions.conventions


def read_action(data: Any, dim: int | None) -> Action:
    """The action that a section describes, on a lattice of `dim` dimensions (None: not known).

    Raises `InputError`, one line, for an unknown kind, key or convention, and for couplings that are missing,
    not numbers or out of range.

    >>> read_action({"convention": "flow", "mass2": -4, "coupling": 4.5}, 2).lam
    0.5
    """
    from lattice.actions.kinds import action_from_dict

    if not isinstance(data, Mapping):
        raise InputError(
            f"action is a section such as {{kind: phi4, kappa: 0.27, lam: 0.022}}, got {shown(data)}"
        )
    section = dict(data)
    convention = section.get("convention", CONVENTION)
    if convention not in (CONVENTION, *FOREIGN):
        raise InputError(
            f"action.convention: {shown(convention)}{nearest(str(convention), (CONVENTION, *FOREIGN))}"
        )
    if convention == CONVENTION:
        for key in ("mass2", "coupling"):
            if key in section:
                raise InputError(
                    f"action.{key} does not belong to convention {CONVENTION}, which takes kappa and lam"
                )
        action = action_from_dict(section)
        check_limits(action)
        return action
    return _converted(section, convention, dim)


def check_limits(action: Action) -> None:
    """`InputError` for phi^4 couplings larger than a config may have."""
    from lattice.actions.protocol import Range, real_coupling

    if hasattr(action, "kappa"):
        why = "the range of a config"
        for name, limit in (("kappa", Range(-KAPPA, KAPPA, why)), ("lam", Range(0.0, LAM, why))):
            real_coupling(name, getattr(action, name), limit)


def _converted(section: dict[str, Any], convention: str, dim: int | None) -> Action:
    from lattice.actions.conventions import to_kappa_lambda
    from lattice.actions.kinds import action_from_dict
    from lattice.actions.protocol import real_coupling

    kind = section.get("kind", "phi4")
    for key in section:
        if key in ("kappa", "lam"):
            raise InputError(
                f"action.{key} does not belong to convention {convention}, which takes mass2 and coupling"
            )
        if key not in ("kind", "convention", "mass2", "coupling"):
            known = ("action.kind", "action.convention", "action.mass2", "action.coupling")
            raise InputError(f"unknown key action.{key}{nearest(f'action.{key}', known)}")
    for key in ("mass2", "coupling"):
        if key not in section and not (kind == "free" and key == "coupling"):
            raise InputError(f"action.{key} is missing (convention {convention})")
    if dim is None:
        raise InputError(f"lattice.shape=[...] is needed to convert couplings of {convention}")
    mass2, coupling = (real_coupling(key, section.get(key, 0.0)) for key in ("mass2", "coupling"))
    phi4 = to_kappa_lambda(convention, mass2, coupling, dim)
    return action_from_dict({**phi4.as_dict(), "kind": kind})


class _Shape(Section):
    shape: tuple[int, ...]


class _Declared(Section):
    action: dict[str, Any]
    lattice: _Shape | None = None


def declared_action(words: Sequence[str]) -> tuple[Action, tuple[int, ...] | None]:
    """Action and shape (None: not given) of `--set` words for an ensemble that has no config.

    >>> declared_action(["action.kappa=0.27", "action.lam=0.022"])
    (ScalarPhi4(kappa=0.27, lam=0.022), None)
    """
    data: dict[str, Any] = {}
    for word in words:
        apply_override(data, word)
    if "action" not in data:
        raise InputError("declare the action: --set action.kappa=... --set action.lam=...")
    declared = validated(_Declared, data, "--set: ")
    shape = None if declared.lattice is None else declared.lattice.shape
    try:
        return read_action(declared.action, None if shape is None else len(shape)), shape
    except InputError as error:
        raise InputError(f"--set: {error}") from None
