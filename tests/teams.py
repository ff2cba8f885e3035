"""The environments of a torchrun."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path


def team(size: int) -> list[dict[str, str]]:
    """What torchrun puts into the environments of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    return [{**common, "RANK": str(rank)} for rank in range(size)]


def words(run: Path, command: str) -> list[str]:
    """A command on the config small.yaml beside the run folder."""
    config = str(run.parent / "small.yaml")
    return [command, config, "--quiet", "--device", "cpu", "--accept-uncertified", "--run", str(run)]


def without(made: Path, folder: Path, stage: str, place: str) -> Path:
    """A copy of the finished run before a stage, and its config beside it."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(made, folder / "run")
    shutil.copy(made.parent / "small.yaml", folder)
    shutil.rmtree(folder / "run" / place)
    path = folder / "run/stages.json"
    records = json.loads(path.read_text())
    del records[stage]
    path.write_text(json.dumps(records))
    return folder / "run"
