"""Weights of anybody's model: tensors by name from safetensors or a PyTorch state dict; code is never run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from lattice.arrays import Floats
from lattice.errors import InputError


def read_weights(path: str | Path) -> dict[str, Floats]:
    """The floating-point tensors of a file, float64, by name; those inside other tables by their path, a.b.

    Raises `InputError` for a missing or damaged file, and for one that holds code: a whole pickled model.

    >>> read_weights("nothing.pt")
    Traceback (most recent call last):
    ...
    lattice.errors.InputError: nothing.pt: no such file
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file" if not path.is_dir() else f"{path}: a folder; name a file in it"
        )
    found = {
        name: tensor.detach().to(torch.float64).numpy()
        for name, tensor in _flat(_read(path))
        if tensor.is_floating_point()
    }
    if not found:
        raise InputError(f"{path}: no floating-point tensor in it")
    return found


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise InputError(f"{path}: not a sound safetensors file: {error}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise InputError(f"{path}: neither a state dict of PyTorch nor safetensors") from None
        raise InputError(
            f"{path}: holds code, {named[1]}, which is not run; save model.state_dict(), or safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a state dict of PyTorch: {reason}") from None


def _flat(content: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield name or "weights", content
    elif isinstance(content, Mapping | list | tuple):
        pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in pairs:
            yield from _flat(value, f"{name}.{key}" if name else str(key))
