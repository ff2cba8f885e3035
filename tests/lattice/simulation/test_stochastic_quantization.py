"""Langevin runs at several step sizes: the known bias at each, and its removal."""

import numpy as np
import pytest
from own_actions import O2

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, one_site_moments
from lattice.simulation.stochastic_quantization import stochastic_quantization

ACTION = ScalarPhi4(0.27, 0.022)
FREE = FreeScalar(0.12)


def test_extrapolation_recovers_the_free_field():
    """phi2 = <G>, s = 1/2 and g0 = G(0) within errors at h = 0, each raw value off by more than 10 sigma."""
    g = free_propagator(FREE.kappa, (4, 6))
    table = stochastic_quantization(
        FREE, (4, 6), n_chains=400, tau_therm=10.0, tau_run=150.0, order=2,
        seed=12, steps=(0.02, 0.04, 0.06, 0.08, 0.1),
    )  # fmt: skip
    truth = {"phi2": g.mean(), "s": 0.5, "g0": g[0, 0]}
    for name, value in truth.items():
        limit = table.limits[name]
        assert limit.trusted
        assert abs(limit.value - value) < 4 * limit.error, name
        assert limit.error < 0.02 * value
    for name in ("phi2", "s"):
        assert (np.abs(table.values[name] - truth[name]) > 10 * table.errors[name]).all(), name
    slope, error = table.limits["phi2"].slopes[0], table.limits["phi2"].slope_errors[0]
    assert abs(slope - 0.5) < 4 * error
    assert "0 (fit)" in table.text
    assert "start pull" in table.text
    assert len(table.text.splitlines()) == 9


def euler_maruyama_phi2(mass, lam, step):
    """<phi^2> of one site, exactly as Euler-Maruyama samples it: the stationary vector of its kernel."""
    x = np.linspace(-3.5, 3.5, 701)
    mean = x - step * (2 * mass * x + 4 * lam * x**3)
    kernel = np.exp(-((x - mean[:, None]) ** 2) / (4 * step))
    kernel /= kernel.sum(axis=1, keepdims=True)
    balance = kernel.T - np.eye(len(x))
    balance[0] = 1.0  # one equation is redundant: normalisation takes its place
    p = np.linalg.solve(balance, np.eye(len(x))[0])
    return (p * x**2).sum()


def test_bias_of_an_interacting_site():
    """The bias at finite h is that of the kernel's stationary law, it begins as the action
    S + (h/4)(2 S'' - S'^2) says, and the extrapolation removes it."""
    lam = 0.3
    mass, action = 1 - 2 * lam, ScalarPhi4(0.0, lam)
    x = np.linspace(-6, 6, 4001)
    p = np.exp(-mass * x**2 - lam * x**4)
    p /= p.sum()
    change = (2 * (2 * mass + 12 * lam * x**2) - (2 * mass * x + 4 * lam * x**3) ** 2) / 4
    truth = one_site_moments(action, (2,))[0]
    slope = -((p * x**2 * change).sum() - truth * (p * change).sum())
    h = 0.01
    d1, d2 = ((euler_maruyama_phi2(mass, lam, step) - truth) / step for step in (h, 2 * h))
    assert 2 * d1 - d2 == pytest.approx(slope, rel=0.01)

    steps = (0.02, 0.04, 0.06, 0.08)
    table = stochastic_quantization(
        action, (16, 16), steps=steps, n_chains=64, tau_therm=6.0, tau_run=120.0, order=2, seed=13
    )
    for step, value, error in zip(steps, table.values["phi2"], table.errors["phi2"]):
        exact = euler_maruyama_phi2(mass, lam, step)
        assert abs(value - exact) < 4.5 * error
        assert value - truth > 10 * error or step < 0.03
    limit = table.limits["phi2"]
    assert limit.trusted
    assert abs(limit.value - truth) < 4 * limit.error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": (0.1, 0.2)}, "at least 3 steps"),
        ({"n_chains": 15}, "n_chains must be >= 16"),
        ({"tau_run": 0.0}, "tau_run must be"),
        ({"shape": (0, 2)}, "lattice shape"),
        ({"steps": (0.1, 0.2, 5.0)}, "runs away at step 5"),
    ],
)
def test_driver_refuses(change, message):
    args = {"shape": (2, 2), "n_chains": 16, "tau_therm": 50.0, "tau_run": 50.0, "steps": (0.1, 0.2, 0.3)}
    with pytest.raises(InputError, match=message):
        stochastic_quantization(ACTION, **{**args, **change}, seed=1)


def test_several_components_are_refused():
    with pytest.raises(InputError, match="one real component; those of O2 have 2"):
        stochastic_quantization(
            O2(0.1, 0.2), (2, 2), n_chains=16, tau_therm=1.0, tau_run=1.0, steps=(0.1, 0.2, 0.3), seed=1
        )


@pytest.mark.parametrize("kappa", [0.27, 0.3])
def test_a_thermalisation_that_was_too_short_is_not_trusted(kappa):
    """Each size and quantity remembers its starts, while the fit is good; eighty times longer, none does."""
    args = {"steps": (0.02, 0.03, 0.04, 0.05), "n_chains": 64, "seed": 3}
    short = stochastic_quantization(ScalarPhi4(kappa, 0.022), (8, 8), tau_therm=0.5, tau_run=4.0, **args)
    for name, limit in short.limits.items():
        assert short.pulls[name].shape == (4,)
        assert short.pulls[name].max() > 6
        assert limit.p_value > 1e-3
        assert not limit.trusted
        assert "tau_therm = 0.5 is too short" in limit.reason
        assert f"{name}: {limit.reason}" in short.text
    enough = stochastic_quantization(ScalarPhi4(kappa, 0.022), (8, 8), tau_therm=40.0, tau_run=40.0, **args)
    for name, limit in enough.limits.items():
        assert enough.pulls[name].max() < 4
        assert limit.trusted
        assert limit.reason == ""


def test_walls_that_stay_are_not_trusted():
    """Deep in the broken phase a pair of walls wound around the lattice outlives tau_therm = 10."""
    table = stochastic_quantization(
        ScalarPhi4(0.36, 0.022), (24, 8), steps=(0.01, 0.015, 0.02), n_chains=16, tau_therm=10.0, tau_run=2.0,
        seed=2,
    )  # fmt: skip
    assert not table.limits["abs_m"].trusted
    assert "domain-wall" in table.limits["abs_m"].reason


def test_driver_is_reproducible():
    args = {"n_chains": 16, "tau_therm": 1.0, "tau_run": 2.0, "steps": (0.1, 0.2, 0.3), "seed": 4}
    one = stochastic_quantization(ACTION, (2, 3), **args, n_threads=1)
    two = stochastic_quantization(ACTION, (2, 3), **args, n_threads=2)
    for name in one.values:
        np.testing.assert_array_equal(one.values[name], two.values[name])
    assert one.limits == two.limits
