"""The stages of a run and its folder.

A run folder holds what each stage made and `stages.json`, the record of each stage: the config values and
input identities it was made with, their hash (the stage key), the sha256 of every file, and the seconds spent
over all resumes.  A finished stage with an unchanged key is skipped after its files are verified; an
interrupted one resumes; a different key is refused, naming each value that changed, because two settings
mixed in one folder are the mistake that no later check can see.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsq.config import Config, flatten, resolved_yaml
from lattice.errors import InputError
from lattice.files import (
    canonical_json,
    code_version,
    read_json,
    run_lock,
    sha256_file,
    sha256_text,
    write_atomic,
    write_json,
)
from lattice.progress import Progress, Silent

STAGES = ("ensemble", "train", "sample", "measure", "report")
SCHEMA = {
    "ensemble": 1,
    "train": 1,
    "sample": 1,
    "measure": 1,
    "report": 1,
}  # raise when a stage's meaning changes
FOLDER = {"ensemble": "ensemble", "train": "train", "sample": "samples"}
PRODUCT = {"measure": "summary.json", "report": "report.html"}
SECTIONS: dict[str, tuple[str, ...]] = {
    "ensemble": ("seed", "action", "lattice", "ensemble"),
    "train": ("seed", "action", "lattice", "sde", "model", "training"),
    "sample": ("seed", "sampling"),
    "measure": ("name", "seed", "reference"),
    "report": ("name",),
}
INPUTS: dict[str, tuple[str, ...]] = {
    "ensemble": (),
    "train": ("ensemble",),
    "sample": ("ensemble", "train"),
    "measure": ("ensemble", "train", "sample"),
    "report": ("measure",),
}
SAVE_EVERY = 5.0  # seconds between updates of the time spent


@dataclass
class Run:
    """One run folder opened for work; make it with `run_stages`, which holds the lock."""

    config: Config
    folder: Path
    progress: Progress = field(default_factory=Silent)
    device: str = "cpu"
    accept_uncertified: bool = False
    say: Callable[[str], None] = print
    records: dict[str, Any] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)

    def out(self, stage: str) -> Path:
        return self.folder / FOLDER[stage]

    def save_records(self) -> None:
        write_json(self.folder / "stages.json", self.records)

    def seconds(self) -> dict[str, float]:
        return {stage: self.records[stage]["seconds"] for stage in STAGES if stage in self.records}


class StageClock:
    """A `Progress` that passes everything on and keeps the stage's seconds on disk, so kill -9 loses few."""

    def __init__(self, run: Run, stage: str) -> None:
        self._run, self._record = run, run.records[stage]
        self._before, self._begun = float(self._record["seconds"]), time.monotonic()
        self._saved = self._begun

    def start(self, total: int, label: str, done: int = 0) -> None:
        self._run.progress.start(total, label, done)

    def update(self, n: int = 1, **info: object) -> None:
        self._run.progress.update(n, **info)
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.stop()
            self._run.save_records()

    def close(self) -> None:
        self._run.progress.close()

    def stop(self) -> None:
        self._saved = time.monotonic()
        self._record["seconds"] = round(self._before + self._saved - self._begun, 2)


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
) -> Run:
    """Run, resume or skip `stages` in order.  `restart` first discards that stage and all after it.

    Raises `InputError` (one line): folder in use or not writable, a changed key, a damaged file, a missing or
    uncertified input, and whatever the stages refuse.
    """
    with run_lock(folder):
        run = Run(config, folder, progress or Silent(), device, accept_uncertified, say, read_records(folder))
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
            f"its input {name}"
            for name, identity in wanted["input"].items()
            if have["input"].get(name) != identity
        ]
        raise InputError(_refusal(run, stage, changed or ["the format of the stage"]))
    run.records[stage] = wanted
    run.save_records()
    clock = StageClock(run, stage)
    try:
        identity = _STAGE[stage](run, clock)
    finally:  # an interrupted stage keeps its time too
        clock.close()
        clock.stop()
        run.save_records()
    run.records[stage] |= {"identity": identity, "files": _hashes(run, stage), "complete": True}
    run.verified.add(stage)
    run.save_records()


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
    content = {"schema": SCHEMA[stage], "config": _settings(run.config, stage), "input": inputs}
    return {**content, "key": sha256_text(canonical_json(content)), "seconds": 0.0, "complete": False}


