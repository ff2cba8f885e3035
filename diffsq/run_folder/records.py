"""The run folder's bookkeeping: what each stage was made with, whether it still holds, and the seconds spent.

`stages.json` records for each stage the config values and input identities it was made with, their hash (the
stage key), the sha256 of every file, and the seconds spent over all resumes.  Two settings mixed in one
folder are the mistake that no later check can see, so whatever differs is named here, key by key.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsq.config.config import Config, load_config
from diffsq.config.version import this_version, version_of
from lattice.errors import InputError
from lattice.files import canonical_json, read_json, sha256_file, sha256_text, write_json
from lattice.processes import Team
from lattice.progress import Progress, Silent
from lattice.requests import changed_values

STAGES = ("ensemble", "train", "sample", "measure", "report")
SCHEMA = dict.fromkeys(STAGES, 2) | {"sample": 3, "measure": 3}  # of a stage's meaning; 1 was version 0.1
FOLDER = {"ensemble": "ensemble", "train": "train", "sample": "samples"}
PRODUCT = {"measure": "summary.json", "report": "report.html"}
INPUTS: dict[str, tuple[str, ...]] = {
    "ensemble": (),
    "train": ("ensemble",),
    "sample": ("ensemble", "train"),
    "measure": ("ensemble", "train", "sample"),
    "report": ("measure",),
}


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

    `measure` and `report` cost seconds and lose nothing: they are simply made again.
    """
    have = run.records.get(stage)
    if have is None or stage not in FOLDER:
        return
    changed = changed_values(have["config"], settings(run.config, stage))
    law = {"version": versions(run.config, stage)}
    changed += changed_values({"version": have.get("versions") or {}}, law)
    if changed:
        raise InputError(refusal(run, stage, changed))


def verify(run: Run, stage: str) -> None:
    """Check that every file of a finished stage is the one it wrote; `InputError` names the first bad one."""
    if stage in run.verified:
        return
    for name, digest in run.records[stage]["files"].items():
        path = run.folder / name
        if not path.is_file() or sha256_file(path) != digest:
            what = "was changed since it was written (sha256 differs)" if path.is_file() else "is gone"
            raise InputError(f"{path} {what}; restore it, or make it again with --restart {stage}")
    run.verified.add(stage)


def discard(run: Run, stage: str) -> None:
    """Remove what `stage` and the stages after it made, and their records."""
    for name in STAGES[STAGES.index(stage) :]:
        if name in FOLDER:
            shutil.rmtree(run.out(name), ignore_errors=False) if run.out(name).exists() else None
        else:
            (run.folder / PRODUCT[name]).unlink(missing_ok=True)
        run.records.pop(name, None)
    for check in run.config.checks:
        (run.folder / "checks" / f"{check}.json").unlink(missing_ok=True)
    run.save_records()


def read_records(folder: Path) -> dict[str, Any]:
    """The stage records of a run folder; empty for a new one."""
    path = folder / "stages.json"
    records = read_json(path) if path.exists() else {}
    if any(isinstance(record, dict) and record.get("schema") == 1 for record in records.values()):
        raise InputError(
            f"{folder}: a run folder of diffsq 0.1, other files in other places; choose another with --run "
            f"(the ensemble of a run on a lattice can be taken: --set ensemble.source={folder}/ensemble)"
        )
    schemas = [record.get("schema") for record in records.values() if isinstance(record, dict)]
    if any(isinstance(schema, int) and schema > max(SCHEMA.values()) for schema in schemas):
        raise InputError(
            f"{folder}: a run folder of a newer diffsq ({_version(folder)}), this is {this_version()}; "
            "choose another with --run, or use that version"
        )
    for stage, record in records.items():
        if (
            stage not in STAGES
            or not isinstance(record, dict)
            or not {"key", "config", "input", "seconds", "complete"} <= record.keys()
            or not isinstance(record["config"], dict)
            or not isinstance(record["input"], dict)
            or not isinstance(record["seconds"], int | float)
            or (record["complete"] and not isinstance(record.get("files"), dict))
            or (record["complete"] and not isinstance(record.get("identity"), str))
        ):
            raise InputError(f"{path}: damaged record of stage {stage!r}; choose another --run folder")
    return {stage: r for stage, r in records.items() if r["complete"] or _begun(folder, stage)}


def _begun(folder: Path, stage: str) -> bool:
    """Whether an unfinished stage has made anything: without that its settings may still change."""
    return stage not in FOLDER or any(path.is_file() for path in (folder / FOLDER[stage]).rglob("*"))


def _version(folder: Path) -> str:
    path = folder / "config.yaml"
    written = version_of(path.read_text(encoding="utf-8")) if path.is_file() else None
    return written or "its version is not recorded"


def open_config(folder: Path) -> Config:
    """The config a run folder was made with; `InputError` when it is not a run folder of this version."""
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"{folder} is not a run folder (no config.yaml in it); name the folder of a `diffsq run`"
        )
    read_records(folder)
    return load_config(folder / "config.yaml")


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

    of = {"train": train.versions, "sample": sample.versions}
    return of[stage](config) if stage in of else {}


def hashes(run: Run, stage: str) -> dict[str, str]:
    """Relative path -> sha256 of the files a stage made."""
    if stage in PRODUCT:
        paths = [run.folder / PRODUCT[stage]]
    else:
        paths = sorted(p for p in run.out(stage).rglob("*") if p.is_file() and not p.name.endswith(".tmp"))
    return {str(p.relative_to(run.folder)): sha256_file(p) for p in paths}


def refusal(run: Run, stage: str, changed: Sequence[str]) -> str:
    return (
        f"{run.folder}: its {stage} stage was made with other settings: {'; '.join(changed)}. Choose another "
        f"folder with --run, or make it again from there with --restart {stage}"
    )
