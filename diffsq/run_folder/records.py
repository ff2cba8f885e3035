"""The run folder's bookkeeping: what each stage was made with, whether it still holds, and the seconds spent.

`stages.json` records for each stage the config values and input identities it was made with, their hash (the
stage key), the sha256 of every file, and the seconds spent over all resumes.  Two settings mixed in one
folder are the mistake that no later check can see, so whatever differs is named here, key by key.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsq.config.config import Config, load_config, resolved_yaml
from diffsq.config.version import stamped, this_version, version_of
from diffsq.run_folder.own_files import FOLDER as FOLDER
from diffsq.run_folder.own_files import PRODUCT as PRODUCT
from diffsq.run_folder.own_files import hashes, intact, removal, remove
from lattice.errors import InputError
from lattice.files import (
    canonical_json,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_text,
    write_atomic,
    write_json,
)
from lattice.processes import Team
from lattice.progress import Progress, Silent
from lattice.requests import changed_values, refused_changes, shortened

STAGES = ("ensemble", "train", "sample", "measure", "report")
SCHEMA = dict.fromkeys(STAGES, 3)  # raise when a stage's meaning changes; 1 was version 0.1, 2 0.2
N_SAMPLES = ("sampling.n_samples", "sampling.n_samples.closed", "sampling.n_samples.score")
GROWS = {  # what a stage may be asked more of than it has: it goes on from there
    "ensemble": ("ensemble.n_configs",),
    "sample": (*N_SAMPLES, "sampling.n_forward", "sampling.n_metropolis"),
}
CONFIG = "config.yaml"
INPUTS: dict[str, tuple[str, ...]] = {
    "ensemble": (),
    "train": ("ensemble",),
    "sample": ("ensemble", "train"),
    "measure": ("ensemble", "train", "sample"),
    "report": ("measure",),
}
NEW_FOLDER = "`diffsq run CONFIG --run DIR` makes a new one in another folder"


@dataclass
class Run:
    """One run folder opened for work; make it with `run`, which holds the lock."""

    config: Config
    folder: Path
    progress: Progress = field(default_factory=Silent)
    device: str = "cpu"
    accept_uncertified: bool = False
    say: Callable[[str], None] = print
    records: dict[str, Any] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    team: Team | None = None

    def out(self, stage: str) -> Path:
        return self.folder / FOLDER[stage]

    def save_records(self) -> None:
        write_json(self.folder / "stages.json", self.records)

    def seconds(self) -> dict[str, float]:
        return {stage: self.records[stage]["seconds"] for stage in STAGES if stage in self.records}


def stage_record(run: Run, stage: str) -> dict[str, Any]:
    """A new record of `stage`, its key from config and inputs; `InputError` if an input is missing."""
    inputs = {}
    for name in INPUTS[stage]:
        have = run.records.get(name)
        if have is None or not have["complete"]:
            raise InputError(
                f"{stage} needs a finished {name} stage in {run.folder}; `diffsq run` makes all in order"
            )
        verify(run, name)
        inputs[name] = have["identity"]
    if stage == "ensemble" and run.config.source is not None:
        inputs["source"] = _source_now(run, Path(run.config.source))
    content = {"schema": SCHEMA[stage], "config": settings(run.config, stage), "input": inputs}
    if made_with := versions(run.config, stage):
        content["versions"] = made_with
    return {**content, "key": sha256_text(canonical_json(content)), "seconds": 0.0, "complete": False}


def source_identity(source: Path) -> str:
    """The identity of an ensemble made elsewhere, from its files as they are now; `InputError` when it is
    not a finished ensemble."""
    from lattice.ensembles.manifest import read_manifest, shards_identity

    if source.is_dir():
        names = [record["name"] for record in read_manifest(source)["shards"]]
        return shards_identity([sha256_file(source / name) for name in names])
    return shards_identity([sha256_file(source)])


def _source_now(run: Run, source: Path) -> str:
    have = run.records.get("ensemble")
    if not source.exists() and have is not None and have["complete"] and "source" in have["input"]:
        return str(have["input"]["source"])  # the run has its own copy
    return source_identity(source)


def check_unchanged(run: Run, stage: str) -> None:
    """Refuse a folder whose `stage` was made with other settings, naming each changed key, old and new.

    Numbers in `GROWS` may be larger. `measure` and `report` cost seconds and lose nothing: they are simply
    made again.
    """
    have = run.records.get(stage)
    if have is None or stage not in FOLDER or not begun(run, stage):
        return
    now, grows = settings(run.config, stage), GROWS.get(stage, ())
    law = {"version": versions(run.config, stage)}
    changed = refused_changes(have["config"], now, grows)
    changed += changed_values({"version": have.get("versions") or {}}, law)
    if changed:
        raise InputError(refusal(run, stage, changed, shortened(have["config"], now, grows)))


def grown(run: Run, stage: str) -> list[str]:
    """Which numbers of a stage in the records are larger in the config, as phrases."""
    have = run.records.get(stage)
    if have is None or stage not in GROWS:
        return []
    return changed_values(have["config"], settings(run.config, stage))


def check_input(run: Run, stage: str, stages: Sequence[str]) -> None:
    """Refuse, before any work on `stages`, one that was made from another input than it has or will have.

    Raises `InputError` also where it is an input of theirs, not to be made now and shorter than asked for.
    """
    have = run.records.get(stage)
    needed = {name for wanted in stages for name in (wanted, *INPUTS[wanted])}
    if have is None or stage not in needed or stage not in FOLDER or not begun(run, stage):
        return
    for name in INPUTS[stage]:
        made, longer = run.records.get(name), grown(run, name)
        command = f"`diffsq run CONFIG --run {shlex.quote(str(run.folder))} --restart {stage}`"
        if name in stages and (longer or (made is not None and not made["complete"] and "shorter" in made)):
            words = "; ".join(longer) or "being made longer"
            why = f"its {stage} stage was made from a shorter {name} ({words})"
        elif made is not None and made["complete"] and have["input"].get(name) != made["identity"]:
            why = f"its {stage} stage was made with other settings, its input {name} is another one now"
            command = again(run, stage)
        else:
            continue
        raise InputError(f"{run.folder}: {why}; {command} keeps the {name} and makes the rest again")
    if stage not in stages and (longer := grown(run, stage)):
        raise InputError(
            f"{run.folder}: its {stage} stage is shorter than asked for ({'; '.join(longer)}); "
            f"`diffsq {stage}` with these settings makes it longer"
        )


def outdated(run: Run, stage: str) -> list[str]:
    """The stages in the records that were made from another `stage` than is there now, and those after."""
    found: list[str] = []
    for name in STAGES:
        have, made = run.records.get(name), run.records[stage]
        if have is None or name == stage:
            continue
        changed = stage in INPUTS[name] and have["input"].get(stage) != made.get("identity")
        if changed or any(other in found for other in INPUTS[name]):
            found.append(name)
    return found


def verify(run: Run, stage: str) -> None:
    """Check that every file of a finished stage is the one it wrote; `InputError` names the first bad one."""
    if stage in run.verified:
        return
    for name, digest in run.records[stage]["files"].items():
        path = run.folder / name
        if not intact(run.folder, name, digest):
            what = "was changed since it was written (sha256 differs)" if path.is_file() else "is gone"
            raise InputError(f"{path} {what}; restore it, or make it again with {again(run, stage)}")
    run.verified.add(stage)


def is_sound(run: Run, stage: str) -> bool:
    """Whether every file of a finished stage is the one it wrote."""
    return all(intact(run.folder, name, digest) for name, digest in run.records[stage]["files"].items())


def made_by(run: Run, stage: str) -> dict[str, str]:
    """Relative path -> sha256 of the files of a stage; of checks those that the config asks for."""
    asked = {f"checks/{name}" for name in run.config.checks}
    found = hashes(run.folder, stage).items()
    return {k: v for k, v in found if not k.startswith("checks/") or k.rpartition(".")[0] in asked}


def dropped(restart: str) -> tuple[str, ...]:
    """The stages that `--restart` discards."""
    return STAGES[STAGES.index(restart) :]


def discard(run: Run, stage: str) -> None:
    """Remove what `stage` and the stages after it made, and their records; see `own_files.removal`.

    The last stage goes first, each marked as unfinished before and forgotten after: a discard that is killed
    leaves a run that resumes, or is discarded again.
    """
    found = removal(run.folder, run.records, dropped(stage))
    for name in reversed(dropped(stage)):
        if name in run.records:
            run.records[name]["complete"] = False
            run.save_records()
            remove(run.folder, found, name)
            del run.records[name]
            run.save_records()
    for line in found.lines():
        if not line.startswith("remove"):
            run.say(line)


def read_records(folder: Path) -> dict[str, Any]:
    """The stage records of a run folder; empty for a new one."""
    path = folder / "stages.json"
    records = read_json(path) if path.exists() else {}
    if any(isinstance(record, dict) and record.get("schema") == 1 for record in records.values()):
        raise InputError(
            f"{folder}: a run folder of diffsq 0.1, other files in other places; {NEW_FOLDER} "
            f"(with its ensemble: `diffsq run CONFIG --run DIR --set ensemble.source={folder}/ensemble`)"
        )
    if not _is_config_record(records.get("config", {})):
        raise InputError(f"{path}: damaged record of the config; {NEW_FOLDER}")
    schemas = [record.get("schema") for record in records.values() if isinstance(record, dict)]
    if any(isinstance(schema, int) and schema > max(SCHEMA.values()) for schema in schemas):
        raise InputError(
            f"{folder}: a run folder of a newer diffsq ({_version(folder)}), this is {this_version()}; "
            f"{NEW_FOLDER}, or use that version"
        )
    for stage, record in records.items():
        if stage != "config" and (
            stage not in STAGES
            or not isinstance(record, dict)
            or not {"key", "config", "input", "seconds", "complete"} <= record.keys()
            or not isinstance(record["config"], dict)
            or not isinstance(record["input"], dict)
            or not isinstance(record["seconds"], int | float)
            or (record["complete"] and not isinstance(record.get("files"), dict))
            or (record["complete"] and not isinstance(record.get("identity"), str))
        ):
            raise InputError(f"{path}: damaged record of stage {stage!r}; {NEW_FOLDER}")
    return records


def begun(run: Run, stage: str) -> bool:
    """Whether a stage in the records has made anything: without that its settings may still change."""
    have = run.records[stage]
    return have["complete"] or stage not in FOLDER or any(p.is_file() for p in run.out(stage).rglob("*"))


def _version(folder: Path) -> str:
    path = folder / "config.yaml"
    written = version_of(path.read_text(encoding="utf-8")) if path.is_file() else None
    return written or "its version is not recorded"


def _is_config_record(record: Any) -> bool:
    known = isinstance(record, dict) and isinstance(record.get("sha256", []), list)
    return (
        known and re.fullmatch(r"config\.yaml|resolved(-\d+)?\.yaml", record.get("name", CONFIG)) is not None
    )


def config_path(folder: Path) -> Path:
    """The resolved config of a run folder: config.yaml, or resolved.yaml beside a user's config.yaml."""
    return folder / str(read_records(folder).get("config", {}).get("name", CONFIG))


