"""The stages of a run, in order: each is skipped, resumed, run or refused.

A finished stage whose key (diffsq.run_folder.records) is unchanged is skipped after its files are verified;
an interrupted one resumes; a different key is refused, naming each value that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from diffsq import stages
from diffsq.checks.perform import check_options
from diffsq.config.config import Config, resolved_yaml
from diffsq.config.memory import check_memory
from diffsq.config.version import stamped
from diffsq.run_folder.records import (
    FOLDER,
    INPUTS,
    STAGES,
    Run,
    check_unchanged,
    discard,
    hashes,
    read_records,
    refusal,
    stage_record,
    verify,
)
from diffsq.run_folder.summary import table_text
from lattice.errors import InputError
from lattice.files import read_json, run_lock, write_atomic
from lattice.processes import Team
from lattice.progress import Clock, Progress, Silent


def run(
    config: Config,
    folder: str | Path,
    stages: Sequence[str] = STAGES,
    *,
    progress: Progress | None = None,
    device: str = "cpu",
    accept_uncertified: bool = False,
    restart: str | None = None,
    say: Callable[[str], None] = print,
    team: Team | None = None,
) -> Run:
    """Run, resume or skip `stages` in order.  `restart` first discards that stage and all after it.

    Ensembles are made by the whole `team`, the rest by its process 0.

    Raises `InputError` (one line): folder in use or not writable, a changed key, a damaged file, a missing or
    uncertified input, and whatever the stages refuse.
    """
    folder = Path(folder)
    with run_lock(folder):
        run = Run(
            config, folder, progress or Silent(), device, accept_uncertified, say, read_records(folder),
            team=team,
        )  # fmt: skip
        if restart is not None:
            discard(run, restart)
        for name, options in config.checks.items():
            check_options(name, options)
        check_memory(config, [stage for stage in stages if not _finished(run, stage)])
        for stage in FOLDER:  # before any work: a stage far down the line may hold other settings
            check_unchanged(run, stage)
        write_atomic(folder / "config.yaml", stamped(resolved_yaml(config)).encode())
        for stage in stages:
            perform(run, stage)
        return run


def plan(
    config: Config, folder: Path, stages: Sequence[str] = STAGES, restart: str | None = None
) -> dict[str, str]:
    """What `run` would do, touching nothing: stage -> "run", "resume", "skip" or "refuse: why"."""
    run = Run(config, folder, records=read_records(folder))
    dropped = STAGES[STAGES.index(restart) :] if restart else ()
    for stage in dropped:
        run.records.pop(stage, None)
    actions: dict[str, str] = {}
    for stage in STAGES:
        have = run.records.get(stage)
        try:
            check_unchanged(run, stage)
            if not _finished(run, stage):
                check_memory(config, [stage])
            if have is None:
                actions[stage] = "run"
            elif not have["complete"]:
                actions[stage] = f"resume ({have['seconds']:.0f} s done)"
            elif any(actions[s] == "run" or actions[s].startswith("resume") for s in INPUTS[stage]):
                actions[stage] = "run (its input is made anew)"
            elif stage_record(run, stage)["key"] != have["key"]:
                actions[stage] = "run (its input or settings changed)"
            else:
                verify(run, stage)
                actions[stage] = f"skip (finished, {have['seconds']:.0f} s)"
        except InputError as error:
            actions[stage] = f"refuse: {error}"
    return {stage: actions[stage] for stage in stages}


def _finished(run: Run, stage: str) -> bool:
    return bool(run.records.get(stage, {}).get("complete"))


def perform(run: Run, stage: str) -> None:
    """One stage: skip, resume or run it, and keep its record.  The caller holds the lock."""
    wanted = stage_record(run, stage)
    have = run.records.get(stage)
    if have is not None and have["key"] == wanted["key"]:
        if have["complete"]:
            verify(run, stage)
            run.say(f"{stage}: finished earlier ({have['seconds']:.0f} s), unchanged")
            return
        wanted["seconds"] = have["seconds"]
    elif have is not None and stage in FOLDER:
        changed = [
            f"its input {name}" + (f" {run.config.source}" if name == "source" else "")
            for name, identity in wanted["input"].items()
            if have["input"].get(name) != identity
        ]
        raise InputError(refusal(run, stage, changed or ["the format of the stage"]))
    run.records[stage] = wanted
    run.save_records()
    clock = Clock(run.progress, run.records[stage], run.save_records, every=5.0)
    try:
        identity = stages.STAGE[stage](run, clock)
    finally:  # an interrupted stage keeps its time too
        clock.close()
        clock.stop()
    run.records[stage] |= {"identity": identity, "files": hashes(run, stage), "complete": True}
    run.verified.add(stage)
    run.save_records()


def final_text(folder: Path) -> str:
    """The final table and, as the last line, the path of the report."""
    summary = read_json(folder / "summary.json")
    return f"{table_text(summary)}\nreport: {folder / 'report.html'}"
