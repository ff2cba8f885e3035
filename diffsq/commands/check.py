"""`diffsq check NAME RUN`."""

from __future__ import annotations

import argparse
import importlib

from diffsq.checks.perform import MODULES, check, read_options


def check_command(args: argparse.Namespace) -> int:
    """check NAME RUN: 1 when the check's verdict is negative."""
    from diffsq.commands.session import limit_threads, pick_device

    limit_threads(args.threads)
    module = importlib.import_module(MODULES[args.name])
    options = read_options(args.set, module.run, args.name)
    from lattice.progress import make_progress

    content = check(args.name, args.run, options, pick_device(args.device), make_progress(args.quiet))
    path = args.run / "checks" / args.name
    print(path.with_suffix(".json").read_text(encoding="utf-8") if args.json else content["text"])
    if not args.json:
        print(f"{path}.json, {path}.png")
    return 1 if content["passed"] is False else 0
