"""Training without an action: no control variate, and for the rest what it is with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_config import SETTINGS

from diffsq.config.config import LatticeRun, NetworkRun, config_from_dict
from diffsq.models.lattice import LatticeScore
from diffsq.training.loss import prepare
from diffsq.training.train import train
from lattice.actions.networks import CosNet
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.network_fields import propagator
from lattice.rng import normals
from lattice.simulation.network_fields import draw_fields

LAW, SHAPE = CosNet(4, 0.2, "signs"), (4, 4)


def config(**changes: object) -> NetworkRun:
    settings = {**SETTINGS, "action": LAW.as_dict(), "ensemble": {"n_configs": 512}, **changes}
    made = config_from_dict({name: x for name, x in settings.items() if x is not None})
    assert isinstance(made, NetworkRun)
    return made


def ensemble(n: int = 512) -> Ensemble:
    return Ensemble.from_fields(draw_fields(LAW, SHAPE, np.arange(n), 3), LAW, chain=np.arange(n) % 16)


@pytest.mark.parametrize("base", ["regression", "wiener"])
def test_a_score_is_trained_without_a_gradient(base: str, tmp_path: Path) -> None:
    found = train(config(model={**SETTINGS["model"], "base": base}), ensemble(), tmp_path / "score")
    assert isinstance(found, LatticeScore)
    assert (found.base.beta == 0).all()
    assert not found.base.site.known
    x = torch.from_numpy(ensemble().phi[:8])
    assert torch.isfinite(found.score(x, torch.full((8,), 0.5, dtype=torch.float64))).all()
    again = train(config(model={**SETTINGS["model"], "base": base}), ensemble(), tmp_path / "score")
    assert again.about["sha256"] == found.about["sha256"]


def test_the_closed_form_explains_what_the_linear_filter_does_not(tmp_path: Path) -> None:
    """Fields of four waves of equal weight are far from Gaussian: held-out variance falls by far more than
    its error; of a free field there is nothing to gain."""
    own = {"models": ["closed"], "model": {"channels": 0, "n_levels": 1, "n_sigma": 6, "n_fit": 1024}}
    gains = {}
    for law in (LAW, CosNet(200, 0.2, "signs")):
        phi = draw_fields(law, SHAPE, np.arange(4096), 3)
        data = Ensemble.from_fields(phi, law, chain=np.arange(4096) % 16)
        found = train(config(**own, action=law.as_dict()), data, tmp_path / f"n{law.width}")
        sigma, fresh = 0.5, torch.from_numpy(draw_fields(law, SHAPE, np.arange(8192), 99))
        noise = torch.from_numpy(normals(1, "test/noise", np.arange(8192), 0, 16).reshape(-1, 4, 4))
        x = fresh + sigma * noise
        s = torch.full((len(x),), sigma, dtype=torch.float64)
        assert isinstance(found, LatticeScore)
        learned = found.momenta.fields(found.denoise(found.momenta.modes(x), s))
        g = torch.from_numpy(propagator(law, SHAPE))
        linear = torch.fft.ifft2(torch.fft.fft2(x) * g / (g + sigma**2)).real
        gain = ((linear - fresh) ** 2 - (learned - fresh) ** 2).mean((1, 2))
        gains[law.width] = (float(gain.mean()), float(gain.std() / len(gain) ** 0.5))
    assert gains[4][0] > 10 * gains[4][1]
    assert gains[200][0] < 0.1 * gains[4][0]


def test_the_target_is_the_bare_one() -> None:
    """With a gradient whose weight is zero and without one the target is the same, bit by bit."""
    action = ScalarPhi4(0.2, 0.1)
    model = LatticeScore.unfitted(SHAPE, n_sigma=4)
    model.base.set_gaussian(torch.ones(model.momenta.n_class, dtype=torch.float64), 0.2, 2.0)
    phi = torch.from_numpy(ensemble().phi[:4])
    sigma, eps = torch.full((4,), 0.5, dtype=torch.float64), torch.ones(4, 4, 4, dtype=torch.float64)
    one, two = (prepare(model, phi, grad, sigma, eps) for grad in (action.grad, None))
    assert torch.equal(one.target, two.target)
    model.base.beta.fill_(1.0)
    assert not torch.equal(prepare(model, phi, action.grad, sigma, eps).target, two.target)
    assert torch.equal(prepare(model, phi, None, sigma, eps).target, two.target)


def phi4_config(kappa: float, **training: object) -> LatticeRun:
    own = {"models": ["closed"], "action": {"kind": "phi4", "kappa": kappa, "lam": 0.05}}
    given = SETTINGS["training"]
    assert isinstance(given, dict)
    made = config_from_dict({**SETTINGS, **own, "training": {**given, **training}})
    assert isinstance(made, LatticeRun)
    return made


def weights_of(kappa: float, out: Path, **training: object) -> dict[str, torch.Tensor]:
    """Of the closed form, learned from the same fields said to be of this kappa."""
    shape = phi4_config(kappa).lattice.shape
    phi = np.random.default_rng(8).normal(size=(512, *shape)).cumsum(1).cumsum(2) / 4
    data = Ensemble.from_fields(phi, ScalarPhi4(kappa, 0.05), chain=np.arange(512) % 16)
    found = train(phi4_config(kappa, **training), data, out)
    assert isinstance(found, LatticeScore)
    return dict(found.state_dict())


def test_of_an_action_that_is_not_used_nothing_is_learned(tmp_path: Path) -> None:
    """The same fields, said to be of two actions: with `use_action: false` the same bits."""
    a, b = (weights_of(kappa, tmp_path / f"{kappa}", use_action=False) for kappa in (0.2, 0.25))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not a["base.site.field_max"]
    assert not a["base.beta"].any()
    with_a, with_b = (weights_of(kappa, tmp_path / f"with{kappa}") for kappa in (0.2, 0.25))
    assert not torch.equal(with_a["base.coefficients"], with_b["base.coefficients"])
    assert with_a["base.beta"].any()


@pytest.mark.parametrize("loss", ["auto", "variance", "reverse"])
def test_a_loss_of_weights_needs_the_action(loss: str) -> None:
    own = {
        "model": {"channels": 0, "n_levels": 1, "network": 2},
        "training": {"use_action": False, "loss": loss},
    }
    with pytest.raises(InputError, match="likelihood or score"):
        config_from_dict({**SETTINGS, **own})
    config_from_dict({**SETTINGS, **own, "training": {"use_action": False, "loss": "likelihood"}})


def test_settings_from_before_the_switch_are_the_same() -> None:
    used, unused = (
        phi4_config(0.2, use_action=use).model_dump(mode="json")["training"] for use in (True, False)
    )
    assert "use_action" not in used
    assert unused == {**used, "use_action": False}
