"""Monte Carlo ensembles: thermalise, run, write shards, certify; the same call again resumes.

A folder holds request.json, therm.h5 (history and state after thermalisation), shard-*.h5, certificate.json
and, last, manifest.json. Every random number is a function of (seed, stream, chain, trajectory number), so
the last fields of a shard and the trajectory number are all the state there is: a run that was killed
anywhere and started again writes the same bytes as one that was not, and more configurations (`n_configs`)
are further shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lattice.actions.kinds import action_from_dict
from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers, integer_array
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.processes import Team
from lattice.progress import Progress, Silent
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe, check_recipe, clusters_of
from lattice.simulation.thermalise import (
    Thermalisation,
    read_thermalisation,
    thermalise,
    write_thermalisation,
)
from lattice.simulation.trajectory import Settings, one_trajectory


def generate(
    action: Action, shape: tuple[int, ...], params: MonteCarlo, seed: int, out: Path, *,
    progress: Progress | None = None, team: Team | None = None,
) -> Ensemble:  # fmt: skip
    """`lattice.simulate` by Monte Carlo. Hold `run_lock` on the run folder around this. Process 0 of a `team`
    calls this, the others `share` it; the files are the same."""
    out, team = Path(out), team or Team()
    recipe = Recipe(action, tuple(integer_array(shape, "shape").tolist()), params, seed)
    check_recipe(recipe)
    if (made := recipe.made(out, _request_of_therm)) is not None:
        return made
    if team.size > params.n_chains:
        raise InputError(f"{team.size} processes but ensemble.n_chains = {params.n_chains}: start fewer")
    recipe.begin(out)
    team.busy = True
    team.tell(("ensemble", recipe.request()))
    run = _Run(recipe, progress or Silent(), team)
    try:
        therm, old = run.thermalised(out)
        if not old:
            write_thermalisation(out / "therm.h5", therm, recipe.request())
        writer = recipe.writer(out, _algorithm(recipe, therm.settings), params.n_therm, params.stride)
        run.shards(therm, writer)
    finally:
        run.bar.close()
    team.busy = False
    ensemble = writer.read()  # as any user would
    return recipe.finish(writer, ensemble, certify(ensemble, therm.history))


def share(team: Team, request: dict[str, Any]) -> None:
    """What the other processes of a team do of an ensemble of process 0: their share of the chains."""
    params, seed = MonteCarlo(**request["ensemble"]), int(request["seed"])
    recipe = Recipe(action_from_dict(request["action"]), tuple(request["shape"]), params, seed)
    run = _Run(recipe, Silent(), team)
    run.shards(run.thermalised(None)[0], None)


Part = tuple[int, int, tuple[Floats, int] | None]
"""A shard, its number of times, and the state that it ends with where it is there."""


class _Run:
    """One process's part in one ensemble: its share of the chains."""

    def __init__(self, recipe: Recipe[MonteCarlo], bar: Progress, team: Team) -> None:
        self.recipe, self.bar, self.team = recipe, bar, team
        self.n = recipe.params.n_chains
        self.own = team.share(self.n)

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
        self.bar.start(params.n_saved, "configurations")
        for k, n_times, state in self.parts(writer):
            if state is not None:
                phi, trajectory = np.ascontiguousarray(state[0][self.own]), state[1]
                self.bar.update(n_times * self.n)
                continue
            fields, series, numbers = self.one_shard(n_times, therm.settings, phi, trajectory)
            phi, trajectory = np.ascontiguousarray(fields[-1]), int(numbers[-1])
            fields = np.stack([team.gather(row, self.n) for row in fields])
            if writer:
                self.recipe.write(writer, k, fields, numbers, series)

    def parts(self, writer: EnsembleWriter | None) -> Iterator[Part]:
        """What process 0 finds on the disk, on every process."""
        if writer is None:
            while (part := self.team.tell()) is not None:
                yield part
            return
        for k, times, kept in self.recipe.spans(writer):
            state = kept and (kept.phi[-self.n :], int(kept.trajectory[-1]))
            yield self.team.tell((k, len(times), state))
        self.team.tell(None)

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
                chains = self.recipe.chains[self.own]
                phi, dH, accepted = one_trajectory(self.recipe, settings, phi, chains, trajectory)
                trajectory += 1
            rows = self.team.gather(np.stack([dH, accepted], axis=1), self.n)
            fields[t], numbers[t] = phi, trajectory
            series["dH"][t], series["accepted"][t] = rows.T
            self.bar.update(self.n, acceptance=float(rows[:, 1].mean()))
        return fields, series, numbers


def _algorithm(recipe: Recipe[MonteCarlo], settings: Settings) -> dict[str, Any]:
    """Its name, for example hmc-fourier+overrelaxation+wolff, and parameters, with those that were tuned."""
    params, tuned = recipe.params, dict[str, Any]()
    name = {"local": "metropolis"}.get(params.update, params.update)
    if params.update == "hmc":
        name += "-fourier" * (params.acceleration != "none")
        used = {"trajectory_length": settings.length, "n_steps": settings.n_steps}
        tuned = {**used, "tuned": [key for key in used if getattr(params, key) is None]}
    clusters = clusters_of(recipe.action, params) > 0
    name += "+overrelaxation" * (params.n_overrelax > 0) + f"+{params.cluster}" * clusters
    return {"name": name, "parameters": {**params.model_dump(), **tuned}}


def _request_of_therm(out: Path) -> dict[str, Any] | None:
    """The request in therm.h5; None without it, or where it is damaged and will be made again (shards of
    another computation are still refused by their key)."""
    try:
        return read_thermalisation(out / "therm.h5")[1]
    except InputError:
        return None
