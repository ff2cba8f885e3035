"""The spins that machines learn from: certified, exact, each machine's own; ground states, shuffled sites."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsq.config.config import config_from_dict
from diffsq.config.spins import FlowRow, FlowRun
from diffsq.training import grid as grids
from diffsq.training.grid import make_grid
from diffsq.training.spin_grid import Grid, data_of, read_grid
from lattice.arrays import Floats
from lattice.ensembles.ensemble import read_ensemble
from lattice.exact.ising import potts_torus, torus
from lattice.files import read_json
from lattice.progress import Silent

T = [0.25, 1.5, 2.25, 3.0]
ROW: dict[str, Any] = {"n_hidden": 4, "rate": 0.02, "n_steps": 10}


def config_of(**ensemble: Any) -> FlowRun:
    given = {"temperatures": T, "ground_state": True, "n_configs": 640, "n_chains": 20, "n_therm": 50}
    training = {"thermometer": None, "rows": [{**ROW, "units": "bit"}]}
    found = config_from_dict({
        "name": "grid", "models": ["spin_flow"], "lattice": {"shape": [4, 4]}, "training": training,
        "ensemble": {**given, **ensemble},
    })  # fmt: skip
    assert isinstance(found, FlowRun)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FlowRun, Path, str]:
    config, out = config_of(), tmp_path_factory.mktemp("grid") / "ensemble"
    return config, out, make_grid(config, out, Silent())


@pytest.fixture(scope="module")
def grid(made: tuple[FlowRun, Path, str]) -> Grid:
    return read_grid(made[0], made[1])


def sigmas(x: Floats, known: float = 0.0) -> float:
    return float((x.mean() - known) / (x.std(ddof=1) / math.sqrt(len(x))))


def nearest(spins: Any) -> Floats:
    """-e/2 of rows (n, 16) of 4 x 4."""
    s = np.asarray(spins, dtype=np.float64).reshape(-1, 4, 4)
    return np.asarray(sum((s * np.roll(s, 1, axis)).mean((1, 2)) for axis in (1, 2)) / 2)


def test_one_line_for_every_ensemble(made: tuple[FlowRun, Path, str]) -> None:
    """Energies within 4 sigma of the exact ones; one without an error is frozen, and passes."""
    certificate = read_json(made[1] / "certificate.json")
    assert certificate["passed"] is True
    assert certificate["reason"] == ""
    assert [line["name"] for line in certificate["checks"]] == ["T0.25", "T1.5", "T2.25", "T3"]
    for t, line in zip(T, certificate["checks"], strict=True):
        exact = torus((4, 4), t).e
        assert line["passed"] is True
        assert line["expected"] == f"e = {exact:.6g}"
        if line["error"]:
            assert abs(line["value"] - exact) < 4 * line["error"]
            assert line["detail"].startswith("certified; e ")
            assert line["detail"].endswith(" sigma")
    assert certificate["checks"][0]["error"] is None
    assert certificate["checks"][0]["value"] == -2
    assert certificate["n"] == 4 * 640
    assert certificate["n_chains"] == 4 * 20


def test_it_is_made_once(made: tuple[FlowRun, Path, str]) -> None:
    config, out, identity = made
    before = {path: path.stat().st_mtime_ns for path in out.glob("T*/*")}
    assert make_grid(config, out, Silent()) == identity
    assert {path: path.stat().st_mtime_ns for path in out.glob("T*/*")} == before


def test_another_energy_is_said_and_not_passed(
    made: tuple[FlowRun, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of T 10 % higher; of frozen spins what ten flips that they may have missed do not give."""
    config, out, _ = made
    monkeypatch.setattr(
        grids, "known", lambda action, shape: {"energy": torus(shape, 1.1 * action.temperature).e}
    )
    make_grid(config, out, Silent())
    wrong = read_json(out / "certificate.json")
    assert wrong["passed"] is False
    assert "T2.25" in wrong["reason"]
    assert "T0.25" not in wrong["reason"]
    assert re.fullmatch(r"failed: T1.5 \(certified; e [-+]\d+\.\d sigma\), T2.25, T3", wrong["reason"])
    for off, passes in ((0.003, True), (0.01, False)):
        monkeypatch.setattr(grids, "known", lambda *_, off=off: {"energy": -2 + off})
        make_grid(config, out, Silent())
        assert read_json(out / "certificate.json")["checks"][0]["passed"] is passes
    monkeypatch.setattr(grids, "known", lambda *_: {})
    make_grid(config, out, Silent())
    unknown = read_json(out / "certificate.json")
    assert unknown["passed"] is True
    assert {line["expected"] for line in unknown["checks"]} == {"certified"}


def test_spins_are_those_of_the_ensembles(made: tuple[FlowRun, Path, str], grid: Grid) -> None:
    """Chain by chain and in time; e of each temperature by means of chains, within 4.5 sigma."""
    config, out, _ = made
    assert grid.spins.shape == (5, 20, 32, 16)
    assert grid.spins.dtype == np.int8
    assert grid.temperatures.tolist() == [0, *T]
    for i, (name, action) in enumerate(config.ensemble.points().items(), 1):
        ensemble = read_ensemble(out / name, action)
        for chain, rows in enumerate(ensemble.replicas()):
            np.testing.assert_array_equal(grid.spins[i, chain], ensemble.phi[rows].reshape(32, 16))
        e = -2 * nearest(grid.spins[i]).reshape(20, 32).mean(1)
        if T[i - 1] > 1:
            assert abs(sigmas(e, torus((4, 4), T[i - 1]).e)) < 4.5
            assert abs(sigmas(e, torus((4, 4), T[i - 1] * 1.3).e)) > 10


