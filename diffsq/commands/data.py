"""`diffsq compare`, `import` and `export`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from diffsq.commands.session import read, to_stderr


def compare_command(args: argparse.Namespace) -> int:
    """compare A B."""
    from diffsq.run_folder.compare import compare, format_compare
    from lattice.files import read_json
    from lattice.observables.measure import measure

    def table(path: Path) -> dict[str, Any]:
        return read_json(path) if path.suffix == ".json" else measure(read(path))

    result = compare(table(args.a), table(args.b))
    print(json.dumps(result, indent=1) if args.json else format_compare(result, (str(args.a), str(args.b))))
    return 1 if result["verdict"] == "differ" else 0


def import_command(args: argparse.Namespace) -> int:
    """import FILE."""
    from diffsq.config.action_section import declared_action
    from lattice.interchange.importing import format_import, import_file
    from lattice.progress import make_progress

    action, shape = declared_action(args.set)
    result = import_file(
        args.file, action, shape, dataset=args.dataset, n_chains=args.n_chains, stride=args.stride,
        out=args.out, accept_uncertified=args.accept_uncertified, seed=args.seed,
        progress=make_progress(args.quiet), **({"layout": args.layout} if args.layout else {}),
    )  # fmt: skip
    print(format_import(result))
    if not result["passed"] and args.accept_uncertified:
        to_stderr("diffsq: warning: this ensemble failed its checks and was accepted on request")
    return 0 if result["passed"] or args.accept_uncertified else 1


def export_command(args: argparse.Namespace) -> int:
    """export ENSEMBLE."""

    from lattice.interchange.exporting import export_ensemble

    for path in export_ensemble(read(args.ensemble), args.to, args.out, fields=args.fields):
        print(path)
    return 0
