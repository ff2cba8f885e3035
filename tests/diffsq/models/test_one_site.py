"""The path sampler on a single site, where every answer is a one-dimensional integral."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import equilibrium, levels_of, noise_of, phi4_model, still
from torch import Tensor

from diffsq.exactness.weights import ln_z
from diffsq.sampling.lattice_path import ReversePath
from lattice.actions.phi4 import ScalarPhi4
from lattice.exact.scalar import ln_z_site, one_site_moments
from lattice.statistics.blocks import jackknife_of

SITE, N = (1, 1), 8192


def path_of(action: ScalarPhi4, factor: float = 1.0) -> ReversePath:
    phi = equilibrium(action, SITE, 4096)
    model = phi4_model(action, phi)
    model.base.g.mul_(factor)
    return ReversePath(model, levels_of(model, 10))


def weighted(log_w: Tensor, values: Tensor) -> tuple[float, float]:
    data = np.stack([np.exp((log_w - log_w.max()).numpy()), values.numpy()], 1)
    return jackknife_of(lambda d: float((d[:, 0] * d[:, 1]).sum() / d[:, 0].sum()), data)


@pytest.mark.parametrize("lam", [0.022, 0.5])
@pytest.mark.parametrize("factor", [1.0, 1.3])  # 1.3: a wrong propagator, in score, kernel and start law
def test_moments_and_ln_z_against_quadrature(lam: float, factor: float) -> None:
    action = ScalarPhi4(0.2, lam)
    x, log_w = path_of(action, factor).sample(action.action, noise_of("site/draw", N, SITE), still)
    value, error = ln_z(log_w.numpy())
    assert error < 0.02
    assert abs(value - ln_z_site(action, dim=2)) < 4 * error
    phi = x[:, 0, 0]
    for order, exact in zip((2, 4, 6), one_site_moments(action, (2, 4, 6), dim=2), strict=True):
        value, error = weighted(log_w, phi**order)
        assert abs(value - exact) < 4 * error
        assert error < 0.1 * exact


def test_an_action_counted_twice_is_caught() -> None:
    action = ScalarPhi4(0.2, 0.5)
    x, log_w = path_of(action).sample(action.action, noise_of("site/draw", N, SITE), still)
    value, error = ln_z((log_w - action.action(x)).numpy())
    assert abs(value - ln_z_site(action, dim=2)) > 10 * error


def test_weights_do_not_depend_on_the_batch() -> None:
    action = ScalarPhi4(0.22, 0.1)
    phi = equilibrium(action, (4, 4), 512)
    model = phi4_model(action, phi)
    path = ReversePath(model, levels_of(model, 6))
    noise = noise_of("site/split", 96, (4, 4))
    whole, log_w = path.sample(action.action, noise, still)
    for part in (slice(0, 1), slice(1, 32), slice(32, 96)):
        fields, weights = path.sample(action.action, lambda step, part=part: noise(step)[part], still)
        torch.testing.assert_close(fields, whole[part], rtol=0, atol=1e-5)  # float32 inside the score
        torch.testing.assert_close(weights, log_w[part], rtol=0, atol=1e-4)
    assert float(log_w.std()) > 0.05
