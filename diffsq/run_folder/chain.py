"""Markov chains of diffusion moves, HMC and clusters: set up from a finished run, stored, resumed.

A chain's folder is an ordinary ensemble: shards, and a manifest written last. Its state is the last field of
every chain, the log-weight of its noise path where the cycle ends with one, and the step number; all random
numbers are keyed by (seed, stream, chain, step). A chain that was killed anywhere and started again writes
the same bytes as one that was not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from diffsq.config.sections import ChainParameters
from diffsq.exactness import flow_moves
from diffsq.exactness import moves as kernels
from diffsq.exactness.block_moves import BlockPath, Tiling, block_moves
from diffsq.exactness.moves import Move, State, nearest_level
from diffsq.models import lattice_flow
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.flow_sets import about
from diffsq.sampling.lattice_path import VERSION
from lattice.arrays import Floats, sha256_array
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.manifest import FILES as ENSEMBLE
from lattice.ensembles.manifest import refuse_foreign
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_text, write_json
from lattice.progress import Progress, Silent
from lattice.requests import refuse_changes, stored_request, without
from lattice.simulation import thermalise as therm
from lattice.simulation.recipe import Recipe
from lattice.simulation.thermalise import Thermalisation

FILES = re.compile(ENSEMBLE.pattern)  # the names in its folder
GROWS = ("chain.n_steps",)  # a chain may be made longer
SHARD_BYTES = 2**24
SHARD_STEPS = 50  # at most: slow moves should not lose much to a kill
WEIGHTED = "path_log_weight"  # series of a cycle that ends with an independence move
Cycle = Sequence[tuple[str, Move]]


def one_cycle(cycle: Cycle, state: State, seed: int, step: int) -> tuple[State, dict[str, Floats]]:
    """All moves once: the state, and the acceptance (n,) of each kind of move, averaged over its places.

    Chains are numbered 0 ... n - 1. The moves' own step number is step * len(cycle) + place.
    """
    chains = np.arange(len(state.phi), dtype=np.int64)
    found: dict[str, list[Floats]] = {}
    for place, (name, move) in enumerate(cycle):
        state, info = move(state, seed=seed, chains=chains, step=step * len(cycle) + place)
        found.setdefault(name, []).append(info.accepted)
    return state, {name: np.mean(rates, axis=0) for name, rates in found.items()}


def run_chain(
    writer: EnsembleWriter, cycle: Cycle, start: State, n_steps: int, seed: int, progress: Progress
) -> Ensemble:
    """n_steps cycles of every chain, all saved: trajectory 1 ... n_steps, `start` itself is not.

    Series: `accepted`, the mean over the kinds of moves, and `accepted_NAME` of each; path_log_weight where
    the cycle ends with an independence move. Shards already there are kept and gone on from; the noise of a
    flow, which they have not, is made anew every `size` steps.
    """
    state, n = start, len(start.phi)
    size = max(1, min(SHARD_STEPS, SHARD_BYTES // start.phi.nbytes))
    anew = 0, start
    progress.start(n_steps, "chain")
    try:
        for k, steps, kept in writer.spans(n_steps, size, lambda step: step + 1, n):
            if kept is not None:
                weights = kept.series.get(WEIGHTED)
                state = State.of(kept.phi[-n:], None if weights is None else weights[-n:])
                anew = anew if steps.stop % size else (steps.stop, state)
                progress.update(len(steps))
                continue
            if steps.start % size == 0:
                state = State(state.phi, state.log_w)  # as one that was read back
            elif "latent" in dict(cycle):
                state = _again(cycle, *anew, steps.start, seed)
            state = _one_shard(writer, k, cycle, state, steps, seed, progress)
    finally:
        progress.close()
    return writer.read()


def _again(cycle: Cycle, first: int, state: State, stop: int, seed: int) -> State:
    """The state at step `stop` with its noise, from one at step `first` by the moves that made it."""
    for step in range(first, stop):
        state, _ = one_cycle(cycle, state, seed, step)
    return state


def _one_shard(
    writer: EnsembleWriter, k: int, cycle: Cycle, state: State, steps: range, seed: int, progress: Progress
) -> State:
    n = len(state.phi)
    rows: dict[str, list[Floats]] = {}
    fields = []
    for step in steps:
        state, rates = one_cycle(cycle, state, seed, step)
        each = {f"accepted_{name}": rate for name, rate in rates.items()}
        rates = {"accepted": np.mean(list(rates.values()), axis=0), **each}
        if not np.isnan(state.log_w).any():
            rates[WEIGHTED] = state.log_w
        for name, rate in rates.items():
            rows.setdefault(name, []).append(rate)
        fields.append(state.phi)
        progress.update(1, acceptance=float(rates["accepted"].mean()))
    writer.append(
        k, phi=np.concatenate(fields), chain=np.tile(np.arange(n, dtype=np.int64), len(steps)),
        trajectory=np.repeat(np.array(steps, dtype=np.int64) + 1, n),
        series={name: np.concatenate(values) for name, values in rows.items()},
        state={"step": steps[-1] + 1, "fields": "the last configuration of every chain in /phi"},
    )  # fmt: skip
    return state


def chain(
    bench: Workbench, settings: ChainParameters, out: Path, progress: Progress | None = None
) -> Ensemble:
    """Make (or go on making, or just read) the chain of a finished run in the folder `out`; with more
    `n_steps` than it holds it is made longer.

    Its model, its path and its tuned ensemble parameters are used. Raises `InputError` for
    settings that do not fit each other or the run, a folder that holds another chain, and weights that are
    NaN or infinite.
    """
    check_settings(bench, settings)
    making = _Making(bench, settings, settings.shape or bench.model.shape, out, progress or Silent())
    request = making.request
    found = stored_request(out)
    refuse_changes(out, found, request, "holds a chain", "; remove this folder to make it anew", GROWS)
    if (out / "manifest.json").exists() and found == json.loads(json.dumps(request)):
        return read_ensemble(out, bench.action)
    if found is None:
        refuse_foreign(out, FILES)
        write_json(out / "request.json", request)
    hot = making.thermalised() if settings.start == "hmc" or "hmc" in settings.moves else None
    cycle, start = making.cycle(hot), _start(bench, settings, hot)
    parameters = without(request, GROWS)["chain"]
    attrs = {
        "algorithm": {"name": "+".join(settings.moves), "parameters": parameters}, "seed": bench.seed,
        "n_therm": settings.n_therm if settings.start == "hmc" else 0, "start": settings.start,
        "model": request["model"],
    }  # fmt: skip
    writer = EnsembleWriter(out, bench.action, making.shape, making.key, attrs)
    ensemble = run_chain(writer, cycle, start, settings.n_steps, chain_seed(bench.seed), making.bar)
    writer.finish({"request": request})
    return ensemble


def check_settings(bench: Workbench, settings: ChainParameters) -> None:
    """`InputError` unless the chain's settings fit each other and the run."""
    own, moves = bench.model.shape, settings.moves
    if "latent" in moves and bench.flow is None:
        raise InputError("chain.moves: latent moves the noise of a flow; this run's sampler is not the flow")
    shape = settings.shape or own
    if settings.block is not None:
        if "denoise" not in moves:
            raise InputError("chain.block is for the move denoise, which chain.moves does not list")
        try:
            Tiling(shape, own).check_block(settings.block)
        except InputError as error:
            raise InputError(f"chain: {error}") from None
    if shape != own:
        whole = [
            m for m in moves if m in ("independence", "latent") or (m == "denoise" and settings.block is None)
        ]
        if whole:
            raise InputError(
                f"chain.shape {list(shape)} is not the run's own {list(own)}: {whole[0]} moves whole fields "
                "of that; use denoise with chain.block, hmc, wolff or overrelaxation"
            )
        if settings.start != "hmc":
            raise InputError(f"chain.start must be hmc on another lattice than the run's own {list(own)}")
    if settings.start != "hmc":
        found = len(bench.samples) if settings.start == "samples" else len(bench.held_out_rows())
        if found < settings.n_chains:
            raise InputError(
                f"chain.n_chains is {settings.n_chains}, but start {settings.start} has only {found} fields"
            )
    try:
        nearest_level(bench.path.levels, settings.depth)
    except InputError as error:
        raise InputError(f"chain.{error}") from None


