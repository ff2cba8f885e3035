"""Records of a run folder: one of version 0.1 is told in one line by every command that reads one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffsq.commands.main import main


@pytest.mark.parametrize(
    "words", [["report"], ["check", "levels"], ["chain"], ["measure"], ["run"]], ids=lambda words: words[0]
)
def test_a_folder_of_version_0_1_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.yaml").write_text("name: old\nsde: {kind: ve}\n", encoding="utf-8")
    (folder / "stages.json").write_text(json.dumps({"ensemble": {"schema": 1}}), encoding="utf-8")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    where = ["tiny", "--run", str(folder)] if words[0] in ("run", "chain") else [str(folder)]
    assert main([*words, *where, "--quiet"] if words[0] != "measure" else [*words, *where]) == 2
    assert f"{folder}: a run folder of diffsq 0.1" in capsys.readouterr().err
    assert files.items() <= {path.name: path.read_bytes() for path in folder.iterdir()}.items()
