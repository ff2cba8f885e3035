"""A run that ends by SIGKILL at a chosen point: `python killer.py LABEL COUNT diffsq-arguments...`.

The kill comes from the progress of the stage itself, at the COUNT-th update under LABEL, so that no test
depends on timing. COUNT 0 kills at the start of that loop.
"""

from __future__ import annotations

import os
import signal
import sys


class Killer:
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


if __name__ == "__main__":
    import torch

    import lattice.progress
    from diffsq.commands.main import main

    torch.set_num_threads(1)
    killer = Killer(sys.argv[1], int(sys.argv[2]))
    lattice.progress.make_progress = lambda quiet=False: killer  # type: ignore[assignment]
    sys.exit(main(sys.argv[3:]))
