"""Arrays that belong together: one for each configuration (or chain), with numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names as numbers.

    >>> sorted(["cfg_10", "cfg_2"], key=natural)
    ['cfg_2', 'cfg_10']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def family_of(members: Mapping[str, T], within: str | None = None) -> list[str]:
    """The largest group of two or more names that differ in their numbers only and whose values (shapes and
    types) are equal, in natural order; `within`: a group of the file that they lie in. [] if there is none.

    >>> family_of({"cfg_2": 8, "cfg_10": 8, "cfg_1": 8, "beta": 8, "cfg_old": 8})
    ['cfg_1', 'cfg_2', 'cfg_10']
    """
    found: dict[tuple[str, T], list[str]] = {}
    prefix = "" if within is None else within.strip("/")
    for name, value in members.items():
        if (not prefix or name.startswith(f"{prefix}/")) and (key := _pattern(name)) != name:
            found.setdefault((key, value), []).append(name)
    largest: list[str] = max(found.values(), key=len, default=[])
    return sorted(largest, key=natural) if len(largest) > 1 else []


def spoken(names: list[str]) -> str:
    """A family in a few words: its number and its ends."""
    return f"{len(names)} arrays {names[0]} ... {names[-1]}"


def others(names: Iterable[str], family: list[str]) -> list[str]:
    """Names of the family's pattern that are not in it: of another shape or type."""
    members, pattern = set(family), _pattern(family[0])
    return sorted((name for name in names if name not in members and _pattern(name) == pattern), key=natural)


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)
