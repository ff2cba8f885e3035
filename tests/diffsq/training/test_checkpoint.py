"""Checkpoints on disk: damage, another run's, the last two kept; the log."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsq.training import checkpoint
from diffsq.training.checkpoint import drop_old, load_checkpoint, read_lines, save_checkpoint


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


def test_the_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    for k in range(6):  # the library orders the metadata by chance
        save_checkpoint(tmp_path / str(k), 20, "key", parts(1))
    assert len({path.read_bytes() for path in tmp_path.glob("*/checkpoint-*")}) == 1
    save_checkpoint(tmp_path / "other", 20, "key", parts(2))
    assert len({path.read_bytes() for path in tmp_path.glob("*/checkpoint-*")}) == 2


@pytest.mark.parametrize(("old", "new"), [(b'"step":"40"', b'"step":"41"'), (b'"step":"40"', b'"step":"x0"'),
                                          (b'"step":', b'"stop":')])  # fmt: skip
def test_a_step_that_is_not_that_of_its_file_is_noticed(tmp_path: Path, old: bytes, new: bytes) -> None:
    for step in (20, 40):
        save_checkpoint(tmp_path, step, "key", parts(step))
    newest = tmp_path / "checkpoint-00000040.safetensors"
    assert old in newest.read_bytes()
    newest.write_bytes(newest.read_bytes().replace(old, new))
    found = load_checkpoint(tmp_path, "key")
    assert found is not None
    assert found[0] == 20


@pytest.mark.parametrize("line", [b"\xff\xfe", b"3", b"[]", b'{"loss": 1}', b'{"step": "x"}', b"[" * 100_000])
def test_metrics_end_at_the_first_line_that_is_none(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    assert read_lines(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_what_a_kill_kept_from_being_dropped_is_dropped_later(tmp_path: Path) -> None:
    for step in (20, 40, 60):
        save_checkpoint(tmp_path / str(step), step, "key", parts(step))
        (tmp_path / str(step) / f"checkpoint-{step:08d}.safetensors").rename(
            tmp_path / f"checkpoint-{step:08d}.safetensors"
        )
    drop_old(tmp_path, "another")
    assert len(list(tmp_path.glob("checkpoint-*"))) == 3
    drop_old(tmp_path, "key")
    assert [path.name[-14:-12] for path in sorted(tmp_path.glob("checkpoint-*"))] == ["40", "60"]
