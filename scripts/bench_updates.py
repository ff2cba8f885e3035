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
import math
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

import datetime
import platform
import random
import time

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.files import write_json
from lattice.rng import compiled
from lattice.simulation.starts import start_fields
from lattice.updates import hmc
from lattice.updates.cluster import swendsen_wang_update, wolff_update
from lattice.updates.fourier import measured_inverse_mass
from lattice.updates.hmc import hmc_trajectory, hmc_trajectory_torch
from lattice.updates.integrator import evolve, schedule
from lattice.updates.kernels.layout import neighbour_table
from lattice.updates.langevin import langevin_update
from lattice.updates.local import metropolis_sweep, overrelaxation_sweep

KAPPA, LAM = 0.27088, 0.022  # the critical point, where clusters are large and updates are needed most
SEED, STEPS, EPS, CLUSTERS = 1, 40, 0.1, 10
GOAL = {"hmc": 5e8, "compiled hmc": 5.0, "compiled wolff": 20.0}
# Per site and leapfrog step in two dimensions, read off lattice/kernels.py (_neighbour_sum, _kick_drift_row).
# Distinct: phi read, p read and written, new phi written. Issued also counts the row of neighbour sums, which
# stays in the first-level cache: zeroed (1), two passes of read-add-add-write (4 each), read once more.
BYTES_DISTINCT, BYTES_ISSUED = 8 * 4, 8 * (4 + 1 + 4 + 4 + 1)
# neighbour sum 4; (mass + quartic f f) f - hop total: 6; p -= kick (...): 2; f + drift p: 2
FLOPS = 14

Timings = dict[str, list[tuple[float, float]]]  # name -> (work, seconds) of every turn


def machine() -> dict[str, Any]:
    """Processor, cores and SIMD of this machine and the versions underneath; no host name."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "cpu": fields.get("model name") or platform.machine(),
        "cores": os.cpu_count(),
        "simd": [flag for flag in ("avx", "fma", "avx2", "avx512f", "asimd", "sve") if flag in flags],
        "date": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__,
                     "torch": torch.__version__},
    }  # fmt: skip


def machine_line() -> str:
    m = machine()
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return f"{m['cpu']}, {m['cores']} cores, {' '.join(m['simd'])}; {versions}; {m['date']}"


def race(
    runs: dict[str, Callable[[], float]], repeat: int, clock: Callable[[], float] = time.process_time
) -> Timings:
    """Call every run once to warm up (compilers, caches), then `repeat` turns; a run returns its work."""
    for run in runs.values():
        run()
    turns: Timings = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            begin = clock()
            work = run()
            turns[name].append((work, max(clock() - begin, 1e-9)))
    return turns


def rates(turns: list[tuple[float, float]]) -> Floats:
    return np.array([work / seconds for work, seconds in turns])


# The machine's limits as numba reaches them. It prefers 256-bit vectors, here as in the kernels: a machine
# with two 512-bit multiply-add units has up to twice the flops.


@compiled
def _triad(a: Any, b: Any, c: Any, passes: Any) -> None:
    for _ in range(passes):
        for i in range(a.size):
            a[i] = b[i] + 1.5 * c[i]
        a, b, c = b, c, a


@numba.njit(cache=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _multiply_add(x: Any, passes: Any) -> None:
    a, b = 0.999, 0.001  # eight per load, as many independent ones as x is long
    for _ in range(passes):
        for i in range(x.size):
            v = x[i]
            v = ((v * a + b) * a + b) * a + b
            v = ((v * a + b) * a + b) * a + b
            x[i] = (v * a + b) * a + b


def triad_bytes(numbers: int, total: int = 2**29) -> Callable[[], float]:
    """a = b + s c over three arrays of `numbers` doubles: 24 bytes each turn, `total` bytes a call."""
    a, b, c = np.ones(numbers), np.ones(numbers), np.ones(numbers)
    passes = max(1, total // (24 * numbers))

    def run() -> float:
        _triad(a, b, c, passes)
        return 24.0 * numbers * passes

    return run


def fma_flops(passes: int = 100_000) -> Callable[[], float]:
    """Fused multiply-adds on 2 kB: 16 flops per number and pass."""
    x = np.ones(256)

    def run() -> float:
        _multiply_add(x, passes)
        return 16.0 * x.size * passes

    return run


# Cluster updates as usually written: single clusters of one field, phi (V,), in place; they return the sizes.


def wolff_stack(
    phi: Floats, neighbours: Any, kappa: float, n_clusters: int, uniform: Callable[[], float]
) -> list[int]:
    """The textbook program: a Python stack, one bond at a time; neighbours (V, 2d) an array or nested lists.

    With lists the field is one, too: scalars of arrays are several times slower. Draws uniforms in the order
    of `wolff_update`, so with its numbers it gives its fields.
    """
    field: Any = phi.tolist() if isinstance(neighbours, list) else phi
    exp, sizes = math.exp, []
    for _ in range(n_clusters):
        root = min(int(uniform() * len(field)), len(field) - 1)
        member = bytearray(len(field))
        member[root] = 1
        stack, cluster = [root], [root]
        while stack:
            x = stack.pop()
            coupling = -4.0 * kappa * field[x]
            for y in neighbours[x]:
                if not member[y]:
                    bond = coupling * field[y]
                    if bond < 0.0 and uniform() < 1.0 - exp(bond):
                        member[y] = 1
                        stack.append(y)
                        cluster.append(y)
        for x in cluster:
            field[x] = -field[x]
        sizes.append(len(cluster))
    phi[:] = field
    return sizes


def wolff_frontier(
    phi: Floats, neighbours: NDArray[np.int64], kappa: float, n_clusters: int, rng: np.random.Generator
) -> list[int]:
    """The same with NumPy over the whole front of the growing cluster; neighbours (V, 2d)."""
    sizes = []
    for _ in range(n_clusters):
        front = np.array([rng.integers(phi.size)])
        member = np.zeros(phi.size, dtype=bool)
        member[front] = True
        while front.size:
            ends = neighbours[front]
            bond = 4.0 * kappa * phi[front, None] * phi[ends]
            frozen = (rng.random(ends.shape) < -np.expm1(-np.maximum(bond, 0.0))) & ~member[ends]
            front = np.unique(ends[frozen])
            member[front] = True
        phi[member] *= -1.0
        sizes.append(int(member.sum()))
    return sizes


def equilibrated(action: ScalarPhi4, extent: int, n_chains: int, threads: int, sweeps: int = 40) -> Floats:
    phi, chains = start_fields(action, (extent, extent), n_chains, SEED), np.arange(n_chains)
    for t in range(sweeps):
        common: dict[str, Any] = {"seed": SEED, "chains": chains, "trajectory": t, "n_threads": threads}
        phi, _ = hmc_trajectory(action, phi, length=1.0, n_steps=6, **common)
        phi, _ = wolff_update(action, phi, n_clusters=CLUSTERS, **common)
    return phi


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


def torch_run(
    action: ScalarPhi4, phi: Floats, n: int, steps: int, device: str = "cpu"
) -> Callable[[], float]:
    """The eager update of n chains, the fields repeated as needed."""
    fields = torch.from_numpy(np.resize(phi, (n, *phi.shape[1:]))).to(device)

    def run() -> float:
        hmc_trajectory_torch(action, fields, seed=SEED, chains=np.arange(n), trajectory=0,
                             length=steps * EPS, n_steps=steps, integrator="leapfrog")  # fmt: skip
        if device == "cuda":
            torch.cuda.synchronize()
        return float(fields.numel() * steps)

    return run


def best_batch(action: ScalarPhi4, phi: Floats, batches: list[int], device: str = "cpu") -> int:
    """The batch at which eager torch is fastest: growing ones, until the rate is well below its best."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    seen: dict[int, float] = {}
    for n in sorted(batches):
        turns = race({"torch": torch_run(action, phi, n, 10, device)}, 2, clock)
        seen[n] = float(rates(turns["torch"]).max())
        if seen[n] < 0.7 * max(seen.values()):
            break
    return max(seen, key=lambda n: seen[n])


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


