"""The sample set of one theory of a family: there are no data, so no forward weights; all else as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.config.config import LatticeRun
from diffsq.models import lattice_flow
from diffsq.models.blocks import KeyedNoise, slices
from diffsq.models.family import SECTOR_FROM, Family, point_of
from diffsq.models.lattice_flow import LatticeFlow, steps_of
from diffsq.models.protocol import ActionFunction
from diffsq.sampling import flow_sets
from diffsq.sampling.draws import Sampling
from diffsq.sampling.folder import claim
from diffsq.sampling.lattice_path import ReversePath
from lattice.arrays import Integers
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.files import canonical_json, sha256_text
from lattice.progress import Progress, Silent
from lattice.rng import uniforms

BLOCK = 64  # fields that go through a flow together
SECTOR = {"auto": None, "symmetric": False, "sector": True}


def theory_of(config: LatticeRun, family: Family) -> tuple[float, float, int]:
    """kappa, lam and L of the config. Raises `InputError` where the family cannot be asked for it so."""
    if config.method != "flow":
        raise InputError(f"a family of theories is sampled by the flow; got sampling.method {config.method}")
    kappa, lam, size = point_of(config.action, config.shape)
    point = family.couplings.at(kappa, lam, size)
    if config.sampling.start == "sector" and point.rho_known < SECTOR_FROM:
        raise InputError(
            "sampling.start sector: P(M) of this theory has no two separate peaks, so the model knows no "
            "sector; take auto"
        )
    return kappa, lam, size


def sample_family(
    config: LatticeRun, family: Family, out: str | Path, *, progress: Progress | None = None,
    device: str = "cpu",
) -> Ensemble:  # fmt: skip
    """Draw `sampling.n_samples` fields of the config's action and lattice by the flow, with exact weights.

    The same call again reads what is there, more `n_samples` go on from it. Raises `InputError` for a theory
    outside of what the family knows, before anything is written, and for another sampler than the flow.
    """
    out, settings, process = Path(out), config.sampling, config.processes[0]
    kappa, lam, size = theory_of(config, family)
    model = family.at(kappa, lam, size, SECTOR[settings.start]).to(device)
    base = model.base if model.sector is None else model.sector
    flow = LatticeFlow(base, settings.n_levels or steps_of(base), process)
    generated: dict[str, Any] = {
        "sampler": "flow", "law": lattice_flow.VERSION, "process": process, "model": model.about["sha256"],
        "seed": config.seed, "stream": "sample", "action": config.action.as_dict(),
        "shape": list(config.shape), "levels": flow.levels.tolist(), **flow_sets.about(flow),
    }  # fmt: skip
    key = sha256_text(canonical_json(generated))
    none = Ensemble(
        np.zeros((0, *config.shape)), np.zeros(0, np.int64), np.zeros(0, np.int64), {}, config.action
    )
    work = Sampling(config, model, none, out, key, process, flow.levels.to(device), progress or Silent())
    request = claim(out, key, {"n_samples": config.n_samples})
    writer = EnsembleWriter(out, config.action, config.shape, key, {"generated": generated})
    flow_sets.write(work, flow, writer, generated)
    writer.finish({"generated": generated, "request": request})
    return writer.read()


def flow_fields(
    flow: LatticeFlow, action: ActionFunction, index: Integers, seed: int, stream: str
) -> tuple[Tensor, Tensor]:
    """The fields `index` (n, *shape) of a flow and their log-weights (n,), in memory; their noise is that of
    (seed, stream, index), the same whatever the steps of the flow."""
    noise = KeyedNoise(seed, stream, index, flow.momenta.shape)
    drawn = uniforms(seed, f"{stream}/sign", index, 0, 1)[:, 0]
    sign = torch.from_numpy(np.where(drawn < 0.5, -1.0, 1.0))
    blocks = slices(len(index), BLOCK)
    return _together([flow.sample(action, noise.part(rows)(0), sign[rows]) for rows in blocks])


def path_fields(
    path: ReversePath, action: ActionFunction, index: Integers, seed: int, stream: str
) -> tuple[Tensor, Tensor]:
    """The fields `index` of reverse paths and the log-weights of these, in memory."""
    noise, blocks = KeyedNoise(seed, stream, index, path.model.shape), slices(len(index), BLOCK)
    return _together([path.sample(action, noise.part(rows)) for rows in blocks])


def _together(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    fields, log_w = (torch.cat(column) for column in zip(*parts, strict=True))
    return fields, log_w
