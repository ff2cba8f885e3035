"""The environments of a torchrun."""

from __future__ import annotations

import socket


def team(size: int) -> list[dict[str, str]]:
    """What torchrun puts into the environments of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    return [{**common, "RANK": str(rank)} for rank in range(size)]
