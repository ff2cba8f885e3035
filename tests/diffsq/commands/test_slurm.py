"""A scan through submitit: its local executor runs the same tasks a Slurm array would."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest

from diffsq.commands.main import main
from diffsq.commands.slurm import submit_scan
from lattice.errors import InputError
from lattice.files import read_json, write_json

POINTS = """
name: small
seed: 3
ensemble: {n_configs: 320, n_chains: 8, n_therm: 60, trajectory_length: 1.0, n_clusters: 4}
points:
  - {name: a, shape: [4, 4], action: {kappa: 0.20, lam: 0.022}}
  - {name: b, shape: [4, 4], action: {kappa: 0.22, lam: 0.022}}
"""


def observables(run: Path) -> dict[str, str]:
    return {name: json.dumps(read_json(run / "scan" / name / "result.json")["observables"]) for name in "ab"}


def test_tasks_make_what_the_command_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    (tmp_path / "points.yaml").write_text(POINTS)
    config, alone, array = (str(tmp_path / name) for name in ("points.yaml", "alone", "array"))
    main(["ensemble", config, "--run", alone, "--quiet"])
    capsys.readouterr()
    submit = ["--submit", "cluster=local", "timeout_min=5"]
    assert main(["ensemble", config, "--run", array, "--quiet", *submit]) == 0
    said = capsys.readouterr().out
    assert "submitted 2 points" in said
    collect = shlex.split(said.splitlines()[-1].partition(": ")[2])
    assert collect == ["diffsq", "ensemble", config, "--run", array, "--collect"]
    results = [tmp_path / "array" / "scan" / name / "result.json" for name in "ab"]
    for _ in range(600):
        if all(path.exists() for path in results):
            break
        time.sleep(0.2)
    assert observables(tmp_path / "array") == observables(tmp_path / "alone")
    before = [path.stat().st_mtime_ns for path in results]
    main([*collect[1:], "--quiet"])
    assert [path.stat().st_mtime_ns for path in results] == before
    points = read_json(tmp_path / "array" / "scan" / "scan.json")["points"]
    assert [point["name"] for point in points if point["status"] != "failed"] == ["a", "b"]


def test_what_an_array_left_undone_is_listed_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "points.yaml").write_text(POINTS)
    write_json(tmp_path / "array/scan/b/failure.json", {"reason": "disk full"})
    words = ["ensemble", str(tmp_path / "points.yaml"), "--run", str(tmp_path / "array"), "--quiet"]
    assert main([*words, "--collect"]) == 1
    out = capsys.readouterr().out
    assert "0 of 2 points certified" in out
    assert "failed: a: not finished" in out
    assert "failed: b: disk full" in out
    assert not list(tmp_path.rglob("ensemble"))
    assert main([*words, "--collect", "--submit", "timeout_min=5"]) == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["timeout"], "NAME=VALUE"),
        (["cluster=moon"], "--submit"),
        (["cluster=local", "nodse=2"], "--submit"),
    ],
)
def test_mistakes_get_one_line(tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        submit_scan([], tmp_path, 1, settings)
    assert "\n" not in str(caught.value)


def test_only_a_scan_can_be_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ensemble", "configs/tiny.yaml", "--submit", "timeout_min=5"]) == 2
    assert "for a scan" in capsys.readouterr().err
