"""Machines that learn spins: each followed step kept, the same bits after a stop; a thermometer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_spins import ising

from diffsq.config.config import config_from_dict
from diffsq.config.spins import FlowRun
from diffsq.models.binary_rbm import BinaryRBM
from diffsq.training import spin_rows
from diffsq.training.spin_grid import Grid
from diffsq.training.spin_rows import read_machines, start_of, thermometer_row, train_flow_row
from lattice.errors import InputError
from lattice.files import sha256_file
from lattice.progress import Silent

T = np.array([0.0, 1.5, 2.25, 3.0, 5.0])
ROW: dict[str, Any] = {"n_hidden": 4, "rate": 0.02, "n_steps": 30, "batch": 20}
KINDS: list[dict[str, Any]] = [
    {}, {"k": 2, "biases": True}, {"method": "pcd"}, {"method": "tempered"},
    {"units": "bit", "biases": True, "method": "tempered"},
]  # fmt: skip
POTTS: dict[str, Any] = {"units": "bit", "method": "pcd"}
SEEDS, CHAINS, TIMES = 3, 12, 10


def config_of(q: int = 2, thermometer: dict[str, Any] | None = None, **row: Any) -> FlowRun:
    found = config_from_dict({
        "name": "rows", "models": ["spin_flow"], "lattice": {"shape": [4, 4]},
        "ensemble": {"temperatures": T[1:].tolist(), "ground_state": True, "n_chains": CHAINS, "q": q},
        "training": {"n_seeds": SEEDS, "thermometer": thermometer, "rows": [{**ROW, **row}]},
    })  # fmt: skip
    assert isinstance(found, FlowRun)
    return found


@pytest.fixture(scope="module")
def grid() -> Grid:
    s = ising(CHAINS * TIMES, 4, T, sweeps=60)
    return Grid(s.reshape(len(T), CHAINS, TIMES, 16).astype(np.int8), T)


@pytest.fixture(scope="module")
def states() -> Grid:
    """Three states, all alike at half of the points."""
    u = np.random.default_rng(1).integers(0, 3, (2, CHAINS, TIMES, 16))
    u[0] = u[0, ..., :1]
    return Grid(u.astype(np.int8), np.array([0.0, 5.0]))


class Stops(Silent):
    """Ends the process after so many steps, and remembers where it began."""

    def __init__(self, after: int = 10**9) -> None:
        self.after, self.begun = after, -1

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.begun = self.now = done

    def update(self, n: int = 1, **info: object) -> None:
        self.now += n
        if self.now >= self.after:
            raise KeyboardInterrupt


def trained(
    grid: Grid, folder: Path, progress: Any = None, seed: int = 5, q: int = 2, **row: Any
) -> tuple[dict[str, Any], dict[int, BinaryRBM]]:
    config = config_of(q, **row)
    found = train_flow_row(config, config.training.rows[0], grid, folder, seed, progress or Silent())
    return found, read_machines(found, folder)


def alike(one: BinaryRBM, other: BinaryRBM) -> bool:
    pairs = ((one.w, other.w), (one.b, other.b), (one.c, other.c))
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs if a is not b)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*KINDS, POTTS], ids=str)
def test_each_followed_step_is_the_end_of_a_shorter_run(
    tmp_path: Path, grid: Grid, states: Grid, kind: dict[str, Any]
) -> None:
    data, q = (states, 3) if kind is POTTS else (grid, 2)
    row, machines = trained(data, tmp_path / "long", q=q, at=[0, 10, 20], **kind)
    assert row["followed"] == list(machines) == [0, 10, 20, 30]
    assert (row["q"], row["n_sites"], row["n_seeds"]) == (q, 16, SEEDS)
    assert row["n_data"] == len(data.temperatures) * CHAINS * TIMES // SEEDS
    for step in (0, 10, 20):
        _, short = trained(data, tmp_path / str(step), q=q, **{**kind, "n_steps": step})
        assert alike(short[step], machines[step])
    config = config_of(q, **kind)
    assert alike(start_of(config, config.training.rows[0], 5), machines[0])
    assert all(not torch.equal(machines[a].w, machines[b].w) for a, b in ((0, 10), (10, 20), (20, 30)))
    assert (row["exchanged"] is None) is (kind.get("method") != "tempered")
    if row["exchanged"] is not None:
        assert all(0 < share <= 1 for share in row["exchanged"])
        assert len(row["exchanged"]) == 7


@pytest.mark.parametrize(("stop", "begun"), [(3, 0), (10, 8), (22, 20), (27, 24)])
@pytest.mark.parametrize("kind", [{}, {"method": "pcd"}, {"method": "tempered", "biases": True}], ids=str)
def test_a_stopped_row_goes_on_to_the_same_bits(
    tmp_path: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any], stop: int, begun: int
) -> None:
    """Stopped before the first checkpoint, between two, and after a followed step."""
    monkeypatch.setattr(spin_rows, "EVERY", 8)
    whole, _ = trained(grid, tmp_path / "whole", at=[20], **kind)
    with pytest.raises(KeyboardInterrupt):
        trained(grid, tmp_path / "stopped", Stops(stop), at=[20], **kind)
    assert not (tmp_path / "stopped" / "weights.safetensors").exists()
    again = Stops()
    assert trained(grid, tmp_path / "stopped", again, at=[20], **kind)[0] == whole
    assert again.begun == begun
    one, other = (tmp_path / name / "weights.safetensors" for name in ("whole", "stopped"))
    assert one.read_bytes() == other.read_bytes()
    monkeypatch.setattr(spin_rows, "EVERY", 10**6)
    assert trained(grid, tmp_path / "without", at=[20], **kind)[0] == whole, "however often it is kept"


def test_a_checkpoint_of_another_row_seed_or_data_is_not_gone_on_from(
    tmp_path: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spin_rows, "EVERY", 8)
    other = Grid(-grid.spins, grid.temperatures)
    for change in ({"rate": 0.01}, {"seed": 6}, {"n_hidden": 5}, {"grid": other}, {"shuffled": True}):
        folder = tmp_path / str(sorted(change))
        with pytest.raises(KeyboardInterrupt):
            trained(grid, folder, Stops(20))
        given: dict[str, Any] = {"grid": grid, **change}
        again = Stops()
        found, _ = trained(folder=folder, progress=again, **given)
        assert again.begun == 0
        assert found == trained(folder=tmp_path / "fresh" / folder.name, **given)[0]


def test_a_machine_depends_on_its_own_chains_alone(tmp_path: Path, grid: Grid) -> None:
    """Chains 1, 4, ... of machine 1 turned over: machines 0 and 2 stay, bit by bit."""
    spins = grid.spins.copy()
    spins[2:, 1::SEEDS, :, :8] *= -1
    (_, one), (_, other) = trained(grid, tmp_path / "a"), trained(Grid(spins, T), tmp_path / "b")
    for k in range(SEEDS):
        assert torch.equal(one[30].w[k], other[30].w[k]) is (k != 1)


def test_learning_raises_the_likelihood_of_what_is_learned(tmp_path: Path, grid: Grid) -> None:
    """ln p of the machine's own data, exactly, by 1 nat and more in each machine; a machine of shuffled sites
    has less of it; a part of the grid is learned better by those that saw nothing else."""
    at = {"n_steps": 600, "at": [0], "n_hidden": 8, "biases": True}
    found = {
        name: trained(grid, tmp_path / name, **at, **row)[1]
        for name, row in (("all", {}), ("mixed", {"shuffled": True}), ("hot", {"part": (3.0, 5.0)}))
    }

    def ln_p(m: BinaryRBM, k: int, part: tuple[float, float] | None) -> float:
        one = m.one(k).to(torch.float64)
        return float(one.log_likelihood(one.encode(grid.of_machine(k, SEEDS, part)), one.ln_z()).mean())

    for k in range(SEEDS):
        before, after = (ln_p(found["all"][step], k, None) for step in (0, 600))
        assert before == pytest.approx(-16 * math.log(2), abs=1)
        assert after > before + 3
        assert ln_p(found["mixed"][600], k, None) < after - 0.3
        assert ln_p(found["hot"][600], k, (3.0, 5.0)) > ln_p(found["all"][600], k, (3.0, 5.0)) + 0.3


def test_changed_weights_are_not_read(tmp_path: Path, grid: Grid) -> None:
    row, _ = trained(grid, tmp_path)
    path = tmp_path / "weights.safetensors"
    assert row["sha256"] == sha256_file(path)
    image = bytearray(path.read_bytes())
    image[-1] ^= 1
    path.write_bytes(bytes(image))
    with pytest.raises(InputError, match=r"weights.safetensors: missing, or changed since it was written"):
        read_machines(row, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="missing, or changed"):
        read_machines(row, tmp_path)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path, grid: Grid) -> None:
    with pytest.raises(InputError):
        trained(grid, tmp_path, batch=10**5)


NETWORK = {"n_steps": 400, "widths": [32], "rate": 3e-3}


def test_a_calibrated_thermometer(tmp_path: Path, grid: Grid) -> None:
    """On chains it has not seen: readings rise by 10 sigma from cold to hot, and the errors are theirs; it
    cannot tell shuffled sites; without order in the labels it reads their mean."""
    row = thermometer_row(config_of(thermometer=NETWORK), grid, tmp_path / "a", 4, Silent())
    assert row["n_train"] == len(T) * 10 * TIMES
    assert row["n_held"] == len(T) * 2 * TIMES
    assert row["t"] == T.tolist()
    mean, error, sd = (np.array(row[name]) for name in ("mean", "error", "sd"))
    np.testing.assert_allclose(error, sd / math.sqrt(2 * TIMES))
    assert mean[-1] - mean[1] > 10 * math.hypot(error[-1], error[1])
    assert (mean >= T[0]).all()
    assert (mean <= T[-1]).all()
    assert mean[1] < T.mean() < mean[-1]
    np.testing.assert_allclose(row["shuffled_mean"][0], mean[0], rtol=1e-5)  # all alike, whatever the order
    assert row["shuffled_mean"][-1] > row["shuffled_mean"][0]
    assert row["sha256"] == sha256_file(tmp_path / "a" / "weights.safetensors")
    assert thermometer_row(config_of(thermometer=NETWORK), grid, tmp_path / "b", 4, Silent()) == row
    other = thermometer_row(config_of(thermometer=NETWORK), grid, tmp_path / "c", 5, Silent())
    assert other["mean"] != row["mean"]
    order = np.random.default_rng(3).permutation(len(T) * CHAINS * TIMES)
    mixed = Grid(grid.spins.reshape(-1, 16)[order].reshape(grid.spins.shape), T)
    blind = thermometer_row(config_of(thermometer=NETWORK), mixed, tmp_path / "d", 4, Silent())
    assert np.ptp(blind["mean"]) < 0.5 * np.ptp(mean)


def test_a_thermometer_of_two_chains_is_calibrated(tmp_path: Path, grid: Grid) -> None:
    few = Grid(grid.spins[:, :2], T)
    assert thermometer_row(config_of(thermometer=NETWORK), few, tmp_path, 4, Silent())["n_held"] > 0


def test_steps_below_zero_are_not_followed(tmp_path: Path, grid: Grid) -> None:
    with pytest.raises(InputError, match="steps of learning are 0 or more"):
        trained(grid, tmp_path, at=[-5])
