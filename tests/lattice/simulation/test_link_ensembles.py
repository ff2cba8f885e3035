"""Ensembles of links: certified and exact, refused where stuck in a sector, resumed; what is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from killer import killed, killed_before
from longer import same_numbers

from lattice.actions.kinds import action_from_dict
from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import Action
from lattice.actions.spins import Ising
from lattice.actions.u1 import U1
from lattice.certificates.check import format_certificate
from lattice.certificates.links import advice
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.files import sha256_file
from lattice.observables.measure import measure
from lattice.requests import stored_request
from lattice.simulation.monte_carlo import generate
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe, check_recipe, clusters_of
from lattice.simulation.simulate import simulate
from lattice.simulation.starts import has_walls, start_fields
from lattice.simulation.thermalise import read_thermalisation
from lattice.simulation.trajectory import Settings, one_trajectory
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.u1 import link_heat_bath, winding_update

USUAL: dict[str, Any] = {"n_configs": 4096, "n_chains": 32, "n_therm": 200, "cluster": "none"}
FROZEN = U1(7.0)  # on 8 x 8


def made(action: Action, out: Path, shape: tuple[int, ...] = (8, 8), **change: Any) -> Ensemble:
    return simulate(action, shape, MonteCarlo(**{**USUAL, **change}), seed=3, out=out)


def failed(ensemble: Ensemble) -> set[str]:
    return {check["name"] for check in ensemble.attrs["certificate"]["checks"] if not check["passed"]}


@pytest.mark.parametrize(
    ("action", "shape", "change"),
    [
        (U1(2.0), (8, 8), {}),
        (U1(2.0), (4, 6), {"update": "heat-bath"}),
        (U1(1.0), (2, 2), {"update": "heat-bath", "n_winding": 2}),
        (U1(4.0), (5, 3), {"n_winding": 1, "integrator": "leapfrog"}),
        (FROZEN, (8, 8), {"n_winding": 1}),
        (U1(2.0), (8, 8), {"n_winding": 1}),
        (U1(7.0), (16, 16), {"n_winding": 1}),
        (FROZEN, (8, 8), {"update": "heat-bath", "n_winding": 1}),
        (U1(96.0), (4, 4), {"n_winding": 1}),
    ],
)
def test_certified_and_exact(
    action: U1, shape: tuple[int, int], change: dict[str, Any], tmp_path: Path
) -> None:
    ensemble = made(action, tmp_path, shape, **change)
    certificate = ensemble.attrs["certificate"]
    assert certificate["passed"], format_certificate(certificate)
    names = {check["name"] for check in certificate["checks"]}
    assert {"P(Q)", "Re P0", "Re P0^2", "Re P1", "Re P1^2"} <= names
    assert ((ensemble.phi > -np.pi) & (ensemble.phi <= np.pi)).all()
    table = measure(ensemble)["observables"]
    for name, entry in table.items():
        if entry["error"]:
            assert abs(entry["value"] - entry["exact"]) < 4.5 * entry["error"], name
    assert table["plaquette"]["tau_int"] is not None
    again = read_ensemble(tmp_path)
    assert again.action == action
    assert again.shape == shape
    assert same_numbers(again, ensemble)


@pytest.mark.parametrize("update", ["hmc", "heat-bath"])
def test_stuck_in_its_sector_is_refused_and_the_advice_works(update: str, tmp_path: Path) -> None:
    stuck = made(FROZEN, tmp_path / "stuck", n_chains=16, n_configs=1600, update=update)
    reason = stuck.attrs["certificate"]["reason"]
    assert reason.startswith("failed: topology: ")
    assert "of 16 chains never left their sector in 100 configurations" in reason
    assert reason.endswith(f"; {advice(stuck)}")
    assert "ensemble.n_winding: 1" in advice(stuck)
    moves = made(FROZEN, tmp_path / "moves", n_chains=16, n_configs=1600, update=update, n_winding=1)
    assert moves.attrs["certificate"]["passed"], moves.attrs["certificate"]["reason"]


def test_a_sampler_of_another_beta_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: heat bath at beta = 2, called beta = 2.1."""

    def wrong(action: Any, phi: Any, **keys: Any) -> Any:
        return link_heat_bath(U1(2.0), phi, **keys)

    monkeypatch.setattr("lattice.simulation.trajectory.link_heat_bath", wrong)
    assert {"plaquette", "Schwinger-Dyson"} <= failed(made(U1(2.1), tmp_path, update="heat-bath"))


