"""The small runs that the campaigns kill, starve and race, how one is started, and what it must leave.

A process is forked from one that holds the packages already, so that it starts in milliseconds; its products
are compared by content: everything but the recorded seconds, dates and the page that shows them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

PRELOADED = (
    "diffsq.pipeline", "diffsq.commands.chain", "diffsq.commands.scan", "diffsq.commands.measure",
    "diffsq.run_folder.chain", "diffsq.checks.likelihood", "diffsq.checks.samplers",
    "diffsq.plots.scan", "torch._dynamo",
    "diffsq.training.lattice", "diffsq.report.page", "lattice.interchange.importing", "lattice.scans.scan",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "torch.optim.swa_utils",
)  # fmt: skip
LATTICE: dict[str, Any] = {
    "name": "small", "seed": 3,
    "action": {"kind": "phi4", "kappa": 0.22, "lam": 0.05}, "lattice": {"shape": [4, 4]},
    "ensemble": {"n_configs": 1024, "n_chains": 16, "n_therm": 100, "shard_configs": 256},
    "model": {"channels": 2, "n_levels": 2, "n_sigma": 4, "n_fit": 256},
    "training": {
        "n_steps": 40, "batch_size": 8, "learning_rate": 1e-2, "warmup": 3, "checkpoint_every": 10,
        "validate_every": 20,
    },
    "sampling": {
        "n_samples": 1088, "n_levels": 4, "n_forward": 128, "method": "path",
    },
    "checks": {"likelihood": {"n_fields": 64, "n_levels": 4, "n_estimates": 2}},
    "chain": {"moves": ["denoise", "hmc"], "n_chains": 4, "n_steps": 52, "n_therm": 20},
}  # fmt: skip
POINT: dict[str, Any] = {
    "name": "point", "seed": 5, "action": {"kind": "two_peak", "mu0": 1.0, "sigma0": 0.25},
    "ensemble": {"n_configs": 4096}, "models": ["score", "energy"],
    "training": {
        "n_steps": 60, "batch_size": 64, "checkpoint_every": 20, "width": 8, "depth": 2, "n_sigma": 8,
        "n_nodes": 256,
    },
    "sampling": {
        "n_samples": 4096, "n_levels": {"ve": 8}, "method": "flow", "sde": ["ve"], "n_metropolis": 4096,
        "metropolis_levels": 8,
    },
    "checks": {
        "samplers": {"methods": {"flow": [8]}, "n": 1024}, "limits": False, "cumulants": False,
        "learned-action": False,
    },
}  # fmt: skip
SCAN = ("kappa=0.2,0.24", "L=4,6")
TIMES = {"seconds", "cpu_seconds", "created"}
UNLIKE = {"lock", "seconds.json", "report.html"}  # nothing in them but times, or made of them


@dataclass(frozen=True)
class Job:
    """A command of `diffsq` that makes a folder; `after`: the job whose finished folder it works in.

    Drawing all figures of a page takes longer than all the rest: only the job `report` does it.
    """

    name: str
    words: tuple[str, ...]
    after: str | None = None
    draws: bool = False

    def command(self, configs: Path, folder: Path) -> list[str]:
        """The words, their config in `configs`, their folder `folder`."""
        first, *rest = self.words
        if first == "report":
            return [first, str(folder), "--quiet"]
        return [first, str(configs / rest[0]), "--run", str(folder), "--quiet", *rest[1:]]


JOBS = {
    job.name: job
    for job in (
        Job("lattice", ("run", "lattice.yaml")),
        Job("point", ("run", "point.yaml")),
        Job("scan", ("ensemble", "scan.yaml", "--scan", *SCAN)),
        Job("chain", ("chain", "lattice.yaml"), after="lattice"),
        Job("report", ("report",), after="lattice", draws=True),
    )
}


@dataclass(frozen=True)
class End:
    """How a command ended: exit code (-9: killed), wall seconds, and what it said on standard error."""

    code: int
    seconds: float
    said: str


def preload() -> None:
    """Import all that the jobs need, once, and nothing that starts a thread."""
    import torch

    from lattice.provenance import code_version

    torch.set_num_threads(1)
    for name in PRELOADED:
        import_module(name)
    code_version()
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        from diffsq.commands.main import main

        # the compiled loops are loaded when they are first used
        main(JOBS["scan"].command(write_configs(Path(place) / "configs"), Path(place) / "run"))


def draw_none() -> None:
    """Leave the figures out from now on, in this process: a page without them, and pictures of one word."""
    from matplotlib.figure import Figure

    from diffsq.report import page

    def save(self: Any, to: Any, **options: Any) -> None:
        if hasattr(to, "write"):
            to.write(b"figure")
        else:
            Path(to).write_bytes(b"figure")

    page.build_sections = lambda run, parts: []
    page.check_sections = lambda run: []
    Figure.savefig = save


def write_configs(folder: Path, other: Mapping[str, Any] | None = None) -> Path:
    """The configs of the jobs, in `folder`; `other` settings win."""
    folder.mkdir(parents=True, exist_ok=True)
    scan = {**LATTICE, "ensemble": {**LATTICE["ensemble"], "n_configs": 512}}
    for name, data in (("lattice", LATTICE), ("point", POINT), ("scan", scan)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**data, **(other or {})}))
    return folder


def fork(function: Callable[[], int], said: Path) -> int:
    """The process number of a child that returns function(); both its streams go to the file `said`."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file, 2)
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(job: Job, configs: Path, folder: Path, said: Path, before: Callable[[], object] = int) -> int:
    """The process number of a job's command, at work in `folder`; it calls `before()` first of all."""
    from diffsq.commands.main import main

    def work() -> int:
        before()
        if not job.draws:
            draw_none()
        return main(job.command(configs, folder))

    return fork(work, said)


