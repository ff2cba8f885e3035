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


def read_weights(path: str | Path, prefix: str = "") -> tuple[dict[str, Floats], dict[str, str]]:
    """The real tensors of a file whose names begin with `prefix`, float64, by name (those inside other tables
    by their path, a.b), and why others of two axes or more are not among them.

    Raises `InputError` for a missing or damaged file, for one that holds code, a whole pickled model, and
    where nothing begins so.

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
    tensors = dict(_flat(_read(path)))
    found, left = dict[str, Floats](), dict[str, str]()
    for name, tensor in tensors.items():
        if not name.startswith(prefix):
            continue
        if tensor.is_floating_point() and tensor.layout == torch.strided:
            found[name] = tensor.detach().to(torch.float64).numpy()
        elif tensor.ndim >= 2:
            kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout)
            left[name] = f"{name}: is of {kind.removeprefix('torch.')}, not of real numbers"
    if not tensors:
        raise InputError(f"{path}: no tensor in it")
    if not found:
        begin = f" whose name begins with {prefix}" if prefix else ""
        raise InputError(f"{path}: no tensor of real numbers{begin}; there are {', '.join(tensors)}")
    return found, left


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