# The GPU, through torch only.


def leapfrog_steps(
    action: ScalarPhi4, phi: torch.Tensor, p: torch.Tensor, steps: int, compile_step: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`lattice.updates.integrator.evolve` with one fused kick and drift per call, compiled if asked."""

    def kick_drift(f: torch.Tensor, p: torch.Tensor, kick: torch.Tensor, drift: torch.Tensor) -> Any:
        p = p - kick * action.grad(f)
        return f + drift * p, p

    step = _COMPILED.setdefault(action, torch.compile(kick_drift)) if compile_step else kick_drift
    kicks, drifts = schedule("leapfrog", steps * EPS, steps)
    k, d = (torch.tensor(values, device=phi.device) for values in (kicks, np.append(drifts, 0.0)))
    for i in range(len(kicks)):
        phi, p = step(phi, p, k[i], d[i])
    return phi, p


_COMPILED: dict[ScalarPhi4, Any] = {}


def bench_cuda(extent: int, options: argparse.Namespace) -> dict[str, Any]:
    """Wall-clock rates of the whole device: eager update, its MD loop eager and compiled."""
    action = ScalarPhi4(KAPPA, LAM)
    phi = equilibrated(action, extent, options.chains, options.threads)
    best = best_batch(action, phi, options.torch_chains, "cuda")
    fields = torch.from_numpy(np.resize(phi, (best, extent, extent))).cuda()
    p = torch.randn_like(fields)

    def timed(md: Callable[[], Any]) -> Callable[[], float]:
        def run() -> float:
            md()
            torch.cuda.synchronize()
            return float(fields.numel() * STEPS)

        return run

    runs = {
        "update": torch_run(action, phi, best, STEPS, "cuda"),
        "md": timed(
            lambda: evolve(action.grad, fields, p, length=STEPS * EPS, n_steps=STEPS, integrator="leapfrog")
        ),
        "md compiled": timed(lambda: leapfrog_steps(action, fields, p, STEPS, compile_step=True)),
    }
    turns = race(runs, options.repeat, time.perf_counter)
    return {"L": extent, "chains": best, "turns": turns,
            "rates": {name: rates(values).tolist() for name, values in turns.items()}}  # fmt: skip


def cuda_table(results: list[dict[str, Any]]) -> str:
    lines = ["| L | chains | eager update, site-leapfrogs/s | MD eager | MD torch.compile | compiled/eager |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in results:
        update, md, fast = (float(np.median(r["rates"][name])) for name in ("update", "md", "md compiled"))
        lines.append(f"| {r['L']} | {r['chains']} | {update:.3g} | {md:.3g} | {fast:.3g} | {fast / md:.1f} |")
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
