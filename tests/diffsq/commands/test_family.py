"""`diffsq sample --model`: samples without a run, and every mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_family import free_family

from diffsq.commands.main import main
from diffsq.models.family_files import save_family
from lattice.ensembles.ensemble import read_ensemble


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "free"
    folder.mkdir()
    save_family(free_family(), folder, {})
    return str(folder)


def test_samples_and_their_table(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "samples"
    words = ["sample", "--model", model, "--run", str(out), "--quiet", "--threads", "1", "--set",
             "action.kappa=0.19", "lattice.shape=[8,8]", "sampling.n_samples=256"]  # fmt: skip
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "ESS/N" in first
    assert "ln Z" in first
    assert str(out) in first
    assert len(read_ensemble(out)) == 256
    assert main(words) == 0  # reads them
    assert capsys.readouterr().out == first
    assert main([*words[:6], "--dry-run", *words[6:]]) == 0
    assert "would draw 256 fields" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "which theory?"),
        (["--set", "action.kappa=0.5"], "action.kappa 0.5 is outside"),
        (["--set", "action.kappa=0.19", "lattice.shape=[64,64]"], "L = 4 to 16"),
        (["--set", "action.kappa=0.19", "lattice.shape=[8,4]"], "squares"),
        (["--set", "action.kappa=0.19", "action.lam=0.5"], "action.lam 0.5 is outside"),
        (["--set", "action.kapa=0.19"], "which theory?|kapa"),
        (["--set", "action.kappa=0.19", "sampling.method=path"], "sampled by the flow"),
        (["--set", "action.kappa=0.19", "--restart", "train"], "--restart"),
        (["--set", "action=null"], "action"),
        (["--set", "action=5"], "action"),
        (["--set", "action.kappa=0.19", "sampling.start=sector"], "no two separate peaks"),
    ],
)
def test_mistakes(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    import re

    out = tmp_path / "never"
    assert main(["sample", "--model", model, "--run", str(out), "--quiet", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(line, error)
    assert error.count("\n") == 0
    assert not out.exists()


def test_without_a_model_a_config_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--quiet"]) == 2
    assert "--model" in capsys.readouterr().err
    assert main(["sample", "--model", "phi5-2d", "--quiet", "--set", "action.kappa=0.26"]) == 2
    assert "no model of a family" in capsys.readouterr().err
