"""Which random numbers a run draws: the key (seed, stream, index, step) of every call, counted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import lattice.rng
import lattice.updates.batch

Call = tuple[int, str, int]  # seed, stream, step


class Keys:
    """Keys drawn so far; `repeated` those drawn twice and more, by stream."""

    def __init__(self) -> None:
        self.drawn: dict[Call, Counter[int]] = {}

    def add(self, seed: int, stream: str, index: Any, step: int) -> None:
        """One call; the last group of a batch is filled up with copies of one chain, which count once."""
        self.drawn.setdefault((int(seed), stream, int(step)), Counter()).update(np.unique(index).tolist())

    @property
    def repeated(self) -> dict[str, int]:
        """Stream -> how many of its keys were drawn more than once."""
        found: Counter[str] = Counter()
        for (_, stream, _), counts in self.drawn.items():
            found[stream] += sum(1 for n in counts.values() if n > 1)
        return {stream: n for stream, n in found.items() if n}

    @property
    def streams(self) -> set[str]:
        return {stream for _, stream, _ in self.drawn}


@contextmanager
def recorded() -> Iterator[Keys]:
    """Record what `lattice.rng` draws in Python, and what the compiled updates are keyed with."""
    keys, numbers, check = Keys(), lattice.rng._numbers, lattice.updates.batch.check_counters

    def drawn(seed: int, stream: str, index: Any, step: int, size: int, gaussian: bool) -> Any:
        keys.add(seed, stream, index, step)
        return numbers(seed, stream, index, step, size, gaussian)

    def checked(seed: int, index: Any, step: int) -> Any:
        keys.add(seed, f"update {_update()}", index, step)
        return check(seed, index, step)

    lattice.rng._numbers, lattice.updates.batch.check_counters = drawn, checked
    try:
        yield keys
    finally:
        lattice.rng._numbers, lattice.updates.batch.check_counters = numbers, check


def _update() -> str:
    """The outermost function of `lattice.updates` on the stack."""
    frame, name = sys._getframe(2), ""
    while frame.f_back is not None:
        if str(frame.f_globals["__name__"]).startswith("lattice.updates"):
            name = frame.f_code.co_name
        frame = frame.f_back
    return name
