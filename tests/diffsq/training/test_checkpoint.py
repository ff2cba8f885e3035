"""Models and checkpoints on disk: round trip, damage, wrong schema, the last two kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import equilibrium, phi4_model, spoil
from torch import Tensor

from diffsq.models.files import load_model, save_model
from diffsq.models.lattice import LatticeScore
from diffsq.training import checkpoint
from diffsq.training.checkpoint import load_checkpoint, read_lines, save_checkpoint
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError

ACTION = ScalarPhi4(0.2, 0.05)
ABOUT: dict[str, Any] = {
    "action": ACTION.as_dict(), "sde": {}, "ensemble": "0" * 64, "config": {},
    "sizes": {"channels": 4, "n_levels": 2, "n_sigma": 6},
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> LatticeScore:
    return spoil(phi4_model(ACTION, equilibrium(ACTION, (4, 4), 256), channels=4, n_sigma=6), 0.1)


@pytest.fixture
def folder(tmp_path: Path, model: LatticeScore) -> Path:
    save_model(model, tmp_path / "model", ABOUT)
    return tmp_path / "model"


def test_round_trip(folder: Path, model: LatticeScore) -> None:
    again, about = load_model(folder)
    assert about["ensemble"] == ABOUT["ensemble"]
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, model.state_dict()[name]) for name, a in again.state_dict().items())
    x, sigma = equilibrium(ACTION, (4, 4), 256), torch.full((256,), 0.7, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(again.score(x, sigma), model.score(x, sigma))
    assert not again.training


def test_the_same_model_is_the_same_bytes(folder: Path, model: LatticeScore, tmp_path: Path) -> None:
    save_model(model, tmp_path / "again", ABOUT)
    for name in ("weights.safetensors", "model.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_truncated_weights_are_refused(folder: Path, size: int) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"weights.safetensors: changed since it was written"):
        load_model(folder)


def test_one_flipped_bit_is_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="sha256"):
        load_model(folder)


def edit(folder: Path, **values: Any) -> None:
    path = folder / "model.json"
    about = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in about.items() if v is not None}))


def test_another_schema_is_refused(folder: Path) -> None:
    edit(folder, schema="diffsq-model/1")
    with pytest.raises(InputError, match=r"schema is 'diffsq-model/1', expected 'diffsq-model/3'"):
        load_model(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"shape": [8, 8]},
        {"sizes": {"channels": 8, "n_levels": 2, "n_sigma": 6}},
        {"sha256": None},
        {"shape": None},
    ],
)
def test_an_edited_description_is_refused(folder: Path, values: dict[str, Any]) -> None:
    edit(folder, **values)
    with pytest.raises(InputError, match="model"):
        load_model(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_half_a_model_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match="no trained model here"):
        load_model(folder)


def parts(value: float) -> dict[str, dict[str, Tensor]]:
    return {"model": {"a/b.weight": torch.full((3,), value)}, "optimizer": {"0/step": torch.tensor(value)}}


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (20, 40, 60, 100):
        save_checkpoint(tmp_path, step, "key", parts(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-00000060.safetensors", "checkpoint-00000100.safetensors",
    ]  # fmt: skip
    found = load_checkpoint(tmp_path, "key")
    assert found is not None
    step, tensors = found
    assert step == 100
    assert torch.equal(tensors["model"]["a/b.weight"], torch.full((3,), 100.0))
    assert float(tensors["optimizer"]["0/step"]) == 100.0


def test_a_checkpoint_of_another_run_is_not_used(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 20, "key", parts(1))
    assert load_checkpoint(tmp_path, "other") is None
    assert load_checkpoint(tmp_path / "nowhere", "key") is None


@pytest.mark.parametrize("size", [0, 7, 60, -1])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path: Path, size: int) -> None:
    for step in (20, 40):
        save_checkpoint(tmp_path, step, "key", parts(step))
    newest = tmp_path / "checkpoint-00000040.safetensors"
    newest.write_bytes(newest.read_bytes()[:size])
    found = load_checkpoint(tmp_path, "key")
    assert found is not None
    assert found[0] == 20


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    for step in (20, 40):
        save_checkpoint(tmp_path, step, "key", parts(step))
    newest = tmp_path / "checkpoint-00000040.safetensors"
    data = bytearray(newest.read_bytes())
    data[-2] ^= 1
    newest.write_bytes(bytes(data))
    found = load_checkpoint(tmp_path, "key")
    assert found is not None
    assert found[0] == 20


def test_optimizer_state_survives_packing() -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-2)
    for _ in range(3):
        layer(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    packed = checkpoint.pack_optimizer(optimizer.state_dict())
    fresh = torch.optim.AdamW(layer.parameters(), 1e-2)
    fresh.load_state_dict(checkpoint.unpack_optimizer(fresh.state_dict(), packed))
    for a, b in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_torn_metrics_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
