#!/usr/bin/env python
"""What an independent configuration costs: flow, path, tuned HMC and clusters, side by side in one run.

    python scripts/bench_samplers.py RUN [RUN ...] --out DIR [--budget 20] [--fields 256]

RUN: finished runs on square lattices whose sampler is the flow (configs/exact). Flow and path sampler of its
model take turns, on one core and on two; HMC and Wolff at its coupling are tuned and measured by
bench_tau.py for `budget` seconds each. An independent configuration costs a sample over ESS/N, or 2 tau_int
trajectories of the slowest of M^2, |M| and S. The ledger is what was paid before the first sample: ensemble
and training.

One JSON per run, written when it is finished; the same command goes on where it stopped.
"""

# ruff: noqa: E402 - the number of threads must be set before numba and torch start
from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "2"

import numba
import numpy as np
import torch
from bench_common import machine, machine_line, race
from bench_tau import measure_point

from diffsq.run_folder.finished import Workbench, open_run
from diffsq.sampling.flow_sets import in_groups
from lattice.errors import InputError
from lattice.files import read_json, write_atomic, write_json
from lattice.statistics.notation import aligned

BLOCK = 64
TURNS = 3


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of each Markov chain")
    parser.add_argument("--fields", type=int, default=256, help="samples of each turn of the flow")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


def threads(n: int) -> None:
    torch.set_num_threads(n)
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))


def samplers(bench: Workbench, n: int) -> dict[str, Callable[[], float]]:
    """Each draws its samples with weights, on one core and on two; the work is their number."""
    flow, action = bench.flow, bench.action.action
    if flow is None:
        raise InputError(f"{bench.folder}: its sampler is not the flow")
    index = np.arange(n)

    def by_flow(cores: int) -> float:
        threads(cores)
        noise = bench.noise("bench/flow", index)(0)
        in_groups(lambda z, s: flow.sample(action, z, s), noise, torch.ones(n, dtype=torch.float64))
        return n

    def by_path(cores: int) -> float:
        threads(cores)
        few = max(4, n // 8)  # it is slower
        bench.path.sample(action, bench.noise("bench/path", index[:few]), bench.frames())
        return few

    return {
        "flow, 1 core": lambda: by_flow(1), "flow, 2 cores": lambda: by_flow(2),
        "path, 1 core": lambda: by_path(1), "path, 2 cores": lambda: by_path(2),
    }  # fmt: skip


def measure(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of one run."""
    bench = open_run(run)
    if not isinstance(bench, Workbench) or len(set(bench.model.shape)) > 1:
        raise InputError(f"{run}: not a run on a square lattice")
    turns = race(samplers(bench, options.fields), TURNS, time.perf_counter)
    seconds = {name: min(took / work for work, took in each) for name, each in turns.items()}
    threads(1)
    summary = read_json(run / "summary.json")
    diagnostics = next(iter(summary["sampling"].values()))
    chains = {}
    for algorithm in ("hmc", "wolff"):
        about = argparse.Namespace(
            kappa=bench.action.kappa, lam=bench.action.lam, seed=options.seed, budget=options.budget,
            out=options.out,
        )  # fmt: skip
        chains[algorithm] = measure_point(algorithm, bench.model.shape[0], about)
    ledger = {stage: summary["seconds"].get(stage) for stage in ("ensemble", "train")}
    return {
        "run": bench.config.name, "L": bench.model.shape[0], "kappa": bench.action.kappa,
        "lam": bench.action.lam, "n_steps": bench.flow.n_steps if bench.flow else None, "seconds": seconds,
        "ess": diagnostics["ess"], "ledger": ledger, "chains": chains, "machine": machine(),
    }  # fmt: skip


def table(points: list[dict[str, Any]]) -> str:
    """Milliseconds a sample and an independent configuration."""
    rows = [
        ["L", "flow ms, 1 core", "2 cores", "path ms, 1 core", "ESS/N", "flow, independent", "HMC", "Wolff",
         "ledger s"]
    ]  # fmt: skip
    for p in sorted(points, key=lambda point: point["L"]):
        s, ess = p["seconds"], p["ess"]["reverse"]
        costs = []
        for algorithm in ("hmc", "wolff"):
            chain = p["chains"][algorithm]
            costs.append("-" if chain["failure"] else f"{1e3 * chain['cost_slowest'][0]:.3g}")
        rows.append(
            [str(p["L"]), f"{1e3 * s['flow, 1 core']:.3g}", f"{1e3 * s['flow, 2 cores']:.3g}",
             f"{1e3 * s['path, 1 core']:.3g}", f"{ess:.3f}", f"{1e3 * s['flow, 1 core'] / ess:.3g}", *costs,
             f"{sum(x or 0 for x in p['ledger'].values()):.0f}"]
        )  # fmt: skip
    return "\n".join(aligned(rows))


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine_line(), flush=True)
    points = []
    try:
        for run in options.runs:
            path = options.out / f"samplers_{run.name}.json"
            if not path.is_file():
                write_json(path, measure(run, options))
            points.append(read_json(path))
            print(f"{run.name}: done", flush=True)
    except InputError as error:
        print(f"bench_samplers: {error}", file=sys.stderr)
        return 2
    text = table(points)
    write_atomic(options.out / "samplers.md", (machine_line() + "\n\n" + text + "\n").encode())
    print("\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