def check_unchanged(run: Run, stage: str) -> None:
    """Refuse a folder whose `stage` was made with other settings, naming each changed key, old and new.

    `measure` and `report` cost seconds and lose nothing: they are simply made again.
    """
    have = run.records.get(stage)
    if have is None or stage not in FOLDER:
        return
    new = flatten(_settings(run.config, stage))
    old = flatten(have["config"])
    changed = [
        f"{k} (was {old.get(k)}, now {new.get(k)})" for k in {**old, **new} if old.get(k) != new.get(k)
    ]
    if changed:
        raise InputError(_refusal(run, stage, changed))


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
    run.save_records()


def read_records(folder: Path) -> dict[str, Any]:
    """The stage records of a run folder; empty for a new one."""
    path = folder / "stages.json"
    records = read_json(path) if path.exists() else {}
    for stage, record in records.items():
        if (
            stage not in STAGES
            or not isinstance(record, dict)
            or not {"key", "config", "seconds", "complete"} <= record.keys()
        ):
            raise InputError(f"{path}: damaged record of stage {stage!r}; choose another --run folder")
    return records


def open_config(folder: Path) -> Config:
    """The config a run folder was made with; `InputError` when it is not a run folder."""
    from diffsq.config import load_config

    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} is not a run folder (no config.yaml in it)")
    return load_config(folder / "config.yaml")


# --- the stages: each returns the identity of what it made ------------------------------------------------


def _ensemble(run: Run, progress: Progress) -> str:
    from lattice.generate import generate

    out, config = run.out("ensemble"), run.config
    ensemble = generate(
        config.build_action(), config.lattice.shape, config.ensemble, config.seed, out, progress=progress
    )
    return ensemble.identity


def _train(run: Run, progress: Progress) -> str:
    from diffsq.train import train
    from lattice.ensemble import read_ensemble

    require_certificate(run)
    train(
        run.config, read_ensemble(run.out("ensemble")), run.out("train"), progress=progress, device=run.device
    )
    model = {k: v for k, v in _hashes(run, "train").items() if "/model/" in k}
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


def certificate_of(folder: Path) -> dict[str, Any]:
    """The certificate of a run's ensemble: {"passed", "checks": [...], ...}."""
    return read_json(folder / "ensemble" / "certificate.json")


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


def _settings(config: Config, stage: str) -> dict[str, Any]:
    full = json.loads(config.model_dump_json())
    return {section: full[section] for section in SECTIONS[stage]}


def _hashes(run: Run, stage: str) -> dict[str, str]:
    """Relative path -> sha256 of the files a stage made."""
    if stage in PRODUCT:
        paths = [run.folder / PRODUCT[stage]]
    else:
        paths = sorted(p for p in run.out(stage).rglob("*") if p.is_file() and not p.name.endswith(".tmp"))
    return {str(p.relative_to(run.folder)): sha256_file(p) for p in paths}


def _refusal(run: Run, stage: str, changed: Sequence[str]) -> str:
    return (
        f"{run.folder}: its {stage} stage was made with other settings: {'; '.join(changed)}. Choose another "
        f"folder with --run, or make it again from there with --restart {stage}"
    )


# --- the summary: observables of the training ensemble and of the sample, raw and corrected ---------------

