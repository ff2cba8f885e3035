"""`Progress` for the points of a scan: bars that name their point, and a clock that outlives its process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TextIO

from tqdm import tqdm

from lattice.arrays import Integers, batches
from lattice.files import read_json, write_json

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


class Progress(Protocol):
    """What a long loop calls: `start(total, label, done)`, `update(n, **info)` as work is done, `close()`."""

    def start(self, total: int, label: str, done: int = 0) -> None:
        """Open a bar of `total` units of work, `done` of them finished by an earlier run."""

    def update(self, n: int = 1, **info: object) -> None:
        """Report `n` more units; `info` (numbers or short strings) is shown beside the rate."""

    def close(self) -> None:
        """End the bar. Calling it twice, or before `start`, does nothing."""


class Silent:
    """A `Progress` that prints nothing."""

    def start(self, total: int, label: str, done: int = 0) -> None:
        """Do nothing."""

    def update(self, n: int = 1, **info: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TerminalBar:
    """A tqdm bar: label, percentage, done/total, elapsed < remaining, rate, and the latest `info`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._bar: tqdm[None] | None = None

    def start(self, total: int, label: str, done: int = 0) -> None:
        """Open the bar; a bar still open is closed first."""
        self.close()
        self._bar = tqdm(
            total=total, initial=done, desc=label, file=self._stream, dynamic_ncols=True, smoothing=0.1
        )

    def update(self, n: int = 1, **info: object) -> None:
        """Advance by `n` and show `info`."""
        if self._bar is None:
            return
        if info:
            self._bar.set_postfix_str(_info_text(info), refresh=False)
        self._bar.update(n)

    def close(self) -> None:
        """Close the bar and leave its last state on the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class PlainLines:
    """One line every `every` seconds and one at the end: for log files, pipes and batch jobs."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._every = every
        self._open = False

    def start(self, total: int, label: str, done: int = 0) -> None:
        """Begin a new stretch of work; nothing is printed yet."""
        self.close()
        self._total, self._label, self._done, self._first = total, label, done, done
        self._begun = self._told = time.monotonic()
        self._info: dict[str, object] = {}
        self._open = True

    def update(self, n: int = 1, **info: object) -> None:
        """Count `n` more units and print a line when the last one is old enough."""
        if not self._open:
            return
        self._done += n
        self._info.update(info)
        if time.monotonic() - self._told >= self._every:
            self._line()

    def close(self) -> None:
        """Print the last line."""
        if self._open:
            self._line()
            self._open = False

    def _line(self) -> None:
        self._told = time.monotonic()
        elapsed = self._told - self._begun
        rate = (self._done - self._first) / elapsed if elapsed > 0 else 0.0
        left = (self._total - self._done) / rate if rate > 0 else float("nan")
        eta = f"{tqdm.format_interval(left)} left" if left == left else "ETA unknown"
        spent = tqdm.format_interval(elapsed)
        text = f"{self._label}: {self._done}/{self._total}, {spent} elapsed, {eta}, {rate:.4g}/s"
        info = _info_text(self._info)
        print(f"{text}, {info}" if info else text, file=self._stream, flush=True)


def make_progress(quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """The reporter that suits `stream` (default standard error): a bar, plain lines, or silence."""
    if quiet:
        return Silent()
    stream = stream if stream is not None else sys.stderr
    return TerminalBar(stream) if stream.isatty() else PlainLines(stream)


def counted(progress: Progress, n: int, size: int, label: str) -> Iterator[Integers]:
    """Row numbers 0 ... n - 1, at most `size` at a time, under a bar that counts them."""
    progress.start(n, label)
    for rows in batches(n, size):
        yield rows
        progress.update(len(rows))
    progress.close()


def _info_text(info: dict[str, object]) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in info.items()
    )
