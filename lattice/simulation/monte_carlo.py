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
from einops import rearrange

from lattice.actions.kinds import action_from_dict
from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble, EnsembleWriter, read_ensemble
from lattice.errors import InputError
from lattice.files import canonical_json, remove_leftovers, sha256_text, write_json
from lattice.processes import Team
from lattice.progress import Progress, Silent
from lattice.requests import refuse_changes, stored_request
from lattice.simulation.parameters import RNG, MonteCarlo
from lattice.simulation.thermalise import (
    Thermalisation,
    read_thermalisation,
    thermalise,
    write_thermalisation,
)
from lattice.simulation.trajectory import Recipe, Settings, one_trajectory
from lattice.simulation.tuning import check_tunable


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
    same. Raises InputError when `out` holds an ensemble made with other settings (each is named), when it
    cannot be written, when the disk is full, when the updates do not know the action, and when it has no
    normalisable distribution.
    """
    out, team = Path(out), team or Team()
    recipe = Recipe(action, tuple(int(extent) for extent in shape), params, seed)
    recipe.check()
    check_tunable(params)
    request = recipe.request()
    refuse_changes(out, stored_request(out) or _request_of_therm(out), request)
    if (out / "manifest.json").exists():
        return read_ensemble(out, action)
    remove_leftovers(out)
    if team.size > params.n_chains:
        raise InputError(f"{team.size} processes but ensemble.n_chains = {params.n_chains}: start fewer")
    team.busy = True
    team.tell(request)
    run = _Run(recipe, progress or Silent(), team)
    try:
        therm, old = run.thermalised(out)
        if not old:
            write_thermalisation(out / "therm.h5", therm, request)
        key = sha256_text(canonical_json(request))
        writer = EnsembleWriter(out, action, recipe.fields, key, _shard_attrs(recipe, therm.settings))
        run.shards(therm, writer)
    finally:
        run.bar.close()
    team.busy = False
    return _finish(writer, request, therm)


def serve(team: Team) -> None:
    """What the other processes of a team do: their share of every ensemble process 0 makes, until it stops
    (`team.tell(None)`)."""
    while (request := team.tell()) is not None:
        params, seed = MonteCarlo(**request["ensemble"]), int(request["seed"])
        recipe = Recipe(action_from_dict(request["action"]), tuple(request["shape"]), params, seed)
        run = _Run(recipe, Silent(), team)
        run.shards(run.thermalised(None)[0], None)


class _Run:
    """One process's part in one ensemble: its share of the chains."""

    def __init__(self, recipe: Recipe, bar: Progress, team: Team) -> None:
        self.recipe, self.bar, self.team = recipe, bar, team
        self.n = recipe.params.n_chains
        self.own = team.share(self.n)
        self.chains: Integers = np.arange(self.n, dtype=np.int64)

    def thermalised(self, out: Path | None) -> tuple[Thermalisation, bool]:
        """The thermalisation, and whether it was found in `out`; process 0 looks and tells."""
        found: Thermalisation | None = None
        if out is not None and (out / "therm.h5").exists():
            try:
                found = read_thermalisation(out / "therm.h5")[0]
            except InputError:
                pass  # damaged: the same numbers are made again
        found = self.team.tell(found)
        if found is not None:
            return found, True
        return thermalise(self.recipe, self.bar, self.team), False

    def shards(self, therm: Thermalisation, writer: EnsembleWriter | None) -> None:
        """All shards; only process 0 has a writer."""
        params, team = self.recipe.params, self.team
        phi, trajectory = therm.phi[self.own], params.n_therm
        step = params.times_per_shard(math.prod(self.recipe.fields))
        self.bar.start(params.n_saved, "configurations")
        for k, first in enumerate(range(0, params.n_times, step)):
            n_times = min(step, params.n_times - first)
            kept = writer.verified(k) if writer else None
            state = team.tell(kept and (kept.phi[-self.n :], int(kept.state["trajectory"])))
            if state is not None:
                phi, trajectory = np.ascontiguousarray(state[0][self.own]), state[1]
                self.bar.update(n_times * self.n)
                continue
            fields, series, numbers = self.one_shard(n_times, therm.settings, phi, trajectory)
            phi, trajectory = np.ascontiguousarray(fields[-1]), int(numbers[-1])
            fields = np.concatenate([team.gather(row, self.n) for row in fields])
            if writer:
                self.write(writer, k, fields, series, numbers)

    def one_shard(
        self, n_times: int, settings: Settings, phi: Floats, trajectory: int
    ) -> tuple[Floats, dict[str, Floats], Integers]:
        """The next n_times of this process's chains: fields (n_times, own, *fields), the series of all chains
        (n_times, n_chains), the trajectory numbers (n_times,)."""
        fields = np.empty((n_times, *phi.shape))
        series = {name: np.empty((n_times, self.n)) for name in ("dH", "accepted")}
        numbers = np.empty(n_times, dtype=np.int64)
        for t in range(n_times):
            for _ in range(self.recipe.params.stride):
                chains = self.chains[self.own]
                phi, dH, accepted = one_trajectory(self.recipe, settings, phi, chains, trajectory)
                trajectory += 1
            rows = self.team.gather(np.stack([dH, accepted], axis=1), self.n)
            fields[t], numbers[t] = phi, trajectory
            series["dH"][t], series["accepted"][t] = rows.T
            self.bar.update(self.n, acceptance=float(rows[:, 1].mean()))
        return fields, series, numbers

    def write(
        self, writer: EnsembleWriter, k: int, fields: Floats, series: dict[str, Floats], numbers: Integers
    ) -> None:
        writer.append(
            k,
            phi=fields,
            chain=np.tile(self.chains, len(numbers)),
            trajectory=np.repeat(numbers, self.n),
            series={name: rearrange(x, "time chain -> (time chain)") for name, x in series.items()},
            state={
                "trajectory": int(numbers[-1]), "seed": self.recipe.seed, "rng": RNG,
                "fields": "the last configuration of every chain in /phi",
            },
        )  # fmt: skip


