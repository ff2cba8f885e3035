"""`diffsq chain CONFIG`: a Markov chain of diffusion moves on a finished run, and what it measured."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
from pathlib import Path
from typing import Any

from lattice.errors import InputError

SECTIONS = ("seed", "action", "lattice", "ensemble", "sde", "model", "training", "sampling")
SHOWN = ("magnetization", "abs_magnetization", "susceptibility_full", "action_density", "phi2")


def chain_command(args: argparse.Namespace) -> int:
    """chain CONFIG. Makes, continues or reads RUN/chain and prints acceptance and tau_int."""
    from diffsq.commands.session import limit_threads, load, pick_device
    from diffsq.config.config import LatticeRun
    from lattice.actions.protocol import no_action

    limit_threads(args.threads)
    config = load(args)
    if config.action is not None and not config.action.has_action:
        raise InputError(no_action(config.action, "no acceptance of moves"))
    if not isinstance(config, LatticeRun):
        raise InputError("diffsq chain moves fields by a score network or its flow; this run has neither")
    folder = args.run or Path("runs") / config.name
    from diffsq.run_folder.chain import chain
    from diffsq.run_folder.finished import Workbench, open_run
    from diffsq.run_folder.records import GROWS, config_path
    from lattice.files import run_lock
    from lattice.progress import make_progress
    from lattice.requests import refuse_changes, without

    if not config_path(folder).is_file():
        words = shlex.join(["diffsq", "run", str(args.config), "--run", str(folder)])
        raise InputError(f"{folder}: no finished run here; `{words}` makes it")
    with run_lock(folder):
        bench = open_run(folder, pick_device(args.device))
        made, asked = (
            without(
                {name: x for name, x in c.model_dump(mode="json").items() if name in SECTIONS},
                GROWS["sample"],
            )
            for c in (bench.config, config)
        )
        refuse_changes(folder, made, asked, "was", "; choose that run's folder with --run")
        if not isinstance(bench, Workbench):
            raise InputError(f"{folder}: a run on one variable, the config is one of fields on a lattice")
        ensemble = chain(bench, config.chain, folder / "chain", make_progress(args.quiet))
    result = summary(ensemble)
    print(json.dumps(result, indent=1) if args.json else text(result))
    return 0


def summary(ensemble: Any) -> dict[str, Any]:
    """Acceptance of every kind of move with its error, and value, error and tau_int of observables."""
    from lattice.observables.measure import measure
    from lattice.statistics.gamma import EstimatorError, gamma_method

    rates: dict[str, list[float | None]] = {}
    for name, series in ensemble.series.items():
        if name.startswith("accepted_"):
            rate = rates[name.removeprefix("accepted_")] = [float(series.mean()), None]
            with contextlib.suppress(EstimatorError):  # always accepted, or too short
                rate[1] = gamma_method([series[index] for index in ensemble.replicas()]).error
    table = measure(ensemble, two_point=False)
    return {
        "shape": list(ensemble.shape), "n_chains": len(ensemble.replicas()),
        "n_steps": int(ensemble.trajectory.max()), "start": ensemble.attrs["start"],
        "n_therm": ensemble.attrs["n_therm"], "acceptance": rates,
        "observables": {name: table["observables"][name] for name in SHOWN},
        "tau_convention": table["tau_convention"],
    }  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """What the command prints."""
    from lattice.statistics.notation import aligned, format_entry, format_value

    rows = [["observable", "value", "tau_int"]]
    for name, entry in result["observables"].items():
        rows.append([name, format_value(entry["value"], entry["error"]), format_entry(entry, "tau_int")])
    extents = "x".join(map(str, result["shape"]))
    start = f"{result['n_therm']} HMC trajectories" if result["start"] == "hmc" else f"the {result['start']}"
    lines = [f"{result['n_chains']} chains of {result['n_steps']} steps on {extents}, started from {start}"]
    for name, (rate, error) in result["acceptance"].items():
        lines.append(f"acceptance {name}: {f'{rate:g}' if error is None else format_value(rate, error)}")
    return "\n".join([*lines, *aligned(rows), f"{result['tau_convention']}, in steps (one cycle of moves)"])
