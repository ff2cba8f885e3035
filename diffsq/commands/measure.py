"""`diffsq measure FILE ...`: the observables of an ensemble, or of several weighted samples of one law."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lattice.errors import InputError


def measure_command(args: argparse.Namespace) -> int:
    """measure FILE [FILE ...]."""
    from diffsq.commands.session import read, to_stderr
    from lattice.ensembles.combine import combine
    from lattice.observables.measure import format_table, measure
    from lattice.statistics.notation import format_entry

    ensembles = [read(path) for path in args.file]
    if args.metropolis and ensembles[0].log_weight is None:
        raise InputError(
            f"{args.file[0]} has no log-weights: there is nothing to correct, leave out --metropolis"
        )
    ensemble = combine(ensembles, [str(path) for path in args.file], one_law=args.metropolis)
    if args.metropolis:
        from diffsq.exactness.weights import metropolis_ensemble

        chain = metropolis_ensemble(ensemble, args.seed)
        result = measure(chain, method=args.method)
        about = chain.attrs["metropolis"]
        result["ensemble"] |= {name: about[name] for name in ("acceptance", "acceptance_error")}
    else:
        result = measure(ensemble, ignore_weights=args.raw, method=args.method)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(format_table(result, everything=args.all))
        if args.metropolis:
            print(f"independence Metropolis, acceptance {format_entry(result['ensemble'], 'acceptance')}")
    if lines := [*low_ess(result), *result["ensemble"].get("warnings", [])]:
        to_stderr(f"diffsq: warning: {'; '.join(lines)}")
    return 0


def low_ess(result: dict[str, Any]) -> list[str]:
    """A line where the ESS/N of a weighted measurement is below the floor, else none."""
    from lattice.observables.measure import MIN_ESS
    from lattice.statistics.notation import format_entry

    block = result["ensemble"]
    if block["ess"] is None or block["ess"] >= MIN_ESS:
        return []
    return [
        f"ESS/N = {format_entry(block, 'ess')} is below {MIN_ESS:g}: values and errors "
        f"rest on about {block['ess'] * block['n']:.0f} of {block['n']} configurations; the run's "
        "diagnostics.json and `diffsq check levels RUN` name the cause"
    ]
