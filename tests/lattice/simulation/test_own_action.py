"""An action of the user's own: moved by tensors, certified, stored; what has no meaning for it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_actions import O2, Own, Tilted

from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import Action
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.exact.scalar import small_lattice
from lattice.simulation.parameters import ExactDraws, MonteCarlo
from lattice.simulation.simulate import simulate
from lattice.statistics.gamma import gamma_method
from lattice.updates.cluster import wolff_update
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.langevin import langevin_update

KNOWN = ScalarPhi4(0.2, 0.1)
PARAMS: dict[str, Any] = {"n_configs": 6400, "n_chains": 32, "n_therm": 150, "cluster": "none"}


def pull(ensemble: Ensemble, series: Any, expected: float) -> float:
    estimate = gamma_method([np.asarray(series)[rows][:, None] for rows in ensemble.replicas()])
    assert estimate.error < 0.05 * abs(expected)
    return (estimate.value - expected) / estimate.error


def failed(ensemble: Ensemble) -> list[str]:
    return [check["name"] for check in ensemble.attrs["certificate"]["checks"] if not check["passed"]]


@pytest.mark.parametrize("update", [hmc_trajectory, langevin_update])
def test_tensors_move_it_as_the_compiled_loops_would(update: Any) -> None:
    phi = np.random.default_rng(1).normal(size=(5, 4, 6))
    keys: dict[str, Any] = {"seed": 1, "chains": np.arange(5), "trajectory": 2, "n_steps": 5}
    keys |= {"length": 0.9} if update is hmc_trajectory else {"step": 0.03, "metropolis": True}
    (own, info), (known, theirs) = (update(action, phi, **keys) for action in (Own(0.2, 0.1), KNOWN))
    np.testing.assert_allclose(own, known, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(info.dH, theirs.dH, atol=1e-9)


def test_phi4_written_anew_has_the_exact_averages(tmp_path: Path) -> None:
    action, shape = Own(0.2, 0.1), (2, 2)
    ensemble = simulate(action, shape, MonteCarlo(**PARAMS), seed=4, out=tmp_path / "e")
    assert failed(ensemble) == []
    assert {"M (Z2)", "M of cold starts"} <= {c["name"] for c in ensemble.attrs["certificate"]["checks"]}
    exact, m = small_lattice(KNOWN, shape), ensemble.series["magnetization"]
    for series, expected in (
        (np.abs(m), exact.abs_m), (m**2, exact.m2), (m**4, exact.m4), (ensemble.series["phi2"], exact.phi2),
        ((ensemble.phi**4).mean((1, 2)), exact.phi4), (ensemble.series["action"] / 4, exact.action_density),
    ):  # fmt: skip
        assert abs(pull(ensemble, series, expected)) < 4
    assert abs(pull(ensemble, ensemble.series["phi2"], small_lattice(ScalarPhi4(0.2, 0.3), shape).phi2)) > 8


def test_two_components(tmp_path: Path) -> None:
    """Decoupled sites have the integrals of one; coupled ones Schwinger-Dyson, 2 per site."""
    action = O2(0.0, 0.2)
    ensemble = simulate(action, (2, 3), MonteCarlo(**PARAMS), seed=5, out=tmp_path / "e")
    assert ensemble.phi.shape == (6400, 2, 2, 3)
    assert ensemble.shape == (2, 3)
    assert failed(ensemble) == []
    r2 = (ensemble.phi**2).sum(1)
    for power, expected in zip((1, 2), action.one_site(), strict=True):
        assert abs(pull(ensemble, (r2**power).mean((1, 2)), expected)) < 4
    coupled = simulate(O2(0.18, 0.2), (4, 4), MonteCarlo(**PARAMS), seed=6, out=tmp_path / "f")
    assert failed(coupled) == []
    dyson = coupled.attrs["certificate"]["schwinger_dyson"]
    assert abs(dyson["value"] - 2) < 4 * dyson["error"] < 0.1


def test_an_action_that_is_not_even_is_not_asked_for_it(tmp_path: Path) -> None:
    ensemble = simulate(Tilted(1.0), (2, 4), MonteCarlo(**PARAMS), seed=7, out=tmp_path / "e")
    assert failed(ensemble) == []
    names = {check["name"] for check in ensemble.attrs["certificate"]["checks"]}
    assert not {"M (Z2)", "M of cold starts"} & names
    assert abs(pull(ensemble, ensemble.series["magnetization"], 0.5)) < 4


def test_a_wrong_gradient_fails_its_certificate(tmp_path: Path) -> None:
    """HMC stays exact with any force; the identity that knows the gradient does not hold."""
    ensemble = simulate(Own(0.2, 0.1, slip=1.1), (4, 4), MonteCarlo(**PARAMS), seed=4, out=tmp_path / "e")
    assert failed(ensemble) == ["Schwinger-Dyson"]


def test_it_is_stored_resumed_and_read_with_its_action_only(tmp_path: Path) -> None:
    action, params = Own(0.2, 0.1, 0.05), MonteCarlo(**{**PARAMS, "n_configs": 320, "shard_configs": 160})
    first = simulate(action, (2, 4), params, seed=1, out=tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "shard-0001.h5").unlink()
    again = simulate(action, (2, 4), params, seed=1, out=tmp_path)
    assert again.identity == first.identity == read_ensemble(tmp_path, action).identity
    with pytest.raises(InputError, match=r"of kind 'Own', is none of lattice's own .*read_ensemble\("):
        read_ensemble(tmp_path)
    with pytest.raises(InputError, match=r"action is .*, expected .*0\.06"):
        read_ensemble(tmp_path, Own(0.2, 0.1, 0.06))
    with pytest.raises(InputError, match=r"action\.g6 was 0\.05, now 0\.06"):
        simulate(Own(0.2, 0.1, 0.06), (2, 4), params, seed=1, out=tmp_path)


def test_clusters_of_it_are_refused() -> None:
    with pytest.raises(InputError, match="know phi.4 only, not Own: use HMC"):
        wolff_update(Own(0.2, 0.1), np.ones((2, 4, 4)), seed=1, chains=np.arange(2), trajectory=0)


@dataclass(frozen=True)
class Well(Action):
    """One variable, S = phi^2/2 + phi^6."""

    def action(self, phi: torch.Tensor) -> torch.Tensor:
        s = phi**2 / 2 + phi**6
        return s if s.dim() == 1 else s.flatten(1).sum(1)

    def grad(self, phi: torch.Tensor) -> torch.Tensor:
        return phi + 6 * phi**5


def test_one_variable_of_the_users_own_is_drawn_exactly(tmp_path: Path) -> None:
    drawn = simulate(Well(), (), ExactDraws(n_configs=20_000), seed=1, out=tmp_path / "e")
    assert drawn.attrs["certificate"]["passed"]
    grid = np.linspace(-4, 4, 4001)
    weight = np.exp(-Well().action(torch.from_numpy(grid)).numpy())
    exact, x2 = (weight * grid**2).sum() / weight.sum(), drawn.phi[:, 0] ** 2
    assert abs(x2.mean() - exact) < 4 * x2.std() / np.sqrt(len(x2))
    chain = simulate(Well(), (1,), MonteCarlo(**PARAMS), seed=2, out=tmp_path / "f")
    assert abs(pull(chain, chain.series["phi2"], exact)) < 4
