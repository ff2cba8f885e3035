"""What a folder was asked to hold: its request, JSON data beside what it made; another request is refused by
name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lattice.errors import InputError
from lattice.files import read_json


def stored_request(folder: Path) -> dict[str, Any] | None:
    """The request in a folder's manifest.json or, of an unfinished one, request.json; None without either."""
    for name in ("manifest.json", "request.json"):
        if (folder / name).exists():
            content = read_json(folder / name)
            found = content.get("request") if name == "manifest.json" else content
            if not isinstance(found, dict):
                raise InputError(f"{folder}: was not made by this command; choose another folder")
            return found
    return None


def refuse_changes(
    folder: Path, found: dict[str, Any] | None, asked: dict[str, Any], what: str = "holds an ensemble",
    advice: str = "; choose another run folder, or remove this one",
) -> None:  # fmt: skip
    """`InputError`, naming each change, where what the folder holds (None: nothing) is not what is asked."""
    if changed := changed_values(found, asked) if found is not None else []:
        raise InputError(f"{folder}: {what} made with other settings: {'; '.join(changed)}{advice}")


def changed_values(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two requests (nested JSON objects), one phrase per value, in the order of keys.

    >>> changed_values({"seed": 1, "ensemble": {"stride": 1}}, {"seed": 1, "ensemble": {"stride": 2, "n": 3}})
    ['ensemble.n was absent, now 3', 'ensemble.stride was 1, now 2']
    """
    # as they are stored: a tuple is then a list
    before, after = (_flat(json.loads(json.dumps(tree))) for tree in (old, new))
    return [
        f"{key} was {before.get(key, 'absent')}, now {after.get(key, 'absent')}"
        for key in sorted({*before, *after})
        if before.get(key, "absent") != after.get(key, "absent")
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
