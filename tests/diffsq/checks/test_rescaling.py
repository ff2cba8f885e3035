"""One model at other couplings: the lifted flux stays exact, the score times beta/beta_0 does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffsq.checks import rescaling
from diffsq.config.config import config_from_dict
from diffsq.config.gauge import GaugeRun
from diffsq.models.gauge import GaugeScore
from diffsq.models.torus import TorusScore
from diffsq.run_folder.finished import GaugeBench
from lattice.actions.u1 import U1
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.progress import Silent
from lattice.simulation.gauge_draws import draw_links

SHAPE = (6, 6)


def bench_of(harmonic: float = 1.0) -> GaugeBench:
    links = draw_links(1.0, SHAPE, 64, seed=3)
    ensemble = Ensemble.from_fields(links, U1(1.0), np.arange(64), np.zeros(64, dtype=np.int64))
    config = config_from_dict(
        {"name": "u1", "action": {"kind": "u1", "beta": 1.0}, "lattice": {"shape": list(SHAPE)}}
    )
    assert isinstance(config, GaugeRun)
    torus = TorusScore(SHAPE, 2, 1.0, 1.6131, 0.075).requires_grad_(False)
    models = {"score": GaugeScore(SHAPE, torch.tensor([harmonic], dtype=torch.float64)), "torus": torus}
    return GaugeBench(Path("."), config, U1(1.0), ensemble, models, {})


def test_the_lifted_flux_is_exact_at_any_beta_and_the_published_factor_is_not() -> None:
    result = rescaling.run(bench_of(), Silent(), betas=[0.7, 6.0], n_samples=512, n_levels=40)
    assert result["passed"]
    rows = result["points"][1]["rows"]
    exact = result["points"][1]["exact"]["q2"]
    value, error = rows["published"]["q2"]
    assert value - exact > 10 * error  # charges were decided where the score is no multiple of beta
    value, error = rows["lifted flux"]["q2"]
    assert abs(value - exact) < 4 * error
    sigma, own, known = np.array(rows["published"]["profile"]).T
    assert sigma[0] == 0
    assert own[0] == pytest.approx(rows["published"]["q2"][0])
    assert known[0] == pytest.approx(exact, rel=0.3)
    assert "one model of beta_0 = 1" in rescaling.text(result)
    assert rescaling.figure(result).axes


def test_a_model_that_learned_the_wrong_beta_fails() -> None:
    result = rescaling.run(bench_of(harmonic=1.4), Silent(), betas=[2.0], n_samples=512, n_levels=10)
    assert not result["passed"]
    assert result["points"][0]["rows"]["lifted flux"]["ess"] < 0.7


def test_options_that_are_refused() -> None:
    for options in ({"betas": []}, {"betas": [-1.0]}, {"n_samples": 5}, {"n_levels": 2}):
        with pytest.raises(InputError, match="must be"):
            rescaling.refuse(**options)  # type: ignore[arg-type]
