"""Polishing with HMC: the free field heals as its closed form says, equilibrium stays, ultraviolet first."""

from __future__ import annotations

import doctest
import json
from functools import partial

import numpy as np
import pytest
import torch
from benches import make_bench
from fields import free_fields
from numpy.typing import NDArray
from small_models import equilibrium

from diffsq.analysis import polish as module
from diffsq.analysis.polish import (
    OBSERVABLES,
    Reference,
    gaussian_factor,
    healing,
    measure_fields,
    names_of,
    polish,
    quarter_period,
    steps_for,
)
from diffsq.checks import polish as check
from diffsq.models.momentum import Momenta, shells
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, one_site_moments, small_lattice
from lattice.progress import Silent

SHAPE = (6, 6)
FREE = FreeScalar(0.2)
MOMENTA = Momenta(SHAPE)
G = MOMENTA.class_mean(torch.from_numpy(free_propagator(FREE.kappa, SHAPE))[..., : SHAPE[-1] // 2 + 1])
PHI4 = ScalarPhi4(0.25, 0.022)


def per_shell(q: torch.Tensor) -> NDArray[np.float64]:
    """Mean of a per-class quantity over each shell."""
    index, labels = shells(MOMENTA)
    top, bottom = (
        torch.zeros(len(labels), dtype=torch.float64).index_add(0, index, m)
        for m in (MOMENTA.multiplicity * q, MOMENTA.multiplicity)
    )
    return np.asarray((top / bottom).numpy())


def exact_free(columns: int) -> Reference:
    """G per shell in closed form; the other observables are not compared."""
    value = np.zeros(columns)
    g = per_shell(G)
    value[: len(g)] = g
    return Reference(value, np.zeros(columns))


def test_measured_columns_against_closed_forms() -> None:
    """G per shell of the free field; moments of single sites; <|M|>, s, <phi^2> of a 2 x 2 lattice."""
    phi = free_fields(FREE, SHAPE, 4000, seed=1).numpy()
    columns = measure_fields(MOMENTA, FREE, phi)
    assert columns.shape == (4000, len(names_of(MOMENTA)))
    reference = Reference.of_ensemble(columns, None)
    g = per_shell(G)
    assert np.abs((reference.value[: len(g)] - g) / reference.error[: len(g)]).max() < 4.5
    assert abs(reference.value[-1] / reference.error[-1]) < 4.5  # kappa4 of a Gaussian

    action, small = ScalarPhi4(0.2, 0.1), Momenta((2, 2))
    found = Reference.of_ensemble(
        measure_fields(small, action, equilibrium(action, (2, 2), 4096).numpy()), None
    )
    exact = small_lattice(action, (2, 2))
    truth = [exact.phi2, exact.action_density, exact.abs_m, exact.phi4 - 3 * exact.phi2**2]
    for name, value, error, true in zip(OBSERVABLES, found.value[-4:], found.error[-4:], truth, strict=True):
        assert abs(value - true) < 4.5 * error, name
        assert error < 0.02, name


def test_bias_of_the_free_field_heals_by_the_closed_form() -> None:
    """Fields 20 % too wide: after t trajectories 0.44 G cos^2t(tau/sqrt G) is left in every shell."""
    phi = 1.2 * free_fields(FREE, SHAPE, 6000, seed=2).numpy()
    length = 0.5 * quarter_period(G)
    measured = partial(measure_fields, MOMENTA, FREE)
    n = len(names_of(MOMENTA))
    run = healing(polish(FREE, phi, 4, 7, length=length, n_steps=16), measured, exact_free(n))
    assert min(run["acceptance"]) > 0.999
    shell_g = per_shell(G)
    for t in range(5):
        expected = per_shell(0.44 * G * gaussian_factor(G, length) ** t)
        error = np.array(run["error"][t])[: len(shell_g)]
        pull = (np.array(run["bias"][t])[: len(shell_g)] - expected) / error
        assert np.abs(pull).max() < 4.5, t
        if t == 2:  # negative control: the factor of amplitudes instead of variances
            wrong = per_shell(0.44 * G * gaussian_factor(G, length))
            assert np.abs((np.array(run["bias"][t])[: len(shell_g)] - wrong) / error).max() > 10


def test_ultraviolet_heals_first() -> None:
    phi = 1.2 * free_fields(FREE, SHAPE, 4000, seed=3).numpy()
    n = len(names_of(MOMENTA))
    run = healing(
        polish(FREE, phi, 8, 7, length=0.6 * quarter_period(G), n_steps=8),
        partial(measure_fields, MOMENTA, FREE),
        exact_free(n),
    )
    n_shell = n - len(OBSERVABLES)
    needed = [99 if h is None else h for h in run["healed"][:n_shell]]
    assert needed[-1] < needed[1] <= needed[0]
    assert 1 <= needed[-1] <= 4
    relative = np.array(run["bias"])[2, :n_shell] / per_shell(G)
    assert relative[-1] < 0.5 * relative[1]
    assert relative[1] < relative[0]


def test_equilibrium_stays_and_a_wrong_action_leaves() -> None:
    """Control: from equilibrium no bias appears; with the HMC of another kappa one does."""
    phi = equilibrium(PHI4, SHAPE, 4096).numpy()
    measured = partial(measure_fields, MOMENTA, PHI4)
    reference = Reference.of_ensemble(measured(phi[:2048]), None)

    def largest(action: ScalarPhi4) -> float:
        run = healing(polish(action, phi[2048:], 6, 3, length=0.7, n_steps=4), measured, reference)
        return float(np.abs(np.array(run["bias"]) / np.array(run["error"])).max())

    assert largest(PHI4) < 4.5
    assert largest(ScalarPhi4(0.22, 0.022)) > 10


def test_biased_interacting_samples_heal() -> None:
    """Noise added to every site is gone from the ultraviolet shells and from s after a few trajectories."""
    phi = equilibrium(PHI4, SHAPE, 4096).numpy()
    measured = partial(measure_fields, MOMENTA, PHI4)
    reference = Reference.of_ensemble(measured(phi[:2048]), None)
    noisy = phi[2048:] + 0.4 * np.random.default_rng(1).normal(size=phi[2048:].shape)
    run = healing(polish(PHI4, noisy, 8, 5, length=0.7, n_steps=4), measured, reference)
    pulls = np.abs(np.array(run["bias"]) / np.array(run["error"]))
    last_shell = len(names_of(MOMENTA)) - len(OBSERVABLES) - 1
    density = names_of(MOMENTA).index("action_density")
    for column in (last_shell, density):
        assert pulls[0, column] > 10
        assert pulls[-1, column] < 4.5
        assert run["healed"][column] is not None


def test_weighted_samples_as_their_own_reference() -> None:
    """Fields of G' = 1.1 G with exact weights: the raw bias is 0.1 G, its paired error the smaller one."""
    n = 4000
    phi = free_fields(FREE, SHAPE, n, seed=4)
    wide = phi * 1.1**0.5
    log_weight = (-FREE.action(wide) + FREE.action(wide) / 1.1).numpy()
    columns = measure_fields(MOMENTA, FREE, wide.numpy())
    weighted = Reference.of_weights(columns, log_weight)
    bias, error = weighted.bias(columns)
    g = per_shell(G)
    assert np.abs((bias[: len(g)] - 0.1 * g) / error[: len(g)]).max() < 4.5
    assert np.abs((weighted.value[: len(g)] - g) / weighted.error[: len(g)]).max() < 4.5
    with pytest.raises(InputError, match="weights"):
        weighted.bias(columns[:10])


def test_fields_do_not_depend_on_how_they_are_split() -> None:
    phi = equilibrium(PHI4, SHAPE, 4096).numpy()[:12]
    *_, (whole, _) = polish(PHI4, phi, 3, 9, length=0.7, n_steps=3)
    parts = []
    for rows in (np.arange(5), np.arange(5, 12)):
        *_, (part, _) = polish(PHI4, phi[rows], 3, 9, length=0.7, n_steps=3, chains=rows)
        parts.append(part)
    assert np.array_equal(whole, np.concatenate(parts))


def test_steps_follow_the_ensembles_own_hmc() -> None:
    def tuned(**parameters: object) -> Ensemble:
        return Ensemble.from_fields(
            np.zeros((2, 4, 4)), PHI4, attrs={"algorithm": {"parameters": parameters}}
        )

    own = tuned(trajectory_length=4.0, n_steps=20, acceleration="none")
    assert steps_for(own, 1.0) == 5
    assert steps_for(own, 0.1) == 2
    assert steps_for(tuned(trajectory_length=4.0, n_steps=20, acceleration="free"), 1.0) == 4
    assert steps_for(tuned(), 1.0) == 4
    assert steps_for(Ensemble.from_fields(np.zeros((2, 4, 4)), PHI4), 1.0) == 4


def test_bad_input_is_refused() -> None:
    phi = np.zeros((3, *SHAPE))
    with pytest.raises(InputError, match="0 or more"):
        polish(FREE, phi, -1, 1, length=1.0, n_steps=2)
    phi[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="first field 1"):
        polish(FREE, phi, 1, 1, length=1.0, n_steps=2)
    with pytest.raises(InputError, match="float64"):
        polish(FREE, phi.astype(np.float32), 1, 1, length=1.0, n_steps=2)


def test_single_site_cumulant_against_quadrature() -> None:
    """kappa4 of independent sites, drawn by rejection-free inversion, from its moments."""
    action = ScalarPhi4(0.0, 0.2)
    grid = np.linspace(-4, 4, 4001)
    cdf = np.cumsum(np.exp(-(1 - 2 * action.lam) * grid**2 - action.lam * grid**4))
    u = np.random.default_rng(2).random((4000, *SHAPE))
    columns = measure_fields(MOMENTA, action, np.interp(u, cdf / cdf[-1], grid + 0.001))
    found = Reference.of_ensemble(columns, None)
    m2, m4 = one_site_moments(action, (2, 4))
    assert abs(found.value[-1] - (m4 - 3 * m2**2)) < 4.5 * found.error[-1]
    assert abs(found.value[-1]) > 10 * found.error[-1]


def test_check_of_a_run() -> None:
    """The command's check in memory: Euler in few levels has a bias that heals, the control has none."""
    bench = make_bench(PHI4, SHAPE)
    result = check.run(bench, Silent(), method="euler", n_samples=1024, n_levels=6, n_traj=8)
    json.dumps(result, allow_nan=False)
    assert result["passed"] is True
    bias, error = (np.array(result[key]) for key in ("bias", "error"))
    last_shell = len(result["names"]) - len(OBSERVABLES) - 1
    assert bias[0, last_shell] > 10 * error[0, last_shell]
    assert abs(bias[8, last_shell]) < 0.1 * bias[0, last_shell]
    text = check.text(result)
    assert text.isascii()
    assert "control" in text
    assert len(check.figure(result).axes) == 2
    again = check.run(bench, Silent(), n_traj=1, reference="weighted")
    assert np.array(again["bias"]).shape == (2, len(again["names"]))
    for wrong in ({"method": "magic"}, {"reference": "truth"}, {"method": "heun", "reference": "weighted"}):
        with pytest.raises(InputError):
            check.run(bench, Silent(), **wrong)


def test_doctests() -> None:
    assert doctest.testmod(module).failed == 0