TABLE = (
    "abs_magnetization", "susceptibility", "susceptibility_full", "binder", "action_density", "phi2",
    "xi_2nd", "kappa4_ratio", "kappa6_ratio",
)  # fmt: skip
COLUMNS = ("training", "raw", "weighted", "metropolis")
MAX_PULL = 3.0
NOTHING: dict[str, Any] = {"observables": {}}  # a column that could not be measured


def summarize(config: Config, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of summary.json: one `measure` JSON per column, pulls, ESS, ln Z, KL, seconds, versions."""
    diagnostics = read_json(folder / "samples" / "diagnostics.json")
    total = read_json(folder / "train" / "validation.json")
    columns, notes = _columns(config, folder)
    reference = config.active_reference()
    summary: dict[str, Any] = {
        "name": config.name,
        "config": json.loads(config.model_dump_json()),
        "columns": columns,
        "notes": notes,
        "reference": reference.model_dump(mode="json") if reference else None,
        "ess": {
            f"{way}{suffix}": (diagnostics.get(way) or {}).get(f"ess{suffix}")
            for way in ("reverse", "forward") for suffix in ("", "_error")
        },
        "acceptance": diagnostics.get("acceptance"),
        "ln_z": {"value": diagnostics.get("ln_z"), "error": diagnostics.get("ln_z_error")},
        "kl": {**total["total"], "gain": total.get("gain"), "gain_error": total.get("gain_error")},
        "seconds": seconds,
        "versions": code_version(),
    }  # fmt: skip
    return {**summary, "verdict": verdict(summary, certificate_of(folder))}


def _columns(config: Config, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Measured columns, and for each that could not be measured the reason."""
    from diffsq.exactness import metropolis_ensemble
    from lattice.ensemble import Ensemble, read_ensemble
    from lattice.measure import measure

    samples = read_ensemble(folder / "samples")
    makers: dict[str, Callable[[], Ensemble]] = {
        "training": lambda: read_ensemble(folder / "ensemble"),
        "raw": lambda: samples,
    }
    if samples.log_weight is not None:
        makers["weighted"] = lambda: samples
        makers["metropolis"] = lambda: metropolis_ensemble(samples, config.seed)
    columns: dict[str, Any] = {}
    notes: dict[str, str] = {}
    if samples.log_weight is None:
        notes["weighted, metropolis"] = f"the sampler {config.sampling.method!r} gives no log-weights"
    for name, make in makers.items():
        try:
            columns[name] = measure(make(), ignore_weights=name == "raw")
        except InputError as error:  # an estimator that cannot answer is a result too
            notes[name] = str(error)
    return columns, notes


def truth_of(summary: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What the columns are held against: the reference where there is one, else the training ensemble."""
    if summary["reference"] is not None:
        from lattice.statistics import parse_value

        known = {name: parse_value(text) for name, text in summary["reference"]["values"].items()}
        return {name: pair for name, pair in known.items() if math.isfinite(pair[1])}
    found = summary["columns"].get("training", NOTHING)["observables"]
    return {name: (e["value"], e["error"]) for name, e in found.items() if e["error"] is not None}


def pull(entry: dict[str, Any] | None, truth: tuple[float, float] | None) -> float | None:
    """(value - truth) / combined error, or None where either is missing.

    >>> pull({"value": 1.5, "error": 0.3}, (1.0, 0.4))
    1.0
    """
    if entry is None or truth is None or entry["value"] is None or entry["error"] is None:
        return None
    error = math.hypot(entry["error"], truth[1])
    return float(entry["value"] - truth[0]) / error if error > 0 else None


def verdict(summary: dict[str, Any], certificate: dict[str, Any]) -> dict[str, Any]:
    """Largest |pull| of each column over the table's rows.

    passed: the ensemble is certified and every weighted and Metropolis row has an error and a pull within 3.
    """
    truth = truth_of(summary)
    worst: dict[str, float | None] = {}
    for column in COLUMNS:
        observables = summary["columns"].get(column, NOTHING)["observables"]
        pulls = [abs(p) for name in TABLE if (p := pull(observables.get(name), truth.get(name))) is not None]
        worst[column] = max(pulls, default=None)
    lnz = pull(summary["ln_z"], truth.get("ln_z"))
    worst["ln_z"] = None if lnz is None else abs(lnz)
    corrected = ("weighted", "metropolis")
    missing = [
        f"{column} {name}"
        for column in corrected
        for name in TABLE
        if name in truth
        and pull(summary["columns"].get(column, NOTHING)["observables"].get(name), truth[name]) is None
    ]
    within = all(w is None or w <= MAX_PULL for w in (worst[c] for c in (*corrected, "ln_z")))
    against = "reference" if summary["reference"] is not None else "training"
    return {
        "against": against,
        "certified": bool(certificate["passed"]),
        "max_pull": worst,
        "missing": missing,
        "passed": bool(certificate["passed"] and within and not missing),
    }


def table_text(summary: dict[str, Any]) -> str:
    """The final table for the terminal: value(error) [pull] per column, then ESS, acceptance, ln Z, KL."""
    from lattice.measure import aligned

    truth, columns = truth_of(summary), summary["columns"]
    against = summary["verdict"]["against"]
    shown = [c for c in COLUMNS if c in columns]
    heads = (["reference"] if against == "reference" else []) + shown
    rows = [["observable", *heads]]
    for name in TABLE:
        cells = [_value(*truth[name]) if name in truth else "-"] if against == "reference" else []
        for column in shown:
            entry = columns[column]["observables"].get(name)
            p = None if column == against else pull(entry, truth.get(name))
            cells.append(_entry(entry) + (f" [{p:+.1f}]" if p is not None else ""))
        rows.append([name, *cells])
    lines = aligned(rows)
    lines.append(f"value(error) [pull against the {against}]; kappa-lambda convention")
    lines += [f"{column}: not measured, {why}" for column, why in summary["notes"].items()]
    return "\n".join([*lines, *_tail(summary, truth)])


def _tail(summary: dict[str, Any], truth: dict[str, tuple[float, float]]) -> list[str]:
    ess, kl, lnz = summary["ess"], summary["kl"], summary["ln_z"]
    lines = []
    if ess["reverse"] is not None:
        forward = _value(ess["forward"], ess["forward_error"])
        lines.append(f"ESS/N: reverse {_value(ess['reverse'], ess['reverse_error'])}, forward {forward}")
    if summary["acceptance"] is not None:
        lines.append(f"Metropolis acceptance {summary['acceptance']:.3f}")
    if lnz["value"] is not None:
        p = pull(lnz, truth.get("ln_z"))
        known = f" (reference {_value(*truth['ln_z'])} [{p:+.1f}])" if p is not None else ""
        lines.append(f"ln Z = {_value(lnz['value'], lnz['error'])}{known}")
    gain = f", gain {_value(kl['gain'], kl['gain_error'])}" if kl.get("gain") is not None else ""
    parts = ", ".join(
        f"{name} {kl[name]:.3g}" for name in ("wiener", "base", "model") if kl.get(name) is not None
    )
    lines.append(f"path KL on held-out data: {parts}{gain}")
    lines.append("seconds: " + ", ".join(f"{stage} {s:.0f}" for stage, s in summary["seconds"].items()))
    worst = ", ".join(
        f"{name} {w:.1f}" for name, w in summary["verdict"]["max_pull"].items() if w is not None
    )
    lines.append(
        f"verdict: {'passed' if summary['verdict']['passed'] else 'NOT passed'} (largest |pull|: {worst})"
    )
    return lines


def _entry(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None or entry["value"] is None else _value(entry["value"], entry["error"])


def _value(value: float | None, error: float | None) -> str:
    from lattice.statistics import format_value

    if value is None:
        return "-"
    return f"{value:.6g}" if error is None or error <= 0 else format_value(value, error)
