"""Several processes train the model that one trains, to rounding; a kill of any one resumes; one line says
what is wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import teams
import torch
from children import children
from safetensors.torch import load_file
from teams import team

from diffsq.commands.main import main
from diffsq.models.blocks import KeyedNoise
from diffsq.training import checkpoint, shared
from lattice.errors import InputError
from lattice.files import sha256_file

RUN = """
name: small
seed: 3
action: {kind: phi4, kappa: 0.25, lam: 0.022}
lattice: {shape: [4, 4]}
ensemble: {n_configs: 2048, n_chains: 16, n_therm: 60}
models: [closed, score]
model: {channels: 2, n_levels: 1, n_sigma: 8, n_fit: 256, base: wiener, covariance: true}
training: {n_steps: 60, batch_size: 9, warmup: 5, checkpoint_every: 20, validate_every: 30}
sampling: {n_samples: {closed: 300, score: 70}, n_levels: 6, n_forward: 200,
           method: {closed: flow, score: path}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its ensemble, trained by one process; its config beside it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "small.yaml").write_text(RUN)
    for stage in ("ensemble", "train"):
        assert main(words(folder / "run", stage)) == 0
    return folder / "run"


def words(run: Path, command: str = "train") -> list[str]:
    return teams.words(run, command)


def untrained(made: Path, folder: Path) -> Path:
    """The run before its training."""
    return teams.without(made, folder, "train", "train")


def curve(run: Path) -> list[dict[str, float]]:
    return checkpoint.read_lines(run / "train/score/metrics.jsonl")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "train/score/weights.safetensors")


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_has_the_same_loss_curve(made: Path, tmp_path: Path, size: int) -> None:
    """Of two processes the shares are 4 and 5 rows of the batch: the mean is not that of their means."""
    run = untrained(made, tmp_path)
    done = children(team(size), main, words(run))
    assert [each.returncode for each in done] == [0] * size, done
    assert [each.stderr for each in done[1:]] == [""] * (size - 1)
    alone, together = curve(made), curve(run)
    assert [line["step"] for line in alone] == [line["step"] for line in together]
    for a, b in zip(alone, together, strict=True):
        for name in ("loss", "val_gain"):
            if name in a:
                assert abs(a[name] - b[name]) < 2e-5 * abs(alone[0]["loss"])
    new, old = weights(run), weights(made)
    flat = "unet.spread.last.bias"  # a constant in ln of the variance does nothing: rounding alone moves it
    new[flat][0] = old[flat][0]
    moved = max(float((new[n] - old[n]).abs().max()) for n in new if n.startswith("unet."))
    assert moved < 1e-3
    assert sha256_file(run / "train/closed/weights.safetensors") == sha256_file(
        made / "train/closed/weights.safetensors"
    )


def of_rank(words: list[str]) -> int:
    """The command with noise that is not that of the row of the batch: what must not be."""
    part = KeyedNoise.part

    def own(self: KeyedNoise, rows: slice) -> KeyedNoise:
        return part(self, slice(0, len(np.atleast_1d(self.index)[rows])))

    KeyedNoise.part = own  # type: ignore[method-assign]
    return main(words)


def test_noise_of_the_wrong_rows_would_be_seen(made: Path, tmp_path: Path) -> None:
    run = untrained(made, tmp_path)
    assert [done.returncode for done in children(team(2), of_rank, words(run))] == [0, 0]
    losses = [[line["loss"] for line in curve(where) if "loss" in line] for where in (made, run)]
    assert np.abs(np.subtract(*losses)).max() > 1e-3 * losses[0][0]


def killed(words: list[str], rank: str) -> int:
    """The command; one process kills itself in step 30."""
    mean, seen = shared.mean_of, []

    def killing(value: Any, team: Any) -> Any:
        seen.append(1)
        if os.environ["RANK"] == rank and len(seen) == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return mean(value, team)

    from diffsq.training import loop

    loop.mean_of = killing
    return main(words)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_kill_of_any_process_resumes(made: Path, tmp_path: Path, rank: str) -> None:
    whole = untrained(made, tmp_path / "whole")
    assert [done.returncode for done in children(team(2), main, words(whole))] == [0, 0]
    run = untrained(made, tmp_path / "killed")
    done = children(team(2), killed, words(run), rank)
    assert done[int(rank)].returncode == -signal.SIGKILL
    other = done[1 - int(rank)]
    assert other.returncode == 2
    assert "lost the other processes" in other.stderr
    assert "\n" not in other.stderr.strip()
    assert [p.name for p in sorted((run / "train/score").glob("checkpoint-*"))] == [
        "checkpoint-00000020.safetensors"
    ]
    assert [each.returncode for each in children(team(2), main, words(run))] == [0, 0]
    assert sha256_file(run / "train/score/weights.safetensors") == sha256_file(
        whole / "train/score/weights.safetensors"
    )  # bitwise, by as many processes


def poisoned(words: list[str]) -> int:
    """The command; the loss of the second process is not finite in step 7."""
    rate, seen = shared.path_kl_rate, []

    def bad(*args: Any) -> torch.Tensor:
        seen.append(1)
        found: torch.Tensor = rate(*args)
        return found * torch.nan if os.environ["RANK"] == "1" and len(seen) == 8 else found

    shared.path_kl_rate = bad
    return main(words)


def test_a_loss_that_is_not_finite_is_one_line(made: Path, tmp_path: Path) -> None:
    run = untrained(made, tmp_path)
    first, second = children(team(2), poisoned, words(run))
    assert (first.returncode, second.returncode, second.stderr) == (2, 0, "")
    assert len(first.stderr.splitlines()) == 1
    assert "the loss is not finite at step 7" in first.stderr


def no_disk(words: list[str]) -> int:
    """The command; process 0 cannot write its first checkpoint."""
    from diffsq.training import loop

    def full(*args: Any) -> None:
        raise InputError("no space left")

    loop.checkpoint.save_checkpoint = full
    return main(words)


def test_process_0_failing_alone_ends_all(made: Path, tmp_path: Path) -> None:
    first, second = children(team(2), no_disk, words(untrained(made, tmp_path)))
    assert (first.returncode, first.stderr) == (2, "diffsq: error: no space left\n")
    assert second.returncode == 2
    assert "lost the other processes" in second.stderr


def unreadable(words: list[str], rank: str) -> int:
    """The command; one process cannot set up its part."""
    from diffsq.training import lattice

    genuine = lattice.Training.__init__

    def fails(*args: Any) -> None:
        if os.environ["RANK"] == rank:
            raise InputError("not for me")
        genuine(*args)

    lattice.Training.__init__ = fails  # type: ignore[method-assign]
    return main(words)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_that_cannot_begin_is_one_line_and_ends_all(made: Path, tmp_path: Path, rank: str) -> None:
    first, second = children(team(2), unreadable, words(untrained(made, tmp_path)), rank)
    where = "process 1 of 2: " if rank == "1" else ""
    assert (first.returncode, first.stderr) == (2, f"diffsq: error: {where}not for me\n")
    assert (second.returncode, second.stderr) == (0, "")


def test_more_processes_than_rows_are_refused(made: Path, tmp_path: Path) -> None:
    run = untrained(made, tmp_path)
    few = [*words(run), "--set", "training.batch_size=1"]
    first, second = children(team(2), main, few)
    assert (first.returncode, second.returncode, second.stderr) == (2, 0, "")
    assert first.stderr.strip().endswith("2 processes but training.batch_size = 1: start fewer")
