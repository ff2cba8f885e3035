"""Training a network through the flow: what each loss is, that it lowers Var log w, resumes, and refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fields import white
from small_flows import NEAR, flow_base
from small_models import equilibrium, free_model
from torch import Tensor

from diffsq.config.config import LatticeRun, config_from_dict
from diffsq.models.files import load_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.models.site_network import SiteNetwork
from diffsq.training import loop
from diffsq.training.flow_loss import flow_loss, log_weights, network_size, score_loss
from diffsq.training.lattice import train
from diffsq.training.loss import gain_rate, prepare
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.rng import normals
from lattice.updates.cluster import wolff_update
from lattice.updates.local import metropolis_sweep

STRONG, SHAPE = ScalarPhi4(0.3, 0.5), (6, 6)
CONFIG: dict[str, Any] = {
    "name": "network", "seed": 3, "action": {"kind": "phi4", "kappa": 0.3, "lam": 0.5},
    "lattice": {"shape": SHAPE}, "ensemble": {"n_configs": 2048, "n_chains": 16}, "sde": {"sigma_min": 0.1},
    "model": {"channels": 0, "n_levels": 1, "n_sigma": 16, "n_fit": 1024, "network": 3},
    "training": {
        "n_steps": 40, "batch_size": 64, "learning_rate": 0.01, "warmup": 5, "ema_decay": 0.8,
        "validate_every": 40, "checkpoint_every": 10, "n_levels": 18,
    },
    "sampling": {"n_samples": 64, "n_forward": 20, "n_levels": 16},
}  # fmt: skip


def config(**training: Any) -> LatticeRun:
    """Of a short training."""
    made = config_from_dict({**copy.deepcopy(CONFIG), "training": {**CONFIG["training"], **training}})
    assert isinstance(made, LatticeRun)
    return made


def strong_fields(n: int, seed: int) -> Floats:
    """n independent fields (n, *SHAPE), of as many chains of local and cluster updates."""
    phi, chains = np.full((n, *SHAPE), 0.8), np.arange(n)
    for t in range(12):
        keys: dict[str, Any] = {"seed": seed, "chains": chains, "trajectory": t}
        phi, _ = metropolis_sweep(STRONG, phi, width=1.5, n_sweeps=6, **keys)
        phi, _ = wolff_update(STRONG, phi, **keys)
    sign = np.where(normals(seed, "test/sign", chains, 0, 1) > 0, 1.0, -1.0)
    return phi * sign[..., None]


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """2048 independent fields, as of 16 chains."""
    phi = strong_fields(2048, 5)
    chain, time = np.divmod(np.arange(2048), 128)
    return Ensemble.from_fields(phi, STRONG, chain=chain, trajectory=time)


@pytest.fixture(scope="module")
def trained(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network by Var log w."""
    out = tmp_path_factory.mktemp("trained")
    train(config(), ensemble, out)
    return out


def test_losses_of_an_exact_flow() -> None:
    """A free field: log w is ln Z for every field, so variance 0, and likelihood less reverse the entropy."""
    base = free_model((4, 4), 0.2).base
    base.network = SiteNetwork(2)
    flow, action = LatticeFlow(base, 16), FreeScalar(0.2)
    noise = white((4, 4), 64, 1)
    phi = flow.down(noise)[0]
    of = {
        kind: flow_loss(kind, flow, phi, noise, action.action)
        for kind in ("variance", "likelihood", "reverse")
    }
    assert float(of["variance"].value.detach()) < 1e-8
    log_z = float(log_weights(flow, phi, action.action, 16).mean().detach())
    assert float(of["reverse"].value.detach()) == pytest.approx(-log_z, abs=1e-6)
    entropy = float(of["likelihood"].value.detach())
    assert entropy == pytest.approx(log_z + float(action.action(phi).mean()), abs=1e-6)


def test_each_loss_is_the_mean_it_says() -> None:
    """Of a network that is not zero, from log q and S by hand."""
    base = copy.deepcopy(flow_base((4, 4)))
    base.network = SiteNetwork(3)
    base.network.initialise(torch.Generator().manual_seed(1))
    torch.nn.init.constant_(base.network.last, 0.02)
    flow, phi, noise = LatticeFlow(base, 12), equilibrium(NEAR, (4, 4), 2048)[:50], white((4, 4), 50, 2)
    log_w = -NEAR.action(phi) - flow.up(phi)[1]
    x, log_q = flow.down(noise)
    expected = {
        "variance": log_w.var(), "likelihood": -flow.up(phi)[1].mean(),
        "reverse": (NEAR.action(x) + log_q).mean(),
    }  # fmt: skip
    for kind, value in expected.items():
        found = flow_loss(kind, flow, phi, noise, NEAR.action)
        assert float(found.value.detach()) == pytest.approx(float(value), rel=1e-4)
        found.value.backward()  # type: ignore[no-untyped-call]
        assert all(float(w.grad.abs().sum()) > 0 for w in base.network.parameters())


def test_score_loss_is_the_path_kl_of_the_whole() -> None:
    """What is left of the target, of base and network together; and what the network gains over the base."""
    base = copy.deepcopy(flow_base((4, 4)))
    model, base.network = LatticeScore(base, None), SiteNetwork(3)
    base.network.initialise(torch.Generator().manual_seed(2))
    torch.nn.init.constant_(base.network.last, 0.1)
    phi, sigma = equilibrium(NEAR, (4, 4), 2048)[:64], torch.logspace(-0.5, 0.5, 64, dtype=torch.float64)
    batch = prepare(model, phi, NEAR.grad, sigma, white((4, 4), 64, 3))
    loss, p = score_loss(model, batch), model.momenta
    xk = p.modes(batch.x)
    left = batch.target - (base(xk, sigma) - base.regression(xk, sigma))
    rate = (batch.weight * left.abs() ** 2).sum((-1, -2))
    assert float(loss.value.detach()) == pytest.approx(
        model.log_range * float(rate.mean().detach()), rel=1e-5
    )
    alone = (batch.weight * batch.target.abs() ** 2).sum((-1, -2))
    gain = gain_rate(model, batch)[0].sum((-1, -2))
    assert torch.allclose(gain, (alone - rate).detach().float(), atol=1e-5)


