"""The one error that a user's input can raise."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input, said in one line fit for the terminal: what was wrong, where, and what would be right.

    >>> raise InputError("lam must be >= 0, got -1.0")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: lam must be >= 0, got -1.0
    """
