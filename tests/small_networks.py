"""Runs of random networks of seconds, and their benches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffsq import pipeline
from diffsq.config.config import config_from_dict
from diffsq.run_folder.fields import NetworkBench
from diffsq.run_folder.finished import open_run
from diffsq.run_folder.records import STAGES

COS = {"kind": "cos_net", "width": 4, "kappa": 0.2, "output": "signs"}


def made(
    folder: Path, action: dict[str, Any], shape: list[int], models: bool = False, report: bool = False
) -> NetworkBench:
    """A finished run, without its page unless asked for; with models the closed form, fitted on few."""
    learning: dict[str, Any] = {"models": []}
    if models:
        learning = {
            "models": ["closed"], "model": {"channels": 0, "n_levels": 1, "n_sigma": 6, "n_fit": 2048},
            "sampling": {"n_samples": 512, "n_levels": 40},
        }  # fmt: skip
    lattice, ensemble = {"shape": shape}, {"n_configs": 8192}
    config = config_from_dict(
        {"name": "net", "action": action, "lattice": lattice, "ensemble": ensemble, **learning}
    )
    pipeline.run(config, folder, STAGES if report else STAGES[:-1], say=lambda _: None)
    bench = open_run(folder)
    assert isinstance(bench, NetworkBench)
    return bench