def ended(pid: int, said: Path, kill_after: float | None = None, limit: float = 300.0) -> End:
    """Wait for a child; SIGKILL it after `kill_after` seconds, and as a hang (code -1) after `limit`."""
    begun = time.monotonic()
    over = min(limit, kill_after if kill_after is not None else limit)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - begun >= over:
            os.kill(pid, 9)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    seconds = time.monotonic() - begun
    code = -1 if seconds >= limit else os.waitstatus_to_exitcode(status)
    return End(code, seconds, said.read_text(errors="replace") if said.exists() else "")


def straight(
    names: Sequence[str], place: Path, other: Mapping[str, Any] | None = None
) -> dict[str, tuple[Path, float]]:
    """Every job run once without disturbance in `place`: its folder, and its seconds."""
    configs, done = write_configs(place / "configs", other), dict[str, tuple[Path, float]]()
    wanted = [name for name in JOBS if name in {*names, *(JOBS[name].after for name in names)}]
    for name in wanted:
        folder = fresh(JOBS[name], place / "straight" / name, {k: v[0] for k, v in done.items()})
        end = ended(start(JOBS[name], configs, folder, place / "said"), place / "said")
        if end.code not in (0, 1):
            raise SystemExit(f"the job {name} fails by itself (exit code {end.code}): {end.said}")
        done[name] = folder, end.seconds
    return done


def fresh(job: Job, folder: Path, finished: dict[str, Path]) -> Path:
    """An empty place for a job, or a copy of the finished folder that it works in."""
    shutil.rmtree(folder, ignore_errors=True)
    if job.after is not None:
        shutil.copytree(finished[job.after], folder)
    if job.name == "report":
        records = json.loads((folder / "stages.json").read_text())
        del records["report"]
        (folder / "stages.json").write_text(json.dumps(records))
        (folder / "report.html").unlink()
        (folder / "overview.png").unlink()
    return folder


def products(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the content of every file in a folder, without times; temporary files are products
    too, which no finished folder may have."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name not in UNLIKE:
            found[str(path.relative_to(folder))] = hashlib.sha256(_content(path, folder)).hexdigest()
    return found


def _content(path: Path, folder: Path) -> bytes:
    if path.suffix in (".json", ".jsonl"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        data = [_timeless(json.loads(line)) for line in lines]
        if path.name == "stages.json":
            data = [_stage(name, record) for name, record in sorted(data[0].items())]
        text = json.dumps(data, sort_keys=True).replace(str(folder), "")
        return text.encode()
    return path.read_bytes()


def _stage(name: str, record: dict[str, Any]) -> list[Any]:
    """A stage's record without the hashes of files with times in them: all that measure and report are of."""
    timed = name in ("measure", "report")
    kept = {key: record[key] for key in ("config", "complete")} if timed else {**record}
    return [name, {**kept, "files": sorted(record.get("files", ()))}]


def _timeless(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _timeless(value) for key, value in data.items() if key not in TIMES}
    return [_timeless(value) for value in data] if isinstance(data, list) else data


def differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """What is lost, left over, or of other bits, a line each."""
    lost = [f"{name} is lost" for name in wanted if name not in found]
    left = [f"{name} is left over" for name in found if name not in wanted]
    return [
        *lost,
        *left,
        *(f"{name} has other bits" for name in wanted if found.get(name, wanted[name]) != wanted[name]),
    ]


def one_line(said: str) -> bool:
    """Whether a refusal is the one line it should be."""
    lines = said.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("diffsq: error: ") and len(lines[0]) < 2000
