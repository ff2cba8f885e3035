"""Generation: physics, tuning, refusal of other parameters, and bitwise resume after kill -9 anywhere."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killer import killed, killed_before
from longer import same_numbers

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.files import sha256_file
from lattice.simulation.monte_carlo import MonteCarlo, generate
from lattice.simulation.thermalise import read_thermalisation
from lattice.statistics.gamma import gamma_method

ACTION, SHAPE, SEED = ScalarPhi4(0.27, 0.022), (4, 6), 11
SMALL: dict[str, Any] = {
    "n_configs": 96,
    "n_chains": 8,
    "n_therm": 30,
    "stride": 2,
    "trajectory_length": 1.0,
    "shard_configs": 32,
}


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.h5"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same small ensemble as every killed run below, made without interruption."""
    out = tmp_path_factory.mktemp("whole")
    generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, out)
    return out


def test_what_is_written(whole: Path) -> None:
    e = read_ensemble(whole, ACTION)
    assert sorted(p.name for p in whole.iterdir()) == [
        "certificate.json",
        "manifest.json",
        "request.json",
        "shard-0000.h5",
        "shard-0001.h5",
        "shard-0002.h5",
        "therm.h5",
    ]
    assert len(e) == 96
    assert e.shape == SHAPE
    assert len(e.replicas()) == 8
    first = e.trajectory[e.replicas()[3]]
    assert first.tolist() == list(range(32, 54, 2)) + [54]
    assert e.attrs["seed"] == SEED
    assert e.attrs["n_therm"] == 30
    assert e.attrs["stride"] == 2
    assert e.attrs["algorithm"]["name"] == "hmc+wolff"
    assert e.attrs["algorithm"]["parameters"]["n_steps"] >= 1
    assert set(e.series) == {"action", "magnetization", "phi2", "dH", "accepted"}
    assert e.attrs["certificate"]["passed"] is False  # honest: 12 configurations per chain certify nothing
    history = read_thermalisation(whole / "therm.h5")[0].history
    assert history["dH"].shape == (30, 8)
    assert history["start"] == ["hot", "cold", "hot", "wall"] * 2


def test_finished_folder_is_only_read(whole: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in whole.iterdir()}
    generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, whole)
    assert before == {p.name: p.stat().st_mtime_ns for p in whole.iterdir()}


def test_kill_9_then_the_same_command(tmp_path: Path, whole: Path) -> None:
    work = (generate, ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path)
    killed("thermalisation", 17, *work)
    for name in ("shard-0001.h5", "manifest.json"):
        killed_before(name, *work)
        assert not (tmp_path / "manifest.json").exists()
    e = generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path)
    assert hashes(tmp_path) == hashes(whole)
    assert e.identity == read_ensemble(whole).identity
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*.tmp"))


class Stop:
    """A progress reporter that interrupts after `n` calls of update, as ctrl-C does."""

    def __init__(self, n: int) -> None:
        self.left = n

    def start(self, total: int, label: str, done: int = 0) -> None:
        pass

    def update(self, n: int = 1, **info: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


def test_interrupted_again_and_again(tmp_path: Path, whole: Path) -> None:
    """Interrupts at updates 1, 8, 15, ... of what is left; the result is the uninterrupted one."""
    for calls in itertools.count(1, 7):
        try:
            generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path, progress=Stop(calls))
            break
        except KeyboardInterrupt:
            pass
    assert calls > 20
    assert hashes(tmp_path) == hashes(whole)


def test_damaged_or_lost_files_of_an_unfinished_run_are_made_again(tmp_path: Path, whole: Path) -> None:
    for name in ("therm.h5", "shard-0000.h5", "shard-0001.h5", "shard-0002.h5"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "shard-0001.h5").write_bytes((whole / "shard-0001.h5").read_bytes()[:-1000])
    (tmp_path / "shard-0000.h5").unlink()
    (tmp_path / "therm.h5").write_bytes(b"")
    (tmp_path / ".shard-0002.h5.99999999.diffsq.tmp").write_bytes(b"half")
    generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path)
    assert hashes(tmp_path) == hashes(whole)
    assert not list(tmp_path.glob(".*"))


