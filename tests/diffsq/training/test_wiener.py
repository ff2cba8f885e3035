"""The bare Wiener filter as a base: exact where it is the answer, a target that stays unbiased elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import equilibrium, noise_of

from diffsq.config.config import LatticeRun, config_from_dict
from diffsq.models.lattice import LatticeScore
from diffsq.models.regression import RegressionBase
from diffsq.training.lattice import train
from diffsq.training.loss import prepare
from diffsq.training.validation import HeldOut, validation_table
from diffsq.training.wiener import fit_wiener
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import Ensemble

SHAPE, N = (8, 8), 2048
NEAR_CRITICAL = ScalarPhi4(0.27, 0.022)


def config(action: ScalarPhi4, n_steps: int, base: str = "wiener", **model: Any) -> LatticeRun:
    found = config_from_dict({
        "name": "wiener", "seed": 2, "action": action.as_dict(), "lattice": {"shape": SHAPE},
        "ensemble": {"n_configs": N, "n_chains": 16}, "sde": {"sigma_min": 0.25},
        "model": {"base": base, "channels": 4, "n_levels": 2, "n_sigma": 12, "n_fit": 512, **model},
        "training": {
            "n_steps": n_steps, "batch_size": 32, "learning_rate": 1e-2, "warmup": 20, "validate_every": 200,
        },
    })  # fmt: skip
    assert isinstance(found, LatticeRun)
    return found


def ensemble(action: ScalarPhi4) -> Ensemble:
    return Ensemble.from_fields(equilibrium(action, SHAPE, N).numpy(), action, chain=np.arange(N) % 16)


@pytest.fixture(scope="module")
def critical() -> Ensemble:
    return ensemble(NEAR_CRITICAL)


def noised(model: LatticeScore, phi: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    x = phi + sigma * noise_of("test/wiener", len(phi), SHAPE)(0)
    return model.momenta.modes(x), torch.full((len(phi),), sigma, dtype=torch.float64)


def test_untrained_it_is_the_wiener_filter_to_the_last_bit(critical: Ensemble, tmp_path: Path) -> None:
    model = train(config(NEAR_CRITICAL, 0), critical, tmp_path)
    for sigma in (0.3, 1.0, 5.0):
        xk, level = noised(model, torch.from_numpy(critical.phi[:16]), sigma)
        w, _ = model.base.wiener(level)
        assert torch.equal(model.denoise(xk, level), model.momenta.expand(w) * xk)
    assert model.base.zero_mode.two_peaks()
    assert not model.base.explained.any()
    assert not model.gain.any()


def test_the_regression_is_another_denoiser(critical: Ensemble, tmp_path: Path) -> None:
    """Negative control of the equality above."""
    model = train(config(NEAR_CRITICAL, 0, "regression", channels=0), critical, tmp_path)
    xk, level = noised(model, torch.from_numpy(critical.phi[:16]), 1.0)
    w, _ = model.base.wiener(level)
    assert (model.denoise(xk, level) - model.momenta.expand(w) * xk).abs().max() > 0.01


def test_a_free_field_leaves_nothing_to_learn(tmp_path: Path) -> None:
    """beta = 1 removes the noise of the target altogether, and what is left of the path KL is rounding."""
    free = FreeScalar(0.22)
    data = ensemble(free)
    model = train(config(free, 0), data, tmp_path)
    p, phi = model.momenta, torch.from_numpy(data.phi[:64])
    g = 1 / (2 * (1 - 4 * 0.22) + 2 * 0.22 * p.khat2)
    model.base.g.copy_(g)  # of the theory, not of this ensemble
    fit_wiener(model.base, phi, free.grad, noise_of("test/fit", 64, SHAPE))
    assert model.base.beta.sub(1).abs().max() < 1e-9
    eps = noise_of("test/free", 64, SHAPE)(0)
    batch = prepare(model, phi, free.grad, torch.full((64,), 0.7, dtype=torch.float64), eps)
    assert batch.target.abs().max() < 1e-6


def test_beta_is_the_best_of_all_weights(critical: Ensemble) -> None:
    """More and less of the control variate leave more variance, mode by mode; 0 by far."""
    phi = torch.from_numpy(critical.phi)
    model = LatticeScore.unfitted(SHAPE, 6)
    base: RegressionBase = model.base
    base.set_gaussian(model.momenta.power(phi).mean(0), 0.25, 8.0)
    noise = noise_of("test/beta", len(phi), SHAPE)
    fit_wiener(base, phi, NEAR_CRITICAL.grad, noise)
    for node in (0, 3, 5):
        sigma = base.log_sigma[node].exp().expand(len(phi))
        fields = phi.roll(-node * len(phi), 0)
        power = {}
        for factor in (0.0, 0.9, 1.0, 1.1):
            spoilt = LatticeScore.unfitted(SHAPE, 6)
            spoilt.load_state_dict(model.state_dict())
            spoilt.base.beta.mul_(factor)
            target = prepare(spoilt, fields, NEAR_CRITICAL.grad, sigma, noise(node)).target
            power[factor] = model.momenta.class_mean(target.abs().double() ** 2).mean(0)
        assert (power[0.9] > power[1.0]).all()
        assert (power[1.1] > power[1.0]).all()
        assert power[0.0].sum() > 2 * power[1.0].sum()


def test_two_hundred_steps_gain_on_fields_not_seen(critical: Ensemble, tmp_path: Path) -> None:
    rows = critical.split_rows(0.125)[1]
    held_out = HeldOut.of(critical, rows, 2, torch.device("cpu"))
    gains = {}
    for n_steps in (0, 200):
        model = train(config(NEAR_CRITICAL, n_steps), critical, tmp_path / str(n_steps))
        total = validation_table(model, held_out, NEAR_CRITICAL.grad, 2)["total"]
        assert total["base"] == 0, "the base is the Wiener filter"
        gains[n_steps] = total["unet"], total["unet_error"]
    assert gains[0] == (0, 0)
    assert gains[200][0] > 5 * gains[200][1]
