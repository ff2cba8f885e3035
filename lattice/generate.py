"""Monte Carlo ensembles: thermalise, run, write shards, certify; the same call again resumes.

A folder holds therm.h5 (history and state after thermalisation), shard-*.h5, certificate.json and, last,
manifest.json. Every random number is a function of (seed, stream, chain, trajectory number), so the last
fields of a shard and the trajectory number are all the state there is: a run that was killed anywhere and
started again writes the same bytes as one that was not.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from lattice.action import Action, check_shape
from lattice.certificate import certify
from lattice.ensemble import Ensemble, EnsembleWriter, read_ensemble
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, remove_leftovers, sha256_text, write_json
from lattice.parameters import EnsembleParameters
from lattice.progress import Progress, Silent
from lattice.shards import Floats
from lattice.thermalise import (
    Thermalisation,
    one_trajectory,
    read_thermalisation,
    thermalise,
    write_thermalisation,
)

__all__ = ["RNG", "EnsembleParameters", "generate"]

RNG = "philox4x32-10, counter (position, trajectory, chain, crc32(stream name))"


def generate(
    action: Action,
    shape: tuple[int, ...],
    params: EnsembleParameters,
    seed: int,
    out: Path,
    *,
    progress: Progress | None = None,
) -> Ensemble:
    """Make (or go on making, or just read) the ensemble of `action` on `shape` in the folder `out`.

    The certificate is in ensemble.attrs["certificate"]; a failed one is not an error here. Hold `run_lock` on
    the run folder around this. Raises InputError when `out` holds an ensemble made with other parameters
    (each is named), when it cannot be written, when the disk is full, and when the action has no normalisable
    distribution.
    """
    out, shape, bar = Path(out), tuple(int(extent) for extent in shape), progress or Silent()
    check_shape(shape)
    _check_normalisable(action, shape)
    request = {
        "action": action.as_dict(),
        "shape": list(shape),
        "seed": seed,
        "ensemble": params.model_dump(),
    }
    _check_request(out, request)
    if (out / "manifest.json").exists():
        return read_ensemble(out, action)
    remove_leftovers(out)
    therm = _thermalised(action, shape, params, seed, out, request, bar)
    writer = EnsembleWriter(
        out, action, shape, _key(request), _shard_attrs(request, params, seed, therm.n_steps)
    )
    try:
        _produce(writer, action, params, seed, therm, bar)
    finally:
        bar.close()
    return _finish(writer, request, therm)


def _thermalised(
    action: Action,
    shape: tuple[int, ...],
    params: EnsembleParameters,
    seed: int,
    out: Path,
    request: dict[str, Any],
    bar: Progress,
) -> Thermalisation:
    path = out / "therm.h5"
    if path.exists():
        try:
            return read_thermalisation(path)[0]
        except InputError:
            pass  # damaged: the same numbers are made again
    try:
        therm = thermalise(action, shape, params, seed, bar)
    finally:
        bar.close()
    write_thermalisation(path, therm, request)
    return therm


def _produce(
    writer: EnsembleWriter,
    action: Action,
    params: EnsembleParameters,
    seed: int,
    therm: Thermalisation,
    bar: Progress,
) -> None:
    phi, trajectory = therm.phi, params.n_therm
    step = params.times_per_shard(math.prod(writer.shape))
    bar.start(params.n_saved, "configurations")
    for k, first in enumerate(range(0, params.n_times, step)):
        n_times = min(step, params.n_times - first)
        kept = writer.verified(k)
        if kept is not None:
            phi, trajectory = (
                np.ascontiguousarray(kept.phi[-params.n_chains :]),
                int(kept.state["trajectory"]),
            )
            bar.update(len(kept.phi))
            continue
        phi, trajectory = _one_shard(
            writer, k, n_times, action, params, seed, phi, trajectory, therm.n_steps, bar
        )


def _one_shard(
    writer: EnsembleWriter,
    k: int,
    n_times: int,
    action: Action,
    params: EnsembleParameters,
    seed: int,
    phi: Floats,
    trajectory: int,
    n_steps: int,
    bar: Progress,
) -> tuple[Floats, int]:
    """Make shard k from the state (phi, trajectory) and return the state after it."""
    chains = np.arange(params.n_chains, dtype=np.int64)
    fields = np.empty((n_times, *phi.shape))
    series = {name: np.empty((n_times, params.n_chains)) for name in ("dH", "accepted")}
    numbers = np.empty(n_times, dtype=np.int64)
    for t in range(n_times):
        for _ in range(params.stride):
            phi, dH, accepted = one_trajectory(action, phi, seed, params, trajectory, n_steps)
            trajectory += 1
        fields[t], series["dH"][t], series["accepted"][t], numbers[t] = phi, dH, accepted, trajectory
        bar.update(params.n_chains, acceptance=float(accepted.mean()))
    writer.append(
        k,
        phi=fields.reshape(-1, *writer.shape),
        chain=np.tile(chains, n_times),
        trajectory=np.repeat(numbers, params.n_chains),
        series={name: values.reshape(-1) for name, values in series.items()},
        state={
            "trajectory": trajectory,
            "seed": seed,
            "rng": RNG,
            "fields": "the last configuration of every chain in /phi",
        },
    )
    return phi, trajectory


def _finish(writer: EnsembleWriter, request: dict[str, Any], therm: Thermalisation) -> Ensemble:
    """Read the shards back as any user would, certify them, and write certificate.json and the manifest."""
    ensemble = writer.read()
    certificate = certify(ensemble, therm.history)
    write_json(writer.folder / "certificate.json", certificate)
    manifest = writer.finish({"request": request, "certificate": certificate})
    ensemble.attrs.update(certificate=manifest["certificate"], created=manifest["created"])
    return ensemble


def _shard_attrs(
    request: dict[str, Any], params: EnsembleParameters, seed: int, n_steps: int
) -> dict[str, Any]:
    name = "hmc+wolff" if params.n_clusters else "hmc"
    return {
        "algorithm": {
            "name": name,
            "parameters": {**params.model_dump(), "n_steps": n_steps, "tuned": params.n_steps is None},
        },
        "seed": seed,
        "stream": RNG,
        "n_therm": params.n_therm,
        "stride": params.stride,
    }


def _key(request: dict[str, Any]) -> str:
    return sha256_text(canonical_json(request))


def _check_request(out: Path, request: dict[str, Any]) -> None:
    """Refuse a folder whose ensemble was asked for with other parameters, naming each of them."""
    found = _found_request(out)
    if found is None or found == request:
        return
    old, new = _flat(found), _flat(request)
    changed = [
        f"{key} was {old.get(key, 'absent')}, now {new.get(key, 'absent')}"
        for key in sorted({*old, *new})
        if old.get(key, "absent") != new.get(key, "absent")
    ]
    raise InputError(
        f"{out}: holds an ensemble made with other parameters: {'; '.join(changed)}; "
        "choose another run folder, or remove this one"
    )


def _found_request(out: Path) -> dict[str, Any] | None:
    if (out / "manifest.json").exists():
        found = read_json(out / "manifest.json").get("request")
        if not isinstance(found, dict):
            raise InputError(
                f"{out}: holds an ensemble that was not made by this command; choose another folder"
            )
        return found
    if (out / "therm.h5").exists():
        try:
            return read_thermalisation(out / "therm.h5")[1]
        except InputError:
            return None  # made again; shards of another computation are still refused by their key
    return None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _check_normalisable(action: Action, shape: tuple[int, ...]) -> None:
    """A free field needs 1 - 2 kappa sum_mu cos k_mu > 0 for every lattice momentum."""
    if action.lam > 0:
        return
    cosines = [np.cos(2 * np.pi * np.arange(extent) / extent) for extent in shape]
    lowest = 1.0 - 2.0 * max(
        action.kappa * sum(c.max() for c in cosines), action.kappa * sum(c.min() for c in cosines)
    )
    if lowest <= 0:
        raise InputError(
            f"kappa = {action.kappa} with lam = 0 has no normalisable distribution on {shape}: "
            "|kappa| < 1/(2d) is needed"
        )
