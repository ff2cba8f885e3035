"""Several processes draw the sample sets that one draws, byte for byte; an error of any one ends all."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import teams
from children import children
from teams import team

from diffsq.commands.main import main
from diffsq.config.config import load_config
from diffsq.sampling import draws, flow_sets
from diffsq.sampling.draws import Sampling, blocks_of
from lattice.errors import InputError
from lattice.files import sha256_file
from lattice.processes import Failed, Team, team_from_environment

RUN = """
name: small
seed: 3
action: {kind: phi4, kappa: 0.25, lam: 0.022}
lattice: {shape: [4, 4]}
ensemble: {n_configs: 2048, n_chains: 16, n_therm: 60}
models: [closed, score]
model: {channels: 2, n_levels: 1, n_sigma: 8, n_fit: 256}
training: {n_steps: 2, batch_size: 8, warmup: 1, checkpoint_every: 2, validate_every: 2}
sampling: {n_samples: {closed: 300, score: 70}, n_levels: 6, n_forward: 200,
           method: {closed: flow, score: path}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, all by one process; its config beside it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "small.yaml").write_text(RUN)
    for stage in ("ensemble", "train", "sample"):
        small(words(folder / "run", stage))
    return folder / "run"


def small(words: list[str]) -> int:
    """The command with shards of two blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "SHARD_BLOCKS", 2)
        return main(words)


def words(run: Path, command: str = "sample") -> list[str]:
    return teams.words(run, command)


def trained(made: Path, folder: Path) -> Path:
    """The run before its samples."""
    return teams.without(made, folder, "sample", "samples")


def hashes(run: Path) -> dict[str, str]:
    files = [path for path in sorted((run / "samples").rglob("*")) if path.suffix in (".h5", ".json")]
    return {str(path.relative_to(run)): sha256_file(path) for path in files if path.name != "manifest.json"}


def drawing(words: list[str], log: Path) -> int:
    """The command, with the name of every file this process writes in a log of its own."""
    replace, rank = os.replace, os.environ["RANK"]

    def logged(a: Any, b: Any) -> None:
        replace(a, b)
        with open(log / rank, "a") as file:
            file.write(f"{Path(b).parent.name}/{Path(b).name}\n")

    os.replace = logged
    return small(words)


@pytest.mark.parametrize("size", [2, 4])
def test_a_team_draws_the_same_bytes(made: Path, tmp_path: Path, size: int) -> None:
    """Of two, each a shard and a block of the last; of four, the blocks of three shards."""
    run, expected = trained(made, tmp_path), hashes(made)
    assert sum("closed-ve/shard" in name for name in expected) == 3
    done = children(team(size), drawing, words(run), tmp_path)
    assert [(each.returncode, each.stderr) for each in done[1:]] == [(0, "")] * (size - 1)
    assert done[0].returncode == 0, done[0].stderr
    assert hashes(run) == expected
    wrote = [(tmp_path / str(rank)).read_text().split() for rank in range(size)]
    for rank in range(size):  # all have worked
        assert any("forward-" in name for name in wrote[rank])
    assert ("closed-ve/shard-0001.h5" in wrote[1]) == (size == 2)
    assert not any("manifest.json" in name for names in wrote[1:] for name in names)


def of_rank(words: list[str]) -> int:
    """The command with a stream that is keyed by the process: what must not be."""
    stream = Sampling.stream
    Sampling.stream = lambda self, name: stream(self, name) + "/" * self.team.rank  # type: ignore[method-assign]
    return small(words)


def test_a_stream_of_the_process_would_be_seen(made: Path, tmp_path: Path) -> None:
    run, expected = trained(made, tmp_path), hashes(made)
    assert [done.returncode for done in children(team(2), of_rank, words(run))] == [0, 0]
    found = hashes(run)
    assert found.keys() == expected.keys()
    differ = {name for name in found if found[name] != expected[name]}
    assert "samples/closed-ve/shard-0001.h5" in differ
    assert "samples/closed-ve/shard-0000.h5" not in differ


def killed(words: list[str], rank: str) -> int:
    """The command; one process kills itself when its first shard is written."""
    replace = os.replace

    def killing(a: Any, b: Any) -> None:
        replace(a, b)
        if os.environ["RANK"] == rank and Path(b).name.startswith("shard-"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = killing
    return small(words)


def test_killed_and_resumed_by_another_number(made: Path, tmp_path: Path) -> None:
    run, expected = trained(made, tmp_path), hashes(made)
    done = children(team(2), killed, words(run), "1")
    assert done[1].returncode == -signal.SIGKILL
    assert (done[0].returncode, "lost the other processes" in done[0].stderr) == (2, True)
    assert not (run / "samples/closed-ve/manifest.json").exists()
    again = children(team(3), small, words(run))
    assert [each.returncode for each in again] == [0, 0, 0], again
    assert hashes(run) == expected


def failing(words: list[str], rank: str) -> int:
    """The command; one process fails in the choice of its flow."""
    genuine = flow_sets.log_weights

    def fails(*args: Any) -> Any:
        if os.environ["RANK"] == rank:
            raise InputError("no numbers today")
        return genuine(*args)

    flow_sets.log_weights = fails
    return small(words)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_of_one_is_one_line_and_ends_all(made: Path, tmp_path: Path, rank: str) -> None:
    run = trained(made, tmp_path)
    done = children(team(2), failing, words(run), rank)
    where = "process 1 of 2: " if rank == "1" else ""
    assert [(each.returncode, each.stderr) for each in done] == [
        (2, f"diffsq: error: {where}no numbers today\n"),
        (0, ""),
    ]


def test_a_refusal_before_any_work_is_one_line(made: Path, tmp_path: Path) -> None:
    run = trained(made, tmp_path)
    shutil.rmtree(run / "train/closed")
    done = children(team(2), main, words(run))
    assert [each.returncode for each in done] == [2, 0]
    assert len(done[0].stderr.splitlines()) == 1
    assert done[1].stderr == ""


def shared(n: int) -> int:
    """`each` of n numbers, and an error of the last process in the end."""
    team = team_from_environment()
    seen: list[int] = []

    def square(i: int) -> int:
        seen.append(i)
        return i * i

    found = list(team.each(square, range(n)))
    assert found == ([i * i for i in range(n)] if team.rank == 0 else [None] * n)
    assert team.exchange(seen) == [list(range(rank, n, team.size)) for rank in range(team.size)]
    own = team.rank == team.size - 1

    def work() -> None:
        with team.together():
            if own:
                raise ArithmeticError("overflow")
            team.exchange()

    with pytest.raises(ArithmeticError if own else Failed, match="^overflow" if own else "2 of 3: overflow"):
        work()
    assert not team.busy
    team.close()
    return 0


def test_items_are_shared_in_rounds() -> None:
    for n in (0, 1, 3, 7):
        for done in children(team(3), shared, n):
            assert done.returncode == 0, done.stderr


def test_alone_all_is_one_s_own() -> None:
    alone = Team()
    assert list(alone.each(abs, [-1, 2])) == [1, 2]
    assert alone.exchange("word") == ["word"]
    with pytest.raises(InputError, match="^no$"), alone.together():
        raise InputError("no")


def test_blocks_cover_a_shard() -> None:
    assert [list(blocks_of(range(a, b))) for a, b in ((0, 64), (0, 65), (63, 64), (64, 130))] == [
        [0], [0, 64], [0], [64, 128]
    ]  # fmt: skip


def test_each_process_has_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsq.commands.session import pick_device

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert (pick_device("auto"), pick_device("cuda")) == ("cuda", "cuda")
    for rank, place in (("0", "cuda:0"), ("1", "cuda:1"), ("2", "cuda:0")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert (pick_device("auto"), pick_device("cuda"), pick_device("cpu")) == (place, place, "cpu")
    assert pick_device("cuda:1") == "cuda:1"


def test_the_config_of_a_run_is_that_of_its_folder(made: Path) -> None:
    """What the others read is what process 0 was given."""
    assert load_config(made.parent / "small.yaml") == load_config(made / "config.yaml")
