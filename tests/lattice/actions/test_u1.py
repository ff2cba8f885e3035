"""The one-link model: an angle, its symmetries, and its Schwinger-Dyson equation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lattice.actions.u1 import OneLink
from lattice.exact.one_variable import toy_moments


def test_re_z_is_an_angle_and_s_is_even() -> None:
    action = OneLink(0.7 - 0.2j)
    rng = np.random.default_rng(3)
    z = torch.from_numpy(rng.normal(size=50) + 0.5j * rng.normal(size=50))
    assert torch.allclose(action.action(z + action.period), action.action(z))
    assert torch.allclose(action.action(-z), action.action(z))
    assert torch.allclose(action.grad(-z), -action.grad(z))
    assert not torch.allclose(action.action(z + math.pi), action.action(z))


@pytest.mark.parametrize("beta", [0.5, 1j, 2 - 0.4j])
def test_moments_solve_its_schwinger_dyson_equation(beta: complex) -> None:
    """<O' - S' O> = 0 for O = e^{inz}: i n w_n = (beta/2i)(w_{n+1} - w_{n-1}); another beta does not."""
    w = {n: toy_moments(OneLink(beta), [n])[0] for n in range(-1, 5)}
    for n in range(4):
        assert abs(1j * n * w[n] - beta / 2j * (w[n + 1] - w[n - 1])) < 1e-12
    assert abs(1j * w[1] - 1.1 * beta / 2j * (w[2] - w[0])) > 1e-3
