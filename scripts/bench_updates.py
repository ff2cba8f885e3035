#!/usr/bin/env python
"""Speed of the updates, side by side in one process: compiled kernels, eager torch, plain Python clusters.

    python scripts/bench_updates.py [--sizes 32 128] [--repeat 7] [--threads 1] [--device cuda] [--out FILE]

Competitors take turns (A B C A B C ...), so a machine that changes its pace meets all of them; every number
is the median over the repeats with its range. On the CPU the clock is the processor time of all threads of
this process, hence rates are per core. Prints the machine and a markdown table for configs/scans/README.md.
"""

# ruff: noqa: E402 - the number of threads must be set before numba and torch start
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128], help="extents L of L x L lattices")
    parser.add_argument("--repeat", type=int, default=7, help="turns of every competitor")
    parser.add_argument("--threads", type=int, default=1, help="threads of the updates and of torch")
    parser.add_argument("--chains", type=int, default=128, help="chains moved together")
    parser.add_argument("--torch-chains", type=int, nargs="+", default=[4, 16, 64, 128, 256, 512, 1024],
                        help="batch sizes among which eager torch takes its best")  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file with every single timing")
    options = parser.parse_args(argv)
    if min(*options.sizes, options.repeat, options.threads, options.chains, *options.torch_chains) < 1:
        parser.error("sizes, repeat, threads and chains must be >= 1")
    return options


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(arguments().threads)

import random
import time

import numpy as np
import torch
from bench_clusters import wolff_frontier, wolff_stack
from bench_common import (
    CLUSTERS,
    EPS,
    KAPPA,
    LAM,
    SEED,
    STEPS,
    equilibrated,
    fma_flops,
    machine,
    machine_line,
    race,
    rates,
    triad_bytes,
)
from bench_torch import bench_cuda, best_batch, cuda_table, torch_run

from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.files import write_json
from lattice.updates import hmc
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.fourier import measured_inverse_mass
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.kernels.layout import neighbour_table
from lattice.updates.langevin import langevin_update
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep

GOAL = {"hmc": 5e8, "compiled hmc": 5.0, "compiled wolff": 20.0}
# Per site and leapfrog step in two dimensions, read off lattice/updates/kernels.
# Distinct: phi read, p read and written, new phi written. Issued also counts the row of neighbour sums, which
# stays in the first-level cache: zeroed (1), two passes of read-add-add-write (4 each), read once more.
BYTES_DISTINCT, BYTES_ISSUED = 8 * 4, 8 * (4 + 1 + 4 + 4 + 1)
# neighbour sum 4; (mass + quartic f f) f - hop total: 6; p -= kick (...): 2; f + drift p: 2
FLOPS = 14


