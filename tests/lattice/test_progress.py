"""Progress for people, and the clock that goes on where an earlier process stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from lattice import progress
from lattice.files import read_json, write_json
from lattice.progress import Clock, Labelled, PlainLines, Silent, make_progress


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


def test_lines_name_their_point() -> None:
    stream = io.StringIO()
    bar = Labelled(PlainLines(stream, every=0.0), "[1/3] L8")
    bar.start(4, "thermalise", done=1)
    bar.update(2, acceptance=0.81234)
    bar.close()
    bar.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("[1/3] L8 thermalise: 3/4, ")
    assert lines[0].endswith(", acceptance=0.8123")
    assert len(lines) == 2


def test_a_pipe_gets_lines_and_quiet_gets_nothing() -> None:
    assert isinstance(make_progress(stream=io.StringIO()), PlainLines)
    assert isinstance(make_progress(quiet=True), Silent)
