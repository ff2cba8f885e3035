"""Batches: shares of a team are the batch, averaged targets are unbiased with less noise, shuffled fields
teach nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_config import SETTINGS

from diffsq.config.config import config_from_dict
from diffsq.config.sections import TrainingConfig
from diffsq.models.blocks import Rows
from diffsq.models.lattice import LatticeScore
from diffsq.training import batches as batches_module
from diffsq.training.batches import Batches
from diffsq.training.lattice import train
from diffsq.training.loss import Batch, prepare
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import read_json
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.thermalise import thermalise
from lattice.simulation.trajectory import one_trajectory

ACTION, SHAPE = ScalarPhi4(0.25, 0.3), (8, 8)


def fields(n_times: int = 16, n_chains: int = 128) -> Ensemble:
    """Equilibrium fields of a strongly coupled theory."""
    recipe = Recipe(ACTION, SHAPE, MonteCarlo(n_chains=n_chains, n_therm=200), 3)
    therm = thermalise(recipe)
    phi, kept = therm.phi, []
    for t in range(n_times):
        phi, _, _ = one_trajectory(recipe, therm.settings, phi, recipe.chains, 200 + t)
        kept.append(phi)
    chain = np.tile(np.arange(n_chains), n_times)
    trajectory = np.repeat(np.arange(n_times), n_chains)
    return Ensemble.from_fields(np.concatenate(kept), ACTION, chain=chain, trajectory=trajectory)


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return fields()


@pytest.fixture(scope="module")
def made(ensemble: Ensemble) -> Batches:
    model = LatticeScore.unfitted(SHAPE, n_sigma=8)
    phi = Rows.of(ensemble.phi, np.arange(len(ensemble)), torch.device("cpu"))
    g = (model.momenta.modes(torch.from_numpy(ensemble.phi)).abs() ** 2).mean(0)
    model.base.set_gaussian(model.momenta.class_mean(g[None])[0], 0.2, 4.0)
    return Batches(model, phi, ACTION, TrainingConfig(batch_size=4096), seed=9)


def test_shares_are_the_batch(made: Batches) -> None:
    whole = made.at(3)
    for own in (slice(0, 100), slice(100, 4096)):
        part = made.at(3, own)
        for name in ("x", "sigma", "target"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[own], rtol=1e-12, atol=1e-12)


def test_averaged_targets_are_unbiased_and_less_noisy(made: Batches) -> None:
    """Their difference from a single draw averages to nothing against any function of x, here W x."""
    one, averaged = made.at(0), made.at(0, n_posterior=15)
    torch.testing.assert_close(one.x, averaged.x)
    u = made.model.momenta.modes(one.u.double()).to(torch.complex64)
    product = ((averaged.target - one.target).conj() * u).real.mean((-1, -2)).double()
    assert abs(product.mean()) < 4 * product.std() / len(product) ** 0.5
    noise = [(q.weight * q.target.abs() ** 2).sum((-1, -2)).mean() for q in (one, averaged)]
    assert noise[1] < noise[0] / 2
    rate = product + 0.03 * (u.abs() ** 2).mean((-1, -2)).double()  # the control: a bias that would be seen
    assert abs(rate.mean()) > 10 * rate.std() / len(rate) ** 0.5


def test_what_they_cost_is_said(ensemble: Ensemble, tmp_path: Path) -> None:
    small = {**SETTINGS, "action": {"kind": "phi4", "kappa": 0.25, "lam": 0.3}, "lattice": {"shape": [8, 8]}}
    small["training"] = {**SETTINGS["training"], "n_posterior": 3}
    train(config_from_dict(small), ensemble, tmp_path)
    worth = read_json(tmp_path / "validation.json")["posterior"]
    assert worth["averaged"] < worth["one_draw"]
    assert worth["averaged_seconds"] > worth["one_draw_seconds"] > 0


def test_an_action_is_needed() -> None:
    training = {**SETTINGS["training"], "n_posterior": 3, "use_action": False}
    with pytest.raises(InputError, match="n_posterior samples the posterior of an action"):
        config_from_dict({**SETTINGS, "training": training})


def test_targets_are_needed() -> None:
    """Through the flow without a penalty nothing is matched: a setting without effect is refused."""
    flow = {"channels": 0, "network": 4, "n_levels": 1, "n_sigma": 8}
    for training, ok in (
        ({"n_posterior": 3}, False), ({"n_posterior": 3, "penalty": 0.1}, True),
        ({"n_posterior": 3, "loss": "score"}, True),
    ):  # fmt: skip
        given = {**SETTINGS, "model": flow, "training": {**SETTINGS["training"], **training}}
        if ok:
            config_from_dict(given)
            continue
        with pytest.raises(InputError, match="averages targets of score matching"):
            config_from_dict(given)


def test_a_penalty_of_averaged_targets_is_the_path_kl(ensemble: Ensemble, tmp_path: Path) -> None:
    """Then it falls with the error of the score and not with the size of the network."""
    settings = {
        **SETTINGS, "action": {"kind": "phi4", "kappa": 0.25, "lam": 0.3}, "lattice": {"shape": [8, 8]},
        "model": {"channels": 0, "network": 4, "n_levels": 1, "n_sigma": 8, "n_fit": 512},
        "training": {**SETTINGS["training"], "n_steps": 4, "penalty": 0.5, "batch_size": 32},
        "sampling": {"n_samples": 64, "n_levels": 12},
    }  # fmt: skip
    losses = {}
    for n_posterior in (0, 7):
        training = {**settings["training"], "n_posterior": n_posterior}
        train(config_from_dict({**settings, "training": training}), ensemble, tmp_path / str(n_posterior))
        lines = (tmp_path / str(n_posterior) / "metrics.jsonl").read_text().splitlines()
        losses[n_posterior] = next(line["loss"] for line in map(json.loads, lines) if "loss" in line)
    worth = read_json(tmp_path / "7" / "validation.json")["posterior"]
    # a network of no size yet: the one has no penalty, the other that of what the base leaves, noise included
    assert losses[7] - losses[0] == pytest.approx(worth["averaged"], rel=0.5)


LEARNING: dict[str, Any] = {
    **SETTINGS, "action": {"kind": "phi4", "kappa": 0.25, "lam": 0.3}, "lattice": {"shape": [8, 8]},
    "model": {"channels": 4, "n_levels": 2, "n_sigma": 8, "n_fit": 512, "base": "wiener"},
    "training": {"n_steps": 150, "batch_size": 64, "learning_rate": 1e-2, "warmup": 20,
                 "validate_every": 150},
}  # fmt: skip


def gain(ensemble: Ensemble, out: Path) -> tuple[float, float]:
    train(config_from_dict(LEARNING), ensemble, out)
    last = read_json(out / "validation.json")["history"][-1]
    return last["gain"], last["gain_error"]


def test_a_network_fed_shuffled_fields_gains_nothing(
    ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, error = gain(ensemble, tmp_path / "right")
    assert value > 5 * error

    def shuffled(model: LatticeScore, *args: Any) -> Batch:
        batch = prepare(model, *args)
        batch.target = batch.target.roll(1, 0)  # of another field
        return batch

    monkeypatch.setattr(batches_module, "prepare", shuffled)
    nothing, error = gain(ensemble, tmp_path / "shuffled")
    assert nothing < 3 * error
