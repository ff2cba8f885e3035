"""Kept tensors: made once, made again when damaged, torn or of another computation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffsq.models.kept import kept, read_tensors
from lattice.errors import InputError


def test_made_once_and_again_only_when_not_the_same(tmp_path: Path) -> None:
    made: list[str] = []

    def ask(key: str) -> torch.Tensor:
        def make() -> dict[str, torch.Tensor]:
            made.append(key)
            return {"x": torch.arange(len(made), dtype=torch.float64)[None]}

        return kept(tmp_path, "table", key, make)["x"]

    assert torch.equal(ask("a"), ask("a"))
    assert made == ["a"]
    ask("b")
    assert made == ["a", "b"]
    path, about = tmp_path / "table.safetensors", tmp_path / "table.json"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="changed since it was written"):
        read_tensors(tmp_path, "table")
    ask("b")
    about.write_text(about.read_text()[:10])
    ask("b")
    about.unlink()
    ask("b")
    assert made == ["a", "b", "b", "b", "b"]
    with pytest.raises(InputError, match="other settings"):
        read_tensors(tmp_path, "table", "a")
    with pytest.raises(InputError, match="missing"):
        read_tensors(tmp_path, "none")
