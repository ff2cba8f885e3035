"""What is known exactly of spins on a given lattice, by the names of `lattice.observables.measure`.

Ising tori without field by Kaufman, |M| and U_L by P(M) where rows are short; tori in a field and Potts tori
by transfer matrices; small lattices of any dimension, and rings, by enumeration.
"""

from __future__ import annotations

import functools
import math

from lattice.actions.protocol import Action
from lattice.actions.spins import Ising, Potts
from lattice.exact.ising import (
    MOST_STATES,
    Thermal,
    correlation,
    enumerated,
    magnetisation_law,
    magnetisation_moments,
    potts_torus,
    torus,
    torus_in_field,
)

FEW = 16  # spins that are enumerated
ROW = 10  # sites of the rows of a transfer matrix
COLDEST = 0.02  # temperature; below, numbers overflow, and e^(-8/T) is nothing
LAW = 200  # sites of a torus whose P(M) is made


def known(action: Action, shape: tuple[int, ...]) -> dict[str, float]:
    """Exact values by name, and ln_z; empty where nothing is known. ln_z is of sum exp(-S)."""
    return dict(_known(action, shape))


@functools.lru_cache(maxsize=64)
def _known(action: Action, shape: tuple[int, ...]) -> dict[str, float]:
    t = getattr(action, "temperature", 0.0)
    thermal = _thermal(action, shape) if t >= COLDEST else _ground_state(action, shape)
    if thermal is None:
        return {}
    found = {
        "energy": thermal.e, "action_density": thermal.e / t, "specific_heat": max(0.0, thermal.c),
        "ln_z": thermal.ln_z,
    }  # fmt: skip
    if isinstance(action, Ising) and action.h == 0 and len(shape) == 2 and min(shape) > 1 and t >= COLDEST:
        if min(shape) <= ROW and math.prod(shape) <= LAW:
            m = magnetisation_moments(magnetisation_law((shape[0], shape[1]), t))
            v = math.prod(shape)
            found |= {
                "abs_magnetization": m["abs_m"], "binder": m["binder"], "susceptibility_full": v * m["m2"],
                "susceptibility": v * (m["m2"] - m["abs_m"] ** 2), "magnetization": 0.0,
            }  # fmt: skip
        if shape[0] == shape[1] <= ROW:
            near, far = -thermal.e / 2, correlation((shape[0], shape[1]), t, shape[0] // 2)
            found |= {"nearest": near, "farthest": far, "c1": near - far}
    return found


def _ground_state(action: Action, shape: tuple[int, ...]) -> Thermal | None:
    """Of an Ising torus without field: what is missing is e^(-8/T)."""
    if not isinstance(action, Ising) or action.h or len(shape) != 2 or min(shape) < 2:
        return None
    return Thermal(math.log(2) + 2 * math.prod(shape) / action.temperature, -2.0, 0.0)


def _thermal(action: Action, shape: tuple[int, ...]) -> Thermal | None:
    torus_of = shape if len(shape) == 2 and min(shape) > 1 else None
    if isinstance(action, Ising):
        if torus_of and action.h == 0:
            return torus((torus_of[0], torus_of[1]), action.temperature)
        if math.prod(shape) <= FEW:
            return enumerated(shape, action.temperature, action.h)
        if torus_of and min(torus_of) <= ROW:
            return torus_in_field((torus_of[0], torus_of[1]), action.temperature, action.h)
    if isinstance(action, Potts) and not action.h and torus_of and action.q ** min(torus_of) <= MOST_STATES:
        return potts_torus((torus_of[0], torus_of[1]), action.q, action.temperature)
    return None
