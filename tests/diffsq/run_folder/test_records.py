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


def test_a_stage_that_was_refused_before_it_made_anything_may_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Complex Langevin of a stiff law: the step that the refusal advises goes into the same folder."""
    config = tmp_path / "stiff.yaml"
    config.write_text(
        "name: stiff\naction: {kind: complex_gaussian, sigma0: [1000, 1000]}\nmodels: []\nchecks: {}\n"
        "ensemble: {n_configs: 4000, n_chains: 200}\n"
    )
    command = ["ensemble", str(config), "--run", str(tmp_path / "run"), "--quiet"]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    step, tau = line.split("ensemble.step: ")[1].split(" and ensemble.tau: ")
    advised = ["--set", f"ensemble.step={step}", "--set", f"ensemble.tau={tau}"]
    assert main([*command, *advised]) == 0
    assert main([*command, *advised]) == 0
    assert main([*command, "--set", "ensemble.step=1e-5"]) == 2  # now something was made
    assert "made with other settings" in capsys.readouterr().err
