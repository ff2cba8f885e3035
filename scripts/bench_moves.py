"""Diffusion moves beside HMC: acceptance, tau_int, and CPU time per independent configuration.

    python scripts/bench_moves.py RUN [RUN ...] [--sizes 32 64] [--block 16] [--depths 0.5 5] [--rhos 0 0.9]

Each RUN is a finished run folder. In all of them: independence and noise-denoise on the whole lattice (no
depths: neither), and latent moves of the flow with each of --rhos, 0 being independence. With
the first: block moves on lattices of --sizes, multiples of the run's own. Chains start from HMC and clusters,
as `diffsq chain` does. Acceptance is the mean of min(1, e^l) over proposals, its error over chains. Cost is
2 tau_int(M^2) times CPU seconds per step, over that of HMC alone on the same lattice, timed in this process.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from diffsq.exactness import flow_moves, moves
from diffsq.exactness.block_moves import BlockPath, Tiling, block_moves
from diffsq.exactness.moves import Move, State, nearest_level
from diffsq.run_folder.finished import Workbench, open_run
from lattice.simulation.recipe import Recipe
from lattice.simulation.thermalise import Thermalisation, thermalise
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.notation import aligned, format_value

SEED = 77
HEAD = [
    "lattice",
    "move",
    "sigma or rho",
    "acceptance",
    "tau_int M^2",
    "tau_int S",
    "CPU s/step/chain",
    "cost/HMC",
]


def start(bench: Workbench, shape: tuple[int, ...], n_chains: int, n_therm: int) -> Thermalisation:
    params = bench.config.ensemble.model_copy(update={"n_chains": n_chains, "n_therm": n_therm})
    return thermalise(Recipe(bench.action, shape, params, SEED))


def measured(bench: Workbench, move: Move, phi: np.ndarray, n_steps: int) -> dict[str, tuple[float, float]]:
    """Acceptance, tau_int of M^2 and S in steps, CPU seconds of a step of one chain."""
    state, chains = State.of(phi), np.arange(len(phi))
    rates, m2, s = [], [], []
    begun = time.process_time()
    for step in range(n_steps):
        state, info = move(state, seed=SEED, chains=chains, step=step)
        rates.append(np.exp(np.minimum(info.log_ratio, 0)).mean(1))
        m2.append(state.phi.mean((1, 2)) ** 2)
        s.append(bench.action.action(torch.from_numpy(state.phi)).numpy())
    seconds = (time.process_time() - begun) / (n_steps * len(phi))
    rate = np.mean(rates, axis=0)
    found = {"rate": (float(rate.mean()), float(rate.std(ddof=1) / len(phi) ** 0.5)), "cpu": (seconds, 0.0)}
    for name, series in (("m2", m2), ("s", s)):
        try:
            if n_steps < 20:
                raise EstimatorError("too short")
            estimate = gamma_method(list(np.array(series).T))
            found[name] = (estimate.tau_int, estimate.tau_int_error)
        except EstimatorError:
            found[name] = (np.nan, np.nan)
    return found


def row(
    label: list[str], found: dict[str, tuple[float, float]], hmc: dict[str, tuple[float, float]]
) -> list[str]:
    cost = found["m2"][0] * found["cpu"][0] / (hmc["m2"][0] * hmc["cpu"][0])
    cells = [
        format_value(*found[name]) if np.isfinite(found[name][0]) else "-" for name in ("rate", "m2", "s")
    ]
    return [*label, *cells, f"{found['cpu'][0]:.2g}", f"{cost:.3g}" if np.isfinite(cost) else "-"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--depths", type=float, nargs="*", default=[0.5, 1.7, 5.0])
    parser.add_argument("--rhos", type=float, nargs="*", default=[], help="of latent moves, 0 <= rho < 1")
    parser.add_argument(
        "--chains", type=int, default=16, help="on the run's own lattice; fewer on larger ones"
    )
    parser.add_argument("--steps", type=int, default=200, help="likewise; without tau_int below 20")
    parser.add_argument("--therm", type=int, default=300)
    args = parser.parse_args()
    if not all(0 <= rho < 1 for rho in args.rhos):
        parser.error(f"--rhos must be in [0, 1), got {args.rhos}")
    rows = [HEAD]

    def add(cells: list[str]) -> None:
        rows.append(cells)
        print(*cells, flush=True)

    for folder in args.runs:
        bench = open_run(folder)
        own, path, frames = bench.model.shape, bench.path, bench.frames()
        levels = path.levels
        depths = [nearest_level(levels, sigma) for sigma in args.depths]
        sizes = [(size, size) for size in args.sizes] if folder == args.runs[0] else []
        for shape in dict.fromkeys([own, *sizes]):
            larger = int(np.prod(shape) // np.prod(own))
            n, steps = max(2, args.chains // larger), max(4, args.steps // larger)
            therm = start(bench, shape, n, args.therm)
            name = "x".join(map(str, shape))
            kernel = partial(
                moves.hmc, bench.action, therm.settings.length, therm.settings.n_steps, "omelyan2"
            )
            hmc = measured(bench, kernel, therm.phi, max(steps, 400))
            add(row([name, "hmc", "-"], hmc, hmc))
            whole: dict[str, Move] = {}
            if depths:
                whole["independence"] = partial(moves.independence, path, bench.action.action, frames)
            if args.rhos and bench.flow is None:
                parser.error(
                    f"{folder}: its sampler is not the flow, which latent moves need; leave --rhos out"
                )
            for rho in args.rhos:
                whole[f"latent {rho:g}"] = partial(flow_moves.latent, bench.flow, bench.action.action, rho)
            for depth in depths:
                whole[f"denoise {float(levels[depth]):.3g}"] = partial(
                    moves.noise_denoise, path, bench.action.action, frames, depth
                )
            for label, move in whole.items() if shape == own else ():
                kind, _, sigma = label.partition(" ")
                add(row([name, kind, sigma or "-"], measured(bench, move, therm.phi, steps), hmc))
            for depth in depths if shape in sizes else ():
                block = BlockPath(bench.model, levels[: depth + 1], (args.block, args.block))
                move = partial(block_moves, block, Tiling(shape, own), bench.action.action, frames)
                found = measured(bench, move, therm.phi, steps)
                add(row([name, f"block {args.block}", f"{float(levels[depth]):.3g}"], found, hmc))
    print("\n".join(aligned(rows)))


if __name__ == "__main__":
    main()
