"""Public names that load the module they live in when first asked for (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str], wings: tuple[str, ...] = ()) -> Callable[[str], Any]:
    """The `__getattr__` of `package`: `homes` maps modules to the public names in them, separated by spaces.

    wings: subpackages that are loaded when asked for, too.

    >>> lazy("lattice", {"lattice.errors": "InputError"})("InputError").__name__
    'InputError'
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name in home_of:
            value = getattr(import_module(home_of[name]), name)
        elif name in wings:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return load
