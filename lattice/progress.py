"""How a long loop reports: bars and lines for people, and a clock that outlives its process.

A loop is given a `Progress` and calls `start(total, label, done)`, `update(n, **info)`, `close()`.
`make_progress` picks what suits the terminal; `Labelled` says which of many points a bar belongs to; `Clock`
keeps the seconds spent in a record on the disk, over all sessions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from lattice.arrays import Integers, batches

CLOCKS = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}


class Progress(Protocol):
    """What a long loop calls."""

    def start(self, total: int, label: str, done: int = 0) -> None:
        """Open a bar of `total` units of work, `done` of them finished by an earlier run."""

    def update(self, n: int = 1, **info: object) -> None:
        """Report `n` more units; `info` (numbers or short strings) is shown beside the rate."""

    def close(self) -> None:
        """End the bar. Calling it twice, or before `start`, does nothing."""


class Silent:
    """A `Progress` that prints nothing."""

    def start(self, total: int, label: str, done: int = 0) -> None: ...

    def update(self, n: int = 1, **info: object) -> None: ...

    def close(self) -> None: ...


class Labelled:
    """A `Progress` that passes everything on to `bar`, `name` before the labels."""

    def __init__(self, bar: Progress, name: str = "") -> None:
        self._bar, self._name = bar, name

    def start(self, total: int, label: str, done: int = 0) -> None:
        self._bar.start(total, f"{self._name} {label}".strip(), done)

    def update(self, n: int = 1, **info: object) -> None:
        self._bar.update(n, **info)

    def close(self) -> None:
        self._bar.close()


class Clock(Labelled):
    """A `Progress` that passes everything on and keeps the seconds of a record running.

    record: of "seconds" (wall clock) and "cpu_seconds" (of this process, all threads) those that it has are
    counted on from their values, over all sessions; `save` puts it on the disk, every `every` seconds and by
    `stop`, so that kill -9 loses few of them.

    >>> record = {"seconds": 10.0}
    >>> Clock(Silent(), record, save=lambda: None).stop()
    >>> record["seconds"] >= 10.0
    True
    """

    def __init__(
        self, bar: Progress, record: dict[str, Any], save: Callable[[], None], every: float = 2.0
    ) -> None:
        super().__init__(bar)
        self._record, self._save, self._every = record, save, every
        self._zero = {name: float(record[name]) - now() for name, now in CLOCKS.items() if name in record}
        self._saved = time.perf_counter()

    def update(self, n: int = 1, **info: object) -> None:
        super().update(n, **info)
        if time.perf_counter() - self._saved >= self._every:
            self.stop()

    def stop(self) -> None:
        """Bring the record up to date and save it."""
        self._record |= {name: round(zero + CLOCKS[name](), 3) for name, zero in self._zero.items()}
        self._save()
        self._saved = time.perf_counter()


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
        self._every, self._open = every, False

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