def variance(model: LatticeScore, phi: Tensor) -> float:
    """Var log w of fields."""
    with torch.no_grad():
        return float(log_weights(LatticeFlow(model.base, 24), phi, STRONG.action, 512).var())


def test_var_log_w_falls_on_fields_not_seen(trained: Path) -> None:
    """By a tenth and more after 40 steps, of held-out fields and fresh ones; the gain has its error."""
    model = load_model(trained, LatticeScore)
    bare = copy.deepcopy(model)
    bare.base.network = None
    fresh = torch.from_numpy(strong_fields(2048, 77))
    before, after = variance(bare, fresh), variance(model, fresh)
    assert after < 0.9 * before
    history = json.loads((trained / "validation.json").read_text())["history"]
    assert history[-1]["gain"] > 4 * history[-1]["gain_error"] > 0
    assert history[-1]["gain"] == pytest.approx((before - after) / 2, rel=0.5)


def test_a_stopped_training_goes_on_with_the_same_bits(
    ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last checkpoint."""
    own, left, short = loop.Loop._advance, iter(range(6)), config(n_steps=9, checkpoint_every=4)
    train(short, ensemble, tmp_path / "straight")

    def advance(self: loop.Loop, *given: Any) -> float:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return own(self, *given)

    monkeypatch.setattr(loop.Loop, "_advance", advance)
    with pytest.raises(KeyboardInterrupt):
        train(short, ensemble, tmp_path / "stopped")
    monkeypatch.undo()
    train(short, ensemble, tmp_path / "stopped")
    for name in ("weights.safetensors", "model.json", "validation.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize("loss", ["likelihood", "reverse", "score"])
def test_every_loss_trains(loss: str, ensemble: Ensemble, tmp_path: Path) -> None:
    """Three steps change the last layer, and the model is written and read."""
    model = train(config(loss=loss, n_steps=3), ensemble, tmp_path)
    assert model.base.network is not None
    assert float(model.base.network.last.abs().max()) > 0


def test_no_steps_no_network(ensemble: Ensemble, tmp_path: Path) -> None:
    """n_steps = 0: all its weights are zero, the closed form."""
    model = train(config(n_steps=0), ensemble, tmp_path)
    assert model.base.network is not None
    assert all(float(w.abs().max()) == 0 for w in model.base.network.parameters())


def test_two_peaks_and_laws_without_an_action_are_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    phi = np.abs(strong_fields(256, 6)) + 1.0
    chain, time = np.divmod(np.arange(256), 16)
    sign = np.where(chain % 2, 1.0, -1.0)[:, None, None]
    peaks = Ensemble.from_fields(sign * phi, STRONG, chain=chain, trajectory=time)
    with pytest.raises(InputError, match="two separate peaks"):
        train(config(), peaks, tmp_path / "peaks")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": {**CONFIG["model"], "channels": 4}}, "model.network"),
        ({"model": {**CONFIG["model"], "base": "wiener"}}, "model.network"),
        ({"model": {**CONFIG["model"], "network": -1}}, "model.network"),
        ({"model": {**CONFIG["model"], "network": 0}, "training": {"loss": "variance"}}, "training.loss"),
        ({"model": {**CONFIG["model"], "network": 0}, "training": {"penalty": 0.1}}, "training.penalty"),
        ({"training": {"loss": "ess"}}, "training.loss"),
        ({"training": {"n_levels": 4}}, "training.n_levels"),
        ({"sampling": {"n_samples": 64, "method": "path"}, "training": {"loss": "reverse"}}, ""),
    ],
)
def test_one_line_for_what_does_not_fit(changed: dict[str, Any], words: str) -> None:
    """Each names the setting; a network may be sampled by paths too."""
    given = {**copy.deepcopy(CONFIG), **changed}
    if not words:
        config_from_dict(given)
        return
    with pytest.raises(InputError, match=words) as caught:
        config_from_dict(given)
    assert "\n" not in str(caught.value)


def test_penalty_keeps_the_network_small(ensemble: Ensemble, tmp_path: Path) -> None:
    """Path KL between base and network, by hand; with a large penalty it is smaller after the same steps."""
    models = {}
    for penalty in (0.0, 100.0):
        short = config(n_steps=6, penalty=penalty)
        models[penalty] = train(short, ensemble, tmp_path / str(penalty))
    phi, sigma = torch.from_numpy(strong_fields(64, 8)), torch.logspace(-0.9, 0.6, 64, dtype=torch.float64)
    sizes = []
    for model in models.values():
        batch = prepare(model, phi, STRONG.grad, sigma, white(SHAPE, 64, 4))
        base, p = model.base, model.momenta
        xk = p.modes(batch.x)
        net = base(xk, sigma) - base.regression(xk, sigma)
        w, _ = base.wiener(sigma)
        expected = 0.5 * model.log_range * float(p.total(p.expand(w) * net.abs() ** 2).mean())
        sizes.append(float(network_size(model, batch)))
        assert sizes[-1] == pytest.approx(expected, rel=1e-4)
    assert sizes[1] < 0.7 * sizes[0]