def test_result_does_not_depend_on_the_shard_size(tmp_path: Path, whole: Path) -> None:
    e = generate(ACTION, SHAPE, MonteCarlo(**{**SMALL, "shard_configs": None}), SEED, tmp_path)
    assert np.array_equal(e.phi, read_ensemble(whole).phi)
    assert len(hashes(tmp_path)) == 2


@pytest.mark.parametrize("finished", [True, False])
def test_other_parameters_are_refused_by_name(tmp_path: Path, whole: Path, finished: bool) -> None:
    for path in whole.iterdir():
        if finished or path.name != "manifest.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    before = hashes(tmp_path)
    with pytest.raises(InputError) as caught:
        generate(ScalarPhi4(0.28, 0.022), SHAPE, MonteCarlo(**{**SMALL, "n_therm": 40}), 12, tmp_path)
    message = str(caught.value)
    for words in (
        "action.kappa was 0.27, now 0.28",
        "ensemble.n_therm was 30, now 40",
        "seed was 11, now 12",
    ):
        assert words in message
    assert "n_chains" not in message
    assert "\n" not in message
    with pytest.raises(InputError, match=r"shape was \[4, 6\], now \[6, 4\]"):
        generate(ACTION, (6, 4), MonteCarlo(**SMALL), SEED, tmp_path)
    assert hashes(tmp_path) == before
    if not finished:  # therm.h5 lost as well: the shards alone give the other computation away
        (tmp_path / "therm.h5").unlink()
        (tmp_path / "request.json").unlink()
        with pytest.raises(InputError, match="other parameters"):
            generate(ACTION, SHAPE, MonteCarlo(**SMALL), 12, tmp_path)


def test_free_field_propagator(tmp_path: Path) -> None:
    """<phi^2> = (1/V) sum_k 1/(2 (1 - 2 kappa sum_mu cos k_mu)), from hot and cold starts."""
    kappa, shape = 0.2, (4, 6)
    params = MonteCarlo(n_configs=16384, n_chains=64, n_therm=100)
    e = generate(FreeScalar(kappa), shape, params, 5, tmp_path)
    cos = [np.cos(2 * np.pi * np.arange(extent) / extent) for extent in shape]
    exact = (0.5 / (1 - 2 * kappa * (cos[0][:, None] + cos[1][None, :]))).mean()
    estimate = gamma_method([e.series["phi2"][rows][:, None] for rows in e.replicas()])
    assert abs(estimate.value - exact) < 4.5 * estimate.error < 0.05 * exact
    assert e.attrs["certificate"]["passed"], e.attrs["certificate"]["reason"]


def test_free_field_that_does_not_exist(tmp_path: Path) -> None:
    for action in (FreeScalar(0.25), ScalarPhi4(-0.3, 0.0)):
        with pytest.raises(InputError, match="normalisable"):
            generate(action, (4, 4), MonteCarlo(**SMALL), 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kappa", [0.21, 0.27, 0.40])
def test_tuned_acceptance(tmp_path: Path, kappa: float) -> None:
    params = MonteCarlo(n_configs=1024, n_chains=64, n_therm=150, trajectory_length=4.0)
    e = generate(ScalarPhi4(kappa, 0.022), (8, 8), params, 1, tmp_path)
    by_chain = np.array([e.series["accepted"][rows].mean() for rows in e.replicas()])
    assert 0.85 < by_chain.mean() < 0.995
    assert by_chain.min() > 0.4


def test_classical_field_is_a_minimum() -> None:
    import torch

    action = ScalarPhi4(0.4, 0.022)
    phi = torch.full((1, 4, 4), action.classical_field(2), dtype=torch.float64)
    assert float(action.grad(phi).abs().max()) < 1e-12
    assert float(action.action(phi)) < float(action.action(0.9 * phi))
    assert float(action.action(phi)) < float(action.action(1.1 * phi))


def test_step_number_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="needs ensemble.trajectory_length"):
        MonteCarlo(n_steps=4)


