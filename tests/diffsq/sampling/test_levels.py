"""Where the noise levels are put."""

from __future__ import annotations

import torch
from fields import free_fields
from small_models import equilibrium, free_model, noise_of, phi4_model

from diffsq.sampling.levels import adapted_levels
from lattice.actions.phi4 import FreeScalar, ScalarPhi4

SHAPE, N = (4, 4), 1024


def test_adapted_levels() -> None:
    action = ScalarPhi4(0.33, 0.5)
    phi = equilibrium(action, SHAPE, 256)
    model = phi4_model(action, phi)
    noise = noise_of("localise/levels", len(phi), SHAPE)
    levels = adapted_levels(model, phi, noise, 12)
    low, high = (float(model.base.log_sigma[i].exp()) for i in (0, -1))
    assert levels.shape == (13,)
    assert levels[0] == 0
    assert (levels.diff() > 0).all()
    assert abs(float(levels[1]) / low - 1) < 1e-5
    assert abs(float(levels[-1]) / high - 1) < 1e-5
    assert torch.equal(levels, adapted_levels(model, phi, noise, 12))
    free = adapted_levels(
        free_model(SHAPE, 0.2), free_fields(FreeScalar(0.2), SHAPE, 64, 1), noise_of("x", 64, SHAPE), 12
    )
    assert torch.allclose(free[2:] / free[1:-1], (free[2] / free[1]).expand(11), rtol=1e-4)  # geometric
