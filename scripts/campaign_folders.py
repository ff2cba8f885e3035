"""Campaigns on folders: SIGKILL at random moments, a disk that is full at a random byte, two at one folder.

Each unit starts from an empty folder and must end with the products of the run that nothing disturbed.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from campaign_jobs import JOBS, End, Job, differences, ended, fresh, one_line, products, start, straight

KILLS = 4.0  # of one folder, on average
MOVING = {"stages.json", "metrics.jsonl", "scan.json", "seconds.json", "lock", "report.html", "config.yaml"}
FULL = ("disk full", "no space left")
BUSY = "another process is working"


@dataclass
class Unit:
    """What came of one folder: how often it was disturbed, and the faults, a line each."""

    job: str
    disturbed: int = 0
    faults: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


class Bench:
    """The jobs' undisturbed folders and their products, and a place to disturb others."""

    def __init__(self, names: list[str], place: Path, other: dict[str, Any] | None = None) -> None:
        self.names, self.place = names, place
        done = straight(names, place, other)
        self.finished = {name: folder for name, (folder, _) in done.items()}
        self.seconds = {name: seconds for name, (_, seconds) in done.items()}
        self.wanted = {name: products(folder) for name, folder in self.finished.items()}

    def fresh(self, job: Job, folder: Path) -> Path:
        return fresh(job, folder, self.finished)

    def start(self, job: Job, folder: Path, said: str = "said", before: Callable[[], object] = int) -> int:
        return start(job, self.place / "configs", folder, self.place / said, before)

    def run(
        self, job: Job, folder: Path, kill_after: float | None = None, before: Callable[[], object] = int
    ) -> End:
        """One process of the job, to its end or its kill."""
        return ended(self.start(job, folder, before=before), self.place / "said", kill_after)

    def finish(self, unit: Unit, job: Job, folder: Path) -> None:
        """The same command once more, undisturbed; what its products are not is a fault."""
        end = self.run(job, folder)
        if end.code not in (0, 1):
            unit.faults.append(
                f"{job.name}: does not go on, exit code {end.code}: {end.said.strip()[-2000:]}"
            )
        else:
            unit.faults += [
                f"{job.name}: {line}" for line in differences(products(folder), self.wanted[job.name])
            ]


def kill(bench: Bench, index: int, seed: int) -> Unit:
    """One folder whose processes are killed at the points of a Poisson process in time, until one ends."""
    rng = np.random.default_rng([seed, index])
    job = JOBS[bench.names[index % len(bench.names)]]
    unit, folder, seen = Unit(job.name), bench.fresh(job, bench.place / "kill" / "run"), set[str]()
    while unit.disturbed < 20 * KILLS:
        end = bench.run(job, folder, kill_after=float(rng.exponential(bench.seconds[job.name] / KILLS)))
        if end.code != -9:
            break
        unit.disturbed += 1
        unit.faults += [f"{job.name}: after a kill, {line}" for line in torn(bench, job, folder, seen)]
    bench.finish(unit, job, folder)
    return unit


def torn(bench: Bench, job: Job, folder: Path, seen: set[str]) -> list[str]:
    """Files under their own names that are not complete after a kill, and those that were there before
    (`seen`, brought up to date) and are no more."""
    wanted = bench.wanted[job.name]
    try:
        found = products(folder) if folder.exists() else {}
    except ValueError as error:  # a JSON file that is none
        return [f"a file is torn: {error}"]
    lasting = {name for name in found if name in wanted and Path(name).name not in MOVING}
    lost = sorted(seen - lasting - {name for name in seen if "checkpoint-" in name})
    seen |= lasting
    wrong = [name for name in sorted(lasting) if found[name] != wanted[name]]
    return [*(f"{name} is lost" for name in lost), *(f"{name} has other bits" for name in wrong)]


