"""A configuration of seconds, as a dictionary, and the ensemble it would make."""

from __future__ import annotations

from typing import Any

import numpy as np
from small_models import equilibrium

from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble

ACTION, SHAPE = ScalarPhi4(0.22, 0.05), (4, 4)
SETTINGS: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "action": {"kind": "phi4", "kappa": 0.22, "lam": 0.05},
    "lattice": {"shape": SHAPE},
    "ensemble": {"n_configs": 512, "n_chains": 8},
    "model": {"channels": 2, "n_levels": 2, "n_sigma": 4, "n_fit": 256},
    "training": {
        "n_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "warmup": 3, "checkpoint_every": 4,
        "validate_every": 6,
    },
    "sampling": {"n_samples": 64, "n_levels": 4},
}  # fmt: skip
RUN = """
name: small
seed: 3
action: {kind: phi4, kappa: 0.25, lam: 0.022}
lattice: {shape: [4, 4]}
ensemble: {n_configs: 2048, n_chains: 16, n_therm: 100}
model: {channels: 0, n_levels: 1, n_sigma: 8, n_fit: 1024}
training: {n_steps: 0}
sampling: {n_samples: 256, n_levels: 6, n_forward: 32, method: path}
"""
"""The closed-form base alone on 4 x 4, as a file."""


def make_ensemble() -> Ensemble:
    return Ensemble.from_fields(equilibrium(ACTION, SHAPE, 512).numpy(), ACTION, chain=np.arange(512) % 8)
