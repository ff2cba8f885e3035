"""The whole job on a tiny budget, through the command line; kill -9 in each stage changes no number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from killer import killed_command
from places import ROOT

from diffsq import stages
from diffsq.commands.main import main
from lattice.ensembles.ensemble import read_ensemble

CONFIG = ROOT / "configs/tiny.yaml"
SMALLER = (
    "ensemble.n_configs=2048", "ensemble.n_chains=16", "ensemble.n_therm=100", "ensemble.shard_configs=512",
    "model.n_sigma=16", "model.n_fit=512", "training.n_steps=24", "training.batch_size=32",
    "training.validate_every=12", "training.checkpoint_every=8", "sampling.n_samples=2048",
    "sampling.n_levels=12", "sampling.n_forward=256",
)  # fmt: skip


KILLS = (
    ("configurations", 3), ("regression base", 3), ("score matching", 11), ("forward weights", 2),
    ("samples", 20),
)  # fmt: skip


def words(folder: Path) -> list[str]:
    return ["run", str(CONFIG), "--quiet", "--run", str(folder), "--set", *SMALLER]


def numbers(folder: Path) -> dict[str, Any]:
    """summary.json without the wall times."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    del summary["seconds"]
    return summary


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "diffsq", *words(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "abs_magnetization" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'report.html'}"
    return folder


def test_the_tiny_run_is_exact_within_its_errors(straight: Path) -> None:
    summary = numbers(straight)
    assert summary["verdict"]["certified"]
    assert (straight / "report.html").stat().st_size > 10000
    training = summary["columns"]["training"]["observables"]
    for column in ("weighted", "metropolis"):
        for name in ("abs_magnetization", "susceptibility_full", "binder", "phi2", "action_density"):
            a, b = summary["columns"][column]["observables"][name], training[name]
            assert abs(a["value"] - b["value"]) < 4 * (a["error"] ** 2 + b["error"] ** 2) ** 0.5, (
                column,
                name,
            )
    sampling = summary["sampling"]["score-ve"]
    ess = sampling["ess"]
    assert (
        abs(ess["reverse"] - ess["forward"])
        < 4 * (ess["reverse_error"] ** 2 + ess["forward_error"] ** 2) ** 0.5
    )
    assert ess["reverse"] > 0.5
    assert sampling["acceptance"] > 0.5
    assert sampling["kl"]["wiener"] > 1.4 * sampling["kl"]["base"] > 0


def test_kill_9_in_every_stage_then_the_same_command(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills in every stage (while thermalising: lattice/simulation): all numbers are those of one go."""
    folder = tmp_path / "run"
    for kill in KILLS:
        killed_command(*kill, words(folder))
    # the figures of the page would take longer than all the rest
    monkeypatch.setitem(
        stages.STAGE, "report", lambda run, _: str((run.folder / "report.html").write_text(""))
    )
    assert main(words(folder)) == 0
    assert numbers(folder) == numbers(straight)
    for stage in ("ensemble", "samples/score-ve"):
        assert read_ensemble(folder / stage).identity == read_ensemble(straight / stage).identity
