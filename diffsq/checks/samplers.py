"""Other samplers and numbers of levels: what depends on the sampler is not the model's fault.

Every method of `methods` with every number of levels, every model of a run on one variable and both
processes; with the exact score too, where there is one. A sampler that runs away is a result. No verdict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.plots.style import BLUE, GREY, VERMILLION, light_grid, new_figure, styled
from diffsq.process.sde import SDES
from diffsq.run_folder.finished import PointBench
from diffsq.run_folder.pulls import entry_pulls
from lattice.errors import InputError
from lattice.observables.holomorphic import estimates, variable
from lattice.progress import Progress
from lattice.statistics.notation import aligned

N_BLOCKS = 100
METHODS = {"flow": (48,), "heun": (100,), "euler": (300,), "pc": (100,), "path": (100,)}


def run(
    bench: PointBench, progress: Progress, methods: dict[str, list[int]] | None = None, n: int = 20_000
) -> dict[str, Any]:
    """methods: METHOD: [N, ...]; n: samples of each."""
    rows = []
    for kind in (*bench.models, *bench.draws.exact):
        for sde in SDES:
            for method, numbers in (METHODS if methods is None else methods).items():
                for n_levels in numbers:
                    row = {"model": kind, "sde": sde, "method": method, "n_levels": n_levels, "n": n}
                    rows.append(row | _entries(bench, progress, row))
    return {"passed": None, "against": bench.against, "rows": rows}


def _entries(bench: PointBench, progress: Progress, row: dict[str, Any]) -> dict[str, Any]:
    draws = bench.draws
    draws.progress = progress
    try:
        x = draws.points(row["model"], row["sde"], row["method"], row["n_levels"], row["n"], purpose="scan/")
    except InputError as error:
        return {"entries": None, "max_pull": None, "worst": str(error)}
    entries = estimates(variable(x.numpy()), np.arange(len(x)) * N_BLOCKS // len(x))
    pulls = entry_pulls(entries, bench.truth, bench.is_complex)
    worst = max(pulls, key=lambda label: abs(pulls[label]))
    return {"entries": entries, "max_pull": abs(pulls[worst]), "worst": worst}


def text(result: dict[str, Any]) -> str:
    """A row per sampler with its largest pull."""
    rows = [["model", "process", "sampler", "N", "samples", "largest |pull|", "in"]]
    for row in result["rows"]:
        size = "-" if row["max_pull"] is None else f"{row['max_pull']:.1f}"
        rows.append(
            [row["model"], row["sde"], row["method"], str(row["n_levels"]), str(row["n"]), size, row["worst"]]
        )
    return "\n".join([f"other samplers, pulls against the {result['against']}:", *aligned(rows)])


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Largest pull of every sampler; red beyond 3."""
    rows = [row for row in result["rows"] if row["max_pull"] is not None]
    page = new_figure(8.2, 0.28 * len(rows) + 1.2)
    axes = page.subplots()
    sizes = [row["max_pull"] for row in rows]
    axes.barh(range(len(rows)), sizes, color=[VERMILLION if size > 3 else BLUE for size in sizes])
    axes.axvline(3.0, color=GREY, linewidth=1.0)
    names = [f"{r['model']}, {r['sde'].upper()}, {r['method']}, N = {r['n_levels']}" for r in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(rf"largest |pull| against the {result['against']}  [$\sigma$]")
    axes.set_xscale("symlog", linthresh=4.0)
    light_grid(axes)
    return page