def race(bench: Bench, index: int, seed: int) -> Unit:
    """Two processes on one new folder, at the same moment up to the time of some system calls."""
    rng = np.random.default_rng([seed, index])
    job = JOBS[bench.names[index % len(bench.names)]]
    unit, folder = Unit(job.name, disturbed=1), bench.fresh(job, bench.place / "race" / "run")
    moment, late = time.monotonic() + 0.05, rng.exponential(2e-3, size=2)

    def wait(own: float) -> Callable[[], None]:
        return lambda: time.sleep(max(0.0, moment + own - time.monotonic()))

    pids = [bench.start(job, folder, f"said-{k}", wait(float(late[k]))) for k in range(2)]
    ends = [ended(pid, bench.place / f"said-{k}") for k, pid in enumerate(pids)]
    ends.sort(key=lambda end: end.code)
    if [end.code for end in ends] not in ([0, 2], [1, 2]):
        unit.faults.append(f"{job.name}: exit codes {[end.code for end in ends]}, expected one 0 and one 2")
    elif not (one_line(ends[1].said) and BUSY in ends[1].said and str(folder) in ends[1].said):
        unit.faults.append(f"{job.name}: the second said {ends[1].said!r}")
    unit.said = [end.said.strip() for end in ends]
    unit.faults += [f"{job.name}: {line}" for line in differences(products(folder), bench.wanted[job.name])]
    return unit


class Disk:
    """A file system of a size, mounted on `folder` in a name space of its own; where mounts are not allowed,
    a limit on the size of single files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mounted = folder, False
        folder.mkdir(parents=True, exist_ok=True)

    def resize(self, size: int | None) -> None:
        """Mount anew, empty (first call), or change the size; None: large."""
        options = f"size={size if size is not None else 2**30}"
        again = ["-o", f"remount,{options}"] if self.mounted else ["-t", "tmpfs", "-o", options, "tmpfs"]
        subprocess.run(["mount", *again, str(self.folder)], check=True, capture_output=True)
        self.mounted = True

    def unmount(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
            self.mounted = False


def may_mount(place: Path) -> bool:
    """Whether this process can mount a small file system."""
    disk = Disk(place / "probe")
    try:
        disk.resize(2**16)
        disk.unmount()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def full(bench: Bench, index: int, seed: int, mounts: bool) -> Unit:
    """One folder on a disk that is full at a random byte of what the job writes; then space is made."""
    rng = np.random.default_rng([seed, index])
    job = JOBS[bench.names[index % len(bench.names)]]
    unit = Unit(job.name)
    end = None
    disk = Disk(bench.place / "full")
    shutil.rmtree(disk.folder / "run", ignore_errors=True)
    sizes = [path.stat().st_size for path in bench.finished[job.name].rglob("*") if path.is_file()]
    try:
        if mounts:
            before = used(bench.finished[job.after]) if job.after else 0
            disk.resize(None)
            folder = bench.fresh(job, disk.folder / "run")
            disk.resize(
                before + 4096 * int(rng.integers(1, (used(bench.finished[job.name]) - before) // 4096))
            )
            end = bench.run(job, folder)
            disk.resize(None)
        else:
            folder, limit = bench.fresh(job, disk.folder / "run"), int(rng.integers(1, max(sizes)))
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            end = bench.run(
                job, folder, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            )
        unit.said = [end.said.strip()]
        if end.code not in (0, 1) or not end.said == "":
            unit.disturbed = 1
            if (
                end.code != 2
                or not one_line(end.said)
                or not any(words in end.said for words in FULL)
                or str(disk.folder) not in end.said
            ):
                unit.faults.append(f"{job.name}: exit code {end.code}, said {end.said.strip()[-2000:]!r}")
        bench.finish(unit, job, folder)
    finally:
        disk.unmount()
    return unit


def used(folder: Path) -> int:
    """Bytes that a folder takes on a tmpfs: pages of files."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def in_name_space(words: list[str]) -> None:
    """Start this program again where it may mount, once, if the machine allows that to anyone."""
    if os.environ.get("CAMPAIGN_INSIDE") or shutil.which("unshare") is None:
        return
    flags = ["-m"] if os.geteuid() == 0 else ["-r", "-m"]
    if subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode == 0:
        os.environ["CAMPAIGN_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", *flags, *words])
