"""U(1) links from elsewhere: wrapped, and judged by the exact numbers of their torus, with no run of our own.

A file is one of angles (n, 2, L0, L1) in radians, link 0 along axis -2. What it may be instead is tried where
the plaquette is not the exact one: directions exchanged, other units, another beta.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize

from lattice.actions.u1 import U1, check_links, refuse_complex
from lattice.arrays import Floats, Integers
from lattice.arrays import wrapped as in_period
from lattice.certificates.check import Check, mean_is
from lattice.certificates.links import charge_check, exact_checks, law_of, link_quantities
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import field_series
from lattice.errors import InputError
from lattice.exact.u1 import wilson_loop
from lattice.interchange import identities
from lattice.statistics.pulls import mean_and_error

PI = math.pi
GROUPS, FEWEST = 64, 8  # of independent configurations, whose means are compared, at most and at least
NEAR = 5.0  # errors within which a plaquette is the exact one
READINGS: tuple[tuple[str, Callable[[Floats], Floats]], ...] = (
    ("the directions are exchanged: pass phi[:, ::-1], link 0 is along axis -2", lambda phi: phi[:, ::-1]),
    ("angles are in units of 2 pi: multiply them by 2 pi", lambda phi: 2 * PI * phi),
    ("angles are in units of pi: multiply them by pi", lambda phi: PI * phi),
    ("angles are in degrees: multiply them by pi/180", lambda phi: PI / 180 * phi),
)


def check_foreign_links(action: U1, shape: tuple[int, ...]) -> None:
    """`InputError` unless arrays (n, *shape) are links of this action."""
    refuse_complex(action)
    check_links(action, "fields from elsewhere with two directions are of")
    if len(shape) == 3 and shape[0] != 2 and shape[-1] == 2:
        raise InputError(
            f"links are (n, 2, L0, L1), got (n, {', '.join(map(str, shape))}): the axis of directions comes "
            "first; save numpy.moveaxis(phi, -1, 1)"
        )
    action.check_normalisable(action.lattice_of(shape))


def wrapped(phi: Floats, notes: list[str]) -> Floats:
    """Links (n, 2, L0, L1) in (-pi, pi]; what was done goes into the notes.

    >>> float(wrapped(np.full((1, 2, 2, 2), 7.0), said := []).max().round(4)), said
    (0.7168, ['8 of 8 links were outside (-pi, pi] and are wrapped'])
    """
    outside = int(np.count_nonzero((phi <= -PI) | (phi > PI)))
    if not outside:
        return phi
    notes.append(f"{outside} of {phi.size} links were outside (-pi, pi] and are wrapped")
    return in_period(phi)


def link_checks(ensemble: Ensemble, rows: list[Integers] | None) -> tuple[list[Check], dict[str, Any]]:
    """The checks of links, `rows` of each chain or, where all are independent, None; and of chains also
    tau_int and n_independent."""
    quantities = link_quantities(ensemble)
    q, s = quantities["charge"], quantities["action_density"]
    series = {"q": q, "abs_q": np.abs(q), "s": s}
    parts: dict[str, Any] = {}
    if rows is None:
        checks = [identities.independence_check(series)]
        groups = np.array_split(np.arange(len(q)), min(len(q), GROUPS, max(FEWEST, len(q) // FEWEST)))
    else:
        parts = identities.chain_checks(ensemble, series)
        checks, groups = parts["checks"], rows
    data = {name: [x[group] for group in groups] for name, x in quantities.items()}
    words = "sin theta dS/da - cos theta per angle"
    checks.append(mean_is("Schwinger-Dyson", data["schwinger_dyson"], 0.0, words))
    if rows is None:  # of chains these are there
        checks += [*exact_checks(ensemble, data), mean_is("Q (C)", data["charge"], 0.0, "charge conjugation")]
        if (law := law_of(ensemble)) is not None:
            checks.append(charge_check(q, law))
    return checks, parts


def link_hints(phi: Floats, action: U1, rows: list[Integers] | None) -> list[str]:
    """What links (n, 2, L0, L1) may be whose plaquette is not that of the action."""
    volume, beta = math.prod(phi.shape[-2:]), action.beta.real
    known = wilson_loop(beta, volume, 1)
    for words, reading in READINGS:
        value, error = _plaquette(reading(phi), rows)
        if abs(value - known) < NEAR * error:
            return [words]
    value, error = _plaquette(phi, rows)
    low, high = (wilson_loop(b, volume, 1) for b in (1e-3, 1e4))
    if not low < value < high or abs(value - known) < NEAR * error:
        return []
    fitting = scipy.optimize.brentq(lambda b: wilson_loop(b, volume, 1) - value, 1e-3, 1e4)
    return [f"the plaquette is that of beta = {fitting:.4g}, not {beta:g}"]


def _plaquette(phi: Floats, rows: list[Integers] | None) -> tuple[float, float]:
    """<cos theta> and its error, of independent chains or configurations."""
    if phi.shape[-2] < 2 or not np.isfinite(phi).all():
        return math.nan, math.nan
    s = field_series(np.ascontiguousarray(phi), U1(1.0))["action"] / -math.prod(phi.shape[-2:])
    return mean_and_error(s if rows is None else np.array([s[part].mean() for part in rows]))
