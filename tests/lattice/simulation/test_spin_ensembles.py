"""Ensembles of spins: certified from frozen to hot, refused with another temperature or walls, resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from longer import same_numbers

from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import Action
from lattice.actions.spins import Ising, Potts, Spins
from lattice.certificates.identities import callen, wall_density
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.exact.spins import known
from lattice.files import sha256_file
from lattice.observables.measure import measure
from lattice.rng import uniforms
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.simulate import simulate
from lattice.simulation.starts import has_walls, start_fields, start_names
from lattice.simulation.thermalise import read_thermalisation
from lattice.simulation.trajectory import Settings, one_trajectory
from lattice.updates.spins import heat_bath_sweep, spin_metropolis_sweep, spin_wolff_update

SHAPE = (8, 8)
USUAL: dict[str, Any] = {"n_configs": 4096, "n_chains": 32, "n_therm": 300, "update": "heat-bath"}
CASES: list[tuple[Spins, dict[str, Any]]] = [
    (Ising(0.25), {}),
    (Ising(0.7), {"update": "local"}),
    (Ising(1.0), {"cluster": "swendsen-wang"}),
    (Ising(2.27), {}),
    (Ising(6.0), {"update": "local", "cluster": "none"}),
    (Ising(2.3, 0.2), {}),
    (Potts(0.3, 3), {}),
    (Potts(0.995, 3), {"cluster": "swendsen-wang"}),
    (Potts(1.2, 4, h=0.1, direction=2), {"update": "local"}),
]


def made(action: Action, out: Path, shape: tuple[int, ...] = SHAPE, **change: Any) -> Ensemble:
    return simulate(action, shape, MonteCarlo(**{**USUAL, **change}), seed=3, out=out)


def check(certificate: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in certificate["checks"] if c["name"] == name)


@pytest.mark.parametrize(("action", "change"), CASES)
def test_certified_and_exact(action: Spins, change: dict[str, Any], tmp_path: Path) -> None:
    ensemble = made(action, tmp_path, **change)
    certificate = ensemble.attrs["certificate"]
    assert certificate["passed"], certificate["reason"]
    assert abs(check(certificate, "Schwinger-Dyson")["value"]) < 0.01
    states = [c["name"] for c in certificate["checks"] if c["name"] == "states (Zq)"]
    assert len(states) == (isinstance(action, Potts) and not action.h)
    exact = known(action, SHAPE)
    entry = measure(ensemble, two_point=False)["observables"]["energy"]
    if exact and entry["error"]:
        assert entry["exact"] == exact["energy"]
        assert abs(entry["value"] - exact["energy"]) < 4.5 * entry["error"]
    if action == Ising(0.25):  # frozen: nothing moves, nothing should
        assert entry["value"] == -2.0
        assert "no excitation seen" in check(certificate, "Schwinger-Dyson")["detail"]
        assert certificate["tau_int"]["action"]["value"] == 0.5
    again = read_ensemble(tmp_path, action)
    np.testing.assert_array_equal(again.phi, ensemble.phi)
    assert set(np.unique(again.phi)) <= set(action.values(np.arange(action.n_states, dtype=np.int8)))


@pytest.mark.parametrize("action", [Ising(2.27), Potts(0.995, 3)])
def test_another_temperature_fails(action: Any, tmp_path: Path) -> None:
    """Callen's identity sees 5 % in T by more than ten standard errors, and nothing else does."""
    e = made(action, tmp_path, n_configs=8192)
    history = read_thermalisation(tmp_path / "therm.h5")[0].history
    for factor in (1.0, 1.05, 0.95):
        other = type(action)(**{**vars(action), "temperature": action.temperature * factor})
        found = certify(Ensemble.from_fields(e.phi, other, chain=e.chain, trajectory=e.trajectory), history)
        own = check(found, "Schwinger-Dyson")
        if factor == 1.0:
            assert found["passed"], found["reason"]
            assert abs(own["value"]) < 4.5 * own["error"]
        else:
            assert found["reason"] == "failed: Schwinger-Dyson"
            assert abs(own["value"]) > 10 * own["error"]


