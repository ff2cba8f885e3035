"""A small share of the campaigns, with negative controls: what finds nothing must be able to find."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import campaign_folders as folders
import campaign_jobs as jobs
import campaign_mutate as mutate
import numpy as np
import pytest
import yaml
from campaign_readers import READERS, make_examples
from children import child

from lattice.errors import InputError

CHEAP = ("config", "points", "shard", "ensemble", "import npy", "import npz", "import h5", "therm", "compare")
SEED = 11


def small_share(place: Path) -> None:
    """Kills, a full disk and a race of the cheapest job; written down for the parent."""
    bench = folders.Bench(["scan"], place)
    units = [folders.kill(bench, 0, SEED), folders.race(bench, 0, SEED), folders.full(bench, 0, SEED, False)]
    shifted = folders.Bench(["scan"], place / "shifted", {"seed": 4})
    wrong = jobs.differences(shifted.wanted["scan"], bench.wanted["scan"])
    found = [(unit.disturbed, unit.faults, unit.said) for unit in units]
    (place / "found.json").write_text(json.dumps([*found, wrong]))


def test_a_share_of_the_kills_the_full_disks_and_the_races(tmp_path: Path) -> None:
    done = child(small_share, tmp_path)
    assert done.returncode == 0, done.stderr
    killed, raced, full, wrong = json.loads((tmp_path / "found.json").read_text())
    assert killed[0] > 0
    assert [killed[1], raced[1], full[1]] == [[], [], []]
    assert folders.BUSY in "".join(raced[2])
    # negative control: other random numbers are other bits
    assert any("has other bits" in line for line in wrong)


def test_what_is_lost_left_over_or_changed_is_seen(tmp_path: Path) -> None:
    def made(**files: str) -> dict[str, str]:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        return jobs.products(tmp_path)

    sound = made(a_json='{"x": 1, "seconds": 2}', b_h5="bits")
    assert jobs.differences(made(a_json='{"seconds": 3, "x": 1}', b_h5="bits"), sound) == []
    assert jobs.differences(made(a_json='{"x": 2, "seconds": 2}', b_h5="bits"), sound) == [
        "a.json has other bits"
    ]
    assert jobs.differences(made(a_json='{"x": 1}', b_h5="bitt"), sound) == ["b.h5 has other bits"]
    assert jobs.differences(made(b_h5="bits", _b_h5_7_tmp=""), sound) == [
        "a.json is lost",
        ".b.h5.7.tmp is left over",
    ]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_examples(tmp_path_factory.mktemp("campaign"), CHEAP)


def case(number: int, examples: Path, place: Path, only: list[str]) -> mutate.Case:
    place.mkdir(exist_ok=True)
    return mutate.Case(number, SEED, examples, place, only)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of fields of 1e308
def test_a_share_of_the_damaged_files(examples: Path) -> None:
    place, seen = examples.parent / "work", list[str]()
    sound = {name: READERS[name].read(examples / name) for name in CHEAP}
    verdicts = []
    for number in range(90):
        one = case(number, examples, place, list(CHEAP))
        verdict, words = mutate.judged(one, sound[one.reader.name], seen)
        assert verdict != mutate.FAULT, (number, one.reader.name, one.path.name, one.done, words)
        verdicts.append(verdict)
    assert verdicts.count(mutate.REFUSED) > 25
    assert verdicts.count(mutate.RIGHT) > 5


def trusting(folder: Path) -> str:
    return str(yaml.safe_load((folder / "config.yaml").read_text()))


def running(folder: Path) -> str:
    os.system("true")
    raise InputError("no")


def slow(folder: Path) -> str:
    while True:
        time.process_time()


def talkative(folder: Path) -> str:
    error = InputError("one")
    error.args = ("one\ntwo",)
    raise error


def greedy(folder: Path) -> str:
    return str(np.ones(mutate.MEMORY // 6)[:1])


@pytest.mark.parametrize(
    ("read", "words"),
    [(trusting, "Error"), (running, "os.system"), (slow, "more than"), (talkative, "not one line"),
     (greedy, "of memory"), (lambda folder: "another", "other content")],
)  # fmt: skip
def test_a_bad_reader_is_found(
    read: Any, words: str, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutate, "HANG", 0.3)
    monkeypatch.setattr(mutate, "MEMORY", 2**26)
    place, seen = examples.parent / "bad", list[str]()
    if read is running:
        mutate.watch(seen, place)
    found = set()
    for number in range(25 if read is trusting else 1):
        one = case(number, examples, place, ["config"])
        one.reader, one.free = replace(one.reader, read=read), read is trusting
        verdict, said = mutate.judged(one, "sound", seen)
        if verdict == mutate.FAULT:
            found.add(said)
    assert any(words in said for said in found), found
