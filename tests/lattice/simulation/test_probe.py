"""Steps that cannot follow the drift are refused before any work, with advice that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic
from lattice.actions.phi4 import ComplexPhi4, FreeScalar, ScalarPhi4
from lattice.actions.u1 import OneLink
from lattice.errors import InputError
from lattice.progress import Silent
from lattice.simulation.complex_langevin import _Run
from lattice.simulation.parameters import ComplexLangevin, MonteCarlo
from lattice.simulation.probe import TooStiff, equilibrium_stiffness, refuse_stiff
from lattice.simulation.recipe import Recipe
from lattice.simulation.simulate import simulate
from lattice.simulation.stochastic_quantization import stochastic_quantization

STIFF = 1000 + 1000j
FEW = {"n_configs": 4000, "n_chains": 200}


def number(text: str, key: str) -> float:
    found = re.search(rf"{key}: ([\d.e+-]+)", text)
    assert found is not None, text
    return float(found.group(1).rstrip("."))


@pytest.mark.parametrize(
    ("action", "shape"),
    [
        (ComplexGaussian(STIFF), ()), (ComplexQuartic(STIFF, 1.0), ()), (ComplexQuartic(STIFF, 1000.0), ()),
        (ComplexQuartic(-1000.0, 1.0), ()), (OneLink(1000 + 10j), ()), (ComplexPhi4(0.1, 0.3, STIFF), (4, 4)),
    ],
)  # fmt: skip
def test_a_stiff_drift_is_refused_at_once(action: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(TooStiff, match=r"needs steps below .* use ensemble\.step: ") as refused:
        simulate(action, shape, ComplexLangevin(), seed=1, out=tmp_path)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_advice_is_one_that_works(tmp_path: Path) -> None:
    with pytest.raises(TooStiff) as refused:
        simulate(ComplexGaussian(STIFF), (), ComplexLangevin(**FEW), seed=1, out=tmp_path)
    step, tau = (number(str(refused.value), f"ensemble.{key}") for key in ("step", "tau"))
    ensemble = simulate(
        ComplexGaussian(STIFF), (), ComplexLangevin(**FEW, step=step, tau=tau), seed=1, out=tmp_path
    )
    assert ensemble.attrs["certificate"]["verdict"] == "trusted"


@pytest.mark.parametrize(
    ("action", "start_width"),
    [(ComplexQuartic(1 + 1j, 50.0), 3.0), (ComplexQuartic(-3.0, 1.0), 0.01), (ComplexGaussian(20.0), 1.0)],
)
def test_a_start_that_is_stiffer_than_equilibrium_is_not_refused(
    action: Any, start_width: float, tmp_path: Path
) -> None:
    """Negative control: S'' is 1350 at the start of the first, and 40 where it is going."""
    parameters = ComplexLangevin(n_configs=64, n_chains=16, step_sizes=(), start_width=start_width)
    assert len(simulate(action, (), parameters, seed=1, out=tmp_path)) == 64


def test_the_stiffness_is_that_of_equilibrium() -> None:
    """Quartic with two wells: S'' = -2 A in the wells, whatever it is at the start."""
    chains = np.arange(64)
    for width in (1e-3, 100.0):
        z = width * np.exp(1j * 0.1) * np.linspace(-1, 1, 64)
        lam = equilibrium_stiffness(ComplexQuartic(-100.0, 1.0), z, chains, seed=1)
        assert np.median(np.abs(lam)) == pytest.approx(200, rel=0.1)
    refuse_stiff(lam, 0.005, "heun", 1.0)
    with pytest.raises(TooStiff):
        refuse_stiff(lam, 0.02, "heun", 1.0)


def test_langevin_that_grows_slowly_is_noticed() -> None:
    """S'' = 3.6 at the stiffest wave: steps beyond 0.556 grow, by 1 % a step just beyond."""
    with pytest.raises(InputError, match=r"runs away at step 0\.7: .* use steps up to ") as refused:
        stochastic_quantization(FreeScalar(0.2), (4, 4), steps=(0.05, 0.1, 0.7), seed=1, tau_run=1.0)
    limit = float(str(refused.value).rsplit(" ", 1)[1])
    table = stochastic_quantization(
        FreeScalar(0.2), (4, 4), steps=(limit / 4, limit / 2, limit), seed=1, n_chains=64, tau_run=20.0
    )
    assert table.limits["phi2"].trusted


def test_hmc_that_accepts_nothing_is_noticed(tmp_path: Path) -> None:
    action = ScalarPhi4(0.2, 0.02)
    settings: dict[str, Any] = {"n_configs": 32, "n_chains": 8, "n_therm": 60, "trajectory_length": 4.0}
    with pytest.raises(InputError, match="accepted none of 160 trajectories of 1 steps") as refused:
        simulate(action, (4, 4), MonteCarlo(**settings, n_steps=1), seed=1, out=tmp_path / "a")
    n_steps = int(number(str(refused.value), r"ensemble\.n_steps"))
    made = simulate(action, (4, 4), MonteCarlo(**settings, n_steps=n_steps), seed=1, out=tmp_path / "a")
    assert made.series["accepted"].mean() > 0.3


@pytest.mark.parametrize("sigma", [1 + 300j, 1 + 20j])
def test_advice_for_an_oscillating_drift_leaves_room_for_the_larger_steps(sigma: complex) -> None:
    lam = np.full(16, sigma)
    with pytest.raises(TooStiff) as caught:
        refuse_stiff(lam, 0.05, "heun", 1.0)
    refuse_stiff(lam, 12 * number(str(caught.value), "ensemble.step"), "heun", 1.0)


def test_larger_steps_stay_within_the_leading_order() -> None:
    """Of sigma_0 = 20 the default step is h |lambda| = 0.1: 12 times that is no expansion in h."""
    loose, stiff = (
        _Run(Recipe(Complexified(ComplexGaussian(s)), (1,), ComplexLangevin(n_chains=16), 1), Silent())
        for s in (1.0, 20.0)
    )
    assert loose.sizes() == loose.params.extrapolation_steps
    assert stiff.params.step < min(stiff.sizes()) < max(stiff.sizes()) <= 4 * stiff.params.step


def test_the_advised_time_is_that_of_the_decay() -> None:
    """lambda = 1 + 1000 i turns fast and relaxes slowly: 2/Re lambda is within the time there is."""
    with pytest.raises(TooStiff) as refused:
        refuse_stiff(np.array([1 + 1000j]), 0.005, "heun", 1.0)
    assert "ensemble.tau" not in str(refused.value)
    with pytest.raises(TooStiff, match="ensemble.tau"):
        refuse_stiff(np.array([1000 + 1000j]), 0.005, "heun", 1.0)
