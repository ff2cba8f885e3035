"""A finished run opened for checks: its model, its calibrated path, and the fields it was trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsq.config.config import Config, load_config
from diffsq.models.files import load_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Frames, Noise
from diffsq.sampling.lattice_path import ReversePath, load_path
from diffsq.sampling.sample import check_model
from diffsq.sampling.streams import frames_of, noise_of
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError


@dataclass
class Workbench:
    """What a check works with. `samples` is the run's own product, raw fields with log-weights."""

    folder: Path
    config: Config
    action: ScalarPhi4
    model: LatticeScore
    path: ReversePath
    ensemble: Ensemble
    samples: Ensemble
    device: torch.device

    @property
    def seed(self) -> int:
        """Of the run; streams of a check are named "check/NAME/..."."""
        return self.config.seed

    def held_out(self) -> Ensemble:
        """The chains that the training never saw."""
        return self.ensemble.split_chains(self.config.training.validation_fraction)[1]

    def held_out_fields(self, n: int) -> tuple[Tensor, NDArray[np.int64]]:
        """n held-out fields spread evenly (all if there are fewer), and the chain of each."""
        held_out = self.held_out()
        rows = np.linspace(0, len(held_out) - 1, min(n, len(held_out))).astype(np.int64)
        return torch.from_numpy(held_out.phi[rows]).to(self.device), held_out.chain[rows]

    def noise(self, stream: str, index: NDArray[np.int64]) -> Noise:
        """noise(step) -> standard normal (len(index), *shape), a function of (seed, stream, index, step)."""
        return noise_of(self.seed, stream, index, self.model.shape, self.device)

    def frames(self) -> Frames:
        """The lattice frame of each step, as in the run's own samples."""
        return frames_of(self.seed, self.model.shape)


def open_run(folder: Path, device: str = "cpu") -> Workbench:
    """Open a run folder with finished train and sample stages (method "path").

    Raises `InputError` when a part is missing, or model and ensemble do not belong together.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: not a run folder (no config.yaml); name the folder of a `diffsq run`")
    config = load_config(folder / "config.yaml")
    model = load_model(folder / "train" / "model", LatticeScore)
    ensemble = read_ensemble(folder / "ensemble")
    check_model(model, ensemble, folder / "train" / "model")
    place = torch.device(device)
    model = model.to(place)
    path = load_path(folder / "samples", model)
    action = config.build_action()
    return Workbench(
        folder, config, action, model, path, ensemble, read_ensemble(folder / "samples", action), place
    )