def test_a_trajectory_is_an_update_then_winding_moves() -> None:
    n, action, settings = 40, U1(2.0), Settings(1.0, 5)
    phi, chains = start_fields(action, (4, 6), n, 1), np.arange(n)
    keys: dict[str, Any] = {"seed": 3, "chains": chains, "trajectory": 7}
    for update in ("hmc", "heat-bath"):
        params = MonteCarlo(**{**USUAL, "update": update, "n_winding": 2, "length_jitter": 0.0})
        found, dh, accepted = one_trajectory(Recipe(action, (4, 6), params, 3), settings, phi, chains, 7)
        if update == "hmc":
            moved, info = hmc_trajectory(action, phi, **keys, length=1.0, n_steps=5)
            np.testing.assert_array_equal(dh, info.dH)
        else:
            moved, _ = link_heat_bath(action, phi, **keys)
            assert not dh.any()
            assert accepted.all()
        np.testing.assert_array_equal(found, winding_update(action, moved, **keys, n_moves=2)[0])
        # a share of the chains, as another process has it
        few, _, _ = one_trajectory(Recipe(action, (4, 6), params, 3), settings, phi[9:17], chains[9:17], 7)
        np.testing.assert_array_equal(few, found[9:17])


def test_starts_are_angles() -> None:
    action = U1(2.0)
    assert not has_walls(action, (8, 8), 16)
    phi = start_fields(action, (8, 8), 16, seed=2)
    hot, cold = phi[::2], phi[1::2]
    assert not cold.any()
    assert ((hot > -np.pi) & (hot < np.pi)).all()
    assert abs((hot**2).mean() - np.pi**2 / 3) < 4 * (hot**2).std() / np.sqrt(hot.size)
    assert np.abs(action.order(torch.from_numpy(hot)).numpy()).max() >= 1


SMALL: dict[str, Any] = {
    "n_configs": 96, "n_chains": 8, "n_therm": 20, "stride": 2, "shard_configs": 32, "cluster": "none",
    "n_winding": 1,
}  # fmt: skip


@pytest.mark.parametrize("update", ["hmc", "heat-bath"])
def test_kill_9_and_longer_are_the_same_bytes(update: str, tmp_path: Path) -> None:
    params = MonteCarlo(**SMALL, update=update)
    whole, part, longer = (tmp_path / name for name in ("whole", "part", "longer"))
    made = generate(FROZEN, (4, 6), params, 11, whole)
    names = [path.name for path in sorted(whole.glob("*.h5"))]
    killed("thermalisation", 13, generate, FROZEN, (4, 6), params, 11, part)
    killed_before("shard-0001.h5", generate, FROZEN, (4, 6), params, 11, part)
    assert same_numbers(generate(FROZEN, (4, 6), params, 11, part), made)
    assert [sha256_file(whole / name) for name in names] == [sha256_file(part / name) for name in names]
    generate(FROZEN, (4, 6), MonteCarlo(**{**SMALL, "n_configs": 64}, update=update), 11, longer)
    assert same_numbers(generate(FROZEN, (4, 6), params, 11, longer), made)
    assert read_thermalisation(whole / "therm.h5")[0].phi.shape == (8, 2, 4, 6)


@pytest.mark.parametrize("update", ["hmc", "heat-bath"])
def test_the_default_cluster_updates_are_none(update: str, tmp_path: Path) -> None:
    """Also as a config is kept, with every default written out; and what is tuned is the same."""
    params = MonteCarlo(n_configs=96, n_chains=8, n_therm=100, update=update, n_winding=1)
    kept = yaml.safe_load(yaml.safe_dump(params.model_dump(mode="json")))
    assert (kept["cluster"], kept["n_clusters"]) == ("wolff", 2)
    found = generate(FROZEN, (4, 6), params, 11, tmp_path / "default")
    assert found.attrs["algorithm"]["name"] == update
    assert same_numbers(generate(FROZEN, (4, 6), MonteCarlo(**kept), 11, tmp_path / "default"), found)
    none = MonteCarlo(**{**kept, "cluster": "none"})
    np.testing.assert_array_equal(generate(FROZEN, (4, 6), none, 11, tmp_path / "none").phi, found.phi)
    assert clusters_of(FROZEN, params) == clusters_of(FROZEN, none) == 0
    assert clusters_of(ScalarPhi4(0.2, 0.1), params) == 2
    assert clusters_of(FROZEN, MonteCarlo(n_clusters=3)) == 3


