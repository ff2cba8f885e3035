"""The stages of a run, in order: each is skipped, resumed, run or refused.

A finished stage whose key (diffsq.run_folder.records) is unchanged is skipped after its files are verified;
an interrupted one resumes, one that is asked for more goes on; another key is refused, naming each value that
changed. What is cheap (measure, report) is made again where it is gone or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffsq import stages
from diffsq.checks.perform import check_options, own_check
from diffsq.config.config import Config
from diffsq.config.memory import check_memory
from diffsq.run_folder.own_files import FOLDER, refuse_foreign, removal, set_changed_aside
from diffsq.run_folder.records import (
    INPUTS,
    STAGES,
    Run,
    begun,
    check_input,
    check_unchanged,
    discard,
    dropped,
    grown,
    is_sound,
    made_by,
    read_records,
    refusal,
    stage_record,
    verify,
    write_config,
)  # fmt: skip
from diffsq.run_folder.summary_text import table_text
from lattice.errors import InputError
from lattice.files import read_json, run_lock
from lattice.processes import Team
from lattice.progress import Clock, Progress, Silent
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe, check_recipe


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

    Ensembles and samples on a lattice are made by the whole `team`, the rest by its process 0.

    Raises `InputError` (one line): folder in use or not writable, a changed key, a damaged file, a file in
    the way that is not ours, a missing or uncertified input, and whatever the stages refuse.
    """
    folder = Path(folder)
    run_here = Run(
        config, folder, progress or Silent(), device, accept_uncertified, say, read_records(folder), team=team
    )
    if folder.is_dir() and not run_here.records:
        check(run_here, stages, restart)  # a folder that is not ours is not even locked
    with run_lock(folder):
        run = replace(run_here, records=read_records(folder))
        check(run, stages, restart)
        if restart is not None:
            discard(run, restart)
        write_config(run)
        for stage in stages:
            perform(run, stage)
        return run


def check(run: Run, stages: Sequence[str], restart: str | None = None) -> None:
    """All that can be refused before any work, and before anything is removed: a stage far down the line may
    hold other settings."""
    check_checks(run, stages)
    gone = dropped(restart) if restart is not None else ()
    for stage in STAGES:
        if stage not in gone:
            check_stage(run, stage, stages)
    check_work(run.config, [stage for stage in stages if stage in gone or not _finished(run, stage)])
    if restart is not None:
        removal(run.folder, run.records, gone)


def check_checks(run: Run, stages: Sequence[str]) -> None:
    """`InputError` for options that a check of the config has not, and for a file in its way."""
    for name, options in run.config.checks.items():
        check_options(name, options)
        if "measure" in stages:
            own_check(run.folder, name)


def check_work(config: Config, stages: Sequence[str]) -> None:
    """`InputError` where these stages need more memory than there is, or updates that the action has not."""
    check_memory(config, stages)
    if "ensemble" in stages and isinstance(config.ensemble, MonteCarlo):
        if config.action is not None and config.source is None:
            check_recipe(Recipe(config.action, config.shape, config.ensemble, config.seed))


def check_stage(run: Run, stage: str, stages: Sequence[str]) -> None:
    """`InputError` where the records of a stage do not fit what is asked for."""
    check_unchanged(run, stage)
    check_input(run, stage, stages)
    if stage in stages:
        refuse_foreign(run.folder, run.records, stage)


def removals(config: Config, folder: Path, restart: str) -> list[str]:
    """What `run` would first do to files with `restart`, a line for each; `InputError` where it refuses."""
    return removal(folder, read_records(folder), dropped(restart)).lines()


def plan(
    config: Config, folder: Path, stages: Sequence[str] = STAGES, restart: str | None = None
) -> dict[str, str]:
    """What `run` would do, touching nothing: stage -> "run", "resume", "continue", "skip", "refuse: why".

    Raises `InputError`, as `run` does, for what is wrong with the config's checks.
    """
    run = Run(config, folder, records=read_records(folder))
    check_checks(run, stages)
    gone = dropped(restart) if restart else ()
    for stage in gone:
        run.records.pop(stage, None)
    actions: dict[str, str] = {}
    for stage in STAGES:
        have = run.records.get(stage)
        try:
            if stage not in gone:
                check_stage(run, stage, stages)
            if not _finished(run, stage):
                check_work(config, [stage])
            if have is None or not begun(run, stage):
                actions[stage] = "run"
            elif more := grown(run, stage):
                actions[stage] = f"continue ({'; '.join(more)})"
            elif not have["complete"]:
                actions[stage] = f"resume ({have['seconds']:.0f} s done)"
            elif any(not actions[s].startswith(("skip", "refuse")) for s in INPUTS[stage]):
                actions[stage] = "run (its input is made anew)"
            elif stage_record(run, stage)["key"] != have["key"]:
                actions[stage] = "run (its input or settings changed)"
            elif stage not in FOLDER and not is_sound(run, stage):
                actions[stage] = "run (a file is gone or changed)"
            else:
                verify(run, stage)
                actions[stage] = f"skip (finished, {have['seconds']:.0f} s)"
        except InputError as error:
            actions[stage] = f"refuse: {error}"
    return {stage: actions[stage] for stage in stages}


def _finished(run: Run, stage: str) -> bool:
    return bool(run.records.get(stage, {}).get("complete")) and not grown(run, stage)


def perform(run: Run, stage: str) -> None:
    """One stage: skip, resume, continue or run it, and keep its record.  The caller holds the lock."""
    wanted = stage_record(run, stage)
    have = run.records.get(stage)
    if have is not None:
        same = have["key"] == wanted["key"]
        if same and have["complete"] and (stage in FOLDER or is_sound(run, stage)):
            verify(run, stage)
            run.say(f"{stage}: finished earlier ({have['seconds']:.0f} s), unchanged")
            return
        if stage in FOLDER and not same and begun(run, stage):
            _check_continues(run, stage, wanted)
        if have["complete"] and stage in FOLDER:
            verify(run, stage)
        elif have["complete"]:
            for line in set_changed_aside(run.folder, have):
                run.say(line)
        wanted |= {"files": have.get("files", {})}
        if stage in FOLDER and (shorter := have.get("identity" if have["complete"] else "shorter")):
            wanted["shorter"] = shorter  # until this is finished, what later stages were made from
        wanted["seconds"] = have["seconds"] if same or stage in FOLDER else 0.0
    run.records[stage] = wanted
    run.verified.discard(stage)
    run.save_records()
    clock = Clock(run.progress, run.records[stage], run.save_records, every=5.0)
    try:
        identity = stages.STAGE[stage](run, clock)
    finally:  # an interrupted stage keeps its time too
        clock.close()
        clock.stop()
    run.records[stage] |= {"identity": identity, "files": made_by(run, stage), "complete": True}
    run.verified.add(stage)
    run.save_records()


def _check_continues(run: Run, stage: str, wanted: dict[str, Any]) -> None:
    """`InputError` unless a stage of another key differs in a larger number only (see `check_unchanged`)."""
    have = run.records[stage]
    changed = [
        f"its input {name}" + (f" {run.config.source}" if name == "source" else "")
        for name, identity in wanted["input"].items()
        if have["input"].get(name) != identity
    ]
    if changed or not grown(run, stage):
        raise InputError(refusal(run, stage, changed or ["the format of the stage"]))


def final_text(folder: Path) -> str:
    """The final table and, as the last line, the path of the report."""
    summary = read_json(folder / "summary.json")
    return f"{table_text(summary)}\nreport: {folder / 'report.html'}"
