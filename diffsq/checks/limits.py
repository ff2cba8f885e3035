"""The flow of the learned laws without sampling error: many levels, and a small last noise level.

What is left in these limits (`diffsq.analysis.flow_limits`) is the error of learning. Real models. No
verdict.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from diffsq.analysis.flow_limits import ORDERS, limit_lines, limits
from diffsq.plots.style import BLUE, INK, VERMILLION, light_grid, new_figure, styled
from diffsq.run_folder.finished import PointBench
from lattice.progress import Progress


def run(bench: PointBench, progress: Progress) -> dict[str, Any]:
    """kappa_2, 4, 6, 8 of the flow of every model through the run's processes, in both limits."""
    bench.real_only("limits")
    settings = bench.config.sampling
    rows = limits(bench.models, {sde: settings.n_levels[sde] for sde in settings.sde})
    return {"passed": None, "rows": rows, "exact": bench.exact}


def text(result: dict[str, Any]) -> str:
    """The table, exact numbers first."""
    return "\n".join(limit_lines(result["rows"], result["exact"])).strip()


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Relative error of each cumulant in the limit of many levels and of a small last noise level."""
    page = new_figure(8.2, 3.6)
    axes = page.subplots()
    kinds = {"N": (BLUE, "o", r"$N\to\infty$"), "epsilon": (VERMILLION, "s", r"$\epsilon\to 0$")}
    labelled: set[str] = set()
    for row in result["rows"]:
        if row["kappa"] is None or (row["n_levels"] is not None and row["epsilon"] is not None):
            continue
        colour, marker, label = kinds[row["of"]]
        exact = [result["exact"][f"kappa{order}"][0] for order in ORDERS]
        off = [value / true - 1 for value, true in zip(row["kappa"], exact, strict=True)]
        shift = {"ve": -0.12, "vp": 0.12}[row["sde"]] + (0.04 if row["model"] == "energy" else -0.04)
        axes.plot(
            [order / 2 + shift for order in ORDERS], off, marker, color=colour, markersize=5,
            markerfacecolor=colour if row["model"] == "energy" else "none",
            label=None if label in labelled else label,
        )  # fmt: skip
        labelled.add(label)
    axes.axhline(0.0, color=INK, linewidth=1.0)
    axes.set_xticks([order / 2 for order in ORDERS], [rf"$\kappa_{order}$" for order in ORDERS])
    axes.set_ylabel("limit / exact - 1")
    axes.set_title("left: VE, right: VP; open: score, full: energy", fontsize=11)
    axes.legend()
    light_grid(axes)
    return page
