"""A few chains sent ahead with steps that can follow the drift: is it too stiff for the steps asked for?"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lattice.actions.protocol import Action
from lattice.arrays import Complexes, Integers
from lattice.errors import InputError
from lattice.updates.complex_langevin import Runaway, complex_langevin_update, largest_drift
from lattice.updates.stiffness import ACCURATE, largest_step, stiffness, two_digits, typical, unstable

N_CHAINS, N_SITES = 16, 4096  # of the probe, at most
ROUNDS, TIMES, FALLING = 20, 20.0, 0.9  # a round takes 20/|lambda|; they end when |lambda| no longer falls
RELAXED = 2.0  # advised Langevin time between configurations, in units of 1/Re lambda: that decays


class TooStiff(InputError):
    """Steps that cannot follow the drift; the line says which can."""


def equilibrium_stiffness(
    action: Action, z: Complexes, chains: Integers, seed: int, imaginary_noise: float = 0.0
) -> NDArray[Any]:
    """S'' of a few of the chains z (n, *shape), once they have arrived where the drift leads them.

    A start may be far stiffer than equilibrium, or the other way round: steps are chosen anew every
    round, a small part of 1/|S''|. A probe that runs away all the same ends there: the run will say so.
    """
    n = max(2, min(N_CHAINS, N_SITES // max(1, math.prod(z.shape[1:]))))
    z, chains = z[:n], chains[:n]
    lam, size = stiffness(action, z), math.inf
    for k in range(ROUNDS if np.isfinite(lam).all() else 0):
        rate, before = max(typical(lam), 1e-12), size
        size = float(np.median(np.abs(lam)))
        if FALLING * before < size < before / FALLING:
            break
        scale = 3.0 * max(float(np.median(largest_drift(action, z))), 1e-6)
        try:
            z, _ = complex_langevin_update(
                action, z, seed=seed, chains=chains, trajectory=k, tau=TIMES / rate, step=ACCURATE / rate,
                drift_scale=scale, imaginary_noise=imaginary_noise,
            )  # fmt: skip
        except Runaway:
            break
        if not np.isfinite(now := stiffness(action, z)).all():
            break
        lam = now
    return lam


def refuse_stiff(lam: NDArray[Any], step: float, scheme: Literal["heun", "euler"], tau: float) -> None:
    """`TooStiff`, with the settings that work, where complex Langevin steps are unstable at stiffness lam."""
    heun = scheme == "heun"
    if not (np.isfinite(lam).all() and unstable(lam, step, heun)):
        return
    size = typical(lam)
    stable = largest_step(lam, step, heun)
    falling = np.real(lam)[np.real(lam) > 0]
    decay = float(np.median(falling)) if falling.size else size
    # an oscillating drift is unstable early: the larger steps of the extrapolation must be stable too
    good, time = two_digits(min(ACCURATE / size, stable / 12.0)), two_digits(RELAXED / decay)
    also = f" and ensemble.tau: {time:g}" if tau > 10 * time else ""
    raise TooStiff(
        f"complex Langevin runs away: a drift as stiff as this (|S''| = {size:.2g}) needs steps below "
        f"{stable:.2g}, not {step:g}; use ensemble.step: {good:g}{also}"
    )
