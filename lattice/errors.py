"""The one error that a user's input can raise, the one warning, and the name that was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(
    name: str, known: Iterable[str], words: str = " (did you mean {!r}?)", cutoff: float = 0.6
) -> str:
    """`words` with the known name most like `name` in them; "" where none is near (similarity >= cutoff).

    >>> nearest("kapa", ["kappa", "lam"]), nearest("seed", ["kappa", "lam"])
    (" (did you mean 'kappa'?)", '')
    >>> nearest("kapa", ["kappa", "lam"], "; did you mean action.{}?"), nearest("kapa", ["kappa"], "{}")
    ('; did you mean action.kappa?', 'kappa')
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return words.format(close[0]) if close else ""


class InputError(ValueError):
    """Bad input, said in one line fit for the terminal: what was wrong, where, and what would be right.

    >>> raise InputError("lam must be >= 0, got -1.0")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: lam must be >= 0, got -1.0
    """


class Notice(UserWarning):
    """What a user should know although the work goes on: one line, shown as `diffsq: warning: ...`."""
