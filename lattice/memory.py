"""How much memory this machine has for us, and the refusal of what cannot fit."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from lattice.errors import InputError

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory() -> int:
    """Bytes of main memory, or less where a container or a limit of the process (ulimit -v) allows less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # none here, or "max"
            continue
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(found if limit == resource.RLIM_INFINITY else [*found, limit])


def require_memory(needed: float, what: str, advice: str) -> None:
    """`InputError` where `what` needs more bytes than `machine_memory`; `advice`: what would do."""
    if needed > (have := machine_memory()):
        sizes = f"about {needed / 1e9:.3g} GB of memory, this machine has {have / 1e9:.3g} GB"
        raise InputError(f"{what} needs {sizes}: {advice}")
