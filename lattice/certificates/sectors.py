r"""Sectors of a complex Langevin run of links: hot against cold starts, and whether the charge moves.

The charge of two-dimensional U(1) is that of Re theta_p, Q = sum_p theta_p/2pi with each Re theta_p in
(-pi, pi]; sum_p Im theta_p is 0 whatever the links. A Langevin step is continuous, and Q changes where a
plaquette passes pi. Rarely where beta is large: then each chain tells of one sector, whose weight is that of
the starts and not exp(-S). Where it does, and the law is complex, the drift near pi leads away from the real
axis, and the averages are wrong (Hirasawa, Matsumoto, Nishimura, Yosprakob 2004.13982), in all runs we made,
with few passages sooner than their tail can be told from others. To be trusted are runs whose hot and cold
starts agree, <Q^2> included, and where

    a real law      every chain has been through MIN_DRAWS independent charges, var Q/var(chain means of Q)
    a complex law   no chain has ever been seen outside of Q = 0, hot starts included, and of so many
                    configurations less than UNSEEN would be at theta = 0 and Re beta (`lattice.exact.u1`):
                    the others are felt in averages whose errors are small long before one of them is seen
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.protocol import Action
from lattice.actions.u1 import BETAS, U1
from lattice.arrays import Complexes, Floats, Integers, real_array
from lattice.exact.u1 import charge_law
from lattice.statistics.pulls import mean_and_error, sigmas_of

MIN_DRAWS = 10.0  # independent charges of a chain
UNSEEN, MISSED = 0.01, 7.0  # configurations at other charges that may be missing, of a complex and a real law
Group = NDArray[np.bool_]


def has_sectors(action: Action) -> bool:
    """Whether fields are links, with a charge."""
    return action.field == "angle" and bool(action.components)


def is_cold(chain: Integers) -> Group:
    """Which chains of links start with real parts 0: of four the last two; the others are hot.

    >>> is_cold(np.arange(4)).tolist()
    [False, False, True, True]
    """
    return np.asarray(chain // 2 % 2 == 1, dtype=np.bool_)


def is_real(action: Action) -> bool:
    """Whether the law of links is real: without theta, and of real beta."""
    return not (isinstance(action, U1) and action.is_complex)


def charges(action: Action, z: Complexes) -> Floats:
    """Q of Re z: z (n_chains, n_times, 2, L0, L1) -> (n_chains, n_times)."""
    flat = np.ascontiguousarray(z.reshape(-1, *z.shape[2:]).real)
    return np.asarray(action.order(torch.from_numpy(flat)).numpy().reshape(z.shape[:2]))


def independent_charges(charge: Floats) -> float:
    """var Q / var(chain means of Q), the independent charges of one chain; charge (n_chains, n_times).

    1 where chains are frozen, n_times where charges are independent, infinite where all are the same.

    >>> independent_charges(np.array([[0.0, 0.0], [1.0, 1.0]])), independent_charges(np.zeros((4, 9)))
    (1.0, inf)
    """
    charge = real_array(charge, "charge")
    means = charge.mean(axis=1)
    noise = float(means.var(ddof=1))
    total = noise + float((charge - means[:, None]).var())
    if total == 0:
        return math.inf
    return total / noise if noise > 0 else float(charge.shape[1])


def expected_outside(action: Action, volume: int, n: int) -> float:
    """How many of n configurations have Q != 0 at theta = 0 and Re beta; all of them where Re beta is 0 or
    less, or nearly.

    >>> round(expected_outside(U1(5.0, 0.3), 9, 10_000), 2), expected_outside(U1(1j), 9, 10)
    (2.11, 10.0)
    """
    beta = action.beta.real if isinstance(action, U1) else 0.0
    if beta < BETAS[0]:
        return float(n)
    law = charge_law(min(beta, BETAS[1]), volume)
    return n * float(law.probability[law.charge != 0].sum())


def topology(charge: Floats, *, real: bool, expected: float = 0.0) -> dict[str, Any]:
    """value, passed and detail of the check that every chain goes through many charges of a `real` law, or
    that there is but one; charge (n_chains, n_times), expected: how many of them should not be 0."""
    found, outside = independent_charges(charge), float(np.mean(charge != 0))
    if not np.any(charge):
        passed = expected <= (MISSED if real else UNSEEN)
        detail = "the charge of every configuration is 0"
        few = f"{detail}, where at Re beta and theta = 0 {expected:.2g} of them would have another"
        return {"value": 0.0, "passed": passed, "detail": detail if passed else few}
    changes = float(np.mean(charge[:, 1:] != charge[:, :-1])) if charge.shape[1] > 1 else 0.0
    passed, why = real and found >= MIN_DRAWS, ""
    if not passed:
        frozen = "; the run knows the sectors of its starts"
        why = frozen if found < MIN_DRAWS else "; complex plaquettes pass pi, where the drift leads astray"
    detail = (
        f"{found:.1f} independent charges in a chain, {100 * outside:.2g} % are not 0, "
        f"{100 * changes:.2g} % are followed by another{why}"
    )
    return {"value": min(found, 1e300), "passed": passed, "detail": detail}


def worst_difference(
    averages: dict[str, Floats], scales: dict[str, float], one: Group, other: Group
) -> tuple[float, float, float, str]:
    """(sigmas, difference, its error, name) of the average over chains, (n_chains,) each, in which two groups
    of them, (n_chains,), differ most; -1 sigmas where a group has fewer than two chains."""
    dof, rows = min(int(one.sum()), int(other.sum())) - 1, []
    for name, means in averages.items() if dof > 0 else ():
        (a, a_error), (b, b_error) = (mean_and_error(means[part], scales[name]) for part in (one, other))
        e = math.hypot(a_error, b_error)
        rows.append((sigmas_of(a - b, e, dof), a - b, e, name))
    return max(rows, key=lambda row: row[0], default=(-1.0, 0.0, 0.0, ""))
