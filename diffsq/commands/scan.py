"""`diffsq ensemble` with many points: make them, then the table, the figures, the crossings, the pulls."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lattice.errors import InputError

OURS = {"Software": "diffsq scan"}  # in a figure, which a later scan may replace
# What a drawing may raise; ValueError includes InputError and LinAlgError.
_REFUSALS = (ValueError, ArithmeticError, LookupError, RuntimeError, OSError, MemoryError)


def is_scan(args: argparse.Namespace) -> bool:
    """Whether this is a scan: --scan was given, or the file lists points."""
    from diffsq.config.scan_file import is_points_file

    return bool(args.scan) or is_points_file(args.config)


def scan_command(args: argparse.Namespace) -> int:
    """ensemble CONFIG --scan ..., ensemble POINTS. 1 when a point failed or published values differ."""
    from diffsq.config.scan_file import load_scan

    if args.restart is not None:
        raise InputError("--restart is for a single run; remove the folder of the point to make it again")
    if args.collect and args.submit is not None:
        raise InputError("--submit makes points and --collect makes none; give one of them")
    scan = load_scan(args.config, args.scan, args.set)
    folder = args.run or Path("runs") / scan.name
    if args.dry_run:
        _print_points(scan.points, folder)
        for point, why in _impossible(scan.points, scan.seed):
            print(f"would fail: {point}: {why}")
        return 0
    if args.submit is not None:
        from diffsq.commands.slurm import submit_scan

        jobs = submit_scan(scan.points, folder, scan.seed, args.submit, keep_fields=args.keep_fields)
        print(f"submitted {len(jobs)} points: {', '.join(jobs)}")
        print(f"when they are done, the table: {_collect_command(args)}")
        return 0
    from diffsq.run_folder.reference import compare_with_references
    from lattice.files import write_json
    from lattice.progress import make_progress
    from lattice.scans.scan import run_scan
    from lattice.scans.table import CERTIFIED

    content = run_scan(
        scan.points, folder, scan.seed, keep_fields=args.keep_fields, progress=make_progress(args.quiet),
        say=(lambda text: None) if args.quiet else lambda text: print(text, file=sys.stderr, flush=True),
        team=args.team, collect=args.collect,
    )  # fmt: skip
    content["references"] = compare_with_references(content["points"])
    write_json(folder / "scan" / "scan.json", content)
    print(scan_text(content))
    paths, content["not_drawn"] = _figures(content, folder / "scan")
    write_json(folder / "scan" / "scan.json", content)
    for line in [*paths, *(f"not drawn: {why}" for why in content["not_drawn"])]:
        print(line)
    certified = all(result["status"] == CERTIFIED for result in content["points"])
    differ = content["references"] is not None and content["references"]["verdict"] == "differ"
    return 0 if certified and not differ else 1


def _collect_command(args: argparse.Namespace) -> str:
    words = ["diffsq", "ensemble", str(args.config)]
    for option, values in (("--scan", args.scan), ("--set", args.set)):
        words += [option, *values] if values else []
    return shlex.join([*words, *(["--run", str(args.run)] if args.run else []), "--collect"])


def scan_text(content: Mapping[str, Any]) -> str:
    """What a scan ends with on the terminal, from the content of scan.json."""
    from diffsq.run_folder.reference import format_references
    from lattice.scans.crossings import format_crossings
    from lattice.scans.table import CERTIFIED, format_scan

    points = content["points"]
    bad = [result for result in points if result["status"] != CERTIFIED]
    parts = [format_scan(points), *(format_crossings(block) for block in content["crossings"])]
    if content.get("references") is not None:
        parts.append(format_references(content["references"]))
    seconds = sum(result.get("seconds", 0.0) for result in points)
    parts.append(f"{len(points) - len(bad)} of {len(points)} points certified, {seconds:.0f} s")
    parts += [f"{result['status']}: {result['name']}: {result['reason']}" for result in bad]
    return "\n".join(parts)


def _print_points(points: list[Any], folder: Path) -> None:
    from lattice.scans.table import axis_of, extents, fixed_of
    from lattice.statistics.notation import aligned

    actions = [point.action.as_dict() for point in points]
    names = list(dict.fromkeys(n for action in actions for n in (axis_of(action), *fixed_of(action))))
    rows = [["point", "L", *names, "n_configs", "n_chains", "reference"]]
    for point, action in zip(points, actions, strict=True):
        reference = (point.note or {}).get("reference")
        rows.append([
            point.name, extents(point.shape),
            *("-" if action.get(name) is None else f"{action[name]:.10g}" for name in names),
            str(point.params.n_saved), str(point.params.n_chains),
            "-" if reference is None else f"{len(reference['values'])} values",
        ])  # fmt: skip
    print("\n".join([*aligned(rows), f"would make {len(points)} points in {folder / 'scan'}"]))


def _impossible(points: list[Any], seed: int) -> Iterator[tuple[str, str]]:
    """The points that cannot be made, each with the reason."""
    from lattice.simulation.recipe import Recipe, check_recipe

    for point in points:
        try:
            check_recipe(Recipe(point.action, point.shape, point.params, seed))
        except InputError as error:
            yield point.name, str(error)


def _figures(content: Mapping[str, Any], folder: Path) -> tuple[list[Path], list[str]]:
    """The files drawn, and why others were not: hours of computing may lie before the figures, and nothing
    that a drawing library refuses may cost the table, nor a file that is in the way."""
    from diffsq import plots
    from lattice.files import write_atomic

    paths, reasons, figures = list[Path](), list[str](), {}
    fitted = [block for block in content["crossings"] if block["fits"]]
    for crossings in (fitted, []):  # without the crossings when they are what cannot be drawn
        try:
            figures = plots.scan_figures({**content, "crossings": crossings})
            break
        except _REFUSALS as error:
            reasons.append(f"figures {'with' if crossings else 'without'} crossings: {_one_line(error)}")
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        try:
            if path.is_symlink() or (path.exists() and OURS["Software"].encode() not in path.read_bytes()):
                raise InputError(f"{path} is there already and not of a scan; move it")
            write_atomic(path, partial(figure.savefig, format="png", metadata=OURS))
            paths.append(path)
        except _REFUSALS as error:
            reasons.append(f"{name}: {_one_line(error)}")
    return paths, reasons


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())
