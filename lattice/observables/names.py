"""Names of observables: which the short table shows, and how they scale with the field."""

from __future__ import annotations

import re

from lattice.errors import InputError, nearest

_LONG = re.compile(r"(Re |Im )?(kappa\d.*|m[1357])")
_SHORT = re.compile(r"kappa[2468](_m)?(_ratio)?|kappa[46]_k1_ratio|(Re|Im) kappa[468]")


def in_short_table(name: str) -> bool:
    """Whether tables for a reader show this observable of `lattice.observables.measure`; the JSON has all of
    them.

    Of the cumulants: the even ones of a site and of M with their ratios, the 4th and 6th ratio of phi~(k1);
    of a complex variable the 2nd is m2. Of the moments of one variable the even ones.

    >>> [in_short_table(name) for name in ("binder", "kappa4_ratio", "kappa3", "kappa8_k1_ratio")]
    [True, True, False, False]
    """
    return _LONG.fullmatch(name) is None or _SHORT.fullmatch(name) is not None


# action_density: S is the same number in all conventions, they share its constant (no lambda V)
_POWERS = {"abs_magnetization": 1, "magnetization": 1, "phi2": 2, "phi4": 4, "susceptibility": 2,
           "susceptibility_full": 2, "binder": 0, "xi_2nd": 0, "action_density": 0,
           "energy": 0, "specific_heat": 0, "nearest": 2, "farthest": 2, "c1": 2}  # fmt: skip
_GAUGE = re.compile(r"plaquette|wilson_\dx\d|creutz_\dx\d|polyakov(2|_sq)?_[01]|charge2?|chi_top")  # angles
_CUMULANT = re.compile(r"kappa([1-8])(?:_m|_k1|_k2)?(_ratio(?:_z2)?)?")


def field_power(name: str) -> int:
    """How many powers of the field an observable of `lattice.observables.measure` has.

    >>> field_power("susceptibility"), field_power("kappa6"), field_power("kappa6_ratio")
    (2, 6, 0)
    """
    if _GAUGE.fullmatch(name):
        return 0
    if name in _POWERS:
        return _POWERS[name]
    match = _CUMULANT.fullmatch(name)
    if match is None:
        hint = nearest(name, _POWERS, "; did you mean {}?")
        known = f"; known: {', '.join(_POWERS)}, kappa4_ratio, plaquette, ..."
        raise InputError(f"unknown observable reference.values.{name}{hint or known}")
    return 0 if match.group(2) else int(match.group(1))
