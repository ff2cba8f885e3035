"""A finished run in memory, for the checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from places import ROOT
from small_models import equilibrium, levels_of, noise_of, phi4_model, still

from diffsq.config.config import load_config
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble


def make_bench(action: ScalarPhi4, shape: tuple[int, int], n: int = 4096) -> Workbench:
    """A run in memory: 64 chains of independent fields, the regression base, its path."""
    config = load_config(ROOT / "configs" / "tiny.yaml", ["training.validation_fraction=0.5"])
    phi = equilibrium(action, shape, n)
    ensemble = Ensemble.from_fields(phi.numpy(), action, chain=np.arange(n) % 64)
    train, _ = ensemble.split_chains(0.5)
    model = phi4_model(action, torch.from_numpy(train.phi))
    path = ReversePath(model, levels_of(model, 8))
    raw, log_w = path.sample(action.action, noise_of("test/polish", 256, shape), still)
    samples = Ensemble.from_fields(raw.numpy(), action, log_weight=log_w.numpy())
    return Workbench(Path(), config, action, ensemble, torch.device("cpu"), model, path, None, samples)
