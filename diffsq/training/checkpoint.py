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
    write_atomic(folder / _name(step), _ordered(save(tensors, about)))
    drop_old(folder, key)


def drop_old(folder: Path, key: str) -> None:
    """Remove all checkpoints of this key but the last two; a kill may have come between a save and this."""
    paths = sorted(folder.glob("checkpoint-*.safetensors"))
    for old in [path for path in paths if _metadata(path).get("key") == key][:-KEEP]:
        old.unlink()


def load_checkpoint(folder: Path, key: str) -> tuple[int, dict[str, dict[str, Tensor]]] | None:
    """Step and tensors of the newest sound checkpoint with this key, or None."""
    for path in sorted(folder.glob("checkpoint-*.safetensors"), reverse=True):
        metadata = _metadata(path)
        try:
            tensors = load(path.read_bytes())
            sound = metadata.get("key") == key and metadata.get("sha256") == _digest(tensors)
            sound = sound and path.name == _name(step := int(metadata["step"]))
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError):
            continue  # damaged: an older one, or the first step, gives the same bits
        if not sound:
            continue
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        return step, parts
    return None


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _name(step: int) -> str:
    return f"checkpoint-{step:08d}.safetensors"


def _ordered(image: bytes) -> bytes:
    """The same file with its metadata sorted: the library writes them in an order of chance."""
    size = int.from_bytes(image[:8], "little")
    header = json.loads(image[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    return len(text).to_bytes(8, "little") + text + image[8 + size :]


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
    """The JSON lines of a metrics file, each with its `step`, up to the first that a kill has torn."""
    lines = []
    for text in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines
