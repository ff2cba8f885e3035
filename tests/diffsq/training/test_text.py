"""Training on text: the same bits after a stop, the control that cannot learn, spectra that leave the law."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.training.text import TextTraining, batch_at, corpus, shuffled, train_text, unigram_entropy
from lattice.errors import InputError
from lattice.files import read_json
from lattice.progress import Silent

TEXT = corpus()[0][:20_000]
SMALL = TextTraining(
    n_layers=1, n_heads=2, width=16, block=16, batch=8, n_steps=20, at=(0, 7, 20), checkpoint_every=8
)


class Stops(Silent):
    """Ends the process after so many steps, and remembers where it began."""

    def __init__(self, after: int = 10**9) -> None:
        self.after, self.begun = after, -1

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.begun = self.now = done

    def update(self, n: int = 1, **info: object) -> None:
        self.now += n
        if self.now == self.after:
            raise KeyboardInterrupt


def small(out: Path, seed: int = 1, progress: Any = None, is_shuffled: bool = False, **more: Any) -> Any:
    settings = replace(SMALL, **more)
    return train_text(
        settings, seed, out, is_shuffled=is_shuffled, progress=progress or Silent(), text=TEXT
    )  # fmt: skip


def weights(out: Path) -> bytes:
    return max(out.glob("checkpoint-*.safetensors")).read_bytes()


@pytest.mark.parametrize(("stop", "begun"), [(3, 0), (8, 8), (13, 8), (19, 16)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, stop: int, begun: int) -> None:
    """Stopped before the first checkpoint, at one, and between two: row and weights, moments of Adam too."""
    whole = small(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "stopped", progress=Stops(stop))
    assert not (tmp_path / "stopped" / "row.json").exists()
    again = Stops()
    assert small(tmp_path / "stopped", progress=again) == whole
    assert again.begun == begun
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    names = ("stopped", "whole")
    one, other = ((tmp_path / name / "row.json").read_bytes() for name in names)
    assert one == other


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    whole = small(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "stopped", progress=Stops(18))
    newest = max((tmp_path / "stopped").glob("checkpoint-*"))
    image = bytearray(newest.read_bytes())
    image[-5] ^= 1
    newest.write_bytes(bytes(image))
    again = Stops()
    assert small(tmp_path / "stopped", progress=again) == whole
    assert again.begun == 8, "the one before is sound"


def test_a_row_that_is_there_is_read(tmp_path: Path) -> None:
    row, watch = small(tmp_path), Stops()
    assert small(tmp_path, progress=watch) == row
    assert watch.begun == -1, "nothing was trained"
    for words, other in [
        ("another settings; choose another folder", {"learning_rate": 2e-3}),
        ("another seed;", {"seed": 2}),
        ("another shuffled and text_sha256", {"is_shuffled": True}),
    ]:
        with pytest.raises(InputError, match=words):
            small(tmp_path, **other)
    assert read_json(tmp_path / "row.json") == row


def test_what_a_row_has(tmp_path: Path) -> None:
    row = small(tmp_path)
    assert [one["step"] for one in row["at"]] == [0, 7, 20]
    assert list(row["eigenvalues"]) == ["0", "20"]
    assert len(row["eigenvalues"]["20"]["0.fc"]) == 16
    assert set(row["at"][0]["kinds"]) == {"q", "k", "v", "proj", "fc", "out"}
    assert row["n_symbols"] == len(set(TEXT))
    losses = [one["val_loss"] for one in row["at"]]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(math.log(row["n_symbols"]), abs=0.2)


def test_another_seed_is_another_path(tmp_path: Path) -> None:
    rows = [small(tmp_path / str(seed), seed) for seed in (1, 2)]
    assert rows[0]["at"][0]["val_loss"] != rows[1]["at"][0]["val_loss"]
    text = torch.arange(1000)
    first = [batch_at(text, SMALL, seed, step)[0] for seed, step in ((1, 0), (1, 0), (2, 0), (1, 1))]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[3])


def test_batches_are_pieces_of_the_text_and_what_follows() -> None:
    """All starts equally often, the last one too: chi^2 of 84 values within 4 sigma."""
    text, settings = torch.arange(100), replace(SMALL, batch=84)
    starts = torch.cat([batch_at(text, settings, 3, step)[0][:, 0] for step in range(200)])
    x, y = batch_at(text, settings, 3, 0)
    assert torch.equal(x + 1, y)
    assert torch.equal(x, x[:, :1] + torch.arange(16))
    counts = torch.bincount(starts, minlength=84)
    assert len(counts) == 84
    chi2 = float(((counts - 200) ** 2 / 200).sum())
    assert abs(chi2 - 83) < 4 * math.sqrt(2 * 83)


def test_without_a_rate_nothing_changes(tmp_path: Path) -> None:
    row = small(tmp_path, learning_rate=0.0)
    first, *later = ({k: v for k, v in one.items() if k != "step"} for one in row["at"])
    assert all(one == first for one in later)
    assert row["eigenvalues"]["0"] == row["eigenvalues"]["20"]
    none = small(tmp_path / "none", n_steps=0, at=(0,))
    assert none["at"] == row["at"][:1]
    assert list(none["eigenvalues"]) == ["0"]


def test_the_shuffled_text_has_the_same_characters() -> None:
    other = shuffled(TEXT, 1)
    assert Counter(other) == Counter(TEXT)
    assert other != TEXT
    assert other == shuffled(TEXT, 1)
    assert other != shuffled(TEXT, 2)
    pairs = [len(set(zip(text, text[1:], strict=False))) for text in (TEXT, other)]
    assert pairs[1] > 1.5 * pairs[0], "its order is gone"
    assert unigram_entropy("aabb") == pytest.approx(math.log(2))


def test_the_text_is_named_by_its_hash() -> None:
    text, digest = corpus()
    assert len(text) > 100_000
    assert len(digest) == 64
    assert corpus() == (text, digest)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, Any]]:
    """The default model after 100 steps, on the text and on the control."""
    settings, place = TextTraining(n_steps=100, at=(0, 100)), tmp_path_factory.mktemp("text")
    return {
        control: train_text(settings, 1, place / str(control), is_shuffled=control, progress=Silent())
        for control in (False, True)
    }


def test_the_control_cannot_go_under_the_unigram_entropy(rows: dict[bool, dict[str, Any]]) -> None:
    """It reaches it, within 4 sigma of the windows below and 0.05 above; the text goes far below."""
    h, text = rows[True]["unigram_entropy"], corpus()[0]
    p = np.array(list(Counter(text).values())) / len(text)
    error = math.sqrt(float((p * np.log(p) ** 2).sum()) - h**2) / math.sqrt(256 * 64)
    loss = {control: row["at"][1]["val_loss"] for control, row in rows.items()}
    assert h - 4 * error < loss[True] < h + 4 * error + 0.05
    assert loss[False] < h - 0.5
    assert rows[False]["unigram_entropy"] == pytest.approx(h)


def test_density_leaves_the_law_and_repulsion_stays(rows: dict[bool, dict[str, Any]]) -> None:
    """KS of `out` beyond the null only with structure in the text; <r> within 4 sigma of GOE, not Poisson."""
    kinds = {control: row["at"][1]["kinds"]["out"] for control, row in rows.items()}
    assert kinds[False]["ks"] > 0.15
    assert kinds[True]["ks"] < 0.12
    assert kinds[False]["outliers"] > 2 * kinds[True]["outliers"] > 2
    for row in rows.values():
        for one in row["at"]:
            assert abs(one["ratio"] - 0.5307) < 4 * one["ratio_error"]
            assert one["ratio"] - 0.3863 > 8 * one["ratio_error"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"width": 66}, "cannot be shared by 4 heads"),
        ({"width": 4}, "no spectra"),
        ({"batch": 0}, "need batch and checkpoint_every >= 1"),
        ({"checkpoint_every": 0}, "got 16, 0 and 1500"),
        ({"learning_rate": -1.0}, "learning_rate >= 0"),
        ({"learning_rate": math.nan}, "learning_rate >= 0"),
        ({"val_fraction": 1.0}, "val_fraction < 1"),
        ({"at": (30, 100)}, "begin with 0"),
        ({"at": (0, 100, 30)}, "steps that rise"),
        ({"at": (0, 2000)}, "at most 1500"),
    ],
)
def test_settings_that_make_no_sense(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TextTraining(**bad)


def test_texts_that_are_too_short_and_rates_that_are_too_large(tmp_path: Path) -> None:
    for words, bad in [("smaller block", {"block": 2000}), ("smaller batch", {"batch": 18_000})]:
        with pytest.raises(InputError, match=words):
            small(tmp_path, **bad)
    with pytest.raises(InputError, match="take a learning_rate below 1e\\+30"):
        small(tmp_path, learning_rate=1e30)
    assert not (tmp_path / "row.json").exists()
