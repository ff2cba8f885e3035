"""Damaged files to every reader: the right content, or one line. No traceback, no code, no hang, no memory.

A worker is forked, and forked again where it dies: of a segmentation fault, say, inside a library.
"""

from __future__ import annotations

import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from campaign_damage import damage
from campaign_jobs import preload
from campaign_readers import BOUND, READERS, Reader, make_examples, mend_hashes
from matplotlib.figure import Figure

from lattice.errors import InputError

HANG, PATIENCE = 10.0, 120.0  # seconds of processor, and of waiting for a process that does not count them
MEMORY, ROOM = 2**30, 3 * 2**30  # bytes: more than the first is a fault, more than the second does not exist
LONGEST = 2000  # of a line
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class",
             "socket.connect", "ctypes.dlopen", "shutil.rmtree")  # fmt: skip
RIGHT, WRITTEN, REFUSED, FAULT = "right content", "as written", "refused", "fault"


def save_nothing(self: Figure, to: Any, **options: Any) -> None:
    """Figures are made of what a file says, but not drawn: that takes seconds each."""
    text = b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"
    to.write(text if isinstance(to, io.BytesIO) else text.decode())


class Hang(BaseException):
    """More than HANG seconds of processor."""


class Case:
    """One damaged copy of one reader's example: a function of the seed and the number."""

    def __init__(self, number: int, seed: int, examples: Path, place: Path, only: list[str]) -> None:
        rng = np.random.default_rng([seed, number])
        readers = [READERS[name] for name in only]
        odds = np.array([reader.weight for reader in readers])
        self.reader: Reader = readers[int(rng.choice(len(readers), p=odds / odds.sum()))]
        self.folder, source = place / "case", examples / self.reader.name
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(source, self.folder, copy_function=os.link)
        found = sorted({p for pattern in self.reader.files for p in self.folder.glob(pattern) if p.is_file()})
        found = [
            p for p in found if p.name not in ("secret.h5", "lock", "key.txt", "report.html", "overview.png")
        ]
        self.path = found[int(rng.integers(len(found)))]
        for path in (self.path, *self.path.parent.glob("*.json")):  # no longer the example's own
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
        self.done = damage(self.path, rng)
        forged = self.reader.forged and self.path.suffix in (".h5", ".safetensors") and rng.random() < 0.5
        if forged:
            mend_hashes(self.path)
            self.done += ", its hash mended"
        self.free = any(fnmatch(self.path.name, pattern) for pattern in self.reader.free) or (
            forged and self.path.name in BOUND
        )


def hang(*_: Any) -> None:
    raise Hang


def judged(case: Case, sound: str, seen: list[str]) -> tuple[str, str]:
    """What came of a case, and words where it is a fault; `seen` fills with what was forbidden."""
    seen.clear()
    clear_peak()
    before, verdict, words = peak(), RIGHT, ""
    signal.signal(signal.SIGPROF, hang)
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        found = case.reader.read(case.folder)
        if found != sound:
            verdict = WRITTEN if case.free else FAULT
            words = "other content, and nothing said"
    except InputError as error:
        text, verdict = str(error), REFUSED
        if "\n" in text or not text.strip() or len(text) > LONGEST:
            verdict, words = FAULT, f"not one line: {text[:300]!r} ({len(text)} characters)"
    except Hang:
        verdict, words = FAULT, f"more than {HANG:g} s"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        own = [
            f"{Path(f.filename).name}:{f.lineno}"
            for f in where
            if "/lattice/" in f.filename or "/diffsq/" in f.filename
        ]
        verdict, words = FAULT, f"{type(error).__name__}: {str(error)[:200]} at {' '.join(own[-3:])}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    if seen:
        verdict, words = FAULT, f"did {', '.join(seen)}"
    if (grown := peak() - before) > MEMORY:
        verdict, words = FAULT, f"{grown >> 20} MB of memory; {words}"
    return verdict, words


