"""The one-link model, its symmetries and Schwinger-Dyson equation; links on a torus: force, gauge, charge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lattice.actions.kinds import action_from_dict
from lattice.actions.u1 import BETAS, U1, OneLink, circulation
from lattice.errors import InputError
from lattice.exact.one_variable import toy_moments
from lattice.observables.gauge import charge, plaquettes
from lattice.simulation.gauge_draws import draw_links


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


def links(seed: int = 1, n: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-np.pi, np.pi, (n, 2, 4, 6)))


@pytest.mark.parametrize("action", [U1(1.7), U1(0.8 + 0.3j, theta=1.1)])
def test_the_force_is_the_derivative_of_s(action: U1) -> None:
    phi, h = links(), 1e-6
    step = torch.from_numpy(np.random.default_rng(2).normal(size=phi.shape))
    slope = (action.action(phi + h * step) - action.action(phi - h * step)) / (2 * h)
    found = (action.grad(phi) * step).sum((1, 2, 3))
    assert (slope - found).abs().max() < 1e-7
    assert (slope + found).abs().max() > 1.0


def test_s_and_q_know_of_no_gauge_and_the_force_is_covariant() -> None:
    action, phi = U1(1.7), links()
    g = torch.from_numpy(np.random.default_rng(3).normal(size=(5, 4, 6)))
    turned = phi.clone()
    for mu in (0, 1):
        turned[:, mu] += g - g.roll(-1, mu + 1)
    assert torch.allclose(action.action(turned), action.action(phi), atol=1e-12)
    assert torch.allclose(action.grad(turned), action.grad(phi), atol=1e-12)
    assert torch.equal(action.order(turned), action.order(phi))
    divergence = sum(q - q.roll(1, mu + 1) for mu, q in enumerate(action.grad(phi).unbind(1)))
    assert torch.as_tensor(divergence).abs().max() < 1e-12


def test_its_charge_and_plaquettes_are_those_that_are_measured() -> None:
    phi = torch.from_numpy(draw_links(1.0, (4, 6), 200, seed=5))
    assert torch.equal(U1(1.0).order(phi), charge(phi))
    assert torch.allclose(circulation(phi).cos(), plaquettes(phi).cos())
    assert torch.equal(U1(1.0).order(-phi), -charge(phi))


def test_couplings_that_are_refused() -> None:
    for beta in (0, -1.0):
        with pytest.raises(InputError, match=r"action.beta must be > 0, got"):
            action_from_dict({"kind": "u1", "beta": beta})
    for beta in (1e-7, 1e7):
        with pytest.raises(InputError, match=r"^action.beta must be between 1e-06 and 1e\+06, got 1e[-+]07$"):
            U1(beta)
    assert U1(1e-6).beta.real == BETAS[0]
    assert U1(1e6).beta.real == BETAS[1]
    assert U1(1e-9 + 1j).is_complex
    with pytest.raises(InputError, match=r"two periodic extents of at least 2, got lattice.shape \[4\]"):
        U1(1.0).check_normalisable((4,))
    assert action_from_dict(U1(2.0).as_dict()) == U1(2.0)
    assert action_from_dict(U1(2.0 + 1j, 0.3).as_dict()) == U1(2.0 + 1j, 0.3)