def test_the_ground_state_has_all_signs_and_every_machine_too(grid: Grid) -> None:
    cold = grid.spins[0]
    assert (cold == cold[..., :1]).all()
    assert cold.mean() == 0
    for k in range(5):
        assert grid.of_machine(k, 5, (0, 0)).mean() == 0


def test_potts_grids(tmp_path: Path) -> None:
    """Three states, e within 4.5 sigma of the transfer matrix; the states of T = 0 in equal shares."""
    config = config_of(q=3, temperatures=[0.9, 1.4], n_configs=480, n_chains=30, n_therm=80)
    make_grid(config, tmp_path / "ensemble", Silent())
    grid = read_grid(config, tmp_path / "ensemble")
    assert sorted(set(grid.spins.ravel().tolist())) == [0, 1, 2]
    for k in range(5):
        counts = np.bincount(grid.of_machine(k, 2, (0, 0))[:, 0], minlength=3)
        assert counts.max() - counts.min() <= 2
    for i, t in ((1, 0.9), (2, 1.4)):
        s = grid.spins[i].reshape(30, 16, 4, 4)
        e = -sum((s == np.roll(s, 1, axis)).mean((1, 2, 3)) for axis in (2, 3))
        assert abs(sigmas(np.asarray(e), potts_torus((4, 4), 3, t).e)) < 4.5


def test_neighbouring_temperatures_do_not_move_together(tmp_path: Path) -> None:
    """With the same random numbers two chains at all but the same T would be the same."""
    config = config_of(temperatures=[2.25, 2.25 + 1e-9], n_configs=200, ground_state=False)
    make_grid(config, tmp_path, Silent())
    one, other = read_grid(config, tmp_path).spins
    assert (one == other).all(-1).mean() < 0.5
    m = np.asarray([one.mean(-1).ravel(), other.mean(-1).ravel()], dtype=np.float64)
    assert abs(np.corrcoef(m)[0, 1]) < 5 / math.sqrt(200 / 4)


def numbered() -> Grid:
    """A grid whose spins say where they are: point, chain, time."""
    places = np.stack(np.meshgrid(range(3), range(6), range(4), indexing="ij"), -1)
    return Grid(places.astype(np.int8), np.array([1.0, 2.0, 3.0]))


def test_chains_of_machines_are_disjoint_and_none_is_left_out() -> None:
    grid = numbered()
    parts = [grid.of_machine(k, 3) for k in range(3)]
    for k, rows in enumerate(parts):
        assert rows.shape == (3 * 2 * 4, 3)
        assert set(rows[:, 1].tolist()) == {k, k + 3}
    rows = {tuple(row) for part in parts for row in part.tolist()}
    assert len(rows) == 3 * 6 * 4


@pytest.mark.parametrize(
    ("part", "points"), [(None, {0, 1, 2}), ((1, 2), {0, 1}), ((2, 2), {1}), ((2.5, 9), {2}), ((0, 1), {0})]
)
def test_parts_include_their_ends(part: tuple[float, float] | None, points: set[int]) -> None:
    assert set(numbered().of_machine(1, 2, part)[:, 0].tolist()) == points


def test_labels_are_the_temperatures() -> None:
    rows, t = numbered().labelled(slice(4, None))
    assert rows.shape == (3 * 2 * 4, 3)
    assert set(rows[:, 1].tolist()) == {4, 5}
    np.testing.assert_array_equal(t, rows[:, 0] + 1.0)


def test_shuffled_sites_keep_the_magnetisation_and_nothing_else(grid: Grid) -> None:
    """m of each configuration stays, neighbours are what m makes them, -e/2 = (V m^2 - 1)/(V - 1), within
    4 sigma; without the shuffle that is 10 sigma off."""
    plain = data_of(grid, FlowRow(**ROW, part=(1.5, 3.0)), 5, 7)
    mixed = data_of(grid, FlowRow(**ROW, part=(1.5, 3.0), shuffled=True), 5, 7)
    assert plain.shape == mixed.shape == (5, 3 * 4 * 32, 16)
    np.testing.assert_array_equal(plain.mean(-1), mixed.mean(-1))
    np.testing.assert_array_equal(plain[2], grid.of_machine(2, 5, (1.5, 3.0)))
    excess = [nearest(x) - (16 * x.reshape(-1, 16).mean(1) ** 2 - 1) / 15 for x in (plain, mixed)]
    assert sigmas(excess[0]) > 10
    assert abs(sigmas(excess[1])) < 4
    again = data_of(grid, FlowRow(**ROW, part=(1.5, 3.0), shuffled=True), 5, 7)
    np.testing.assert_array_equal(again, mixed)
    other = data_of(grid, FlowRow(**ROW, part=(1.5, 3.0), shuffled=True), 5, 8)
    assert (other != mixed).mean() > 0.05
    alike = Grid(np.broadcast_to(np.arange(8, dtype=np.int8), (1, 4, 4, 8)), np.array([1.0]))
    orders = data_of(alike, FlowRow(**ROW, shuffled=True), 2, 1).reshape(-1, 8)
    assert len({tuple(row) for row in orders.tolist()}) == 16, "each has an order of its own"
