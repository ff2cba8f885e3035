"""Symplectic integrators: consistency, exactness on a straight line, reversibility, area, order."""

import math

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.rng import normals
from lattice.updates.integrator import SCHEMES, evolve, schedule, scheme

ACTION = ScalarPhi4(0.27, 0.022)


def state(n=8, shape=(6, 4), step=0):
    size = math.prod(shape)
    phi, p = (
        torch.from_numpy(normals(1, s, np.arange(n), step, size)).reshape(n, *shape) for s in ("phi", "p")
    )
    return phi, p


def energy(phi, p):
    return 0.5 * (p * p).sum(dim=(1, 2)) + ACTION.action(phi)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_coefficients_are_consistent_palindromes(name):
    s = scheme(name)
    assert sum(s.kicks) == pytest.approx(1, abs=1e-15)
    assert sum(s.drifts) == pytest.approx(1, abs=1e-15)
    assert s.kicks == pytest.approx(s.kicks[::-1], abs=0)
    assert s.drifts == pytest.approx(s.drifts[::-1], abs=0)
    kicks, drifts = schedule(name, 1.7, 5)
    assert len(kicks) == len(drifts) + 1 == 5 * s.force_evaluations + 1
    assert kicks.sum() == pytest.approx(1.7)
    assert drifts.sum() == pytest.approx(1.7)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_reversible(name):
    """Forward, flip, back is the identity to 1e-12."""
    phi, p = state()
    args = {"length": 1.5, "n_steps": 12, "integrator": name}
    there, q = evolve(ACTION.grad, phi, p, **args)
    back, r = evolve(ACTION.grad, there, -q, **args)
    assert (there - phi).abs().max() > 0.1
    assert (back - phi).abs().max() < 1e-12
    assert (r + p).abs().max() < 1e-12


@pytest.mark.parametrize("name", list(SCHEMES))
def test_preserves_phase_space_volume(name):
    phi, p = state(n=1, shape=(2, 3))
    flat = torch.cat([phi.flatten(), p.flatten()])

    def flow(x):
        a, b = evolve(
            ACTION.grad,
            x[:6].reshape(1, 2, 3),
            x[6:].reshape(1, 2, 3),
            length=1.0,
            n_steps=3,
            integrator=name,
        )
        return torch.cat([a.flatten(), b.flatten()])

    jacobian = torch.autograd.functional.jacobian(flow, flat)
    assert abs(torch.linalg.det(jacobian).item() - 1) < 1e-12


@pytest.mark.parametrize("name", list(SCHEMES))
def test_energy_error_has_the_order_of_the_scheme(name):
    phi, p = state(n=64)
    steps = np.array([10, 14, 20, 28]) * (1 if scheme(name).order == 4 else 3)
    errors = []
    for n_steps in steps.tolist():
        end = evolve(ACTION.grad, phi, p, length=1.0, n_steps=n_steps, integrator=name)
        errors.append((energy(*end) - energy(phi, p)).square().mean().sqrt().item())
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(scheme(name).order, abs=0.1)


def test_wrong_coefficient_is_seen_by_the_order():
    """Control: a fourth-order scheme with one digit wrong is of second order."""
    kicks, drifts = np.array(SCHEMES["omelyan4"].kicks), np.array(SCHEMES["omelyan4"].drifts)
    kicks[[1, 4]] += 0.01
    kicks[[2, 3]] -= 0.01
    phi, p = state(n=64)
    errors, steps = [], [20, 28, 40]
    for n_steps in steps:
        x, q = phi, p
        for _ in range(n_steps):
            for kick, drift in zip(kicks[:-1], drifts):
                q = q - kick / n_steps * ACTION.grad(x)
                x = x + drift / n_steps * q
            q = q - kicks[-1] / n_steps * ACTION.grad(x)
        errors.append((energy(x, q) - energy(phi, p)).square().mean().sqrt().item())
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope < 2.5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("omelian2", 1.0, 3), "did you mean 'omelyan2'"),
        (("leapfrog", 0.0, 3), "length must be"),
        (("leapfrog", float("inf"), 3), "length must be"),
        (("leapfrog", 1.0, 0), "n_steps must be"),
    ],
)
def test_bad_input(args, message):
    with pytest.raises(InputError, match=message):
        schedule(*args)
