"""The stages of a run, in order: each is skipped, resumed, run or refused.

A finished stage whose key (diffsq.records) is unchanged is skipped after its files are verified; an
interrupted one resumes; a different key is refused, naming each value that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from diffsq.config import Config, resolved_yaml
from diffsq.records import (
    FOLDER,
    INPUTS,
    PRODUCT,
    STAGES,
    Run,
    StageClock,
    certificate_of,
    check_unchanged,
    discard,
    hashes,
    open_config,
    read_records,
    refusal,
    stage_record,
    verify,
)
from diffsq.summary import summarize, table_text
from lattice.errors import InputError
from lattice.files import (
    canonical_json,
    read_json,
    run_lock,
    sha256_file,
    sha256_text,
    write_atomic,
    write_json,
)
from lattice.parallel import Team
from lattice.progress import Progress, Silent

__all__ = ["FOLDER", "PRODUCT", "STAGES", "Run", "certificate_of", "final_text", "open_config", "perform",
           "plan", "read_records", "require_certificate", "run_stages"]  # fmt: skip


def run_stages(
    config: Config,
    folder: Path,
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
    with run_lock(folder):
        run = Run(
            config, folder, progress or Silent(), device, accept_uncertified, say, read_records(folder),
            team=team,
        )  # fmt: skip
        if restart is not None:
            discard(run, restart)
        for stage in FOLDER:  # before any work: a stage far down the line may hold other settings
            check_unchanged(run, stage)
        write_atomic(folder / "config.yaml", resolved_yaml(config).encode())
        for stage in stages:
            perform(run, stage)
        return run


def plan(
    config: Config, folder: Path, stages: Sequence[str] = STAGES, restart: str | None = None
) -> dict[str, str]:
    """What `run_stages` would do, touching nothing: stage -> "run", "resume", "skip" or "refuse: why"."""
    run = Run(config, folder, records=read_records(folder))
    dropped = STAGES[STAGES.index(restart) :] if restart else ()
    for stage in dropped:
        run.records.pop(stage, None)
    actions: dict[str, str] = {}
    for stage in STAGES:
        have = run.records.get(stage)
        try:
            check_unchanged(run, stage)
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
            f"its input {name}" + (f" {run.config.ensemble.source}" if name == "source" else "")
            for name, identity in wanted["input"].items()
            if have["input"].get(name) != identity
        ]
        raise InputError(refusal(run, stage, changed or ["the format of the stage"]))
    run.records[stage] = wanted
    run.save_records()
    clock = StageClock(run, stage)
    try:
        identity = _STAGE[stage](run, clock)
    finally:  # an interrupted stage keeps its time too
        clock.close()
        clock.stop()
        run.save_records()
    run.records[stage] |= {"identity": identity, "files": hashes(run, stage), "complete": True}
    run.verified.add(stage)
    run.save_records()


# --- the stages: each returns the identity of what it made ------------------------------------------------


def _ensemble(run: Run, progress: Progress) -> str:
    from lattice.generate import generate

    out, config = run.out("ensemble"), run.config
    if config.ensemble.source is not None:
        return _taken_ensemble(run, Path(config.ensemble.source))
    ensemble = generate(
        config.build_action(), config.lattice.shape, config.ensemble, config.seed, out, progress=progress,
        team=run.team,
    )  # fmt: skip
    return ensemble.identity


def _taken_ensemble(run: Run, source: Path) -> str:
    """Copy an ensemble made elsewhere (`diffsq import`, another run) with its certificate into the run."""
    from lattice.certificate import certify
    from lattice.ensemble import read_ensemble, write_ensemble

    ensemble = read_ensemble(source, run.config.build_action())
    if ensemble.shape != tuple(run.config.lattice.shape):
        raise InputError(
            f"{source}: fields on {list(ensemble.shape)}, lattice.shape is {list(run.config.lattice.shape)}"
        )
    if ensemble.log_weight is not None:
        raise InputError(f"{source}: holds weighted samples; training needs fields drawn from exp(-S)")
    certificate = ensemble.attrs.get("certificate") or certify(ensemble)  # without one, it fails
    if not certificate["passed"] and not run.accept_uncertified:
        raise InputError(
            f"{source}: not certified ({certificate['reason']}); --accept-uncertified takes it all the same"
        )
    out = run.out("ensemble")
    ensemble.attrs["certificate"] = certificate
    write_json(out / "certificate.json", certificate)
    write_ensemble(ensemble, out)
    return read_ensemble(out).identity


def _train(run: Run, progress: Progress) -> str:
    from diffsq.train import train
    from lattice.ensemble import read_ensemble

    require_certificate(run)
    train(
        run.config, read_ensemble(run.out("ensemble")), run.out("train"), progress=progress, device=run.device
    )
    model = {k: v for k, v in hashes(run, "train").items() if "/model/" in k}
    return sha256_text(canonical_json(model))


def _sample(run: Run, progress: Progress) -> str:
    from diffsq.sample import sample
    from lattice.ensemble import read_ensemble

    ensemble = read_ensemble(run.out("ensemble"))
    sample(
        run.config,
        run.out("train") / "model",
        ensemble,
        run.out("sample"),
        progress=progress,
        device=run.device,
    )
    return read_ensemble(run.out("sample")).identity


def _measure(run: Run, progress: Progress) -> str:
    from diffsq.check_command import perform_check

    for name, options in run.config.checks.items():
        perform_check(name, run.folder, options, run.device, progress)
    summary = summarize(run.config, run.folder, run.seconds())
    write_json(run.folder / "summary.json", summary)
    return sha256_file(run.folder / "summary.json")


def _report(run: Run, progress: Progress) -> str:
    from diffsq.report import build_report

    build_report(run.folder)
    return sha256_file(run.folder / "report.html")


_STAGE: dict[str, Callable[[Run, Progress], str]] = {
    "ensemble": _ensemble, "train": _train, "sample": _sample, "measure": _measure, "report": _report,
}  # fmt: skip


def require_certificate(run: Run) -> None:
    """Refuse an ensemble that failed its certificate, unless the user accepts it."""
    certificate = certificate_of(run.folder)
    if certificate["passed"] or run.accept_uncertified:
        return
    failed = (
        ", ".join(check["name"] for check in certificate["checks"] if not check["passed"]) or "no check named"
    )
    raise InputError(
        f"the ensemble in {run.out('ensemble')} failed its certificate ({failed}); make a longer one "
        f"(--restart ensemble with a larger ensemble.n_therm or n_configs), or --accept-uncertified"
    )


def final_text(folder: Path) -> str:
    """The final table and, as the last line, the path of the report."""
    return f"{table_text(read_json(folder / 'summary.json'))}\nreport: {folder / 'report.html'}"
