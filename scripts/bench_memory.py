"""Peak memory of every stage of a run, by the operating system's own account, one process a stage.

    python scripts/bench_memory.py --extent 64 --run build/memory --set ensemble.n_therm=20
    python scripts/bench_memory.py --extent 128 --run build/memory --white    # no HMC

A stage's peak is VmHWM of its process; that of one that only imports has its own line, and is taken off.
Networks are off (model.channels=0), and fits, levels and samples few: peaks depend on none of them but the
samples themselves. --white takes white noise for an ensemble made elsewhere: what a stage needs does not
depend on what the fields are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import shutil
import time
from pathlib import Path
from typing import Any

STAGES = ("ensemble", "train", "sample", "measure", "report", "diffsq measure")
GB = 1e9


def peak() -> int:
    """The largest resident size this process has had, bytes (Linux: VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise SystemExit("no VmHWM in /proc/self/status: Linux only")


def work(stage: str, options: argparse.Namespace, found: Any) -> None:
    """One stage in this process; (peak, seconds) into the queue."""
    import lattice
    from diffsq import pipeline, stages
    from diffsq.commands.main import main
    from diffsq.config.config import load_config

    begun = time.monotonic()
    settings = [
        f"lattice.shape=[{options.extent},{options.extent}]", f"ensemble.n_configs={options.configs}",
        "model.channels=0", "model.n_sigma=4", "model.n_fit=512", "sampling.n_levels=2",
        f"sampling.n_samples={options.samples}", "sampling.n_forward=64",
        *([f"ensemble.source={options.run / 'white'}"] if options.white else []), *options.set,
    ]  # fmt: skip
    config = load_config("demo", settings)
    if stage == "white noise":
        white(config, options.run / "white")
    elif stage == "diffsq measure":
        with contextlib.redirect_stdout(io.StringIO()):
            main(["measure", str(options.run / "ensemble"), "--json"])
    elif stage in pipeline.STAGES:
        pipeline.run(config, options.run, [stage], accept_uncertified=True, say=lambda line: None)
    else:
        assert lattice.measure
        assert stages.STAGE
    found.put((peak(), time.monotonic() - begun))


def white(config: Any, out: Path) -> None:
    """An ensemble of white noise in the folder `out`, time by time as a simulation writes it."""
    import numpy as np

    from lattice.ensembles.writer import EnsembleWriter

    n, n_chains = 1024, config.ensemble.n_chains
    writer = EnsembleWriter(out, config.action, config.shape, "white", {"algorithm": {"name": "white noise"}})
    for k in range(config.ensemble.n_saved // n):
        rows = np.arange(k * n, (k + 1) * n)
        phi = np.random.default_rng(k).normal(size=(n, *config.shape))
        writer.append(k, phi=phi, chain=rows % n_chains, trajectory=1 + rows // n_chains)
    writer.finish({"certificate": {"passed": True, "reason": "", "checks": []}})


def table(options: argparse.Namespace) -> None:
    """Print a line per stage."""
    size, base = 8 * options.configs * options.extent**2, 0
    print(f"{options.extent}^2, {options.configs} configurations: ensemble {size / GB:.3f} GB")
    print(
        "| stage | peak, GB | without imports, GB | over the ensemble | seconds |\n|---|---|---|---|---|",
        flush=True,
    )
    context = multiprocessing.get_context("spawn")
    for stage in options.stages or ("imports", *["white noise"] * options.white, *STAGES):
        found = context.Queue()
        process = context.Process(target=work, args=(stage, options, found))
        process.start()
        process.join()
        if process.exitcode:
            print(f"| {stage} | ended with {process.exitcode} | | | |", flush=True)
            continue
        most, seconds = found.get()
        base = base or most
        own = most - base
        print(
            f"| {stage} | {most / GB:.3f} | {own / GB:.3f} | {own / size:.2f} | {seconds:.0f} |", flush=True
        )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--extent", type=int, default=64)
    parser.add_argument("--configs", type=int, default=65536)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--stages", nargs="*", default=[])
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the config")
    parser.add_argument("--run", type=Path, default=Path("build/memory"))
    parser.add_argument("--white", action="store_true", help="white noise in place of a simulation")
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parsed()
    table(chosen)
    if not chosen.keep:
        shutil.rmtree(chosen.run, ignore_errors=True)
