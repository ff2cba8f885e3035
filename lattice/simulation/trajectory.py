"""What is asked for, and one trajectory of it: the amplitudes, overrelaxation, clusters, a global sign.

With cluster updates goes phi -> -phi with probability one half: deep in the broken phase every Wolff update
flips nearly the whole lattice, and an even number of them would never change the sign of M. The stream
"ensemble/flip" draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lattice.actions.protocol import Action, as_phi4, check_one_variable, check_shape
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import uniforms
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.starts import start_fields
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep


@dataclass(frozen=True)
class Recipe:
    """A Monte Carlo ensemble as it is asked for: fields (n, *components, *shape) of `action`."""

    action: Action
    shape: tuple[int, ...]
    params: MonteCarlo
    seed: int

    def request(self) -> dict[str, Any]:
        """The same as JSON data."""
        return {
            "action": self.action.as_dict(), "shape": list(self.shape), "seed": self.seed,
            "ensemble": self.params.model_dump(),
        }  # fmt: skip

    @property
    def fields(self) -> tuple[int, ...]:
        """The shape of one configuration."""
        return (*self.action.components, *self.shape)

    def check(self) -> None:
        """`InputError` unless the updates know this action and exp(-S) is a law on this lattice."""
        check_shape(self.shape)
        if not isinstance(self.action, Action):
            raise InputError(f"an action is a lattice.Action, got {type(self.action).__name__}")
        if self.action.one_variable:
            check_one_variable(self.shape, f"{type(self.action).__name__} is a model")
        p = self.params
        for asked, key, instead in (
            (p.update != "hmc", "update", "hmc"),
            (p.n_overrelax > 0, "n_overrelax", "0"),
            (p.clusters > 0, "cluster", "none"),
            (p.acceleration != "none", "acceleration", "none"),
        ):
            if asked:
                what = f"ensemble.{key}: {getattr(p, key)} knows"
                as_phi4(self.action, what, f"use ensemble.{key}: {instead}")
        self.action.check_normalisable(self.shape)
        if self.action.phi4 is None:
            self._try_out()

    def _try_out(self) -> None:
        """S and its gradient of two fields have the shapes they should, and S the parity it claims."""
        action, name = self.action, type(self.action).__name__
        phi = torch.from_numpy(start_fields(action, self.shape, 2, self.seed))
        made = (("action", action.action(phi), (2,)), ("grad", action.grad(phi), phi.shape))
        for what, found, shape in made:
            if found.shape != shape or found.dtype != torch.float64 or not torch.isfinite(found).all():
                raise InputError(
                    f"{name}.{what} of fields {tuple(phi.shape)} must be finite float64 {tuple(shape)}, got "
                    f"{found.dtype} {tuple(found.shape)}"
                )
        if action.even and not torch.allclose(action.action(-phi), action.action(phi)):
            raise InputError(f"{name} says that it is even, but S(-phi) is not S(phi)")


@dataclass(frozen=True)
class Settings:
    """What is tuned and then frozen: HMC length and step number, inverse_mass (*shape) or None."""

    length: float
    n_steps: int
    inverse_mass: Floats | None = None


def one_trajectory(
    recipe: Recipe, settings: Settings, phi: Floats, chains: Integers, trajectory: int
) -> tuple[Floats, Floats, Floats]:
    """Trajectory number `trajectory` of `chains` (n,): phi -> (phi', dH (n,), accepted (n,)).

    The length is jittered, one draw for all chains, so that no mode of a nearly free field comes back to
    where it was (Mackenzie, Phys. Lett. B226 (1989) 369). A local update has dH = 0 and its acceptance as
    `accepted`.
    """
    action, params, seed = recipe.action, recipe.params, recipe.seed
    keys: dict[str, Any] = {"seed": seed, "chains": chains, "trajectory": trajectory}
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
    else:
        phi, local = metropolis_sweep(action, phi, **keys, width=params.metropolis_width)
        dH, accepted = np.zeros(len(phi)), local.acceptance
    if params.n_overrelax:
        phi, _ = overrelaxation_sweep(action, phi, **keys, n_sweeps=params.n_overrelax)
    if params.clusters:
        if params.cluster == "wolff":
            phi, _ = wolff_update(action, phi, **keys, n_clusters=params.clusters)
        else:
            phi, _ = swendsen_wang_update(action, phi, **keys)
        flip = uniforms(seed, "ensemble/flip", chains, trajectory, 1)[:, 0] < 0.5
        phi = np.where(flip.reshape(-1, *[1] * (phi.ndim - 1)), -phi, phi)
    return phi, dH, accepted