def peak() -> int:
    """Highest resident memory so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def clear_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def watch(seen: list[str], place: Path) -> None:
    """Note everything forbidden that this process does: programs, pickles, files written elsewhere."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in FORBIDDEN and event != "shutil.rmtree":
            seen.append(f"{event} {str(args)[:80]}")
        elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
            if not str(args[0]).startswith((str(place), "/proc/self", "/tmp", "/dev/null")):
                seen.append(f"wrote {args[0]}")

    sys.addaudithook(hook)


def work(
    numbers: range, seed: int, examples: Path, place: Path, only: list[str], sound: dict[str, str], out: int
) -> None:
    """Cases one after the other, a line of JSON for each into the pipe `out`."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(place)

    Figure.savefig = save_nothing
    seen: list[str] = []
    watch(seen, place)
    for number in numbers:
        case = Case(number, seed, examples, place, only)
        head = {"number": number, "reader": case.reader.name, "file": case.path.name, "done": case.done}
        os.write(out, (json.dumps({**head, "verdict": "begun"}) + "\n").encode())
        verdict, words = judged(case, sound[case.reader.name], seen)
        os.write(out, (json.dumps({**head, "verdict": verdict, "words": words}) + "\n").encode())


def mutate(n: int, seed: int, place: Path, only: list[str] | None = None, to: Any = None) -> int:
    """n cases; the table; 1 where there was a fault. Cases done earlier with this seed are not done again."""
    only = only or list(READERS)
    log = place / f"mutate-{seed}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    preload()
    examples = make_examples(place / "work")
    sound = {name: READERS[name].read(_copy(examples / name, place / "sound")) for name in only}
    begun, first = time.monotonic(), len(done)
    with log.open("a") as file:
        while len(done) < n:
            for line in batch(range(len(done), min(n, len(done) + 500)), seed, examples, place, only, sound):
                done.append(line)
                file.write(json.dumps(line) + "\n")
                file.flush()
                if line["verdict"] == FAULT:
                    where = f"{line['number']}: {line['reader']}, {line['file']}, {line['done']}"
                    print(f"FAULT {where}: {line['words']}", flush=True)
            rate = (len(done) - first) / (time.monotonic() - begun)
            print(f"{len(done)}/{n}, {rate:.1f} a second", file=sys.stderr)
    return table(done)


def _copy(source: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(source, folder))


def batch(numbers: range, *rest: Any) -> Iterator[dict[str, Any]]:
    """The results of some cases by one worker, of fewer where it dies or hangs in one of them."""
    back, out = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            os.close(back)
            work(numbers, *rest, out)
        finally:
            os._exit(0)
    os.close(out)
    n, last, why = 0, dict[str, Any](), ""
    with os.fdopen(back) as pipe:
        while True:
            if not select.select([pipe], [], [], PATIENCE)[0]:
                os.kill(pid, signal.SIGKILL)
                why = f"no answer in {PATIENCE:g} s"
                break
            if not (text := pipe.readline()):
                break
            last = json.loads(text)
            if last["verdict"] != "begun":
                n += 1
                yield last
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if last.get("verdict") == "begun":
        yield {**last, "verdict": FAULT, "words": why or f"the process died of it, exit code {code}"}
    elif n < len(numbers):
        raise SystemExit(f"the damage itself failed at case {numbers[n]}, exit code {code}")


def table(done: list[dict[str, Any]]) -> int:
    """Print what came of the cases, a row per reader; 1 where there was a fault."""
    kinds = (RIGHT, WRITTEN, REFUSED, FAULT)
    print(f"\n{'reader':<14}{'cases':>8}" + "".join(f"{kind:>15}" for kind in kinds))
    count = Counter((line["reader"], line["verdict"]) for line in done)
    for name in [*dict.fromkeys(line["reader"] for line in done), "all"]:
        row = [sum(c for (r, v), c in count.items() if v == kind and name in (r, "all")) for kind in kinds]
        print(f"{name:<14}{sum(row):>8}" + "".join(f"{c:>15}" for c in row))
    return int(any(line["verdict"] == FAULT for line in done))
