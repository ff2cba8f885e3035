"""The demo's physics on a small budget: L = 16, kappa = 0.27, lambda = 0.022, against reference.md section 4.

The closed-form regression base alone (an untrained U-Net), 24 levels; every number of the reference is one of
an independent Metropolis and Wolff program, its error included.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT

from diffsq.config.config import Config, load_config
from diffsq.exactness.efficiency import diagnose
from diffsq.exactness.weights import ln_z, metropolis_ensemble
from diffsq.sampling.lattice_sets import sample
from diffsq.training.lattice import train
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.observables.measure import measure
from lattice.simulation.simulate import simulate
from lattice.statistics.notation import parse_value

BUDGET = (
    "models=[score]", "model.base=regression",
    "ensemble.n_configs=32768", "model.channels=1", "model.n_levels=1", "model.n_sigma=20",
    "model.n_fit=2048", "training.n_steps=0", "sampling.n_samples=2048", "sampling.n_forward=512",
    "sampling.n_levels=24",
)  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "configs/demo.yaml", BUDGET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def ensemble(config: Config, folder: Path) -> Ensemble:
    return simulate(config.action, config.shape, config.ensemble, seed=config.seed, out=folder / "ensemble")


@pytest.fixture(scope="module")
def samples(config: Config, folder: Path, ensemble: Ensemble) -> Ensemble:
    model = train(config, ensemble, folder / "train")
    samples = sample(config, model, ensemble, folder / "samples")
    diagnose(folder / "samples", config.seed)
    return samples


def pulls(config: Config, measured: dict[str, Any]) -> dict[str, float]:
    reference = config.active_reference()
    assert reference is not None
    found = {}
    for name, text in reference.values.items():
        if name in measured:
            value, error = parse_value(text)
            found[name] = (measured[name]["value"] - value) / math.hypot(error, measured[name]["error"])
    return found


def test_the_training_ensemble_is_certified_and_right(config: Config, ensemble: Ensemble) -> None:
    assert ensemble.attrs["certificate"]["passed"]
    found = pulls(config, measure(ensemble)["observables"])
    assert len(found) == 8
    assert all(abs(p) < 4 for p in found.values()), found


@pytest.mark.parametrize("column", ["weighted", "metropolis"])
def test_corrected_samples_agree_with_the_reference(column: str, config: Config, samples: Ensemble) -> None:
    corrected = samples if column == "weighted" else metropolis_ensemble(samples, config.seed)
    observables = measure(corrected)["observables"]
    found = pulls(config, observables)
    assert len(found) == 8
    assert all(abs(p) < 4 for p in found.values()), found
    for name in ("abs_magnetization", "binder"):
        assert observables[name]["error"] < 0.03 * observables[name]["value"]


def test_ln_z_and_efficiency(config: Config, folder: Path, samples: Ensemble) -> None:
    reference = config.active_reference()
    assert reference is not None
    found = json.loads((folder / "samples/diagnostics.json").read_text())
    value, error = parse_value(reference.values["ln_z"])
    assert abs(found["ln_z"] - value) < 4 * math.hypot(error, found["ln_z_error"])
    assert found["ln_z_error"] < 0.05
    for way in ("reverse", "forward"):
        assert found[way]["ess"] > 0.45, (way, found[way]["ess"], found[way]["ess_error"])
    assert found["acceptance"] > 0.5
    assert found["kl"]["base"] == pytest.approx(found["kl"]["model"], abs=0.02), (
        "an untrained U-Net is the base"
    )
    assert found["kl"]["wiener"] > found["kl"]["base"] + 1


def test_one_percent_in_kappa_would_be_seen(config: Config, samples: Ensemble) -> None:
    """Negative control: the same samples weighed with the action of a neighbouring point."""
    reference = config.active_reference()
    assert reference is not None
    assert samples.log_weight is not None
    wrong = ScalarPhi4(1.01 * config.action.kappa, config.action.lam)
    phi = torch.from_numpy(samples.phi)
    log_w = samples.log_weight + (samples.action.action(phi) - wrong.action(phi)).numpy()
    found, error = ln_z(log_w)
    value, reference_error = parse_value(reference.values["ln_z"])
    assert abs(found - value) > 10 * math.hypot(error, reference_error)
