"""Progress: what is printed, who is told, and a clock that adds up over sessions."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lattice import progress
from lattice.files import read_json
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


def test_a_clock_adds_up_over_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written while the work goes on, so that a kill loses two seconds at most."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(progress.time, "process_time", lambda: 0.5 * now[0])
    path, record = tmp_path / "seconds.json", Record()
    clock = Clock(record, path)
    clock.start(10, "chain")
    now[0] += 1.0
    clock.update(1)
    assert not path.exists()
    now[0] += 1.5
    clock.update(1)
    assert read_json(path) == {"seconds": 2.5, "cpu_seconds": 1.25}
    now[0] += 7.0  # killed here: this time is lost
    again = Clock(record, path)
    now[0] += 4.0
    again.stop()
    assert (again.seconds, again.cpu_seconds) == (6.5, 3.25)
    assert read_json(path) == {"seconds": 6.5, "cpu_seconds": 3.25}
    assert record.told[0] == (10, "chain", 0)
