"""What the benchmarks share: the machine in words, turns on one clock, and the machine's own limits."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.rng import compiled
from lattice.simulation.starts import start_fields
from lattice.updates.cluster import wolff_update
from lattice.updates.hmc import hmc_trajectory

KAPPA, LAM = 0.27088, 0.022  # the critical point, where clusters are large and updates are needed most
SEED, STEPS, EPS, CLUSTERS = 1, 40, 0.1, 10
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


def equilibrated(action: ScalarPhi4, extent: int, n_chains: int, threads: int, sweeps: int = 40) -> Floats:
    phi, chains = start_fields(action, (extent, extent), n_chains, SEED), np.arange(n_chains)
    for t in range(sweeps):
        common: dict[str, Any] = {"seed": SEED, "chains": chains, "trajectory": t, "n_threads": threads}
        phi, _ = hmc_trajectory(action, phi, length=1.0, n_steps=6, **common)
        phi, _ = wolff_update(action, phi, n_clusters=CLUSTERS, **common)
    return phi


# The machine's limits as numba reaches them. It prefers 256-bit vectors, here as in the kernels: a machine
# with two 512-bit multiply-add units has up to twice the flops.


@compiled
def triad(a: Any, b: Any, c: Any, passes: Any) -> None:
    for _ in range(passes):
        for i in range(a.size):
            a[i] = b[i] + 1.5 * c[i]
        a, b, c = b, c, a


@numba.njit(cache=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def multiply_add(x: Any, passes: Any) -> None:
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
        triad(a, b, c, passes)
        return 24.0 * numbers * passes

    return run


def fma_flops(passes: int = 100_000) -> Callable[[], float]:
    """Fused multiply-adds on 2 kB: 16 flops per number and pass."""
    x = np.ones(256)

    def run() -> float:
        multiply_add(x, passes)
        return 16.0 * x.size * passes

    return run
