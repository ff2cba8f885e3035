"""`diffsq run`, `ensemble`, `train`, `sample` and `report`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from diffsq.commands.session import limit_threads, load, pick_device, print_plan, to_stderr
from diffsq.config.names import STAGE_NAMES
from lattice.errors import InputError


def stage_command(args: argparse.Namespace) -> int:
    """run, ensemble, train, sample."""
    limit_threads(args.threads)
    if getattr(args, "model", None) is not None:
        from diffsq.commands.family import sample_model

        return sample_model(args)
    if args.config is None:
        raise InputError("sample needs a CONFIG, or a model of many: `diffsq sample --model phi4-2d`")
    from diffsq.commands.scan import is_scan, scan_command

    if args.command == "run":  # of a file of points: its scan
        vars(args).update(scan=[], submit=None, keep_fields=False, collect=False)
        if is_scan(args):
            return scan_command(args)
    if args.command == "ensemble":
        if is_scan(args):
            return scan_command(args)
        if args.submit is not None or args.keep_fields or args.collect:
            raise InputError(
                "--submit, --collect and --keep-fields are for a scan; give --scan or a file of points"
            )
    config, name = load(args), args.command
    from diffsq import pipeline
    from diffsq.run_folder import records

    folder = args.run or Path("runs") / config.name
    stages = STAGE_NAMES if name == "run" else (name,)
    if (
        args.restart is not None
        and name != "run"
        and STAGE_NAMES.index(args.restart) < STAGE_NAMES.index(name)
    ):
        raise InputError(
            f"--restart {args.restart} would discard what `diffsq {name}` needs; use `diffsq run`"
        )
    if args.dry_run:
        files = pipeline.removals(config, folder, args.restart) if args.restart else []
        print_plan(config, folder, pipeline.plan(config, folder, stages, args.restart), files)
        return 0
    from lattice.progress import make_progress

    say: Callable[[str], None] = (lambda text: None) if args.quiet else to_stderr
    made = pipeline.run(
        config, folder, stages, progress=make_progress(args.quiet), device=pick_device(args.device),
        accept_uncertified=args.accept_uncertified, restart=args.restart, say=say, team=args.team,
    )  # fmt: skip
    if name in ("run", "sample"):
        from diffsq.exactness.efficiency import warnings_of

        for samples in sorted((folder / records.FOLDER["sample"]).iterdir()):
            for line in warnings_of(samples):
                to_stderr(f"diffsq: warning: {line}")
    if name == "run":
        print(pipeline.final_text(folder))
    elif name == "ensemble":
        from lattice.certificates.check import format_certificate

        if later := records.outdated(made, name):
            to_stderr(
                f"diffsq: warning: {', '.join(later)} in {folder}: made from another ensemble than this one; "
                f"{records.again(made, later[0])} makes them again"
            )
        certificate = records.certificate_of(folder)
        print(format_certificate(certificate))
        return 0 if certificate["passed"] else 1
    else:
        print(f"{name}: done, in {folder / records.FOLDER[name]}")
    return 0


def report_command(args: argparse.Namespace) -> int:
    """report RUN."""
    from diffsq import pipeline
    from diffsq.run_folder import records
    from lattice.progress import make_progress

    config = records.open_config(args.run)
    say: Callable[[str], None] = (lambda text: None) if args.quiet else to_stderr
    pipeline.run(config, args.run, ("measure", "report"), progress=make_progress(args.quiet), say=say)
    print(args.run / "report.html")
    return 0
