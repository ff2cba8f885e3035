"""Torch beside the compiled updates, for `bench_updates`: eager on the CPU, eager and compiled on the GPU."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench_common import EPS, KAPPA, LAM, SEED, STEPS, equilibrated, race, rates

from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats
from lattice.updates.hmc import hmc_trajectory_torch
from lattice.updates.integrator import evolve, schedule


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
