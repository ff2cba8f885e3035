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

from lattice.actions.kinds import action_from_dict
from lattice.actions.protocol import Action, check_shape
from lattice.arrays import Floats, Integers
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble, EnsembleWriter, read_ensemble
from lattice.errors import InputError
from lattice.files import canonical_json, changed_values, read_json, remove_leftovers, sha256_text, write_json
from lattice.processes import Team
from lattice.progress import Progress, Silent
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.thermalise import (
    Thermalisation,
    read_thermalisation,
    thermalise,
    write_thermalisation,
)
from lattice.simulation.trajectory import Settings, one_trajectory
from lattice.simulation.tuning import check_tunable

RNG = "philox4x32-10, counter (position, trajectory, chain, crc32(stream name))"


def generate(
    action: Action,
    shape: tuple[int, ...],
    params: MonteCarlo,
    seed: int,
    out: Path,
    *,
    progress: Progress | None = None,
    team: Team | None = None,
) -> Ensemble:
    """Make (or go on making, or just read) the ensemble of `action` on `shape` in the folder `out`.

    The certificate is in ensemble.attrs["certificate"]; a failed one is not an error here. Hold `run_lock` on
    the run folder around this. Process 0 of a `team` calls this, the others `serve` it; the files are the
    same. Raises InputError when `out` holds an ensemble made with other parameters (each is named), when it
    cannot be written, when the disk is full, and when the action has no normalisable distribution.
    """
    out, shape, bar = Path(out), tuple(int(extent) for extent in shape), progress or Silent()
    check_shape(shape)
    check_tunable(params)
    action.check_normalisable(shape)
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
    team = team or Team()
    if team.size > params.n_chains:
        raise InputError(f"{team.size} processes but ensemble.n_chains = {params.n_chains}: start fewer")
    team.busy = True
    team.tell(request)
    therm, old = _thermalised(action, shape, params, seed, out, bar, team)
    if not old:
        write_thermalisation(out / "therm.h5", therm, request)
    writer = EnsembleWriter(
        out, action, shape, _key(request), _shard_attrs(request, params, seed, therm.settings)
    )
    try:
        _produce(writer, action, params, seed, therm, bar, team)
    finally:
        bar.close()
    team.busy = False
    return _finish(writer, request, therm)


def serve(team: Team) -> None:
    """What the other processes of a team do: their share of every ensemble process 0 makes, until it stops
    (`team.tell(None)`)."""
    while (request := team.tell()) is not None:
        action, shape = action_from_dict(request["action"]), tuple(request["shape"])
        params, seed = MonteCarlo(**request["ensemble"]), int(request["seed"])
        therm, _ = _thermalised(action, shape, params, seed, None, Silent(), team)
        _produce(None, action, params, seed, therm, Silent(), team, shape)


def _thermalised(
    action: Action,
    shape: tuple[int, ...],
    params: MonteCarlo,
    seed: int,
    out: Path | None,
    bar: Progress,
    team: Team,
) -> tuple[Thermalisation, bool]:
    """The thermalisation, and whether it was found in `out`; process 0 looks and tells."""
    found: Thermalisation | None = None
    if out is not None and (out / "therm.h5").exists():
        try:
            found = read_thermalisation(out / "therm.h5")[0]
        except InputError:
            pass  # damaged: the same numbers are made again
    found = team.tell(found)
    if found is not None:
        return found, True
    try:
        return thermalise(action, shape, params, seed, bar, team), False
    finally:
        bar.close()


def _produce(
    writer: EnsembleWriter | None,
    action: Action,
    params: MonteCarlo,
    seed: int,
    therm: Thermalisation,
    bar: Progress,
    team: Team,
    shape: tuple[int, ...] = (),
) -> None:
    """All shards; only process 0 has a writer."""
    shape = writer.shape if writer else shape
    own = team.share(params.n_chains)
    phi, trajectory = therm.phi[own], params.n_therm
    step = params.times_per_shard(math.prod(shape))
    bar.start(params.n_saved, "configurations")
    for k, first in enumerate(range(0, params.n_times, step)):
        n_times = min(step, params.n_times - first)
        kept = writer.verified(k) if writer else None
        state = team.tell(kept and (kept.phi[-params.n_chains :], int(kept.state["trajectory"])))
        if state is not None:
            phi, trajectory = np.ascontiguousarray(state[0][own]), state[1]
            bar.update(n_times * params.n_chains)
            continue
        fields, series, numbers = _one_shard(
            n_times, action, params, seed, phi, trajectory, therm.settings, bar, team
        )
        phi, trajectory = np.ascontiguousarray(fields[-1]), int(numbers[-1])
        fields = np.concatenate([team.gather(row, params.n_chains) for row in fields])
        if writer:
            _write(writer, k, fields, series, numbers, params, seed)


