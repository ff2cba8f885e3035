"""A Gaussian machine of a run: trained in a folder, resumed bitwise, its spectrum written down on the way.

metrics.jsonl has a line for each of some steps: eigenvalues of K, mu^2, KL from the data's Gaussian (null
where that is singular) and the mean log-likelihood of the data.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.config.machines import MachineRun, MachineTraining, PicturesRun
from diffsq.models.machine_files import load_machine, save_machine
from diffsq.models.rbm import GaussianRBM
from diffsq.models.second_moments import circulant, data_second, exact_power, power_of
from diffsq.training.checkpoint import load_checkpoint, read_lines, save_checkpoint
from diffsq.training.contrastive import Draw, Learning, State, from_rows, kernel_of, learn
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.files import canonical_json, folder_error, read_json, sha256_text, write_atomic
from lattice.progress import Progress, Silent
from lattice.rng import normals

VERSION = 1  # of the training: raise it with any change
NO_CUT = 1.05  # mu^2 where the config says nothing, in units of the largest kappa
SAFE = 0.5  # rate where the config says nothing, in units of the largest


def second_of(config: MachineRun | PicturesRun, phi: Floats) -> Tensor:
    """The second moments that the config asks to learn from, of fields (n, *shape)."""
    if config.training.second == "exact":
        return circulant(exact_power(config.action, config.shape))
    if config.training.second == "symmetric":
        return circulant(power_of(phi))
    return data_second(phi)


def learning_of(training: MachineTraining, second: Tensor, machine: GaussianRBM) -> Learning:
    """The learning of a config, its rate chosen where that is null. Raises `InputError` where all is cut."""
    how = Learning(
        rate=0.0, method=training.method, k=training.k, momentum=training.momentum,
        cooling=training.cooling, period=training.period, natural=training.natural, mass=training.mass,
    )  # fmt: skip
    rate = training.rate if training.rate is not None else SAFE * how.limit(second, machine)[0]
    return replace(how, rate=rate)


def start_of(config: MachineRun | PicturesRun, second: Tensor) -> GaussianRBM:
    """The machine before the first step."""
    sizes, n_visible = config.machine, len(second)
    kappa = kernel_of(second)
    mu2 = sizes.mu2 if sizes.mu2 is not None else NO_CUT * float(kappa[np.isfinite(kappa)].max())
    n_hidden = sizes.n_hidden or n_visible
    white = normals(config.seed, "rbm/start", np.arange(1), 0, n_visible * n_hidden)
    noise = torch.from_numpy(white).reshape(n_visible, n_hidden)
    return GaussianRBM.initial(n_visible, n_hidden, mu2, sizes.width, noise, sizes.s)


def train_machine(
    config: MachineRun | PicturesRun, phi: Floats, identity: str, out: Path,
    progress: Progress | None = None,
) -> GaussianRBM:  # fmt: skip
    """Train on fields phi (n, *shape) of the data `identity`; the same call again resumes, or reads.

    Raises `InputError` for fields that are not finite, batches larger than the data, a mass that cuts every
    mode, and unstable rates, before the first step.
    """
    if not np.isfinite(phi).all():
        raise InputError("the data has NaN or infinite fields")
    training, progress = config.training, progress or Silent()
    full = config.model_dump(mode="json")
    about = {
        "data": identity, "versions": {"training": VERSION},
        "config": {name: full.get(name) for name in ("seed", "action", "lattice", "machine", "training")},
    }  # fmt: skip
    key = sha256_text(canonical_json(about))
    if (out / "model.json").is_file() and read_json(out / "model.json").get("key") == key:
        return load_machine(out)[0]
    out.mkdir(parents=True, exist_ok=True)
    second = second_of(config, phi)
    flat = int(np.isinf(kernel_of(second)).sum())
    if flat and isinstance(config, MachineRun):
        raise InputError(
            f"{flat} of {len(second)} modes have no variance in the {len(phi)} fields to learn from, kappa = "
            "inf: take training.second symmetric, or a larger ensemble.n_configs"
        )
    machine, state = start_of(config, second), State()
    how = learning_of(training, second, machine)
    draw = _draw_of(config, phi)
    if (saved := load_checkpoint(out, key)) is not None:
        machine, state = _restored(machine, *saved)
    log = _Log(out, state.step if saved is not None else -1, second)
    at = set(records(training.n_steps, training.n_records))
    progress.start(training.n_steps, "machine", state.step)
    begun = state.step
    steps = learn(
        machine, second, how, training.n_steps, draw=draw, seed=config.seed, state=state,
        allow_any_rate=begun > 0,  # judged when it began: a mass on its way may be past its end
    )  # fmt: skip
    for step, machine in steps:
        if step in at and (step > begun or step == 0):
            log.write(step, machine)
        if step > begun:
            progress.update(1)
            if step % training.checkpoint_every == 0 or step == training.n_steps:
                _save(out, key, machine, state)
    progress.close()
    save_machine(machine, out, {**about, "key": key, "rate": how.rate, "n_data": len(phi)})
    return machine


def records(n_steps: int, n: int) -> list[int]:
    """The steps that are written down: 0, then as if by their logarithm, to the last.

    >>> records(100, 5)
    [0, 1, 3, 10, 32, 100]
    """
    if n_steps == 0:
        return [0]
    found = np.geomspace(1, n_steps, n).round().astype(int)
    return [0, *np.unique(found).tolist()]


def log_likelihood(machine: GaussianRBM, second: Tensor) -> float:
    """Mean ln p of data of these second moments, for a machine without source."""
    kernel = machine.kernel
    quadratic = (kernel * second).sum()
    constant = torch.linalg.slogdet(kernel)[1] - len(second) * math.log(2 * math.pi)
    return float(0.5 * (constant - quadratic))


class _Log:
    """metrics.jsonl, from a step on."""

    def __init__(self, out: Path, step: int, second: Tensor) -> None:
        self.path, self.second = out / "metrics.jsonl", second
        self.singular = bool(np.isinf(kernel_of(second)).any())
        kept = [line for line in read_lines(self.path) if line["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.last = kept[-1]["step"] if kept else -1

    def write(self, step: int, machine: GaussianRBM) -> None:
        """The line of a step, unless it is there."""
        if step <= self.last:
            return
        line: dict[str, Any] = {
            "step": step, "mu2": float(machine.mu2), "spectrum": machine.spectrum.tolist(),
            "kl": None if self.singular else float(machine.divergence(self.second)),
            "log_likelihood": log_likelihood(machine, self.second),
        }  # fmt: skip
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise folder_error(self.path.parent, error) from error


def _draw_of(config: MachineRun | PicturesRun, phi: Floats) -> Draw | None:
    if config.training.batch is None:
        return None
    rows = torch.from_numpy(np.ascontiguousarray(phi).reshape(len(phi), -1))
    return from_rows(rows, config.training.batch, config.seed)


def _save(out: Path, key: str, machine: GaussianRBM, state: State) -> None:
    assert state.velocity is not None
    tensors = {
        "w": machine.w, "mu2": machine.mu2,
        "velocity_w": state.velocity[0], "velocity_mu2": state.velocity[1],
    }  # fmt: skip
    if state.chains is not None:
        tensors["chains"] = state.chains
    save_checkpoint(out, state.step, key, {"machine": tensors})


def _restored(
    machine: GaussianRBM, step: int, parts: dict[str, dict[str, Tensor]]
) -> tuple[GaussianRBM, State]:
    t = parts["machine"]
    state = State(step, (t["velocity_w"], t["velocity_mu2"]), t.get("chains"))
    return GaussianRBM(t["w"], t["mu2"], None, machine.s), state
