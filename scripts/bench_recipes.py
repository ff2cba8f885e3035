"""The algorithms of `bench_tau`: recipes of updates with the settings that are tried, and one trajectory.

A candidate is a recipe; HMC without n_steps is tuned to its target acceptance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.rng import uniforms
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.langevin import langevin_update
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep

Recipe = dict[str, dict[str, Any]]  # the updates of one trajectory in their order, with their settings
Sweep = Callable[[Floats, int], tuple[Floats, dict[str, float]]]  # (phi, trajectory) -> (phi', acceptances)
JITTER = 0.2  # of the HMC length, one draw for all chains: no mode may come back to where it was


def hmc_settings(lengths: tuple[float, ...], targets: tuple[float, ...], **more: Any) -> list[dict[str, Any]]:
    integrators = ("leapfrog", "omelyan2")
    return [{"length": length, "integrator": integrator, "target": target, **more}
            for length in lengths for integrator in integrators for target in targets]  # fmt: skip


def hmc_lengths(extent: int) -> tuple[float, ...]:
    """Trajectory lengths worth trying: the best one grows with the correlation length, that is with L."""
    every = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    return tuple(x for x in every if extent / 32 <= x <= max(12, extent / 2))


def local_partners() -> list[Recipe]:
    """What moves the amplitudes between cluster updates."""
    metropolis = {"width": 1.5, "n_sweeps": 1}
    return [{"metropolis": metropolis}] + [
        {"overrelaxation": {"n_sweeps": n}, "metropolis": metropolis} for n in (1, 2, 4)
    ]


def hmc_partners() -> list[Recipe]:
    return [{"hmc": {"length": x, "integrator": "omelyan2", "target": 0.8}} for x in (1, 2, 4)]


CANDIDATES: dict[str, Callable[[int], list[Recipe]]] = {
    "hmc": lambda L: [{"hmc": s} for s in hmc_settings(hmc_lengths(L), (0.7, 0.9))],
    "hmc-fourier": lambda L: [
        {"hmc": s}
        for power in (1.0, 0.5)
        for s in hmc_settings((0.5, 1, 1.5, 2.5, 4, 6), (0.8,), power=power)
    ],
    "wolff": lambda L: [
        {"wolff": {"n_clusters": n}, **p} for n in (1, 2, 4, 8, 16) for p in hmc_partners()
    ],
    "wolff-local": lambda L: [
        {"wolff": {"n_clusters": n}, **p} for n in (1, 2, 4, 8, 16) for p in local_partners()
    ],
    "sw": lambda L: [{"sw": {}, **p} for p in (*local_partners(), *hmc_partners())],
    # its acceptance falls with the volume; a trajectory is L^2/16 steps, as tau_int grows
    "mala": lambda L: [
        {"mala": {"step": s, "n_steps": max(4, L * L // 16)}} for s in (0.02, 0.05, 0.1, 0.2)
    ],
}  # fmt: skip


def make_sweep(action: ScalarPhi4, recipe: Recipe, seed: int, propagator: Floats) -> Sweep:
    """One trajectory: the updates of `recipe` one after the other, on one core."""

    def hmc(phi: Floats, common: dict[str, Any], s: dict[str, Any]) -> tuple[Floats, float | None]:
        u = float(uniforms(seed, "bench/length", np.zeros(1, dtype=np.int64), common["trajectory"], 1)[0, 0])
        mass = propagator ** s["power"] if "power" in s else None
        phi, info = hmc_trajectory(action, phi, length=s["length"] * (1.0 + JITTER * (2.0 * u - 1.0)),
                                   n_steps=s["n_steps"], integrator=s["integrator"], inverse_mass=mass,
                                   **common)  # fmt: skip
        return phi, float(info.accepted.mean())

    def mala(phi: Floats, common: dict[str, Any], s: dict[str, Any]) -> tuple[Floats, float | None]:
        phi, info = langevin_update(action, phi, metropolis=True, **s, **common)
        return phi, float(info.accepted.mean())

    def local(update: Callable[..., Any]) -> Callable[..., tuple[Floats, float | None]]:
        def call(phi: Floats, common: dict[str, Any], s: dict[str, Any]) -> tuple[Floats, float | None]:
            phi, info = update(action, phi, **s, **common)
            return phi, float(info.acceptance.mean()) if hasattr(info, "acceptance") else None

        return call

    updates = {"hmc": hmc, "mala": mala, "wolff": local(wolff_update), "sw": local(swendsen_wang_update),
               "metropolis": local(metropolis_sweep),
               "overrelaxation": local(overrelaxation_sweep)}  # fmt: skip

    def sweep(phi: Floats, trajectory: int) -> tuple[Floats, dict[str, float]]:
        common = {"seed": seed, "chains": np.arange(len(phi)), "trajectory": trajectory, "n_threads": 1}
        acceptance = {}
        for name, settings in recipe.items():
            phi, accepted = updates[name](phi, common, settings)
            if accepted is not None:
                acceptance[name] = accepted
        return phi, acceptance

    return sweep
