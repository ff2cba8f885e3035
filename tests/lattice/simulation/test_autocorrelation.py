"""tau_int and cost of an update, where tau_int is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator
from lattice.simulation.autocorrelation import OBSERVABLES, Autocorrelation, autocorrelation, of_series
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.trajectory import Settings

KAPPA, SIZE, N = 0.2, 4, 64


def free_start(seed: int) -> np.ndarray:
    shape = (SIZE, SIZE)
    noise = np.fft.fft2(np.random.default_rng(seed).normal(size=(N, *shape)))
    return np.fft.ifft2(noise * np.sqrt(free_propagator(KAPPA, shape).real)).real


def recipe(seed: int = 5) -> Recipe[MonteCarlo]:
    params = MonteCarlo(
        n_chains=N, trajectory_length=0.5, n_steps=4, length_jitter=0.0, cluster="none", n_clusters=0
    )
    return Recipe(ScalarPhi4(KAPPA, 0.0), (SIZE, SIZE), params, seed)


@pytest.fixture(scope="module")
def found() -> Autocorrelation:
    return autocorrelation(recipe(), Settings(0.5, 4), free_start(1), error=0.01, most=4096)


def test_hmc_of_a_free_field(found: Autocorrelation) -> None:
    """M turns by the angle omega T with fresh momenta: rho(t) = cos(omega T)^t for M, its square for M^2."""
    omega2 = 1 / free_propagator(KAPPA, (SIZE, SIZE)).real[0, 0]
    r = math.cos(math.sqrt(omega2) * 0.5) ** 2
    exact = 0.5 + r / (1 - r)
    value, error = found.tau_int["magnetization2"]
    assert found.slowest == "magnetization2"
    assert error < 0.05 * exact
    assert abs(value - exact) < 4 * error + 0.01 * exact  # steps of finite size
    assert abs(found.mean["action_density"][0] - 0.5) < 4 * found.mean["action_density"][1]
    cost, cost_error = found.cost
    seconds, spread = found.seconds
    assert cost == pytest.approx(2 * value * seconds)
    assert cost_error == pytest.approx(2 * math.hypot(error * seconds, value * spread))
    assert spread > 0


def test_chains_are_as_long_as_asked_for(found: Autocorrelation) -> None:
    again = autocorrelation(recipe(), Settings(0.5, 4), free_start(1), error=0.01, most=4096)
    assert (again.n_steps, again.tau_int) == (found.n_steps, found.tau_int)  # no clock decides
    rough = autocorrelation(recipe(), Settings(0.5, 4), free_start(1), error=0.2, most=4096)
    assert rough.n_steps < found.n_steps
    short = autocorrelation(recipe(), Settings(0.5, 4), free_start(1), error=1e-6, most=600)
    assert short.n_steps == 600


def test_independent_and_slow_series() -> None:
    rng = np.random.default_rng(2)
    white = of_series(rng.normal(size=(3, 4, 4000)), (0.5, 0.0))
    assert white.as_dict()["tau_int"].keys() == set(OBSERVABLES)
    assert abs(white.cost[0] - 0.5) < 4 * white.cost[1] + 0.02
    walk = of_series(rng.normal(size=(3, 4, 400)).cumsum(axis=2), (0.5, 0.0))
    assert walk.failure
    assert walk.as_dict()["cost"] is None  # no number rather than one that is too small
    with pytest.raises(InputError, match="not known"):
        _ = walk.slowest


def test_other_fields_are_refused() -> None:
    with pytest.raises(InputError, match="phi must be"):
        autocorrelation(recipe(), Settings(0.5, 4), free_start(1)[:3])
