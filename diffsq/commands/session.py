"""What the commands share: device, threads, config and ensemble read, words for a person."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lattice.errors import InputError, Notice

if TYPE_CHECKING:
    from diffsq.config.config import Config
    from lattice.ensembles.ensemble import Ensemble


def pick_device(name: str) -> str:
    """The torch device to use, under torchrun one for each process; `InputError` when it is not there.

    >>> pick_device("cpu")
    'cpu'
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and os.environ.get("LOCAL_RANK", "").isdigit() and torch.cuda.device_count():
        name = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device must be cpu, cuda, cuda:N or auto, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu, cuda, cuda:N or auto, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"--device {name}: PyTorch sees {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return name


def load(args: argparse.Namespace) -> Config:
    stray = [text for text in args.set if "=" not in text]
    if stray:
        raise InputError(f"--set takes KEY=VALUE, got {stray[0]!r} (a config file goes before --set)")
    from diffsq.config.config import load_config

    return load_config(args.config, args.set)


def limit_threads(n: int | None) -> None:
    if n is None:
        return
    if n < 1:
        raise InputError(f"--threads must be at least 1, got {n}")
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # read when torch and numba are imported, later
        os.environ[name] = str(n)
    import torch

    torch.set_num_threads(n)


def read(path: Path) -> Ensemble:
    """The ensemble at a path. Raises `InputError` where there is none, of a run folder naming those in it."""
    from lattice.ensembles.ensemble import read_ensemble
    from lattice.ensembles.manifest import few, in_order

    if (path / "stages.json").exists():
        from diffsq.run_folder.records import read_records

        read_records(path)
        grid = [str(each.parent) for each in path.glob("ensemble/*/manifest.json")]  # of spins
        found = sorted(grid, key=in_order) or [f"{path / 'ensemble'}"]
        found += sorted(str(each.parent) for each in path.glob("samples/*/manifest.json"))
        raise InputError(f"{path} is a run folder; name one of its ensembles: {few(found)}")
    return read_ensemble(path)


def print_plan(config: Config, folder: Path, plan: dict[str, str], files: Sequence[str] = ()) -> None:
    from diffsq.config.config import resolved_yaml

    print(f"{resolved_yaml(config)}\n# would do, in {folder}:")
    for line in files:
        print(f"#   {line}")
    for stage, action in plan.items():
        print(f"#   {stage:<9} {action}")


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def words(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, InputError):
        place = f" ({error.filename})" if error.filename else ""
        if error.errno == errno.ENOSPC:
            return f"no space left on the disk{place}; make some, then the same command continues"
        return f"{error.strerror or error}{place}"
    if isinstance(error, MemoryError):
        return "not enough memory; a smaller lattice, batch or ensemble is needed"
    return str(error)


def say_error(text: str, code: int) -> int:
    print(f"diffsq: error: {' '.join(text.split())}", file=sys.stderr)
    return code


@contextlib.contextmanager
def plain_notices() -> Iterator[None]:
    """A Notice of the packages as one line on standard error; other warnings as Python shows them."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                to_stderr(f"diffsq: warning: {message}")
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield
