"""diffsq: diffusion models as exactly corrected samplers for lattice field theory.

The command is ``diffsq`` (see ``diffsq --help``); the README's first screen has the same job in Python.
`import diffsq` loads nothing heavy; a public name loads what it needs when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice.lazy import lazy

if TYPE_CHECKING:
    from diffsq.checks.perform import check
    from diffsq.config.config import Config, load_config
    from diffsq.exactness.weights import forward_ess, independence_metropolis, ln_z, metropolis_ensemble
    from diffsq.models.family import Family
    from diffsq.models.family_files import load_family
    from diffsq.models.files import load_model
    from diffsq.models.lattice import LatticeScore
    from diffsq.models.points import PointModel
    from diffsq.models.rbm import GaussianRBM
    from diffsq.pipeline import run
    from diffsq.process.sde import VESDE, VPSDE
    from diffsq.report.page import build_report
    from diffsq.run_folder.compare import compare
    from diffsq.run_folder.finished import open_run
    from diffsq.sampling.family_sets import sample_family
    from diffsq.sampling.lattice_path import ReversePath
    from diffsq.sampling.sample import sample
    from diffsq.training.train import train

__version__ = "0.3.0"

__all__ = [
    "Config", "Family", "GaussianRBM", "LatticeScore", "PointModel", "ReversePath", "VESDE", "VPSDE",
    "build_report", "check", "compare", "forward_ess", "independence_metropolis", "ln_z", "load_config",
    "load_family", "load_model", "metropolis_ensemble", "open_run", "run", "sample", "sample_family",
    "train",
]  # fmt: skip

__getattr__ = lazy(
    __name__,
    {
        "diffsq.checks.perform": "check",
        "diffsq.config.config": "Config load_config",
        "diffsq.exactness.weights": "forward_ess independence_metropolis ln_z metropolis_ensemble",
        "diffsq.models.family": "Family",
        "diffsq.models.family_files": "load_family",
        "diffsq.models.files": "load_model",
        "diffsq.models.lattice": "LatticeScore",
        "diffsq.models.points": "PointModel",
        "diffsq.models.rbm": "GaussianRBM",
        "diffsq.pipeline": "run",
        "diffsq.process.sde": "VESDE VPSDE",
        "diffsq.report.page": "build_report",
        "diffsq.run_folder.compare": "compare",
        "diffsq.run_folder.finished": "open_run",
        "diffsq.sampling.family_sets": "sample_family",
        "diffsq.sampling.lattice_path": "ReversePath",
        "diffsq.sampling.sample": "sample",
        "diffsq.training.train": "train",
    },
)
