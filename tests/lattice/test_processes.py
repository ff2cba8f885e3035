"""Several processes make the ensemble one makes, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from children import children
from places import ROOT
from teams import team

from diffsq.commands.main import main
from lattice.errors import InputError
from lattice.files import sha256_file
from lattice.processes import VARIABLES, Team, team_from_environment


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*.h5"))}


def words(out: Path, *settings: str) -> list[str]:
    """`diffsq ensemble` on 4 x 6; so short an ensemble is not certified."""
    command = ["ensemble", str(ROOT / "configs/tiny.yaml"), "--quiet", "--run", str(out)]
    return [*command, "--set", "lattice.shape=[4,6]", *settings]


def test_a_team_writes_the_same_bytes(tmp_path: Path) -> None:
    """A scan of two points by one process, by three, and resumed by two; 10 chains have no equal shares."""
    settings = ("ensemble.n_configs=120", "ensemble.n_chains=10", "ensemble.n_therm=100",
                "ensemble.shard_configs=40", "ensemble.acceleration=measured")  # fmt: skip
    scan = ["--scan", "kappa=0.2,0.27", "--keep-fields"]
    assert main([*words(tmp_path / "one", *settings), *scan]) == 1
    expected = hashes(tmp_path / "one")
    assert len(expected) == 2 * 4
    command = [*words(tmp_path / "three", *settings), *scan]
    assert [done.returncode for done in children(team(3), main, command)] == [1, 0, 0]
    assert hashes(tmp_path / "three") == expected
    again = tmp_path / "three/scan/L4x6_kappa0.27_lam0.022/ensemble"
    for name in ("../result.json", "manifest.json", "shard-0001.h5"):  # resume: what is there is told to all
        (again / name).unlink()
    assert [done.returncode for done in children(team(2), main, command)] == [1, 0]
    assert hashes(tmp_path / "three") == expected


def test_the_command_under_torchrun(tmp_path: Path) -> None:
    settings = ("ensemble.n_configs=320", "ensemble.n_chains=8", "ensemble.n_therm=60")
    main(words(tmp_path / "one", *settings))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "--", "diffsq"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *words(tmp_path / "two", *settings)],
        env=env,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    expected = hashes(tmp_path / "one")
    assert len(expected) >= 2
    assert hashes(tmp_path / "two") == expected


@pytest.mark.parametrize(("n", "size"), [(1, 3), (10, 3), (128, 7), (5, 5)])
def test_shares_cover_all_chains_once(n: int, size: int) -> None:
    parts = [np.arange(n)[Team(rank, size).share(n)] for rank in range(size)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    team = team_from_environment()
    assert (team.rank, team.size) == (0, 1)
    x = np.arange(3)
    assert team.gather(x, 3) is x
    assert team.tell("word") == "word"
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="WORLD_SIZE"):
        team_from_environment()


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "not MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "not RANK"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK must be 0 to 1"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "x"},
            "MASTER_PORT must be a number",
        ),
    ],
)
def test_what_another_launcher_left_is_named(
    monkeypatch: pytest.MonkeyPatch, left: dict[str, str], words: str
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, text in left.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=f"{words}.*torchrun, or to work alone: unset WORLD_SIZE RANK"):
        team_from_environment()


def test_waiting_for_the_others_is_announced_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """By process 0, to whom nobody comes, and by process 1, who finds nobody."""
    monkeypatch.setattr("lattice.processes._A_MOMENT", 0.05)
    for environment in team(2):
        said: list[str] = []
        for name, text in {**environment, "DIFFSQ_WAIT": "1"}.items():
            monkeypatch.setenv(name, text)
        with pytest.raises(
            InputError, match=r"did not find the others at 127\.0\.0\.1:\d+ within 1 s"
        ) as caught:
            team_from_environment(said.append)
        assert "\n" not in str(caught.value)
        assert len(said) == 1
        assert "waits for the others" in said[0]


def test_only_what_makes_ensembles_joins_a_team(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def join(say: object) -> Team:
        raise InputError("joins")

    monkeypatch.setattr("lattice.processes.team_from_environment", join)
    for name, text in team(2)[1].items():
        monkeypatch.setenv(name, text)
    for alone in (["configs"], [*words(tmp_path), "--dry-run"], ["measure", str(tmp_path / "none")]):
        main(alone)
        assert "joins" not in capsys.readouterr().err
    for shared in (words(tmp_path), ["run", *words(tmp_path)[1:]]):
        assert main(shared) == 2
        assert "joins" in capsys.readouterr().err
    assert main(["configs"]) == 0
    assert "tiny" in capsys.readouterr().out
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # truly the second process of a torchrun
    assert main(["configs"]) == 0
    found = capsys.readouterr()
    assert (found.out, "the work of one process" in found.err) == ("", True)