def test_a_folder_from_before_the_key_was_there_goes_on(tmp_path: Path) -> None:
    """The request of an ensemble without winding moves does not say n_winding: it is what it was before."""
    params, action = MonteCarlo(**{**SMALL, "n_winding": 0}), ScalarPhi4(0.2, 0.1)
    first = generate(action, (4, 4), params, 1, tmp_path)
    request = stored_request(tmp_path)
    assert request is not None
    assert request["ensemble"].keys() == MonteCarlo.model_fields.keys() - {"n_winding"}
    assert "n_winding" not in first.attrs["algorithm"]["parameters"]
    again = generate(action, (4, 4), MonteCarlo(**request["ensemble"]), 1, tmp_path)
    assert again.identity == first.identity
    moves = generate(FROZEN, (4, 4), MonteCarlo(**SMALL), 1, tmp_path / "links")
    assert moves.attrs["algorithm"]["parameters"]["n_winding"] == 1
    with pytest.raises(InputError, match="ensemble.n_winding was 1, now absent; choose another"):
        generate(FROZEN, (4, 4), params, 1, tmp_path / "links")


def test_links_outside_the_circle_are_measured_right(tmp_path: Path) -> None:
    links = np.random.default_rng(4).uniform(-20, 20, (200, 2, 4, 4))
    one = Ensemble.from_fields(links, U1(1.0))
    two = Ensemble.from_fields(np.remainder(links, 2 * np.pi), U1(1.0))
    for name in ("action", "magnetization"):
        np.testing.assert_allclose(one.series[name], two.series[name], atol=1e-9)
    write_ensemble(one, tmp_path / "e")
    np.testing.assert_array_equal(read_ensemble(tmp_path / "e").phi, links)


@dataclass(frozen=True)
class Own(U1):
    """An S of its own."""

    def action(self, phi: Any) -> Any:
        return 2.0 * super().action(phi)

    def grad(self, phi: Any) -> Any:
        return 2.0 * super().grad(phi)


@pytest.mark.parametrize(
    ("action", "shape", "change", "text"),
    [
        (U1(1.0 + 0.5j), (4, 4), {}, r"S is complex: action.beta = 1\+0.5j.* action.field: x\+iy"),
        (U1(1.0, theta=0.5), (4, 4), {}, "S is complex: action.beta = 1, action.theta = 0.5"),
        (U1(1.0), (4, 4), {"cluster": "wolff", "n_clusters": 3}, "wolff knows .* use ensemble.cluster: none"),
        (U1(1.0), (4, 4), {"cluster": "swendsen-wang"}, "use ensemble.cluster: none"),
        (U1(1.0), (4, 4), {"update": "local"}, "use ensemble.update: hmc"),
        (U1(1.0), (4, 4), {"update": "gibbs"}, "gibbs"),
        (U1(1.0), (4, 4), {"n_overrelax": 1}, "use ensemble.n_overrelax: 0"),
        (U1(1.0), (4, 4), {"acceleration": "free"}, "use ensemble.acceleration: none"),
        (U1(1.0), (4,), {}, r"two periodic extents of at least 2, got lattice.shape \[4\]"),
        (U1(1.0), (4, 4, 4), {}, "two periodic extents of at least 2"),
        (U1(1.0), (1, 4), {}, "two periodic extents of at least 2"),
        (ScalarPhi4(0.2, 0.1), (4, 4), {"n_winding": 1}, "n_winding: 1 changes .* use ensemble.n_winding: 0"),
        (Ising(2.0), (4, 4), {"n_winding": 1, "update": "heat-bath"}, "use ensemble.n_winding: 0"),
        (ScalarPhi4(0.2, 0.1), (4, 4), {"update": "heat-bath"}, "heat-bath is for"),
        (Own(1.0), (4, 4), {"update": "heat-bath"}, "not that of Own; use ensemble.update: hmc"),
        (Own(1.0), (4, 4), {"n_winding": 1}, "not that of Own; use ensemble.n_winding: 0"),
    ],
)
def test_what_is_refused(action: Any, shape: Any, change: Any, text: str) -> None:
    recipe = Recipe(action, shape, MonteCarlo(**{**USUAL, **change}), 1)
    with pytest.raises(InputError, match=text) as refused:
        check_recipe(recipe)
    assert "\n" not in str(refused.value)


def test_the_advice_of_the_refusals_works() -> None:
    for action in (U1(1.0), Own(1.0)):
        for shape in ((2, 2), (4, 6), (3, 8)):
            check_recipe(Recipe(action, shape, MonteCarlo(**USUAL), 1))
    check_recipe(Recipe(U1(1.0), (4, 4), MonteCarlo(**USUAL, update="heat-bath", n_winding=3), 1))
    for key in ("boundary", "open"):
        with pytest.raises(InputError, match=rf"unknown key action.{key}; u1 has beta, theta"):
            action_from_dict({"kind": "u1", "beta": 1.0, key: "open"})
    for beta in (0.0, -2.0):
        with pytest.raises(InputError, match="action.beta must be > 0, got"):
            U1(beta)