def write_config(run: Run) -> None:
    """Write the resolved config into the run folder, never over a file that is not known to be ours: as
    config.yaml or, where that is the user's, resolved.yaml, resolved-2.yaml, ..."""
    content = stamped(resolved_yaml(run.config)).encode()
    known, new = list(run.records.get("config", {}).get("sha256", [])), sha256_bytes(content)
    names = itertools.chain((CONFIG, "resolved.yaml"), (f"resolved-{k}.yaml" for k in itertools.count(2)))
    for path in (run.folder / name for name in names):
        ours = path.is_file() and not path.is_symlink() and sha256_file(path) in known
        if ours or not os.path.lexists(path):
            break
    run.records["config"] = {"name": path.name, "sha256": [*(old for old in known[-3:] if old != new), new]}
    run.save_records()  # before: a kill between the two must not make the file look like the user's
    write_atomic(path, content)


def open_config(folder: Path) -> Config:
    """The config a run folder was made with; `InputError` when it is not a run folder of this version."""
    path = config_path(folder)
    if not path.is_file() and (folder / "scan/scan.json").is_file():
        raise InputError(f"{folder} is a scan: table and figures in {folder}/scan, no report and no checks")
    if not path.is_file():
        raise InputError(
            f"{folder} is not a run folder (no config.yaml in it); name the folder of a `diffsq run`"
        )
    return load_config(path)


