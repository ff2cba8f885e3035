"""Work that ends by SIGKILL at a chosen point, in a process of its own.

The kill comes from the progress of the work itself, at the COUNT-th update under LABEL, so that no test
depends on timing. COUNT 0 kills at the start of that loop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from children import child

import lattice.progress
from diffsq.commands.main import main


class Killer(lattice.progress.Silent):
    """A Progress that kills its process."""

    def __init__(self, label: str, count: int) -> None:
        self.wanted, self.count, self.label = label, count, ""

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.label = label
        self._check()

    def update(self, n: int = 1, **info: object) -> None:
        if self.label == self.wanted:
            self.count -= 1
        self._check()

    def _check(self) -> None:
        if self.label == self.wanted and self.count <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        self.label = ""


def killed(label: str, count: int, function: Callable[..., object], *args: Any, **options: Any) -> None:
    """function(*args, progress=Killer(label, count), **options) in a child, which must die of it."""
    done = child(function, *args, progress=Killer(label, count), **options)
    assert done.returncode == -signal.SIGKILL, done


def killed_before(name: str, function: Callable[..., object], *args: Any) -> None:
    """function(*args) in a child, which must die when it would put a file called `name` in its place."""
    done = child(_until, name, function, *args)
    assert done.returncode == -signal.SIGKILL, done


def _until(name: str, function: Callable[..., object], *args: Any) -> None:
    replace = os.replace

    def killing(a: Any, b: Any) -> None:
        if Path(b).name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(a, b)

    os.replace = killing
    function(*args)


def killed_at(name: str, count: int, function: Callable[..., object], *args: Any, **options: Any) -> None:
    """function(*args, **options) in a child, which must die at its count-th call of os.NAME, before that."""
    done = child(_counted, name, count, function, *args, **options)
    assert done.returncode == -signal.SIGKILL, done


def _counted(name: str, count: int, function: Callable[..., object], *args: Any, **options: Any) -> None:
    genuine, left = getattr(os, name), [count]

    def killing(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return genuine(*args, **options)

    setattr(os, name, killing)
    function(*args, **options)


def killed_command(label: str, count: int, words: Sequence[str]) -> None:
    """The command `diffsq words` in a child, which must die at the count-th update under `label`."""
    done = child(_command, Killer(label, count), list(words))
    assert done.returncode == -signal.SIGKILL, done


def _command(killer: Killer, words: list[str]) -> int:
    lattice.progress.make_progress = lambda quiet=False, stream=None: killer
    return main(words)
