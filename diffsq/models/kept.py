"""What was measured once is kept: named tensors in a folder, with the key of all that they depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lattice.errors import InputError
from lattice.files import read_json, sha256_file, write_atomic, write_json

Tensors = dict[str, Tensor]


def kept(folder: Path, name: str, key: str, make: Callable[[], Tensors]) -> Tensors:
    """The tensors `name` of a folder if they are there, sound and of this key; else made, and kept there."""
    try:
        return read_tensors(folder, name, key)
    except InputError:  # none yet, damaged, or of another computation
        tensors = make()
        write_tensors(folder, name, key, tensors)
        return tensors


def forget(folder: Path) -> None:
    """Remove what `kept` keeps in a folder, and the folder if nothing else is in it."""
    for about in sorted(folder.glob("*.json")):
        for path in (about.with_suffix(".safetensors"), about):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def write_tensors(folder: Path, name: str, key: str, tensors: Tensors) -> None:
    """Write NAME.safetensors and, last, NAME.json with its hash and the `key` of the computation."""
    path = folder / f"{name}.safetensors"
    write_atomic(path, save({label: t.detach().cpu().contiguous() for label, t in tensors.items()}))
    write_json(folder / f"{name}.json", {"key": key, "sha256": sha256_file(path)})


def read_tensors(folder: Path, name: str, key: str | None = None) -> Tensors:
    """As written. Raises `InputError` when there are none, they are damaged, or have another key."""
    path, about_path = folder / f"{name}.safetensors", folder / f"{name}.json"
    if not path.is_file() or not about_path.is_file():
        raise InputError(f"{path}: missing, or not finished")
    about = read_json(about_path)
    if about.get("sha256") != sha256_file(path):
        raise InputError(f"{path}: changed since it was written (sha256 is not that of {about_path.name})")
    if key is not None and about.get("key") != key:
        raise InputError(f"{path}: made with other settings")
    try:
        return load(path.read_bytes())
    except (SafetensorError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a file of tensors: {reason}") from None
