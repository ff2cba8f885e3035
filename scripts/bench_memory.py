"""Peak memory of every stage of a run, by the operating system's own account, one process a stage.

    python scripts/bench_memory.py --extent 64 --configs 8192 --run build/memory

The ensemble is fields of the free action, written as a simulation would write them: what a stage needs does
not depend on what they are. A stage's peak is VmHWM of its process, that of the interpreter with everything
imported taken off as one line of its own. Networks are off (model.channels=0), levels and samples few: peaks
depend on neither but for the samples themselves.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from pathlib import Path
from typing import Any

STAGES = ("imports", "ensemble", "train", "sample", "measure", "report", "diffsq measure")
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
        "ensemble.n_chains=64", "ensemble.n_therm=20", "model.channels=0", f"model.n_sigma={options.sigmas}",
        f"sampling.n_levels={options.levels}", f"sampling.n_samples={options.samples}",
        "sampling.n_forward=128", *options.set,
    ]  # fmt: skip
    config = load_config("demo", settings)
    if stage == "diffsq measure":
        main(["measure", str(options.run / "ensemble"), "--json"])
    elif stage in pipeline.STAGES:
        pipeline.run(config, options.run, [stage], accept_uncertified=True, say=lambda line: None)
    else:
        assert lattice.measure
        assert stages.STAGE
    found.put((peak(), time.monotonic() - begun))


def table(options: argparse.Namespace) -> list[str]:
    """A line per stage."""
    size, base = 8 * options.configs * options.extent**2, 0
    lines = [
        f"{options.extent}^2, {options.configs} configurations: ensemble {size / GB:.3f} GB",
        "| stage | peak, GB | without imports, GB | over the ensemble | seconds |", "|---|---|---|---|---|",
    ]  # fmt: skip
    context = multiprocessing.get_context("spawn")
    for stage in STAGES if not options.stages else ("imports", *options.stages):
        found = context.Queue()
        process = context.Process(target=work, args=(stage, options, found))
        process.start()
        process.join()
        if process.exitcode:
            lines.append(f"| {stage} | ended with {process.exitcode} | | | |")
            continue
        most, seconds = found.get()
        base = base or most
        own = most - base
        lines.append(f"| {stage} | {most / GB:.3f} | {own / GB:.3f} | {own / size:.2f} | {seconds:.0f} |")
        print(lines[-1], flush=True)
    return lines


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--extent", type=int, default=64)
    parser.add_argument("--configs", type=int, default=8192)
    parser.add_argument("--sigmas", type=int, default=4)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--stages", nargs="*", default=[])
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the config")
    parser.add_argument("--run", type=Path, default=Path("build/memory"))
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parsed()
    print("\n".join(table(chosen)))
    if not chosen.keep:
        shutil.rmtree(chosen.run, ignore_errors=True)
