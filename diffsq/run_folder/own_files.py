"""Which files of a run folder are diffsq's: what may be removed or replaced, and what is somebody else's.

A finished stage has recorded its files with their hashes; those of a begun one are known by their names, for
none of them was there when it began (`refuse_foreign`). A recorded file that has changed is never removed: it
is set aside, as NAME.changed-1. All else in the folder is the user's, and stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsq.config.names import CHECK_NAMES
from diffsq.sampling.folder import FILES as SAMPLES
from diffsq.training.train import FILES as MODEL
from lattice.ensembles.manifest import FILES as ENSEMBLE
from lattice.errors import InputError
from lattice.files import set_aside, sha256_file

FOLDER = {"ensemble": "ensemble", "train": "train", "sample": "samples"}
PRODUCT = {"measure": "summary.json", "report": "report.html"}
Records = dict[str, Any]
_ROW = r"(pairs|students|text|shuffled|flow)-\d+(-\d+)?|thermometer|family"  # of runs that watch training
_POINT = r"(T[\d.e+-]+(_h[\d.e+-]+)?|L\d+_kappa[\d.e+-]+_lam[\d.e+-]+)/"  # of a grid
_KEPT = (
    rf"checks/(kernels/kernel[-\w]*\.(json|safetensors)|gibbs/({ENSEMBLE.pattern})"
    rf"|criticality/{_POINT[:-1]}\.json|freezing/L\d+_beta[\d.e+-]+\.json|published/(euler|pc|heun)-\d+/({SAMPLES.pattern}))"
)
_NAMES = {
    "ensemble": rf"ensemble/({_POINT})?({ENSEMBLE.pattern}|data\.npy)",
    "train": rf"train/(closed|score|torus|energy|rbm|part-\d+|{_ROW})/(network/)?({MODEL.pattern})"
    rf"|train/family/parts/(one|both)-{_POINT[:-1]}\.(json|safetensors)",
    "sample": rf"samples/((closed|score|torus|energy)-(ve|vp)|rbm-exact|metropolis)/(half/)?"
    rf"({SAMPLES.pattern})",
    "measure": rf"summary\.json|checks/({'|'.join(CHECK_NAMES)})\.(json|png)|{_KEPT}",
    "report": r"report\.html|overview\.png",
}
_LEFTOVER = re.compile(r"(.*/)?\.(?P<name>[^/]+)\.\d+\.diffsq\.tmp")  # of lattice.files.replacing


@dataclass
class Removal:
    """What `discard` does, paths relative to the run folder: remove, set aside (changed), keep (not ours)."""

    remove: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The same in words."""
        return [
            *(f"remove {name}" for name in self.remove),
            *(f"set aside {name} (changed since it was written)" for name in self.aside),
            *(f"keep {name} (not recorded)" for name in self.keep),
        ]


def own_name(stage: str, name: str) -> bool:
    """Whether a stage makes a file of this name, relative to the run folder; a temporary one of it counts.

    >>> own_name("ensemble", "ensemble/shard-0000.h5"), own_name("ensemble", "ensemble/notes.txt")
    (True, False)
    >>> own_name("sample", "samples/score-ve/.shard-0003.h5.4711.diffsq.tmp")
    True
    >>> own_name("sample", "samples/score-ve/half/shard-0000.h5")  # the flow's, in half steps
    True
    """
    if match := _LEFTOVER.fullmatch(name):
        name = (match[1] or "") + match["name"]
    return re.fullmatch(_NAMES[stage], name) is not None


def files_in(folder: Path, stage: str) -> Iterator[str]:
    """Everything that lies where the stage's files lie, relative to the run folder, in order."""
    if stage == "report":
        places = [folder / name for name in ("report.html", "overview.png")]
    elif stage == "measure":
        places = [folder / "summary.json", *sorted((folder / "checks").rglob("*"))]
    else:
        places = sorted((folder / FOLDER[stage]).rglob("*"))
    for path in places:
        if path.is_symlink() or path.is_file():
            yield path.relative_to(folder).as_posix()


def hashes(folder: Path, stage: str) -> dict[str, str]:
    """Relative path -> sha256 of the files that a stage has made."""
    names = [name for name in files_in(folder, stage) if own_name(stage, name)]
    return {name: sha256_file(folder / name) for name in names if not _passing(name)}


def _passing(name: str) -> bool:
    """Whether a file of ours is no product: a temporary one, or a kernel, which knows what it belongs to."""
    return any(each.fullmatch(name) for each in (_LEFTOVER, re.compile(_KEPT)))


def intact(folder: Path, name: str, digest: str) -> bool:
    """Whether a recorded file is the one that was written."""
    path = folder / name
    return path.is_file() and sha256_file(path) == digest


def refuse_foreign(folder: Path, records: Records, stage: str) -> None:
    """`InputError` where a stage that was never begun here would replace a file: it is the user's. (A check
    knows its own files: `diffsq check` makes them too.)"""
    if stage in records:
        return
    for name in files_in(folder, stage):
        if own_name(stage, name) and not name.startswith("checks/"):
            raise InputError(
                f"{folder / name}: is there already and not made by this run; move it, or choose another "
                "run folder"
            )


def set_changed_aside(folder: Path, record: Records) -> list[str]:
    """Set aside recorded files that were changed, before they are made again; a line for each."""
    said = []
    for name, digest in (record.get("files") or {}).items():
        path = folder / name
        if os.path.lexists(path) and (path.is_symlink() or not intact(folder, name, digest)):
            said.append(f"{path}: changed since it was written; kept as {set_aside(path).name}")
    return said


def removal(folder: Path, records: Records, stages: tuple[str, ...]) -> Removal:
    """What discarding `stages` does.  Raises `InputError`, nothing removed, where diffsq made nothing here
    but there are such files, and where a folder cannot be written."""
    found = Removal()
    for stage in stages:
        record = records.get(stage) or {}
        recorded = record.get("files") or {}
        partial = bool(record) and not record["complete"]
        for name in files_in(folder, stage):
            changed = (folder / name).is_symlink() or not intact(folder, name, recorded.get(name, ""))
            if name in recorded and not changed:
                found.remove.append(name)
            elif own_name(stage, name) and (partial or (record and _passing(name))):
                found.remove.append(name)
            else:
                (found.aside if name in recorded else found.keep).append(name)
    if found.keep and not any(stage in records for stage in _NAMES):
        raise InputError(
            f"{folder}: nothing here was made by diffsq, so nothing can be discarded ({found.keep[0]} is not "
            "its own); leave out --restart, or choose another run folder"
        )
    for name in (*found.remove, *found.aside):
        if not os.access((folder / name).parent, os.W_OK | os.X_OK):
            raise InputError(f"{(folder / name).parent}: cannot be written; nothing was removed")
    return found


def remove(folder: Path, found: Removal, stage: str) -> None:
    """Carry out the part of a removal that concerns one stage; folders go where nothing else is in them."""
    here = set(files_in(folder, stage))
    for name in found.remove:
        if name in here:
            (folder / name).unlink()
    for name in found.aside:
        if name in here:
            set_aside(folder / name)
    top = folder / FOLDER.get(stage, "checks")
    for path in [*sorted(top.rglob("*"), reverse=True), top]:
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
