"""Checkpoints of a training: safetensors files, atomically written, everything needed to resume inside.

One file holds weights, averages and optimizer state and, as metadata, the step and the key of what it belongs
to. Random numbers are counter-based: the step and the seed are their whole state.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from lattice.files import write_atomic

KEEP = 2


def save_checkpoint(folder: Path, step: int, key: str, parts: dict[str, dict[str, Tensor]]) -> None:
    """Write checkpoint-STEP.safetensors with the tensors of `parts`, then drop all but the last two of the
    key."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{part}/{name}": t.detach().cpu().contiguous()
        for part, ts in parts.items()
        for name, t in ts.items()
    }
    about = {"step": str(step), "key": key, "sha256": _digest(tensors)}
    write_atomic(folder / f"checkpoint-{step:08d}.safetensors", save(tensors, about))
    ours = [
        path for path in sorted(folder.glob("checkpoint-*.safetensors")) if _metadata(path).get("key") == key
    ]
    for old in ours[:-KEEP]:
        old.unlink()


def load_checkpoint(folder: Path, key: str) -> tuple[int, dict[str, dict[str, Tensor]]] | None:
    """Step and tensors of the newest sound checkpoint with this key, or None."""
    for path in sorted(folder.glob("checkpoint-*.safetensors"), reverse=True):
        metadata = _metadata(path)
        try:
            tensors = load(path.read_bytes())
        except SafetensorError:
            continue
        if metadata.get("key") != key or metadata.get("sha256") != _digest(tensors):
            continue
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        return int(metadata["step"]), parts
    return None


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _digest(tensors: dict[str, Tensor]) -> str:
    """Hash of named tensors: the file format has no checksum of its own."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def pack_optimizer(state: dict[str, Any]) -> dict[str, Tensor]:
    """Adam's per-parameter state as flat tensors."""
    return {f"{i}/{name}": t for i, entry in state["state"].items() for name, t in entry.items()}


def unpack_optimizer(fresh: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """`fresh.state_dict()` with the packed tensors put back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    return {**fresh, "state": state}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a metrics file; a torn last line is dropped."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