def _finish(writer: EnsembleWriter, request: dict[str, Any], therm: Thermalisation) -> Ensemble:
    """Read the shards back as any user would, certify them, and write certificate.json and the manifest."""
    ensemble = writer.read()
    certificate = certify(ensemble, therm.history)
    write_json(writer.folder / "certificate.json", certificate)
    manifest = writer.finish({"request": request, "certificate": certificate})
    ensemble.attrs.update(certificate=manifest["certificate"], created=manifest["created"])
    return ensemble


def _shard_attrs(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    params, tuned = recipe.params, {}
    if params.update == "hmc":
        used = {"trajectory_length": settings.length, "n_steps": settings.n_steps}
        tuned = {**used, "tuned": [name for name in used if getattr(params, name) is None]}
    return {
        "algorithm": {"name": _algorithm_name(params), "parameters": {**params.model_dump(), **tuned}},
        "seed": recipe.seed, "stream": RNG, "n_therm": params.n_therm, "stride": params.stride,
    }  # fmt: skip


def _algorithm_name(params: MonteCarlo) -> str:
    """For example hmc-fourier+overrelaxation+wolff."""
    first = {"hmc": "hmc" if params.acceleration == "none" else "hmc-fourier", "local": "metropolis"}
    more = ["overrelaxation"] * (params.n_overrelax > 0) + [params.cluster] * (params.clusters > 0)
    return "+".join([first[params.update], *more])


def _request_of_therm(out: Path) -> dict[str, Any] | None:
    """The request in therm.h5; None without it, or where it is damaged and will be made again (shards of
    another computation are still refused by their key)."""
    try:
        return read_thermalisation(out / "therm.h5")[1]
    except InputError:
        return None
