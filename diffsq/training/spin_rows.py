"""Rows of binary machines that learn spins: n_seeds of one kind together, their weights kept at the steps
where the flow is to be followed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from diffsq.config.spins import FlowRow, FlowRun
from diffsq.models.binary_rbm import BinaryRBM
from diffsq.training.binary import BinaryLearning, State, learn_binary
from diffsq.training.checkpoint import load_checkpoint, save_checkpoint
from diffsq.training.spin_grid import Grid, data_of
from diffsq.training.thermometer import as_units, calibrate, save_thermometer, shuffled, train_thermometer
from lattice.arrays import sha256_array
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_file, sha256_text, write_atomic
from lattice.progress import Progress
from lattice.rng import normals

EVERY = 20_000  # steps between two checkpoints


def train_flow_row(
    config: FlowRun, row: FlowRow, grid: Grid, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train the machines of a row; weights.safetensors has them at each followed step.

    A checkpoint of the same row, data and seed is gone on from, to the same bits. Raises `InputError` where
    the data have fewer rows than a mini-batch, and where weights are no longer finite.
    """
    n_seeds = config.training.n_seeds
    data = data_of(grid, row, n_seeds, seed)
    key = sha256_text(canonical_json([row.model_dump(mode="json"), seed, sha256_array(data)]))
    machines = start_of(config, row, seed)
    state, kept = State(), dict[str, Tensor]()
    if (found := load_checkpoint(folder, key)) is not None:
        machines, state, kept = _restored(machines, *found)
    how = BinaryLearning(rate=row.rate, method=row.method, k=row.k, batch=row.batch)
    stops = sorted({*row.followed, *range(EVERY, row.n_steps, EVERY)})
    progress.start(row.n_steps, f"{row.n_hidden} hidden, {row.method}", state.step)
    for stop in [stop for stop in stops if stop >= state.step]:
        every = max(1, min(1000, stop - state.step))
        before = state.step
        for step, moved in learn_binary(machines, data, how, stop, seed, state, every=every):
            progress.update(step - before)
            before, machines = step, moved
        if stop in row.followed:
            kept |= {f"{stop}/{name}": t for name, t in _tensors(machines).items()}
        _save(folder, key, machines, state, kept)
    progress.close()
    write_atomic(folder / "weights.safetensors", save({k: v.contiguous() for k, v in sorted(kept.items())}))
    return {
        "row": row.model_dump(mode="json"), "n_seeds": n_seeds, "n_data": int(data.shape[1]),
        "followed": row.followed, "q": config.ensemble.q, "n_sites": int(data.shape[-1]),
        "sha256": sha256_file(folder / "weights.safetensors"),
        "exchanged": None if state.accepted is None or state.tried is None
        else (state.accepted / state.tried.clamp(min=1)).mean(0).tolist(),
    }  # fmt: skip


def start_of(config: FlowRun, row: FlowRow, seed: int) -> BinaryRBM:
    """The machines (n_seeds,) before the first step."""
    n_sites, q, n = int(np.prod(config.lattice.shape)), config.ensemble.q, config.training.n_seeds
    units = "potts" if q > 2 else row.units
    n_units = n_sites * q if units == "potts" else n_sites
    white = normals(seed, "flow/start", np.arange(n), 0, n_units * row.n_hidden)
    noise = torch.from_numpy(white).reshape(n, n_units, row.n_hidden)
    return BinaryRBM.initial(n_sites, row.n_hidden, row.width, noise, units, row.biases, q).to(torch.float32)


def read_machines(row: dict[str, Any], folder: Path) -> dict[int, BinaryRBM]:
    """The machines (n_seeds,) of a finished row at each followed step. Raises `InputError` where the weights
    are not those that were trained."""
    path = folder / "weights.safetensors"
    if not path.is_file() or sha256_file(path) != row["sha256"]:
        raise InputError(f"{path}: missing, or changed since it was written; train this row again")
    tensors = load(path.read_bytes())
    units = "potts" if row["q"] > 2 else row["row"]["units"]
    found = {}
    for step in row["followed"]:
        parts = {name: tensors.get(f"{step}/{name}") for name in ("w", "b", "c")}
        assert parts["w"] is not None
        found[step] = BinaryRBM(parts["w"], parts["b"], parts["c"], units, row["q"])
    return found


def _tensors(machines: BinaryRBM) -> dict[str, Tensor]:
    named = {"w": machines.w, "b": machines.b, "c": machines.c}
    return {name: t.detach().clone() for name, t in named.items() if t is not None}


def _save(folder: Path, key: str, machines: BinaryRBM, state: State, kept: dict[str, Tensor]) -> None:
    own = {"chains": state.chains, "accepted": state.accepted, "tried": state.tried}
    parts = {
        "machine": _tensors(machines), "state": {name: t for name, t in own.items() if t is not None},
        "kept": {name.replace("/", "."): t for name, t in kept.items()},
    }  # fmt: skip
    save_checkpoint(folder, state.step, key, parts)


def _restored(
    machines: BinaryRBM, step: int, parts: dict[str, dict[str, Tensor]]
) -> tuple[BinaryRBM, State, dict[str, Tensor]]:
    own, state = parts["machine"], parts.get("state", {})
    kept = {name.replace(".", "/"): t for name, t in parts.get("kept", {}).items()}
    moved = replace(machines, w=own["w"], b=own.get("b"), c=own.get("c"))
    return moved, State(step, state.get("chains"), state.get("accepted"), state.get("tried")), kept


HELD = 0.2  # of the chains, for the calibration of a thermometer


def thermometer_row(
    config: FlowRun, grid: Grid, folder: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train the network that reads temperatures, and calibrate it on chains that it has not seen, as they are
    and with the sites of each configuration shuffled."""
    settings = config.training.thermometer
    assert settings is not None
    n_chains = grid.spins.shape[1]
    first = min(n_chains - 1, max(1, round((1 - HELD) * n_chains)))
    progress.start(1, "thermometer")
    spins, t = grid.labelled(slice(0, first))
    q = config.ensemble.q if config.ensemble.q > 2 else 0
    found = train_thermometer(
        as_units(spins, q), t, seed % 2**63, widths=settings.widths, n_steps=settings.n_steps,
        rate=settings.rate, batch=settings.batch,
    )  # fmt: skip
    save_thermometer(found, folder / "weights.safetensors")
    progress.update(1)
    progress.close()
    held, true = grid.labelled(slice(first, None))
    own = calibrate(found, as_units(held, q), true)
    mixed = calibrate(found, as_units(shuffled(held, seed), q), true)
    return {
        "t": own.t.tolist(), "mean": own.mean.tolist(), "error": own.error.tolist(), "sd": own.sd.tolist(),
        "shuffled_mean": mixed.mean.tolist(), "shuffled_sd": mixed.sd.tolist(), "n_train": len(spins),
        "n_held": len(held), "sha256": sha256_file(folder / "weights.safetensors"),
    }  # fmt: skip
