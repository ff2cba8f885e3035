"""What names the law of a run's samples: its noise levels, lattice frames, random numbers and kernel file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from diffsq.config import Config
from diffsq.kernel import Frames, Kernel, Noise
from diffsq.path import ReversePath
from diffsq.placement import adapted_levels
from diffsq.score import ScoreModel, Symmetry
from diffsq.sde import SDES
from lattice.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import read_json, sha256_file, write_atomic, write_json
from lattice.rng import normals, uniforms

N_PLACEMENT = 128  # fields that decide where adapted levels go


def levels_of(config: Config, model: ScoreModel, ensemble: Ensemble) -> Tensor:
    """The noise levels (n_levels + 1,) of a run, from zero to the model's sigma_max."""
    n, log_sigma = config.sampling.n_levels, model.base.log_sigma
    if config.sampling.placement == "adapted":
        phi = ensemble.split_chains(config.training.validation_fraction)[0].phi
        rows = np.linspace(0, len(phi) - 1, min(N_PLACEMENT, len(phi))).astype(np.int64)
        noise = noise_of(model, config.seed, "sample/levels", np.arange(len(rows)), log_sigma.device)
        return adapted_levels(model, torch.from_numpy(phi[rows]).to(log_sigma.device), noise, n)
    return SDES[config.sde.kind](float(log_sigma[0].exp()), float(log_sigma[-1].exp())).levels(n)


def noise_of(
    model: ScoreModel, seed: int, stream: str, index: NDArray[np.int64], device: torch.device
) -> Noise:
    """noise(step) -> (len(index), *shape) standard normal, a function of (seed, stream, index, step)."""

    def draw(step: int) -> Tensor:
        eps = normals(seed, stream, index, step, model.momenta.volume)
        return torch.from_numpy(eps).reshape(len(index), *model.shape).to(device)

    return draw


def frames_of(model: ScoreModel, seed: int) -> Frames:
    """Lattice frame of each step, the same for all samples and for the forward weights.

    A frame per block would make the proposals of one Metropolis chain come from different laws.
    """

    def draw(step: int) -> Symmetry:
        u = uniforms(seed, "sample/frame", np.array([0]), step, 5)[0]
        return Symmetry.draw(torch.from_numpy(u), model.shape)

    return draw


def load_path(folder: Path, model: ScoreModel) -> ReversePath:
    """The calibrated path of a samples folder; `model` must be the one that it was made with.

    Raises `InputError` when there is none (no samples yet, or another method than "path").
    """
    path, key_path = folder / "kernel.safetensors", folder / "kernel.json"
    if not path.is_file() or not key_path.is_file():
        raise InputError(f"{folder}: no calibrated path here; `diffsq sample` makes it (method path)")
    if read_json(key_path).get("sha256") != sha256_file(path):
        raise InputError(f"{path}: changed since it was written (sha256 is not that of kernel.json)")
    return with_unet(read_kernel(path, model), model)


def read_kernel(path: Path, model: ScoreModel) -> ReversePath:
    """The path of the regression base alone, with the kernel of a file."""
    tensors, device = load(path.read_bytes()), model.base.g.device
    kernel = Kernel(*(tensors[name].to(device) for name in Kernel.__dataclass_fields__))
    return ReversePath(ScoreModel(model.base, None), kernel)


def with_unet(base_path: ReversePath, model: ScoreModel) -> ReversePath:
    """The path of the whole model: what the U-Net explains narrows the variances measured with the base."""
    kernel = base_path.kernel
    ours, theirs = (
        ReversePath.predicted(m, kernel.levels).kernel.variance for m in (model, base_path.model)
    )
    return ReversePath(model, replace(kernel, variance=kernel.variance * ours / theirs))


def save_kernel(folder: Path, kernel: Kernel, key: str) -> None:
    """Write kernel.safetensors and, last, kernel.json with its hash and the `key` of the computation."""
    tensors = {name: getattr(kernel, name).cpu().contiguous() for name in Kernel.__dataclass_fields__}
    write_atomic(folder / "kernel.safetensors", save(tensors))
    write_json(folder / "kernel.json", {"key": key, "sha256": sha256_file(folder / "kernel.safetensors")})


def has_kernel(folder: Path, key: str) -> bool:
    """Whether a sound kernel of this key is in the folder."""
    path, key_path = folder / "kernel.safetensors", folder / "kernel.json"
    about: dict[str, Any] = read_json(key_path) if path.exists() and key_path.exists() else {}
    return about.get("key") == key and about.get("sha256") == sha256_file(path)
