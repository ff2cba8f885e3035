"""What checks of a run on a lattice work with, whatever made the ensemble; and the bench of random
networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsq.config.config import LatticeRun, NetworkRun
from diffsq.models.files import load_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Frames, Noise
from diffsq.sampling.lattice_sets import check_model
from diffsq.sampling.streams import frames_of, noise_of
from lattice.arrays import Integers
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError


@dataclass
class OfFields:
    """A finished run on a lattice: its ensemble, and what is held out of the training."""

    folder: Path
    config: LatticeRun
    action: Any
    ensemble: Ensemble
    device: torch.device

    @property
    def seed(self) -> int:
        """Of the run; streams of a check are named "check/NAME/..."."""
        return self.config.seed

    def held_out(self) -> Ensemble:
        """The chains that the training never saw."""
        return self.ensemble.select(self.held_out_rows())

    def held_out_rows(self) -> Integers:
        """Their rows of the ensemble."""
        return self.ensemble.split_rows(self.config.training.validation_fraction)[1]

    def held_out_fields(self, n: int) -> tuple[Tensor, Integers]:
        """n held-out fields spread over chains and time (all if there are fewer), and the chain of each.

        They are time by time, as errors by `lattice.statistics.blocks` want it.
        """
        among = self.held_out_rows()
        rows = self.ensemble.in_time(self.ensemble.spread(n, seed=self.seed, stream="checks", among=among))
        return self.fields(rows), self.ensemble.chain[rows]

    def fields(self, rows: Integers) -> Tensor:
        """The configurations `rows`."""
        return torch.from_numpy(self.ensemble.phi[rows]).to(self.device)

    def noise(self, stream: str, index: Integers) -> Noise:
        """noise(step) -> standard normal (len(index), *shape), a function of (seed, stream, index, step)."""
        return noise_of(self.seed, stream, index, self.ensemble.shape, self.device)

    def frames(self) -> Frames:
        """The lattice frame of each step, as in the run's own samples."""
        return frames_of(self.seed, self.ensemble.shape)


@dataclass
class NetworkBench(OfFields):
    """A run of random networks, `action` their law: the first of its models and its samples, if it has
    any."""

    model: LatticeScore | None
    samples: Ensemble | None

    def learned(self, check: str) -> tuple[LatticeScore, Ensemble]:
        """Model and samples; `InputError` where the run has none."""
        if self.model is None or self.samples is None:
            raise InputError(f"the check {check} needs a model; this run has models: []")
        return self.model, self.samples


def first_set(folder: Path, config: LatticeRun) -> Path:
    """The sample set that checks and chains of a run on a lattice work with: its first model and process."""
    return folder / "samples" / f"{config.models[0]}-{config.processes[0]}"


def network_bench(folder: Path, config: NetworkRun, device: torch.device) -> NetworkBench:
    """Open a finished run of random networks. Raises `InputError` as
    `diffsq.run_folder.finished.open_run`."""
    ensemble = read_ensemble(folder / "ensemble")
    law = ensemble.action
    if not config.models:
        return NetworkBench(folder, config, law, ensemble, device, None, None)
    place = folder / "train" / config.models[0]
    model = load_model(place, LatticeScore)
    check_model(model, ensemble, place)
    samples = read_ensemble(first_set(folder, config), law)
    return NetworkBench(folder, config, law, ensemble, device, model.to(device), samples)
