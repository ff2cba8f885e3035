"""From a start to equilibrium: the tuning of the update, and the history and state that are kept."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from lattice.actions.protocol import Action, as_phi4
from lattice.arrays import Floats
from lattice.ensembles.shards import dataset, opened
from lattice.errors import InputError, shown
from lattice.exact.scalar import free_propagator
from lattice.files import canonical_json, write_atomic
from lattice.processes import Team
from lattice.progress import Progress, Silent
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe, clusters_of
from lattice.simulation.starts import has_walls, start_fields, start_names
from lattice.simulation.trajectory import Settings, one_trajectory
from lattice.simulation.tuning import TUNING_PART, Tuner
from lattice.updates.fourier import measured_inverse_mass
from lattice.updates.stiffness import stiffness

SCHEMA = "diffsq-thermalisation/2"
IDLE = 20  # trajectories of all chains that must not all be rejected
HISTORY = ("magnetization", "abs_magnetization", "action_density", "dH", "accepted")


@dataclass(frozen=True)
class Thermalisation:
    """What thermalisation leaves: phi (n_chains, *components, *shape), the frozen settings, and the history.

    history: magnetization, abs_magnetization, action_density, dH, accepted, each (n_therm, n_chains), and
    start, a list of "hot", "cold" or "wall" per chain.
    """

    phi: Floats
    settings: Settings
    history: dict[str, Any]


def thermalise(
    recipe: Recipe[MonteCarlo], progress: Progress | None = None, team: Team | None = None
) -> Thermalisation:
    """Run `n_therm` trajectories from hot, cold and domain-wall starts; the update is tuned in the first
    40 %. Under a team each process moves its share of the chains, and all return the same."""
    action, shape, params = recipe.action, recipe.shape, recipe.params
    team, bar, n = team or Team(), progress or Silent(), params.n_chains
    own = team.share(n)
    phi, chains = start_fields(action, shape, n, recipe.seed)[own], np.arange(n, dtype=np.int64)[own]
    tuner = Tuner(params, max(shape), clusters_of(action, params))
    inverse_mass = first_inverse_mass(action, shape, params)
    history: dict[str, Any] = {name: np.empty((params.n_therm, n)) for name in HISTORY}
    fixed = params.n_steps is not None
    judged = min(params.n_therm, IDLE + (0 if fixed else int(TUNING_PART * params.n_therm)))
    bar.start(params.n_therm, "thermalisation")
    for t in range(params.n_therm):
        settings = Settings(tuner.length, tuner.n_steps, inverse_mass)
        phi, dH, accepted = one_trajectory(recipe, settings, phi, chains, t)
        m = action.order(torch.from_numpy(phi)).numpy()
        s = action.action(torch.from_numpy(phi)).numpy() / math.prod(shape)
        rows = team.gather(np.stack([m, np.abs(m), s, dH, accepted], axis=1), n)
        for name, row in zip(HISTORY, rows.T, strict=True):
            history[name][t] = row
        if t + 1 == judged:
            _refuse_idle(recipe, settings, phi, history["accepted"][t + 1 - IDLE : t + 1])
        tuner.observe(rows[:, 3], rows[:, 4], rows[:, 0] ** 2, rows[:, 2])
        if tuner.measure_modes:
            inverse_mass = measured_inverse_mass(team.gather(phi, n))
        bar.update(1, acceptance=float(rows[:, 4].mean()), n_steps=tuner.n_steps)
    bar.close()
    history["start"] = start_names(n, has_walls(action, shape, n))
    return Thermalisation(team.gather(phi, n), Settings(tuner.length, tuner.n_steps, inverse_mass), history)


def _refuse_idle(recipe: Recipe[MonteCarlo], settings: Settings, phi: Floats, accepted: Floats) -> None:
    """`InputError` where HMC, tuned or fixed, has accepted nothing at all (n_times, n_chains): its steps are
    too long for the stiffest waves, and it would never move."""
    params = recipe.params
    if params.update != "hmc" or accepted.any():
        return
    length, needed = settings.length, ""
    if settings.inverse_mass is None:
        frequency = math.sqrt(max(float(np.quantile(stiffness(recipe.action, phi), 0.99)), 1e-12))
        steps = math.ceil(length * frequency)  # stable up to half as many
        needed = f"use ensemble.n_steps: {steps} with ensemble.trajectory_length: {length:g}, or "
    raise InputError(
        f"HMC has accepted none of {accepted.size} trajectories of {settings.n_steps} steps: "
        f"{needed or 'use '}trajectory_length: null and n_steps: null, which are tuned, with a larger n_therm"
    )


def first_inverse_mass(action: Action, shape: tuple[int, ...], params: MonteCarlo) -> Floats | None:
    """The free propagator with the tree-level mass, at least pi/L: what acceleration starts from."""
    if params.acceleration == "none":
        return None
    form, dim = as_phi4(action, "ensemble.acceleration knows", "use acceleration: none"), len(shape)
    if form.kappa == 0:
        return np.ones(shape)
    mass2 = max(form.tree_mass2(dim), (math.pi / max(shape)) ** 2)
    return free_propagator(form.kappa, shape, abs(form.kappa) * (mass2 + 2.0 * dim))


def write_thermalisation(path: Path, therm: Thermalisation, request: dict[str, Any]) -> None:
    """Write therm.h5, atomically: the history, the fields to go on from, `request` and the settings."""
    with h5py.File("therm", "w", driver="core", backing_store=False) as file:
        for name in HISTORY:
            file.create_dataset(name, data=therm.history[name], dtype="<f8", chunks=True, fletcher32=True)
        file.create_dataset(
            "state/phi", data=therm.phi, dtype="<f8", chunks=(1, *therm.phi.shape[1:]), fletcher32=True
        )
        if therm.settings.inverse_mass is not None:
            file.create_dataset("state/inverse_mass", data=therm.settings.inverse_mass, dtype="<f8")
        file.attrs["schema"] = SCHEMA
        file.attrs["start"] = canonical_json(therm.history["start"])
        file.attrs["length"], file.attrs["n_steps"] = therm.settings.length, therm.settings.n_steps
        file.attrs["request"] = canonical_json(request)
        file.attrs["sha256"] = _checksum(therm, canonical_json(request))
        file.flush()
        image = bytes(file.id.get_file_image())
    write_atomic(path, image)


def read_thermalisation(path: Path) -> tuple[Thermalisation, dict[str, Any]]:
    """(thermalisation, request) from therm.h5. Raises InputError when missing, damaged or of other schema."""
    path = Path(path)
    with opened(path) as file:
        if file.attrs.get("schema") != SCHEMA:
            raise InputError(f"{path}: schema is {file.attrs.get('schema')!r}, expected {SCHEMA!r}")
        history: dict[str, Any] = {name: dataset(file, path, name, (None, None)) for name in HISTORY}
        history["start"] = json.loads(file.attrs["start"])
        checksum = file.attrs.get("sha256", "")
        phi = dataset(file, path, "state/phi")
        modes = dataset(file, path, "state/inverse_mass") if "inverse_mass" in file["state"] else None
        settings = Settings(float(file.attrs["length"]), int(file.attrs["n_steps"]), modes)
        request = json.loads(file.attrs["request"])
    shape = history["dH"].shape
    if any(history[name].shape != shape for name in HISTORY) or len(phi) != shape[1]:
        raise InputError(f"{path}: histories and fields do not fit each other")
    starts = history["start"]
    if not isinstance(starts, list) or len(starts) != shape[1] or not all(isinstance(s, str) for s in starts):
        raise InputError(f"{path}: {shown(starts)} are no starts of {shape[1]} chains")
    sound = np.isfinite(phi).all() and math.isfinite(settings.length) and settings.n_steps > 0
    if not sound or not isinstance(request, dict):
        raise InputError(f"{path}: the stored state is not finite or not complete")
    therm = Thermalisation(phi, settings, history)
    try:
        changed = bool(checksum) and checksum != _checksum(therm, canonical_json(request))
    except ValueError:  # NaN in the request, which JSON does not have
        changed = True
    if changed:
        raise InputError(f"{path}: changed since it was written (its sha256 is another)")
    return therm, request


def _checksum(therm: Thermalisation, request: str) -> str:
    """Of all that goes on from here: attributes of HDF5 have no checksum of their own."""
    settings = therm.settings
    digest = hashlib.sha256(canonical_json([request, settings.length, settings.n_steps]).encode())
    for array in (therm.phi, settings.inverse_mass, *(therm.history[name] for name in HISTORY)):
        if array is not None:
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()
