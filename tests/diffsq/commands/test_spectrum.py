"""`diffsq spectrum`: the table, the figure, JSON, and one line for what cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsq.commands.main import main
from lattice.rng import normals


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    w = torch.from_numpy(normals(4, "test/command", np.arange(2), 0, 24 * 48).reshape(2, 24, 48))
    path = tmp_path / "model.pt"
    torch.save(
        {"net.first": w[0], "net.second": w[1].reshape(24, 12, 2, 2), "net.bias": w[0, 0], "x": w[0]}, path
    )
    return path


def test_table_figure_and_json(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = weights.parent / "s.png"
    assert main(["spectrum", str(weights), "--only", "net", "--figure", str(figure), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["matrix", "n"]
    assert [line.split()[0] for line in lines[2:4]] == ["net.first", "net.second"]
    assert lines[4].startswith("<r> of all: 0.")
    assert {"0.5307", "0.3863"} <= set(lines[4].split())
    assert lines[-1] == str(figure)
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert main(["spectrum", str(weights), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["matrices"]) == {"net.first", "net.second", "x"}
    row = found["matrices"]["net.second"]
    assert row["shape"] == [24, 48]
    assert row["rank"] == 24
    assert 0 < row["ks"] < 2 * row["ks_null_95"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--only", "nothing"],
            "no tensor of real numbers whose name begins with nothing; there are net.first",
        ),
        (["--figure", "s.txt"], "ends in .png, .svg or .pdf"),
        (["--figure", "model.pt.png"], "there is a file already"),
    ],
)
def test_bad_input_is_one_line(
    weights: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(weights.parent)
    Path("model.pt.png").write_bytes(b"mine")
    assert main(["spectrum", str(weights), "--quiet", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error)
    assert Path("model.pt.png").read_bytes() == b"mine"