def test_frozen_spins_of_a_temperature_that_is_not_frozen(tmp_path: Path) -> None:
    """No excitation at all, where thousands are expected."""
    e = made(Ising(0.25), tmp_path)
    history = read_thermalisation(tmp_path / "therm.h5")[0].history
    wrong = Ensemble.from_fields(e.phi, Ising(1.0), chain=e.chain, trajectory=e.trajectory)
    found = certify(wrong, history)
    assert found["reason"] == "failed: Schwinger-Dyson"
    words = check(found, "Schwinger-Dyson")["detail"]
    missed = float(words.split("at most ")[1].split()[0])
    assert missed == pytest.approx(2 * 4096 * 64 * math.exp(-8), rel=0.05)


def test_walls_that_stay_fail(tmp_path: Path) -> None:
    """A local update at T = 0.4 never moves a straight wall; with clusters the same run passes."""
    kept = {"n_configs": 2048, "n_therm": 50}
    found = made(Ising(0.4), tmp_path / "local", cluster="none", **kept).attrs["certificate"]
    assert not found["passed"]
    assert not check(found, "walls wall-cold")["passed"]
    assert found["reason"].startswith("cannot be certified: |M|: series too short")
    clusters = made(Ising(0.4), tmp_path / "clusters", **kept).attrs["certificate"]
    assert clusters["passed"], clusters["reason"]


@pytest.mark.parametrize("cluster", ["none", "wolff"])
def test_a_ring_of_metropolis_sweeps(tmp_path: Path, cluster: str) -> None:
    """In turn, sweeps that always make moves of dS = 0 conserve the walls of a ring: hot and cold starts
    would never meet."""
    found = made(Ising(2.0), tmp_path, (32,), update="local", cluster=cluster).attrs["certificate"]
    assert found["passed"], found["reason"]


def test_states_that_are_not_alike_fail(tmp_path: Path) -> None:
    """Frozen spins of three states, all in the state 0: what shifts of all states would mend."""
    ensemble = made(Potts(0.3, 3), tmp_path)
    assert check(certify(ensemble), "states (Zq)")["passed"]
    share = (ensemble.phi == 0).mean()
    assert abs(share - 1 / 3) < 4.5 * math.sqrt(2 / 9 / len(ensemble.phi))
    stuck = Ensemble.from_fields(np.zeros_like(ensemble.phi), ensemble.action, ensemble.chain)
    found = check(certify(stuck), "states (Zq)")
    assert not found["passed"]
    assert "share of the state 0" in found["detail"]


def test_walls_between_any_two_states() -> None:
    """Links of unlike states; by their sign alone 1 and 2 would be one, and e would be another."""
    s = np.floor(uniforms(7, "test/walls", np.arange(20), 0, 64) * 3).reshape(20, *SHAPE)
    found = wall_density(s, states=True)
    unlike = [np.mean([(x != np.roll(x, 1, axis)).mean() for axis in (0, 1)]) for x in s]
    np.testing.assert_allclose(found, unlike, atol=1e-15)
    energy = -Potts(1.0, 3).action(torch.from_numpy(s)).numpy() / 64
    np.testing.assert_allclose(2 * (1 - found), energy, atol=1e-12)
    assert (wall_density(s) < found - 0.05).all()
    ising = 2 * (s > 0) - 1.0
    np.testing.assert_array_equal(wall_density(ising, states=True), wall_density(ising))


def test_callen_by_loops() -> None:
    """From the definition, site by site; and 0 on average over random spins only at T = infinity."""
    for action in (Ising(1.8, 0.3), Potts(0.9, 3, h=-0.2, direction=1)):
        for shape in ((4, 3), (5,), (2, 3), (1, 4), (2, 2, 2)):
            v = math.prod(shape)
            labels = (action.n_states * uniforms(2, "test/callen", np.arange(4), 0, v)).astype(np.int8)
            labels = labels.reshape(4, *shape)
            found = callen(action.values(labels), action)
            for label, value in zip(labels, found):
                total = 0.0
                for x in np.ndindex(*shape):
                    n = np.zeros(action.n_states)
                    for axis, extent in enumerate(shape):
                        for step in (1, -1) if extent > 1 else ():
                            n[label[tuple((c + step * (a == axis)) % shape[a] for a, c in enumerate(x))]] += 1
                    w = np.exp(action.coupling * n + action.log_weights)
                    total += n[label[x]] - (w @ n) / w.sum()
                assert value == pytest.approx(total / (v * len(shape)), abs=1e-12)


