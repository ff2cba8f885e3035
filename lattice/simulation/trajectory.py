"""One trajectory of an ensemble's Markov chain: the amplitudes, overrelaxation, clusters, a global sign, and
of U(1) links winding moves.

With cluster updates goes phi -> -phi with probability one half: deep in the broken phase every Wolff update
flips nearly the whole lattice, and an even number of them would never change the sign of M. The stream
"ensemble/flip" draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lattice.actions.protocol import Action
from lattice.actions.spins import Potts
from lattice.arrays import Floats, Integers
from lattice.rng import uniforms
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe, clusters_of
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.gibbs import gibbs_sweep
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep
from lattice.updates.spins import (
    heat_bath_sweep,
    spin_metropolis_sweep,
    spin_swendsen_wang_update,
    spin_wolff_update,
)
from lattice.updates.u1 import link_heat_bath, winding_update


@dataclass(frozen=True)
class Settings:
    """What is tuned and then frozen: HMC length and step number, inverse_mass (*shape) or None."""

    length: float
    n_steps: int
    inverse_mass: Floats | None = None


def one_trajectory(
    recipe: Recipe[MonteCarlo], settings: Settings, phi: Floats, chains: Integers, trajectory: int
) -> tuple[Floats, Floats, Floats]:
    """Trajectory number `trajectory` of `chains` (n,): phi -> (phi', dH (n,), accepted (n,)).

    The length is jittered, one draw for all chains, so that no mode of a nearly free field comes back to
    where it was (Mackenzie, Phys. Lett. B226 (1989) 369). A local update has dH = 0 and its acceptance as
    `accepted`, of spins the fraction that changed; Gibbs, and heat bath of links, 0 and 1.
    """
    action, params, seed = recipe.action, recipe.params, recipe.seed
    keys: dict[str, Any] = {"seed": seed, "chains": chains, "trajectory": trajectory}
    if action.field == "spin":
        return _of_spins(recipe, phi, keys)
    if params.update == "hmc":
        u = float(uniforms(seed, "hmc/length", np.zeros(1, dtype=np.int64), trajectory, 1)[0, 0])
        length = settings.length * (1.0 + params.length_jitter * (2.0 * u - 1.0))
        phi, info = hmc_trajectory(
            action, phi, **keys, length=length, n_steps=settings.n_steps, integrator=params.integrator,
            inverse_mass=settings.inverse_mass,
        )  # fmt: skip
        # a trajectory that ran off was rejected: weight exp(-dH) = 0
        dH = np.where(np.isfinite(info.dH), info.dH, np.inf)
        accepted = np.asarray(info.accepted, dtype=np.float64)
    elif params.update == "heat-bath":
        phi, _ = link_heat_bath(action, phi, **keys)
        dH, accepted = np.zeros(len(phi)), np.ones(len(phi))
    elif params.update == "gibbs":
        phi = gibbs_sweep(action, phi, **keys)
        dH, accepted = np.zeros(len(phi)), np.ones(len(phi))
    else:
        phi, local = metropolis_sweep(action, phi, **keys, width=params.metropolis_width)
        dH, accepted = np.zeros(len(phi)), local.acceptance
    if params.n_overrelax:
        phi, _ = overrelaxation_sweep(action, phi, **keys, n_sweeps=params.n_overrelax)
    if n_clusters := clusters_of(action, params):
        if params.cluster == "wolff":
            phi, _ = wolff_update(action, phi, **keys, n_clusters=n_clusters)
        else:
            phi, _ = swendsen_wang_update(action, phi, **keys)
        phi = _signed(action, phi, keys)
    if params.n_winding:
        phi, _ = winding_update(action, phi, **keys, n_moves=params.n_winding)
    return phi, dH, accepted


def _signed(action: Action, phi: Floats, keys: dict[str, Any]) -> Floats:
    """phi or -phi, where the action is even; of Potts without a field with all states shifted alike."""
    if isinstance(action, Potts) and not action.h:
        u = uniforms(keys["seed"], "ensemble/flip", keys["chains"], keys["trajectory"], 1)[:, 0]
        return (phi + np.floor(u * action.q).reshape(-1, *[1] * (phi.ndim - 1))) % action.q
    if not action.even:
        return phi
    flip = uniforms(keys["seed"], "ensemble/flip", keys["chains"], keys["trajectory"], 1)[:, 0] < 0.5
    return np.where(flip.reshape(-1, *[1] * (phi.ndim - 1)), -phi, phi)


def _of_spins(recipe: Recipe[MonteCarlo], phi: Floats, keys: dict[str, Any]) -> tuple[Floats, Floats, Floats]:
    """A trajectory of spins; without a field, clusters end with a random sign as above, or of Potts with a
    random shift of all states."""
    action, params = recipe.action, recipe.params
    sweep = heat_bath_sweep if params.update == "heat-bath" else spin_metropolis_sweep
    phi, info = sweep(action, phi, **keys)
    if params.clusters and params.cluster == "wolff":
        phi, _ = spin_wolff_update(action, phi, **keys, n_clusters=params.clusters)
    elif params.clusters:
        phi, _ = spin_swendsen_wang_update(action, phi, **keys)
    return _signed(action, phi, keys) if params.clusters else phi, np.zeros(len(phi)), info.moved
