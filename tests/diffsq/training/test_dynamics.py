"""Rows of watched training: made once, kept over an interruption, made again for other settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffsq.config.config import config_from_dict
from diffsq.config.dynamics import DynamicsRun
from diffsq.training import dynamics
from diffsq.training.dynamics import read_rows, train_rows
from diffsq.training.teachers import TeacherRow, data_set, second_moments
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, sha256_text
from lattice.progress import Silent
from lattice.rng import stream_id

PAIRS: dict[str, Any] = {
    "models": ["pairs"],
    "training": {"n_visible": 4, "mu2": 20.0, "n_replicas": 16, "n_snapshots": 2,
                 "rows": [{"rate": 0.2, "batch": 8}, {"rate": 0.1, "batch": 4}, {"rate": 0.3, "batch": 8}]},
}  # fmt: skip
STUDENTS: dict[str, Any] = {
    "models": ["teacher_student"],
    "training": {"n_replicas": 64, "n_steps": 200, "amplitude": 0.2,
                 "rows": [{"rate": 0.3, "batch": 4}, {"rate": 0.2, "batch": 8, "n_data": 32, "n_sets": 2}]},
}  # fmt: skip
TEXT: dict[str, Any] = {
    "models": ["transformer"],
    "training": {"n_seeds": 1, "n_layers": 1, "n_heads": 2, "width": 8, "block": 8, "batch": 2, "n_steps": 6,
                 "at": [0, 3, 6], "shuffled_steps": 4, "checkpoint_every": 2},
}  # fmt: skip


class Watch(Silent):
    """Remembers what was begun, and stops at an update of the loop number `loop`."""

    def __init__(self, loop: int = -1, after: int = 1) -> None:
        self.loop, self.after, self.labels, self.begun = loop, after, list[str](), list[int]()

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.labels.append(label)
        self.begun.append(done)
        self.now = done

    def update(self, n: int = 1, **info: object) -> None:
        self.now += n
        if len(self.labels) == self.loop + 1 and self.now >= self.after:
            raise KeyboardInterrupt


def config_of(settings: dict[str, Any], seed: int = 1, **training: Any) -> DynamicsRun:
    given = {**settings, "training": {**settings["training"], **training}}
    found = config_from_dict({"name": "watched", "seed": seed, **given})
    assert isinstance(found, DynamicsRun)
    return found


def images(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in out.glob("*/row.json")}


@pytest.mark.parametrize("settings", [PAIRS, STUDENTS, TEXT])
def test_rows_are_made_once_and_read_back(tmp_path: Path, settings: dict[str, Any]) -> None:
    config, watch = config_of(settings), Watch()
    identity = train_rows(config, tmp_path, watch)
    assert len(watch.labels) == len(config.row_names())
    rows = read_rows(config, tmp_path)
    assert list(rows) == config.row_names()
    assert identity == sha256_text(canonical_json(rows))
    json.dumps(rows, allow_nan=False)
    again, before = Watch(), images(tmp_path)
    assert train_rows(config, tmp_path, again) == identity
    assert again.labels == [], "nothing was made"
    assert images(tmp_path) == before


@pytest.mark.parametrize(("settings", "loop"), [(PAIRS, 1), (PAIRS, 2), (STUDENTS, 1)])
def test_finished_rows_are_kept_over_an_interruption(
    tmp_path: Path, settings: dict[str, Any], loop: int
) -> None:
    config = config_of(settings)
    whole = train_rows(config, tmp_path / "whole", Silent())
    with pytest.raises(KeyboardInterrupt):
        train_rows(config, tmp_path / "cut", Watch(loop))
    kept = images(tmp_path / "cut")
    assert sorted(kept) == sorted(config.row_names()[:loop])
    rest = Watch()
    assert train_rows(config, tmp_path / "cut", rest) == whole
    assert len(rest.labels) == len(config.row_names()) - loop, "only what was missing"
    assert kept.items() <= images(tmp_path / "cut").items()
    assert images(tmp_path / "cut") == images(tmp_path / "whole")


@pytest.mark.parametrize(("after", "begun"), [(1, 0), (3, 2)])
def test_a_row_of_text_goes_on_from_its_checkpoint_to_the_same_bits(
    tmp_path: Path, after: int, begun: int
) -> None:
    """Checkpoints every 2 steps."""
    config = config_of(TEXT)
    whole = train_rows(config, tmp_path / "whole", Silent())
    with pytest.raises(KeyboardInterrupt):
        train_rows(config, tmp_path / "cut", Watch(0, after))
    assert images(tmp_path / "cut") == {}
    rest = Watch()
    assert train_rows(config, tmp_path / "cut", rest) == whole
    assert rest.begun[0] == begun
    last = "text-0/network/checkpoint-00000006.safetensors"
    assert (tmp_path / "cut" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_a_row_of_text_made_but_not_kept_is_not_made_again(tmp_path: Path) -> None:
    """Killed between the row of the network and that of the run."""
    config = config_of(TEXT)
    whole = train_rows(config, tmp_path, Silent())
    (tmp_path / "text-0" / "row.json").unlink()
    watch = Watch()
    assert train_rows(config, tmp_path, watch) == whole
    assert watch.labels == []


def test_another_config_makes_its_rows_again(tmp_path: Path) -> None:
    """Another number of snapshots, another seed, another row: never a row of other settings."""
    first = train_rows(config_of(PAIRS), tmp_path, Silent())
    seen = {first}
    for config in (
        config_of(PAIRS, n_snapshots=3), config_of(PAIRS, seed=2), config_of(PAIRS, mu2=21.0),
        config_of(PAIRS, rows=[PAIRS["training"]["rows"][0], {"rate": 0.1, "batch": 16}]),
    ):  # fmt: skip
        identity = train_rows(config, tmp_path, Silent())
        fresh = tmp_path / "fresh"
        assert identity == train_rows(config, fresh, Silent()), "as in an empty folder"
        shutil.rmtree(fresh)
        seen.add(identity)
    assert len(seen) == 5
    assert train_rows(config_of(PAIRS), tmp_path, Silent()) == first


def test_another_version_of_the_rows_makes_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_rows(config_of(PAIRS), tmp_path, Silent())
    monkeypatch.setattr(dynamics, "VERSION", 99)
    watch = Watch()
    train_rows(config_of(PAIRS), tmp_path, watch)
    assert len(watch.labels) == 3


def test_text_of_other_settings_is_refused_not_mixed(tmp_path: Path) -> None:
    train_rows(config_of(TEXT), tmp_path, Silent())
    before = images(tmp_path)
    with pytest.raises(InputError, match="row.json: there already, of another settings"):
        train_rows(config_of(TEXT, learning_rate=1e-2), tmp_path, Silent())
    with pytest.raises(InputError, match="of another seed"):
        train_rows(config_of(TEXT, seed=2), tmp_path, Silent())
    assert images(tmp_path) == before


def test_a_row_that_somebody_changed(tmp_path: Path) -> None:
    """It is made again, to the same bytes, whatever was changed; a file that is no JSON is named."""
    config = config_of(PAIRS)
    identity = train_rows(config, tmp_path, Silent())
    path = tmp_path / "pairs-1" / "row.json"
    sound = path.read_bytes()
    have = read_json(path)
    have["row"]["pairs"][0]["a"][0] += 1
    path.write_text(json.dumps(have))
    assert train_rows(config, tmp_path, Silent()) == identity
    assert path.read_bytes() == sound
    path.write_text(json.dumps({**have, "key": "another"}))
    assert train_rows(config, tmp_path, Silent()) == identity
    assert path.read_bytes() == sound
    path.write_text("{")
    with pytest.raises(InputError, match="pairs-1/row.json"):
        train_rows(config, tmp_path, Silent())


def test_a_row_without_its_numbers_is_made_again(tmp_path: Path) -> None:
    config = config_of(PAIRS)
    identity = train_rows(config, tmp_path, Silent())
    path = tmp_path / "pairs-1" / "row.json"
    path.write_text(json.dumps({"key": read_json(path)["key"]}))
    assert train_rows(config, tmp_path, Silent()) == identity


def test_a_row_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path) -> None:
    rows = [{"rate": 0.2, "batch": 8}, {"rate": 1.01, "batch": 8}, {"rate": 0.1, "batch": 8}]
    with pytest.raises(InputError, match="a rate of 1.01 is unstable") as refused:
        train_rows(config_of(PAIRS, rows=rows), tmp_path, Silent())
    assert "\n" not in str(refused.value)
    assert not list(images(tmp_path))


def test_a_longer_list_keeps_the_rows_it_has(tmp_path: Path) -> None:
    """The key of a row is of its own settings."""
    rows = [{"rate": 0.2, "batch": 8}, {"rate": 0.1, "batch": 8}]
    train_rows(config_of(PAIRS, rows=rows[:1]), tmp_path, Silent())
    before = images(tmp_path)
    with pytest.raises(InputError, match="pairs-1"):
        read_rows(config_of(PAIRS, rows=rows), tmp_path)
    train_rows(config_of(PAIRS, rows=rows), tmp_path, Silent())
    after = images(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


def test_each_row_has_settings_and_noise_of_its_own(tmp_path: Path) -> None:
    """Equal settings in two rows are two measurements; a data set of a row is its own, and as it says."""
    twice = config_of(PAIRS, rows=[PAIRS["training"]["rows"][0]] * 2)
    train_rows(twice, tmp_path / "pairs", Silent())
    one, other = read_rows(twice, tmp_path / "pairs").values()
    assert one["pairs"][0]["a"] != other["pairs"][0]["a"]
    students = config_of(STUDENTS)
    train_rows(students, tmp_path / "students", Silent())
    rows = read_rows(students, tmp_path / "students")
    assert [rows[name]["fresh"] for name in rows] == [True, False, False]
    for name in ("students-1-0", "students-1-1"):
        row, seed = TeacherRow(0.2, 8, 64, 200, 0.2, False, 32), 1 + stream_id(f"rows/{name}")
        assert rows[name]["s2_exact"] == pytest.approx(second_moments(row, data_set(row, seed)))
    assert rows["students-1-0"]["s2_exact"] != rows["students-1-1"]["s2_exact"]
    fresh = second_moments(TeacherRow(0.3, 4, 64, 200, 0.2))
    assert rows["students-0"]["s2_exact"] == pytest.approx(fresh)


def test_the_control_is_as_long_as_asked_and_is_shuffled(tmp_path: Path) -> None:
    config = config_of(TEXT)
    train_rows(config, tmp_path, Silent())
    text, control = read_rows(config, tmp_path).values()
    assert [at["step"] for at in text["at"]] == [0, 3, 6]
    assert [at["step"] for at in control["at"]] == [0, 3]
    assert (text["shuffled"], control["shuffled"]) == (False, True)
    assert control["settings"]["n_steps"] == 4
    assert text["unigram_entropy"] == pytest.approx(control["unigram_entropy"])
    assert text["text_sha256"] != control["text_sha256"]
