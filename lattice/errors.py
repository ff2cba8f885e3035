"""The one error that a user's input can raise."""

from __future__ import annotations

import difflib
from typing import Any


def nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class InputError(ValueError):
    """Bad input, said in one line fit for the terminal: what was wrong, where, and what would be right.

    >>> raise InputError("lam must be >= 0, got -1.0")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: lam must be >= 0, got -1.0
    """