def _one_shard(
    n_times: int,
    action: Action,
    params: MonteCarlo,
    seed: int,
    phi: Floats,
    trajectory: int,
    settings: Settings,
    bar: Progress,
    team: Team,
) -> tuple[Floats, dict[str, Floats], Integers]:
    """The next n_times of this process's chains: fields (n_times, own, *shape), the series of all chains
    (n_times, n_chains), the trajectory numbers (n_times,)."""
    chains = np.arange(params.n_chains, dtype=np.int64)[team.share(params.n_chains)]
    fields = np.empty((n_times, *phi.shape))
    series = {name: np.empty((n_times, params.n_chains)) for name in ("dH", "accepted")}
    numbers = np.empty(n_times, dtype=np.int64)
    for t in range(n_times):
        for _ in range(params.stride):
            phi, dH, accepted = one_trajectory(action, phi, seed, params, trajectory, settings, chains)
            trajectory += 1
        rows = team.gather(np.stack([dH, accepted], axis=1), params.n_chains)
        fields[t], numbers[t] = phi, trajectory
        series["dH"][t], series["accepted"][t] = rows.T
        bar.update(params.n_chains, acceptance=float(rows[:, 1].mean()))
    return fields, series, numbers


def _write(
    writer: EnsembleWriter,
    k: int,
    fields: Floats,
    series: dict[str, Floats],
    numbers: Integers,
    params: MonteCarlo,
    seed: int,
) -> None:
    writer.append(
        k,
        phi=fields,
        chain=np.tile(np.arange(params.n_chains, dtype=np.int64), len(numbers)),
        trajectory=np.repeat(numbers, params.n_chains),
        series={name: values.reshape(-1) for name, values in series.items()},
        state={
            "trajectory": int(numbers[-1]),
            "seed": seed,
            "rng": RNG,
            "fields": "the last configuration of every chain in /phi",
        },
    )


def _finish(writer: EnsembleWriter, request: dict[str, Any], therm: Thermalisation) -> Ensemble:
    """Read the shards back as any user would, certify them, and write certificate.json and the manifest."""
    ensemble = writer.read()
    certificate = certify(ensemble, therm.history)
    write_json(writer.folder / "certificate.json", certificate)
    manifest = writer.finish({"request": request, "certificate": certificate})
    ensemble.attrs.update(certificate=manifest["certificate"], created=manifest["created"])
    return ensemble


def _shard_attrs(
    request: dict[str, Any], params: MonteCarlo, seed: int, settings: Settings
) -> dict[str, Any]:
    return {
        "algorithm": {
            "name": _algorithm_name(params),
            "parameters": {**params.model_dump(), **_tuned(params, settings)},
        },
        "seed": seed,
        "stream": RNG,
        "n_therm": params.n_therm,
        "stride": params.stride,
    }


def _tuned(params: MonteCarlo, settings: Settings) -> dict[str, Any]:
    """The HMC settings in use and which of them were tuned."""
    if params.update != "hmc":
        return {}
    used = {"trajectory_length": settings.length, "n_steps": settings.n_steps}
    return {**used, "tuned": [name for name in used if getattr(params, name) is None]}


def _algorithm_name(params: MonteCarlo) -> str:
    """For example hmc-fourier+overrelaxation+wolff."""
    first = {"hmc": "hmc" if params.acceleration == "none" else "hmc-fourier", "local": "metropolis"}
    more = ["overrelaxation"] * (params.n_overrelax > 0) + [params.cluster] * (params.n_clusters > 0)
    return "+".join([first[params.update], *more])


def _key(request: dict[str, Any]) -> str:
    return sha256_text(canonical_json(request))


def _check_request(out: Path, request: dict[str, Any]) -> None:
    """Refuse a folder whose ensemble was asked for with other parameters, naming each of them."""
    found = _found_request(out)
    changed = changed_values(found, request) if found is not None else []
    if changed:
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