def chain_seed(seed: int, part: str = "chain") -> int:
    """The seed of a run's chains, or of another part of their making: thermalisation uses the streams of HMC
    and clusters as the chain's own moves do, and the training ensemble has used those of the run's seed.

    >>> len({chain_seed(1), chain_seed(2), chain_seed(1, "thermalise")})
    3
    """
    return int(sha256_text(f"{part}/{seed}")[:15], 16)


@dataclass(frozen=True)
class _Making:
    """What a chain is made of: a run's model, the chain's settings, its folder `out` and a bar."""

    bench: Workbench
    settings: ChainParameters
    shape: tuple[int, ...]
    out: Path
    bar: Progress

    @cached_property
    def request(self) -> dict[str, Any]:
        """All that the chain's numbers depend on."""
        bench, settings, flow = self.bench, self.settings, self.bench.flow
        return {
            "action": bench.action.as_dict(), "shape": list(self.shape), "seed": bench.seed,
            "law": {"path": VERSION, "flow": lattice_flow.VERSION, "moves": kernels.VERSION},
            "model": bench.model.about["sha256"],
            "levels": bench.path.levels.tolist(),
            **({"flow": {**about(flow), "process": flow.process}} if flow is not None else {}),
            "ensemble": bench.ensemble.identity,
            "samples": sha256_array(bench.samples.phi[: settings.n_chains])
            if settings.start == "samples" else None,
            "chain": settings.model_dump(mode="json"),
        }  # fmt: skip

    @property
    def key(self) -> str:
        """Of all that its numbers depend on, but for how many steps there are."""
        return sha256_text(canonical_json(without(self.request, GROWS)))

    def thermalised(self) -> Thermalisation:
        """Hot, cold and domain-wall starts, HMC tuned for this lattice, clusters: made, or read back."""
        path, settings, ensemble = self.out / "therm.h5", self.settings, self.bench.config.ensemble
        if path.exists():
            try:
                return therm.read_thermalisation(path)[0]
            except InputError:
                pass  # damaged: the same numbers are made again
        params = ensemble.model_copy(
            update={"n_chains": settings.n_chains, "n_therm": settings.n_therm, "update": "hmc",
                    "acceleration": "none", "n_clusters": max(1, ensemble.n_clusters)}
        )  # fmt: skip
        try:
            seed = chain_seed(self.bench.seed, "chain/thermalise")
            made = therm.thermalise(Recipe(self.bench.action, self.shape, params, seed), self.bar)
        finally:
            self.bar.close()
        therm.write_thermalisation(path, made, self.request)
        return made

    def cycle(self, hot: Thermalisation | None) -> Cycle:
        """The moves of one cycle with their parameters bound."""
        bench, settings, path, action = self.bench, self.settings, self.bench.path, self.bench.action
        frames, depth = bench.frames(), nearest_level(path.levels, settings.depth)
        known: dict[str, Move] = {
            "independence": partial(kernels.independence, path, action.action, frames),
            "denoise": partial(kernels.noise_denoise, path, action.action, frames, depth),
            "wolff": partial(kernels.wolff, action, settings.n_clusters),
            "overrelaxation": partial(kernels.overrelaxation, action, 1),
        }
        if bench.flow is not None:
            known["independence"] = partial(flow_moves.independence, bench.flow, action.action)
            known["latent"] = partial(flow_moves.latent, bench.flow, action.action, settings.rho)
        if hot is not None:
            integrator, tuned = bench.config.ensemble.integrator, hot.settings
            known["hmc"] = partial(kernels.hmc, action, tuned.length, tuned.n_steps, integrator)
        if settings.block is not None:
            block = BlockPath(bench.model, path.levels[: depth + 1], settings.block)
            tiling = Tiling(self.shape, bench.model.shape)
            known["denoise"] = partial(block_moves, block, tiling, action.action, frames)
        return [(name, known[name]) for name in settings.moves]


def _start(bench: Workbench, settings: ChainParameters, hot: Thermalisation | None) -> State:
    n = settings.n_chains
    if settings.start == "hmc":
        assert hot is not None
        return State.of(hot.phi)
    if settings.start == "samples":
        weights = bench.samples.log_weight
        return State.of(bench.samples.phi[:n], None if weights is None else weights[:n])
    return State.of(bench.held_out_fields(n)[0].cpu().numpy())
