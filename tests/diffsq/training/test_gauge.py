"""Models of links in their folders: the closed form, what is learned, the network, resumed to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.config.config import config_from_dict
from diffsq.config.gauge import GaugeRun
from diffsq.models.files import load_model
from diffsq.models.gauge import GaugeScore
from diffsq.models.torus import TorusScore
from diffsq.training.gauge import denoising_error, train_gauge
from lattice.actions.u1 import U1
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.simulation.gauge_draws import draw_links


def run_of(**training: Any) -> GaugeRun:
    config = config_from_dict({
        "name": "u1", "action": {"kind": "u1", "beta": 2.0}, "lattice": {"shape": [4, 4]},
        "models": ["score", "torus"], "model": {"channels": 4},
        "training": {"n_steps": 60, "batch_size": 32, "checkpoint_every": 20, **training},
    })  # fmt: skip
    assert isinstance(config, GaugeRun)
    return config


def links_of(n: int = 1000, beta: float = 2.0) -> Ensemble:
    chains = np.arange(n)
    return Ensemble.from_fields(draw_links(beta, (4, 4), n, seed=5), U1(beta), chains, np.zeros_like(chains))


def test_the_closed_form_is_that_of_the_action_and_comes_back(tmp_path: Path) -> None:
    ensemble = links_of()
    model = train_gauge(run_of(), ensemble, tmp_path / "score", "score")
    assert isinstance(model, GaugeScore)
    assert model.harmonics.tolist() == [2.0]
    again = load_model(tmp_path / "score", GaugeScore)
    flux = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(again.posterior_mean(flux, 0.3), model.posterior_mean(flux, 0.3))
    assert torch.equal(again.log_charge, model.log_charge)


def test_what_is_learned_from_links_alone(tmp_path: Path) -> None:
    config = run_of(use_action=False, n_harmonics=2, sectors="data")
    model = train_gauge(config, links_of(4000), tmp_path / "score", "score")
    assert isinstance(model, GaugeScore)
    learned = model.about["learned"]
    assert abs(learned["b"][0] - 2.0) < 4 * learned["error"][0]
    assert abs(float(model.harmonics[0]) - 2.0) > 1e-6
    exact = GaugeScore((4, 4), torch.tensor([2.0]))
    own, known = (float(m.log_charge.exp() @ m.charges**2) for m in (model, exact))
    assert abs(own - known) < 0.1 * known
    with pytest.raises(InputError, match="action"):
        train_gauge(run_of(), links_of(beta=3.0), tmp_path / "other", "score")


class Killed(Exception):
    pass


class KilledAt(Progress):
    def __init__(self, step: int) -> None:
        self.left = step

    def update(self, n: int = 1, **values: float) -> None:
        self.left -= n
        if self.left < 0:
            raise Killed


def test_a_killed_training_goes_on_bitwise(tmp_path: Path) -> None:
    ensemble = links_of()
    whole = train_gauge(run_of(), ensemble, tmp_path / "whole", "torus")
    with pytest.raises(Killed):
        train_gauge(run_of(), ensemble, tmp_path / "torus", "torus", KilledAt(45))
    resumed = train_gauge(run_of(), ensemble, tmp_path / "torus", "torus")
    assert (tmp_path / "torus" / "weights.safetensors").read_bytes() == (
        tmp_path / "whole" / "weights.safetensors"
    ).read_bytes()
    assert isinstance(whole, TorusScore)
    assert isinstance(resumed, TorusScore)


def test_training_lowers_the_error_on_other_links(tmp_path: Path) -> None:
    config, ensemble = run_of(n_steps=300, batch_size=64), links_of(4000)
    trained = train_gauge(config, ensemble, tmp_path / "torus", "torus")
    assert isinstance(trained, TorusScore)
    fresh = TorusScore((4, 4), 4, *trained.known.tolist())
    links = torch.from_numpy(draw_links(2.0, (4, 4), 4000, seed=9))
    g = torch.Generator().manual_seed(3)
    noise = torch.randn(links.shape, generator=g, dtype=torch.float64)
    sigma = torch.exp(torch.rand(4000, generator=g, dtype=torch.float64) * 3.0 - 2.2)
    with torch.no_grad():
        gain = denoising_error(fresh, links, noise, sigma) - denoising_error(trained, links, noise, sigma)
    assert float(gain.mean()) > 5 * float(gain.std()) / 4000**0.5
