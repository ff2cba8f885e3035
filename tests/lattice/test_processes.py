"""Several processes make the ensemble one makes, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffsq.commands.main import main
from lattice.errors import InputError
from lattice.files import sha256_file
from lattice.processes import Team, team_from_environment

REPO = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
from lattice.actions.phi4 import ScalarPhi4
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.monte_carlo import generate, serve
from lattice.processes import team_from_environment
team, out = team_from_environment(), Path(sys.argv[1])
if team.rank:
    serve(team)
else:
    for kappa in (0.2, 0.27):
        params = MonteCarlo(
            n_configs=120, n_chains=10, n_therm=100, shard_configs=40, acceleration="measured")
        generate(ScalarPhi4(kappa, 0.022), (4, 6), params, 3, out / str(kappa), team=team)
    team.tell(None)
team.close()
"""


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*.h5"))}


def run(program: Path, out: Path, n: int) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={n}"] if n > 1 else []
    subprocess.run([sys.executable, *launcher, str(program), str(out)], check=True, env=env, timeout=300)


def test_torchrun_writes_the_same_bytes(tmp_path: Path) -> None:
    program = tmp_path / "make.py"
    program.write_text(PROGRAM)
    run(program, tmp_path / "one", 1)
    run(program, tmp_path / "three", 3)
    expected = hashes(tmp_path / "one")
    assert len(expected) == 2 * 4
    assert hashes(tmp_path / "three") == expected
    (tmp_path / "three" / "0.27" / "manifest.json").unlink()  # resume: what is there is told to all
    (tmp_path / "three" / "0.27" / "shard-0001.h5").unlink()
    run(program, tmp_path / "three", 2)
    assert hashes(tmp_path / "three") == expected


def test_the_command_under_torchrun(tmp_path: Path) -> None:
    """`diffsq ensemble`, one run and a scan of two points, with two processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    settings = ["ensemble.n_configs=320", "ensemble.n_chains=8", "ensemble.n_therm=60", "lattice.shape=[4,4]"]
    command = ["diffsq", "ensemble", str(REPO / "configs/tiny.yaml"), "--quiet", "--set", *settings]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "--"]
    scan = ["--scan", "kappa=0.2,0.22", "--keep-fields"]
    for name, more in (("single", []), ("scan", scan)):
        out = ["--run", str(tmp_path / "one" / name)]
        assert main([*command[1:], *more, *out]) in (0, 1)  # 1: so short an ensemble is not certified
        out = ["--run", str(tmp_path / "two" / name)]
        done = subprocess.run([*launcher, *command, *more, *out], env=env, capture_output=True, timeout=300)
        assert done.returncode in (0, 1), done.stderr
    expected = hashes(tmp_path / "one")
    assert len(expected) >= 6
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
