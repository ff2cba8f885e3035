"""The manifest.json of an ensemble folder, written last: a folder that has one is complete.

    {"schema", "stage_key", "action", "shape", "n", "shards": [{"name", "n", "sha256"}], "identity",
     "certificate", "complete", "created", "code", ...}

`identity` is the sha256 of the ordered shard hashes: equal identity, equal fields. "attrs" is what is known
of the whole ensemble (a shard knows what it was made with). `FILES` are the names in a folder that are ours.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

from lattice.actions.kinds import KINDS, action_from_dict
from lattice.actions.protocol import Action
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, sha256_text
from lattice.provenance import code_version

MANIFEST_SCHEMA = "diffsq-manifest/1"
FILES = re.compile(r"shard-\d{4,9}\.h5|(manifest|request|certificate|steps)\.json|therm\.h5")
_SHARD_NAME = re.compile(r"shard-\d{4,9}\.h5")


def new_manifest(
    action: Action, shape: tuple[int, ...], key: str, shards: list[dict[str, Any]], extras: dict[str, Any]
) -> dict[str, Any]:
    """The manifest of a complete ensemble of `shards`, each {"name", "n", "sha256"}; `extras` win."""
    return {
        "schema": MANIFEST_SCHEMA,
        "stage_key": key,
        "action": action.as_dict(),
        "shape": list(shape),
        "n": sum(record["n"] for record in shards),
        "shards": shards,
        "identity": shards_identity([record["sha256"] for record in shards]),
        "certificate": None,
        "complete": True,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        **extras,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished ensemble folder. Raises InputError when missing, unfinished or malformed."""
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.exists():
        raise InputError(f"{folder}: {_why_no_manifest(folder)}")
    manifest = read_json(path)
    if manifest.get("schema") != MANIFEST_SCHEMA:
        raise InputError(f"{path}: schema is {manifest.get('schema')!r}, expected {MANIFEST_SCHEMA!r}")
    shards = manifest.get("shards")
    if not manifest.get("complete") or not isinstance(shards, list) or not shards:
        raise InputError(f"{path}: the ensemble is not complete; run the command that makes it again")
    for record in shards:
        name, digest, n = (
            (record.get(key) for key in ("name", "sha256", "n"))
            if isinstance(record, dict)
            else (None, None, None)
        )
        known = isinstance(name, str) and _SHARD_NAME.fullmatch(name) and isinstance(digest, str)
        if not (known and isinstance(n, int) and n > 0):
            raise InputError(f"{path}: malformed list of shards")
    if not isinstance(manifest.get("attrs", {}), dict):
        raise InputError(f"{path}: malformed attrs")
    return manifest


def refuse_foreign(folder: Path, names: re.Pattern[str] = FILES) -> None:
    """`InputError` where a folder that holds no ensemble of ours has a file of the names that one has."""
    folder = Path(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if names.fullmatch(path.name):
            raise InputError(
                f"{path}: is there already and not of this ensemble; choose another folder, or move it"
            )


def remove_ensemble(folder: Path) -> None:
    """Remove the files of an ensemble, its manifest first, and the folder if nothing else is in it."""
    folder = Path(folder)
    ours = [path for path in folder.iterdir() if FILES.fullmatch(path.name)]
    for path in sorted(ours, key=lambda path: path.name != "manifest.json"):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def shards_identity(hashes: list[str]) -> str:
    """The identity of an ensemble: sha256 over its ordered shard hashes."""
    return sha256_text("\n".join(hashes))


def action_of(found: Any, path: Path, expected: Action | None) -> Action:
    """The action stored in `path`, the expected one if given; `InputError` when it is malformed, another, or
    not one of lattice's own kinds and not given."""
    if not isinstance(found, dict):
        raise InputError(f"{path}: the action is missing")
    if expected is not None:
        have, want = canonical_json(found), canonical_json(expected.as_dict())
        if have != want:
            raise InputError(f"{path}: action is {have}, expected {want}")
        return expected
    if (kind := found.get("kind", "phi4")) not in KINDS:
        raise InputError(
            f"{path}: its action, of kind {kind!r}, is none of lattice's own ({', '.join(KINDS)}): read it "
            "with its action, read_ensemble(path, action)"
        )
    try:
        return action_from_dict(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def in_order(name: str) -> list[Any]:
    """A key to sort names by, in which T2 comes before T10.

    >>> sorted(["T10", "T2.5", "T2"], key=in_order)
    ['T2', 'T2.5', 'T10']
    """
    parts = re.split(r"(\d+\.?\d*)", name)
    return [float(part) if i % 2 else part for i, part in enumerate(parts)]


def few(names: list[str]) -> str:
    """The first six of names, and how many more there are."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _why_no_manifest(folder: Path) -> str:
    if any(folder.glob("shard-*.h5")):
        return "this ensemble is not finished; run the command that makes it again, it will resume"
    found = [*folder.glob("*/manifest.json"), *folder.glob("*/*/manifest.json")]
    if found:
        kind = "run folder" if (folder / "ensemble").exists() else "folder of ensembles"
        names = sorted((str(path.parent) for path in found), key=in_order)
        return f"this is a {kind}; name one ensemble in it: {few(names)}"
    return "no ensemble here (no manifest.json)"
