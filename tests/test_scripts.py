"""scripts/setup, demo, test, docs, .ci/run: what they refuse, in one line, without touching the network."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT

SCRIPTS = [ROOT / "scripts" / name for name in ("setup", "demo", "test", "docs")] + [ROOT / ".ci" / "run"]


def setup(
    tmp_path: Path, *args: str | Path, script: str = "setup", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script with an environment of its own in tmp_path."""
    variables = {**os.environ, "VENV": str(tmp_path / "venv"), "PYTHON": sys.executable, **environment}
    command = ["bash", str(ROOT / "scripts" / script), *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, env=variables, cwd=tmp_path, stdin=subprocess.DEVNULL,
        timeout=120, check=False,
    )  # fmt: skip


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done
    lines = [line for line in done.stderr.splitlines() if "installing into" not in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """A minimal valid wheel without code."""
    info = f"{name}-{version}.dist-info"
    requirement = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_bash_and_executable(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert script.stat().st_mode & stat.S_IXUSR
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text or script.name == "run"


def test_ci_runs_the_readme_test_command() -> None:
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    assert lines[0].endswith('scripts/test"')


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.9;; *) exit 1;; esac\n')
    old.chmod(0o755)
    line = last_line(setup(tmp_path, PYTHON=str(old)))
    assert "Python 3.11 or newer is needed" in line
    assert "is 3.9" in line
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    assert "no python9.9 found" in last_line(setup(tmp_path, PYTHON="python9.9"))


def test_bad_options_are_named(tmp_path: Path) -> None:
    assert "unknown option --cude" in last_line(setup(tmp_path, "--cude"))
    assert "no such folder" in last_line(setup(tmp_path, "--offline", tmp_path / "nowhere"))
    assert "needs a folder" in last_line(setup(tmp_path, "--offline"))


def test_scripts_pass_their_setup_options_on(tmp_path: Path) -> None:
    for script in ("demo", "test", "docs"):
        done = setup(tmp_path, "--offline", tmp_path / "nowhere", script=script)
        assert "no such folder" in last_line(done)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where setup makes an environment, which takes it seconds; the next one finds it there."""
    return str(tmp_path_factory.mktemp("setup") / "venv")


def test_an_incomplete_wheel_folder_is_named(tmp_path: Path, venv: str) -> None:
    (tmp_path / "wheels").mkdir()
    line = last_line(setup(tmp_path, "--offline", tmp_path / "wheels", VENV=venv))
    assert "lacks a wheel" in line
    assert "torch" in line


def test_cuda_is_not_downloaded_unasked(tmp_path: Path, venv: str) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "torch", "2.13.0", "nvidia-cublas")
    wheel(wheels, "nvidia_cublas", "1.0")
    line = last_line(setup(tmp_path, "--offline", wheels, VENV=venv))
    assert "CUDA" in line
    assert "--cuda" in line
    installed = list(Path(venv).rglob("torch-*.dist-info"))
    assert installed == []


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in last_line(setup(tmp_path, VENV=str(tmp_path / "file" / "venv")))


def test_every_dependency_has_a_tested_version() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    names = {re.split("==", pin)[0].lower().replace("_", "-") for pin in pins}
    assert {re.split("[><=]", w)[0].lower() for w in wanted} <= names
    assert all("==" in pin and "+" not in pin for pin in pins)
    assert not any("<" in w for w in wanted), "no upper caps"


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (2, False), (137, True)])
def test_the_slurm_job_is_put_back_where_it_lost_a_process(tmp_path: Path, code: int, requeued: bool) -> None:
    """With a srun that says what it was given, and a clock that has run for an hour."""
    log, job = tmp_path / "log", ROOT / "scripts/train.sbatch"
    fakes = {
        "srun": f'echo "$@" >> {log}; exit {code}',
        "scontrol": f'[ "$1" = show ] && echo node7 || echo "again $2" >> {log}',
    }
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    text = job.read_text().replace("begun=$SECONDS", f"begun=$((SECONDS - {3600 if code == 137 else 0}))")
    (tmp_path / "job").write_text(text)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "12345", "SLURM_NNODES": "1",
        "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "16", "SLURM_JOB_NODELIST": "node7",
    }  # fmt: skip
    words = ["bash", str(tmp_path / "job"), "demo", "--set", "seed=2"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    said = log.read_text()
    assert "--nproc-per-node 4" in said
    assert "--rdzv-endpoint node7:32345 -m -- diffsq run demo --set seed=2" in said
    assert ("again 12345" in said) == requeued
    assert subprocess.run(["bash", str(job)], capture_output=True, check=False).returncode == 2
