"""What a folder was asked to hold: its request, JSON data beside what it made; another request is refused by
name."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    advice: str = "; choose another run folder, or remove this one", grows: Sequence[str] = (),
) -> None:  # fmt: skip
    """`InputError`, naming each change, where what the folder holds (None: nothing) is not what is asked.

    grows: dotted keys of numbers that may be larger than they were: what is there is then gone on from.
    """
    if found is None or not (changed := refused_changes(found, asked, grows)):
        return
    if fewer := shortened(found, asked, grows):
        advice = f": it holds more than that; ask for {fewer} or more, or choose another folder"
    raise InputError(f"{folder}: {what} made with other settings: {'; '.join(changed)}{advice}")


def refused_changes(found: dict[str, Any], asked: dict[str, Any], grows: Sequence[str]) -> list[str]:
    """`changed_values`, none where nothing but numbers of `grows` became larger.

    >>> refused_changes({"n": 64}, {"n": 128}, ["n"]), refused_changes({"n": 64}, {"n": 32}, ["n"])
    ([], ['n was 64, now 32'])
    """
    differ = _differences(found, asked)
    larger = all(key in grows and _number(a) and _number(b) and b > a for key, (a, b) in differ.items())
    return [] if larger else [f"{key} was {a}, now {b}" for key, (a, b) in differ.items()]


def shortened(found: dict[str, Any], asked: dict[str, Any], grows: Sequence[str]) -> str:
    """Where the only fault is that numbers of `grows` became smaller, what they were; else nothing.

    >>> shortened({"n": 64, "seed": 1}, {"n": 32, "seed": 1}, ["n"])
    'n=64'
    """
    differ = _differences(found, asked)
    if any(key not in grows for key in differ):
        return ""
    return ", ".join(f"{key}={a}" for key, (a, b) in differ.items() if _number(a) and _number(b) and b < a)


def changed_values(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two requests (nested JSON objects), one phrase per value, in the order of keys.

    >>> changed_values({"seed": 1, "ensemble": {"stride": 1}}, {"seed": 1, "ensemble": {"stride": 2, "n": 3}})
    ['ensemble.n was absent, now 3', 'ensemble.stride was 1, now 2']
    """
    return refused_changes(old, new, ())


def without(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A request without some of its values, named by dotted keys: what a longer ensemble has in common.

    >>> without({"seed": 1, "ensemble": {"n": 3, "stride": 1}}, ["ensemble.n"])
    {'seed': 1, 'ensemble': {'stride': 1}}
    """
    inside = {key.partition(".")[0]: [k.partition(".")[2] for k in keys] for key in keys if "." in key}
    return {
        key: without(value, inside[key]) if key in inside else value
        for key, value in tree.items()
        if key not in keys
    }


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    # as they are stored: a tuple is then a list
    before, after = (_flat(json.loads(json.dumps(tree))) for tree in (old, new))
    pairs = {key: (before.get(key, "absent"), after.get(key, "absent")) for key in sorted({*before, *after})}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
