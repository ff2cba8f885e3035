"""Tuning rules: what is chosen from a given history, and that it is frozen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.tuning import StepTuner, Tuner, scaled_steps

N = 64


def test_scaling_law() -> None:
    """acceptance = erfc(sqrt(<dH>)/2), <dH> ~ eps^(2 order): both orders, both directions, at most 2-fold."""
    assert scaled_steps(10, 0.9, 0.9, "omelyan2") == 10
    assert scaled_steps(10, 0.0, 0.9, "omelyan2") == 20
    wanted = {}
    for order, integrator in ((2, "leapfrog"), (4, "omelyan4")):
        dh = 0.02  # at 100 steps
        for n_steps in (60, 100, 140):
            acceptance = math.erfc(math.sqrt(dh * (100 / n_steps) ** (2 * order)) / 2)
            wanted[integrator, n_steps] = scaled_steps(n_steps, acceptance, 0.9, integrator)
        spread = [wanted[integrator, n] for n in (60, 100, 140)]
        assert max(spread) - min(spread) <= 2  # the same answer wherever it was measured


def test_step_tuner_rules() -> None:
    tuner = StepTuner(20, 0.9, "omelyan2", 200)
    for _ in range(500):  # an integrator that breaks down below 9 steps, whatever the scaling law says
        tuner.observe(np.zeros(8), np.full(8, 0.4 if tuner.n_steps < 9 else 0.97))
    assert tuner.n_steps == 10
    tails = StepTuner(20, 0.9, "omelyan2", 200)
    for _ in range(500):  # a fair mean, but rare large dH below 12 steps
        tails.observe(np.array([0.1, 30.0 if tails.n_steps < 12 else 0.2]), np.full(2, 0.97))
    assert tails.n_steps == 14


def play(params: MonteCarlo, tau: dict[float, float], best_step: float = 0.25) -> Tuner:
    """A tuner fed by a synthetic M^2 with the autocorrelation time tau[length], as HMC would have."""
    rng, tuner = np.random.default_rng(3), Tuner(params, 8)
    x = rng.normal(size=N)
    for _ in range(params.n_therm):
        rho = (2 * tau[tuner.length] - 1) / (2 * tau[tuner.length] + 1)
        x = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=N)
        good = tuner.length / tuner.n_steps < best_step
        tuner.observe(np.full(N, 0.01), np.full(N, 0.96 if good else 0.5), x + 5.0, rng.normal(size=N))
    return tuner


LENGTHS = (1.0, 2.0, 4.0, 8.0)  # of a lattice of 8 sites


@pytest.mark.parametrize("best", LENGTHS)
def test_the_cheapest_length_is_found(best: float) -> None:
    """Costs at 0.2 per step differ by less than 4, the tau_int by 10."""
    tau = {length: 1.0 if length == best else 30.0 for length in LENGTHS}
    params = MonteCarlo(n_therm=500, n_clusters=0)
    tuner = play(params, tau)
    assert tuner.length == best
    assert 0.12 < tuner.length / tuner.n_steps < 0.25


def test_equal_tau_means_the_shortest_and_long_ones_must_pay() -> None:
    params = MonteCarlo(n_therm=1000, n_clusters=0)
    assert play(params, dict.fromkeys(LENGTHS, 5.0)).length == 1.0
    assert play(params, {1.0: 40.0, 2.0: 15.0, 4.0: 2.0, 8.0: 1.9}).length == 4.0


def test_what_is_given_is_left_alone() -> None:
    fixed = MonteCarlo(trajectory_length=3.0, n_steps=3)
    tuner = play(fixed, {3.0: 5.0})
    assert (tuner.length, tuner.n_steps) == (3.0, 3)
    assert play(MonteCarlo(trajectory_length=3.0), {3.0: 5.0}).length == 3.0


def test_short_thermalisation_keeps_the_first_length() -> None:
    params = MonteCarlo(n_therm=20, n_chains=8)
    assert play(params, dict.fromkeys(LENGTHS, 1.0)).length == 4.0


def test_modes_are_measured_once() -> None:
    params = MonteCarlo(n_therm=200, acceleration="measured")
    tuner, seen = Tuner(params, 8), []
    for t in range(200):
        noise = np.random.default_rng(t).normal(size=(2, N))
        tuner.observe(np.full(N, 0.01), np.full(N, 0.95), *noise)
        if tuner.measure_modes:
            seen.append(t)
    assert seen == [27]  # 35 % of the tuning time, 40 % of the thermalisation
