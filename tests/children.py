"""Work in a process of its own, forked from a server that holds torch and the packages: it starts at once.

A fresh interpreter spends three seconds importing. The server is single-threaded and imports only, so its
forks are as good as new processes; they may be killed, or given the environment of a torchrun.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["torch.distributed", "matplotlib.figure", "lattice.simulation.monte_carlo", "diffsq.training.lattice",
     "diffsq.sampling.lattice_sets", "diffsq.run_folder.chain", "diffsq.report.page"]
)  # fmt: skip
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Done:
    """How a process ended, as subprocess tells it: -9 is SIGKILL."""

    returncode: int | None
    stdout: str
    stderr: str


def child(function: Callable[..., object], *args: Any, **options: Any) -> Done:
    """function(*args, **options) in a process; the function and what it is given must be importable."""
    return children([{}], function, *args, **options)[0]


def children(
    environments: list[Mapping[str, str]], function: Callable[..., object], *args: Any, **options: Any
) -> list[Done]:
    """The same call in as many processes at once, each with variables of its own in its environment."""
    with tempfile.TemporaryDirectory() as folder:
        started = [(Path(folder) / str(i), environment) for i, environment in enumerate(environments)]
        processes: list[ForkServerProcess] = []
        for out, environment in started:
            work = (str(out), {**_ONE_THREAD, **environment}, function, args, options)
            processes.append(_SERVER.Process(target=_work, args=work))
            processes[-1].start()
        for process in processes:
            process.join(timeout=300)
            if process.exitcode is None:
                process.kill()
        return [
            Done(process.exitcode, *((out.with_suffix(end).read_text()) for end in (".out", ".err")))
            for process, (out, _) in zip(processes, started)
        ]  # fmt: skip


def _work(
    out: str, environment: dict[str, str], function: Callable[..., object], args: Any, options: Any
) -> None:
    for number, end in ((1, ".out"), (2, ".err")):
        file = os.open(out + end, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    code = function(*args, **options)
    sys.exit(code if isinstance(code, int) else 0)
