"""`Progress` for the points of a scan: bars that name their point, and a clock that outlives its process."""

from __future__ import annotations

import time
from pathlib import Path

from lattice.files import read_json, write_json
from lattice.progress import Progress

_SAVE_EVERY = 2.0  # seconds between two writes of the clock


class Labelled:
    """A `Progress` whose bars say which point they belong to."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar, self._name = bar, name

    def start(self, total: int, label: str, done: int = 0) -> None:
        self._bar.start(total, f"{self._name} {label}", done)

    def update(self, n: int = 1, **info: object) -> None:
        self._bar.update(n, **info)

    def close(self) -> None:
        self._bar.close()


class Clock:
    """A `Progress` that passes everything on and keeps wall-clock and processor seconds in a file, so that
    they survive kill -9 and add up over the sessions of a point."""

    def __init__(self, bar: Progress, path: Path) -> None:
        before = read_json(path) if path.exists() else {}
        self._bar, self._path = bar, path
        self._before = tuple(float(before.get(key) or 0.0) for key in ("seconds", "cpu_seconds"))
        self._begun = (time.perf_counter(), time.process_time())
        self._saved = self._begun[0]
        self.seconds, self.cpu_seconds = self._before

    def start(self, total: int, label: str, done: int = 0) -> None:
        self._bar.start(total, label, done)

    def update(self, n: int = 1, **info: object) -> None:
        self._bar.update(n, **info)
        if time.perf_counter() - self._saved >= _SAVE_EVERY:
            self.stop()

    def close(self) -> None:
        self._bar.close()

    def stop(self) -> None:
        self._saved = time.perf_counter()
        self.seconds = round(self._before[0] + self._saved - self._begun[0], 3)
        self.cpu_seconds = round(self._before[1] + time.process_time() - self._begun[1], 3)
        write_json(self._path, {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds})
