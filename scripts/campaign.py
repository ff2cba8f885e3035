"""Faults on purpose, many of them: kills, damaged files, a full disk, two at one folder.

    scripts/campaign.py kill --n 1000        # SIGKILLs at random moments of small runs
    scripts/campaign.py mutate --n 10000     # damaged HDF5, YAML, safetensors and JSON files to every reader
    scripts/campaign.py full --n 50          # disks that are full at a random byte
    scripts/campaign.py race --n 100         # two processes on one folder

Each ends with a table, and with exit code 1 where there was a fault; what is done is kept in --place, and the
same command goes on from there. A case is a function of --seed and its number.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"  # children are forked: no other thread may run
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import campaign_folders as folders  # noqa: E402
import campaign_jobs as jobs  # noqa: E402

SIZES = {"kill": 1000, "mutate": 10000, "full": 50, "race": 100}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("campaign", choices=list(SIZES))
    parser.add_argument("--n", type=int, help="kills, files, full disks or races")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", default="", help=f"some of {','.join(jobs.JOBS)}")
    parser.add_argument("--place", type=Path, default=Path("build/campaign"), help="where to work")
    args = parser.parse_args(argv)
    n, place = args.n or SIZES[args.campaign], args.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    if args.campaign == "mutate":
        from campaign_mutate import mutate

        return mutate(n, args.seed, place)
    if args.campaign == "full" and argv is None:
        folders.in_name_space([sys.executable, *sys.argv])
    names = args.jobs.split(",") if args.jobs else list(jobs.JOBS)
    if unknown := set(names) - set(jobs.JOBS):
        parser.error(f"no such job: {', '.join(unknown)}")
    return disturb(args.campaign, n, args.seed, names, place)


def disturb(campaign: str, n: int, seed: int, names: list[str], place: Path) -> int:
    """Folder after folder until n disturbances are done; the table; 1 where there was a fault."""
    log = place / f"{campaign}-{seed}-{'-'.join(names)}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    jobs.preload()
    bench = folders.Bench(names, place / "work")
    seconds = ", ".join(f"{name} {bench.seconds[name]:.1f} s" for name in names)
    print(f"undisturbed: {seconds}", flush=True)
    one = unit_of(campaign, bench, seed)
    begun = time.monotonic()
    with log.open("a") as file:
        while sum(unit["disturbed"] for unit in done) < n:
            unit = asdict(one(len(done)))
            done.append(unit)
            file.write(json.dumps(unit) + "\n")
            file.flush()
            count = sum(unit["disturbed"] for unit in done)
            print(f"{count}/{n}, {len(done)} folders, {time.monotonic() - begun:.0f} s", file=sys.stderr)
            for line in unit["faults"]:
                print(f"FAULT in folder {len(done) - 1}: {line}", flush=True)
    return table(campaign, done)


def unit_of(campaign: str, bench: folders.Bench, seed: int) -> Callable[[int], folders.Unit]:
    """The unit of a campaign, by its number."""
    if campaign == "full":
        mounts = folders.may_mount(bench.place)
        print("disk: a small tmpfs" if mounts else "disk: a limit on the size of files (no mounts here)")
        return lambda index: folders.full(bench, index, seed, mounts)
    one = {"kill": folders.kill, "race": folders.race}[campaign]
    return lambda index: one(bench, index, seed)


def table(campaign: str, done: list[dict[str, object]]) -> int:
    """Print what was done, a row per job; 1 where there was a fault."""
    print(f"\n{'job':<10}{'folders':>9}{campaign + 's':>9}{'same bits':>11}{'faults':>8}")
    folders_of, hits, same, faults = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for unit in done:
        for name in (str(unit["job"]), "all"):
            folders_of[name] += 1
            hits[name] += int(str(unit["disturbed"]))
            same[name] += not unit["faults"]
            faults[name] += bool(unit["faults"])
    for name in folders_of:
        if name != "all":
            print(f"{name:<10}{folders_of[name]:>9}{hits[name]:>9}{same[name]:>11}{faults[name]:>8}")
    print(f"{'all':<10}{folders_of['all']:>9}{hits['all']:>9}{same['all']:>11}{faults['all']:>8}")
    return int(faults["all"] > 0)


if __name__ == "__main__":
    sys.exit(main())