@pytest.mark.parametrize(
    "settings",
    [
        {"acceleration": "measured", "n_clusters": 0},
        {"acceleration": "free", "cluster": "swendsen-wang"},
        {"update": "local", "n_overrelax": 2, "cluster": "swendsen-wang"},
        {"update": "local", "n_overrelax": 1},
    ],
)
def test_every_algorithm_makes_a_certified_ensemble(tmp_path: Path, settings: dict[str, Any]) -> None:
    """<phi^2> and s at L=4, kappa=0.25 against plain HMC, and the same seed gives the same bits."""
    params = MonteCarlo(n_configs=8192, n_chains=64, n_therm=200, **settings)
    e = generate(ScalarPhi4(0.25, 0.1), (4, 4), params, 5, tmp_path / "a")
    assert e.attrs["certificate"]["passed"], e.attrs["certificate"]["reason"]
    plain = MonteCarlo(n_configs=16384, n_chains=64, n_therm=200, n_clusters=0)
    f = generate(ScalarPhi4(0.25, 0.1), (4, 4), plain, 6, tmp_path / "b")
    for name in ("phi2", "action"):
        a, b = (gamma_method([x.series[name][rows][:, None] for rows in x.replicas()]) for x in (e, f))
        assert abs(a.value - b.value) < 4.5 * np.hypot(a.error, b.error)
    again = generate(ScalarPhi4(0.25, 0.1), (4, 4), params, 5, tmp_path / "c")
    np.testing.assert_array_equal(again.phi, e.phi)


def test_more_configurations_go_on_from_what_is_there(tmp_path: Path, whole: Path) -> None:
    """From 40, which end in the middle of a shard, by a kill, to the 96 of one go; not thermalised twice,
    and at any time an ensemble that can be read."""
    short = generate(ACTION, SHAPE, MonteCarlo(**{**SMALL, "n_configs": 40}), SEED, tmp_path)
    before = hashes(tmp_path)
    killed("configurations", 6, generate, ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path)
    assert same_numbers(read_ensemble(tmp_path), short)
    assert len(hashes(tmp_path)) > len(before), "the kill came before anything was made"
    killed("thermalisation", 1, generate, ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path / "control")

    def thermalised_again(*args: Any) -> None:
        raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lattice.simulation.monte_carlo.thermalise", thermalised_again)
        longer = generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path)
    fresh = read_ensemble(whole)
    assert same_numbers(longer, fresh)
    assert not same_numbers(short, fresh)
    assert longer.attrs["certificate"] == fresh.attrs["certificate"] != short.attrs["certificate"]
    assert before.items() <= hashes(tmp_path).items(), "a shard is never changed"
    with pytest.raises(
        InputError, match=r"n_configs was 96, now 40: it holds more .* ensemble\.n_configs=96"
    ):
        generate(ACTION, SHAPE, MonteCarlo(**{**SMALL, "n_configs": 40}), SEED, tmp_path)
    with pytest.raises(InputError, match=r"n_chains was 8, now 16; ensemble\.n_configs was 96, now 192"):
        generate(ACTION, SHAPE, MonteCarlo(**{**SMALL, "n_configs": 192, "n_chains": 16}), SEED, tmp_path)


def test_a_damaged_shard_of_a_longer_ensemble_is_made_again(tmp_path: Path, whole: Path) -> None:
    """Also where its length is unknown, as without the manifest: the shards after it are then made again."""
    for n in (40, 96):
        generate(ACTION, SHAPE, MonteCarlo(**{**SMALL, "n_configs": n}), SEED, tmp_path)
    for also in ("shard-0000.h5", "manifest.json"):
        (tmp_path / also).unlink()
        (tmp_path / "shard-0001.h5").write_bytes(b"")
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        again = generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path)
        assert same_numbers(again, read_ensemble(whole))
        assert same_numbers(read_ensemble(tmp_path), again)


@pytest.mark.parametrize("name", ["certificate.json", "shard-0000.h5", "therm.h5", "manifest.json"])
def test_a_file_of_somebody_else_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"choose another folder|expected 'diffsq-manifest"):
        generate(ACTION, SHAPE, MonteCarlo(**SMALL), SEED, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: '{"mine": 1}'}