def test_starts() -> None:
    """Hot, cold and wall spins; walls only where there are two signs."""
    phi = start_fields(Ising(2.0), SHAPE, 8, seed=1)
    assert set(np.unique(phi)) == {-1.0, 1.0}
    names = start_names(8, has_walls(Ising(2.0), SHAPE, 8))
    assert names == ["hot", "cold", "hot", "wall"] * 2
    assert (phi[1] == 1).all()
    assert wall_density(phi[3:4])[0] == pytest.approx(2 * 8 / 128)
    assert abs(phi[3].mean()) == 0
    assert not has_walls(Ising(2.0, 0.1), SHAPE, 8)
    assert not has_walls(Potts(1.0, 3), SHAPE, 8)
    many = start_fields(Potts(1.0, 3), SHAPE, 200, seed=1)
    assert (many[1::2] == many[1, 0, 0]).all()
    share = np.array([(many[::2] == a).mean() for a in range(3)])
    assert (np.abs(share - 1 / 3) < 4.5 * math.sqrt(2 / 9 / 6400)).all()


def test_a_trajectory_is_its_parts() -> None:
    """Sweep, clusters, a random sign or shift of the states without a field; neither without clusters."""
    chains = np.arange(20)
    keys: dict[str, Any] = {"seed": 4, "chains": chains, "trajectory": 7}
    u = uniforms(4, "ensemble/flip", chains, 7, 1)[:, :, None]
    assert {int(3 * x) for x in u.ravel()} == {0, 1, 2}
    in_field = Potts(1.0, 3, 0.1, 1)
    for action, signed in ((Ising(2.3), 2), (Ising(2.3, 0.1), 0), (Potts(1.0, 3), 3), (in_field, 0)):
        phi = start_fields(action, SHAPE, 20, seed=4)
        for update, sweep in (("heat-bath", heat_bath_sweep), ("local", spin_metropolis_sweep)):
            for n_clusters in (0, 2):
                recipe = Recipe(action, SHAPE, MonteCarlo(update=update, n_clusters=n_clusters), 4)
                new, dH, accepted = one_trajectory(recipe, Settings(1.0, 1), phi, chains, 7)
                expected, info = sweep(action, phi, **keys)
                if n_clusters:
                    expected, _ = spin_wolff_update(action, expected, **keys, n_clusters=2)
                if signed == 2 and n_clusters:
                    expected = np.where(u < 0.5, -expected, expected)
                elif signed and n_clusters:
                    expected = (expected + np.floor(3 * u)) % 3
                np.testing.assert_array_equal(new, expected)
                np.testing.assert_array_equal(accepted, info.moved)
                assert not dH.any()


def test_more_configurations_of_the_same_chains(tmp_path: Path) -> None:
    """Grown and made at once: the same fields and shards, bit for bit."""
    kept = {"n_chains": 8, "n_therm": 20, "shard_configs": 64, "stride": 2}
    for action in (Ising(2.27), Potts(0.995, 3)):
        once, grown = tmp_path / action.kind / "once", tmp_path / action.kind / "grown"
        whole = made(action, once, n_configs=256, **kept)
        made(action, grown, n_configs=128, **kept)
        longer = made(action, grown, n_configs=256, **kept)
        assert same_numbers(whole, longer)
        np.testing.assert_array_equal(whole.phi, longer.phi)
        shards = [[sha256_file(p) for p in sorted(x.glob("shard-*.h5"))] for x in (once, grown)]
        assert shards[0] == shards[1]
    with pytest.raises(InputError, match="action.temperature|temperature"):
        made(Ising(2.3), tmp_path / "ising" / "once", n_configs=256, **kept)


@pytest.mark.parametrize(
    ("action", "change", "words"),
    [
        (Ising(2.0), {"update": "hmc"}, "ensemble.update: hmc is not for spins; use .*heat-bath"),
        (Potts(1.0, 3), {"update": "gibbs"}, "ensemble.update: gibbs is not for spins"),
        (Ising(2.0), {"n_overrelax": 1}, "ensemble.n_overrelax: 1 is not for spins; .*n_overrelax: 0"),
        (Ising(2.0), {"acceleration": "free"}, "ensemble.acceleration: free is not for spins; .*none"),
        (ScalarPhi4(0.27, 0.022), {"update": "heat-bath"}, "heat-bath is for spins only .*not ScalarPhi4"),
        (Ising(0.001), {}, "temperature = 0.001 is too low"),
    ],
)
def test_what_spins_have_not(action: Action, change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as error:
        made(action, tmp_path / "x", **{"n_configs": 64, "n_chains": 4, "n_therm": 10, **change})
    assert "\n" not in str(error.value)