def certificate_of(folder: Path) -> dict[str, Any]:
    """The certificate of a run's ensemble: {"passed", "checks": [...], ...}."""
    return read_json(folder / "ensemble" / "certificate.json")


def settings(config: Config, stage: str) -> dict[str, Any]:
    """The sections of the config that a stage is made with."""
    full = json.loads(config.model_dump_json())
    return {section: full[section] for section in config.sections[stage] if section in full}


def versions(config: Config, stage: str) -> dict[str, int]:
    """The version of every law and fit that enters a stage: a new one is another model, another sample."""
    from diffsq.sampling import sample  # not above: reading a record needs no torch
    from diffsq.training import train

    of = {"train": train.versions, "sample": sample.versions, "measure": sample.measured}
    return of[stage](config) if stage in of else {}


def again(run: Run, stage: str) -> str:
    """The command that discards a stage and makes it again with the folder's own config."""
    path = config_path(run.folder)
    config = shlex.quote(str(path)) if path.is_file() else "CONFIG"
    return f"`diffsq run {config} --run {shlex.quote(str(run.folder))} --restart {stage}`"


def refusal(run: Run, stage: str, changed: Sequence[str], fewer: str = "") -> str:
    """Why a stage cannot be gone on with, and what can be done."""
    hold = f"It holds more than that: ask for {fewer} or more. " if fewer else ""
    return (
        f"{run.folder}: its {stage} stage was made with other settings: {'; '.join(changed)}. {hold}Choose "
        "another run folder, or make it again from there: "
        f"`diffsq run CONFIG --run DIR --restart {stage}`"
    )
