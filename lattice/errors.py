"""The one error that a user's input can raise, the one warning, and the name that was perhaps meant."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

LONGEST = 1000
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


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


def shown(value: Any) -> str:
    """repr(value) for a message: of what is long, deep, or contains itself, the beginning and the end.

    >>> shown([4, 4]), shown([0] * 1000)
    ('[4, 4]', '[0, 0, 0, 0, 0, 0, ...]')
    """
    return _SHORT.repr(value)


class InputError(ValueError):
    """Bad input, said in one line fit for the terminal: what was wrong, where, and what would be right.

    Line breaks that a file brought in become spaces, and of more than 1000 characters the middle is left out.

    >>> raise InputError("lam must be >= 0, got -1.0")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: lam must be >= 0, got -1.0
    """

    def __init__(self, text: object) -> None:
        line = " ".join(str(text).splitlines())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        super().__init__(line)


class Notice(UserWarning):
    """What a user should know although the work goes on: one line, shown as `diffsq: warning: ...`."""
