"""Progress for people, and the clock that goes on where an earlier process stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from lattice import progress
from lattice.files import read_json, write_json
from lattice.progress import Clock, Labelled, PlainLines, Silent, TerminalBar, make_progress


class Record(Silent):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.told.append((total, label, done))

    def update(self, n: int = 1, **info: object) -> None:
        self.told.append((n, info))

    def close(self) -> None:
        self.told.append("closed")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_say_how_far_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 of 100 done before; 20 more in 10 s: 2 a second, 25 s left."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    lines = PlainLines(out, every=10.0)
    lines.update(5)  # before the start: nothing to say
    lines.start(100, "samples", done=30)
    for _ in range(4):
        now[0] += 2.5
        lines.update(5, loss=0.123456)
    assert out.getvalue() == "samples: 50/100, 00:10 elapsed, 00:25 left, 2/s, loss=0.1235\n"
    lines.close()
    lines.close()
    assert out.getvalue().count("\n") == 2


def test_the_reporter_suits_the_stream() -> None:
    assert isinstance(make_progress(quiet=True), Silent)
    assert isinstance(make_progress(stream=io.StringIO()), PlainLines)
    terminal = Terminal()
    bar = make_progress(stream=terminal)
    assert isinstance(bar, TerminalBar)
    bar.start(10, "train", done=4)
    bar.update(6, loss=1.5)
    bar.close()
    assert "train: 100%" in terminal.getvalue()
    assert "loss=1.5" in terminal.getvalue()


def test_points_of_a_scan_name_their_bars() -> None:
    record = Record()
    bar = Labelled(record, "L8")
    bar.start(3, "thermalisation", 1)
    bar.update(2, n_steps=5)
    bar.close()
    assert record.told == [(3, "L8 thermalisation", 1), (2, {"n_steps": 5}), "closed"]


def test_the_clock_counts_on_over_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setitem(progress.CLOCKS, "seconds", lambda: now[0])
    path, record = tmp_path / "record.json", {"seconds": 5.0, "identity": "abc"}
    clock = Clock(Silent(), record, lambda: write_json(path, record), every=2.0)
    now[0] += 1.0
    clock.update()
    assert not path.exists()  # too soon
    now[0] += 1.5
    clock.update()
    assert read_json(path) == {"seconds": 7.5, "identity": "abc"}  # what a kill -9 here would leave
    now[0] += 0.25
    clock.stop()
    again: dict[str, Any] = read_json(path)
    Clock(Silent(), again, lambda: None).stop()
    assert again["seconds"] == 7.75


def test_the_clock_keeps_the_seconds_its_record_has() -> None:
    record: dict[str, Any] = {"seconds": 0.0, "cpu_seconds": 1.0}
    clock = Clock(Silent(), record, lambda: None)
    sum(range(200_000))
    clock.stop()
    assert 0 <= record["seconds"] < 60
    assert 1 < record["cpu_seconds"] < 61