def competitors(action: ScalarPhi4, phi: Floats, threads: int) -> dict[str, Callable[[], float]]:
    """Every update on the same fields (n, L, L); a run returns site-leapfrogs, sites or cluster sites."""
    n, sites = len(phi), phi.size
    common: dict[str, Any] = {"seed": SEED, "chains": np.arange(n), "trajectory": 0}
    common["n_threads"] = threads

    def leapfrog(steps: int) -> float:
        hmc_trajectory(action, phi, length=steps * EPS, n_steps=steps, integrator="leapfrog", **common)
        return float(sites * steps)

    def omelyan2() -> float:
        steps = STEPS // 2
        hmc_trajectory(action, phi, length=2 * steps * EPS, n_steps=steps, integrator="omelyan2", **common)
        return float(2 * sites * steps)

    def wolff() -> float:
        return float(wolff_update(action, phi, n_clusters=CLUSTERS, **common)[1].size.sum())

    array = neighbour_table(phi.shape[1:]).astype(np.int64)
    lists, few = array.tolist(), phi[: max(1, min(n, 2**17 // phi[0].size))].reshape(-1, phi[0].size)

    def stack(neighbours: Any, fields: Floats) -> float:
        uniform = random.Random(SEED).random
        return float(sum(sum(wolff_stack(f.copy(), neighbours, action.kappa, CLUSTERS, uniform))
                         for f in fields))  # fmt: skip

    def frontier() -> float:
        rng = np.random.default_rng(SEED)
        return float(sum(sum(wolff_frontier(f.copy(), array, action.kappa, CLUSTERS, rng)) for f in few))

    runs: dict[str, Callable[[], float]] = {
        "hmc": lambda: leapfrog(STEPS),
        "hmc x3": lambda: leapfrog(3 * STEPS),
        "omelyan2": omelyan2,
        "wolff": wolff,
        "wolff arrays": lambda: stack(array, few[: max(1, len(few) // 8)]),
        "wolff stack": lambda: stack(lists, few),
        "wolff frontier": frontier,
        "triad": triad_bytes(block_sites(phi)),
        "fma": fma_flops(),
    }
    return {**runs, **other_updates(action, phi, common)}


def other_updates(action: ScalarPhi4, phi: Floats, common: dict[str, Any]) -> dict[str, Callable[[], float]]:
    """Fourier-accelerated HMC, Swendsen-Wang, local updates and MALA, on the same fields."""

    def run(update: Callable[..., Any], work: int, **settings: Any) -> Callable[[], float]:
        def call() -> float:
            update(action, phi, **settings, **common)
            return float(work)

        return call

    n, mass = phi.size, measured_inverse_mass(np.concatenate([phi, -phi]))
    return {
        "hmc fourier": run(hmc_trajectory, n * STEPS // 4, length=1.0, n_steps=STEPS // 4,
                           integrator="leapfrog", inverse_mass=mass),
        "swendsen-wang": run(swendsen_wang_update, n),
        "metropolis": run(metropolis_sweep, n, width=1.5),
        "overrelaxation": run(overrelaxation_sweep, n),
        "mala": run(langevin_update, 10 * n, step=0.05, n_steps=10, metropolis=True),
    }  # fmt: skip


def bench_cpu(extent: int, options: argparse.Namespace) -> dict[str, Any]:
    action = ScalarPhi4(KAPPA, LAM)
    phi = equilibrated(action, extent, options.chains, options.threads)
    best = best_batch(action, phi, options.torch_chains)
    runs = competitors(action, phi, options.threads)
    runs["torch"] = torch_run(action, phi, len(phi), STEPS)
    if best != len(phi):
        runs["torch best"] = torch_run(action, phi, best, STEPS)
    wall, cpu = time.perf_counter(), time.process_time()
    turns = race(runs, options.repeat)
    busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
    rate = {name: rates(values).tolist() for name, values in turns.items()}
    # What random numbers, energies and the accept step cost drops out of the difference of two lengths.
    pairs = zip(turns["hmc x3"], turns["hmc"], strict=True)
    rate["md"] = [(long - short) / max(t_long - t_short, 1e-9) for (long, t_long), (short, t_short) in pairs]
    median = {name: float(np.median(values)) for name, values in rate.items()}
    return {"L": extent, "chains": len(phi), "torch_best_chains": best, "cpu_per_wall": busy, "turns": turns,
            "rates": rate, "limits": limits(median, 3 * 8 * block_sites(phi))}  # fmt: skip


def block_sites(phi: Floats) -> int:
    """Sites that the kernel moves together; it holds three fields of them."""
    sites: int = phi[0].size
    return min(hmc._block(sites), len(phi)) * sites


def limits(rate: dict[str, float], working_set: int) -> dict[str, float]:
    """How far the pure MD loop is from the machine's memory and arithmetic, both measured beside it."""
    return {"working_set_kB": working_set / 1000, "bytes_per_site": BYTES_DISTINCT,
            "bytes_issued_per_site": BYTES_ISSUED, "flops_per_site": FLOPS,
            "triad_GB_s": rate["triad"] / 1e9, "fma_Gflop_s": rate["fma"] / 1e9,
            "fraction_of_triad": BYTES_DISTINCT * rate["md"] / rate["triad"],
            "fraction_of_fma": FLOPS * rate["md"] / rate["fma"]}  # fmt: skip


LABELS = {
    "hmc": "HMC leapfrog 40 x 0.1, random numbers and accept step included | site-leapfrogs",
    "md": "the same, MD loop alone | site-leapfrogs",
    "omelyan2": "HMC omelyan2 20 x 0.2, two forces a step | site-forces",
    "hmc fourier": "HMC leapfrog, Fourier-accelerated | site-leapfrogs",
    "torch": "the same as the first row, eager torch, as many chains | site-leapfrogs",
    "torch best": "eager torch at its best batch of {torch_best_chains} | site-leapfrogs",
    "wolff": "Wolff | cluster sites",
    "wolff arrays": "Wolff, Python with a stack on NumPy arrays | cluster sites",
    "wolff stack": "Wolff, Python with a stack on lists | cluster sites",
    "wolff frontier": "Wolff, NumPy over the front | cluster sites",
    "swendsen-wang": "Swendsen-Wang | sites",
    "metropolis": "Metropolis sweep | sites",
    "overrelaxation": "overrelaxation sweep | sites",
    "mala": "Langevin with accept step (MALA) | sites",
}


def ratios(result: dict[str, Any]) -> dict[str, str]:
    """What the table says beside each competitor: compiled over it, medians turn by turn, and the goal."""
    rate = {name: np.array(values) for name, values in result["rates"].items()}
    notes = {"hmc": f"{GOAL['hmc']:.0e}"}
    for name, others in (
        ("hmc", ("torch", "torch best")),
        ("wolff", ("wolff arrays", "wolff stack", "wolff frontier")),
    ):
        present = [other for other in others if other in rate]
        best = max(present, key=lambda other: float(np.median(rate[other])))
        for other in present:
            goal = f", goal {GOAL['compiled ' + name]:g}" if other == best else ""
            notes[other] = f"compiled/this = {np.median(rate[name] / rate[other]):.1f}{goal}"
    return notes


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: rates per core as median (lowest to highest), ratios, and the machine's limits."""
    lines = ["| L | chains | update | unit | per second and core | ratio, goal |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in results:
        notes = ratios(r)
        for name, label in LABELS.items():
            if name in r["rates"]:
                what, unit = label.format(**r).split(" | ")
                values = np.array(r["rates"][name])
                rate = f"{np.median(values):.3g} ({values.min():.3g} to {values.max():.3g})"
                note = notes.get(name, "")
                lines.append(f"| {r['L']} | {r['chains']} | {what} | {unit}/s | {rate} | {note} |")
    lines += ["", "| L | working set kB | bytes per site-leapfrog, distinct (issued) | flops | triad GB/s "
              "| multiply-add Gflop/s | MD: fraction of triad | MD: fraction of multiply-add |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in results:
        m = r["limits"]
        lines.append(f"| {r['L']} | {m['working_set_kB']:.0f} | {BYTES_DISTINCT} ({BYTES_ISSUED}) | {FLOPS} "
                     f"| {m['triad_GB_s']:.1f} | {m['fma_Gflop_s']:.1f} | {m['fraction_of_triad']:.2f} "
                     f"| {m['fraction_of_fma']:.2f} |")  # fmt: skip
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench_updates: no CUDA device here; leave --device cuda out", file=sys.stderr)
        return 2
    print(machine_line(), flush=True)
    if options.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
        results = [bench_cuda(extent, options) for extent in options.sizes]
        print("\n" + cuda_table(results))
    else:
        results = [bench_cpu(extent, options) for extent in options.sizes]
        busy = min(r["cpu_per_wall"] for r in results) / options.threads
        print(f"{options.threads} thread(s), {options.repeat} turns; processor time / wall time {busy:.2f}"
              + ("" if busy > 0.9 or options.threads > 1 else ": the machine was not quiet"))  # fmt: skip
        print("CUDA: " + ("see --device cuda" if torch.cuda.is_available() else "no device here"))
        print("\n" + table(results))
    if options.out:
        write_json(options.out, {"machine": machine(), "kappa": KAPPA, "lam": LAM, "threads": options.threads,
                                 "device": options.device, "results": results})  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
