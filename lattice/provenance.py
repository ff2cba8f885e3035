"""Which code wrote a file: versions and commit, and nothing that names a machine."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any


@functools.cache
def code_version() -> dict[str, Any]:
    """Version of this package, git commit and dirty flag when run from a checkout, versions underneath."""
    versions = {name: _installed(name) for name in ("numpy", "torch", "numba", "h5py")}
    packages = {"python": platform.python_version(), **versions}
    return {"diffsq": _installed("diffsq"), **_git_state(), "packages": packages}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_state() -> dict[str, Any]:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {"git": None, "dirty": None}

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return {
            "git": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {"git": None, "dirty": None}
