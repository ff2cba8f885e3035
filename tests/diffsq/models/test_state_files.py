"""Weights from anybody's files: every dtype, nested tables, damaged files, and code that is not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffsq.models.state_files import read_weights
from lattice.errors import InputError

RAN = []


class Bomb:
    def __reduce__(self) -> object:
        return RAN.append, (1,)


def test_both_formats_and_nested_tables(tmp_path: Path) -> None:
    w = torch.arange(12.0).reshape(3, 4)
    save_file({"w": w, "half": w.to(torch.bfloat16), "n": torch.tensor([1])}, tmp_path / "a.safetensors")
    torch.save({"model": {"w": w, "half": w.half()}, "steps": [w, 3, "word"]}, tmp_path / "b.pt")
    first, second = (read_weights(tmp_path / name)[0] for name in ("a.safetensors", "b.pt"))
    assert set(first) == {"w", "half"}
    assert set(second) == {"model.w", "model.half", "steps.0"}
    for found in (*first.values(), *second.values()):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, w.numpy())
    torch.save(w, tmp_path / "c.pt")
    assert list(read_weights(tmp_path / "c.pt")[0]) == ["weights"]
    assert list(read_weights(tmp_path / "b.pt", "model.h")[0]) == ["model.half"]


def test_what_is_not_real_is_named(tmp_path: Path) -> None:
    w = torch.eye(3)
    torch.save(
        {"w": w, "z": w + 0j, "n": w.to(torch.int8), "s": w.to_sparse(), "step": torch.tensor(3)},
        tmp_path / "a.pt",
    )
    found, left = read_weights(tmp_path / "a.pt")
    assert list(found) == ["w"]
    assert left == {
        "z": "z: is of complex64, not of real numbers", "n": "n: is of int8, not of real numbers",
        "s": "s: is of sparse_coo, not of real numbers",
    }  # fmt: skip


def test_code_is_named_and_not_run(tmp_path: Path) -> None:
    for name, content in (("bomb", {"w": Bomb()}), ("model", torch.nn.Linear(3, 3))):
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(InputError, match=r"holds code, \S+, which is not run; save model.state_dict"):
            read_weights(tmp_path / f"{name}.pt")
    assert not RAN


def test_bad_files(tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_bytes(b"neither this nor that " * 9)
        with pytest.raises(InputError, match=name):
            read_weights(tmp_path / name)
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(InputError, match="empty.pt"):
        read_weights(tmp_path / "empty.pt")
    torch.save({"steps": torch.tensor(3), "word": "x"}, tmp_path / "no.pt")
    with pytest.raises(InputError, match="no tensor of real numbers; there are steps"):
        read_weights(tmp_path / "no.pt")
    torch.save({"word": "x"}, tmp_path / "word.pt")
    with pytest.raises(InputError, match="no tensor in it"):
        read_weights(tmp_path / "word.pt")
    with pytest.raises(InputError, match="a folder"):
        read_weights(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_weights(tmp_path / "absent.pt")
    torch.save({"w": torch.ones(64, 64)}, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:9000])
    with pytest.raises(InputError, match="cut.pt"):
        read_weights(tmp_path / "cut.pt")
