"""Students of a teacher under stochastic gradients: the repulsion of levels, fresh data and single data sets.

<S>/sqrt(alpha A^2/B) of fresh data lies between sqrt(2 pi/(2 - alpha (1 + c/B))) at c = 0 and 3, and <S^2> is
known exactly. With one data set for all replicas, the published protocol, the result is that of the set: its
spread over sets is the error that such a number has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.config.dynamics import TeacherRun
from diffsq.plots.dynamics import students_figure
from diffsq.run_folder.finished import DynamicsBench
from lattice.certificates.check import GATE
from lattice.errors import InputError
from lattice.exact.random_matrix import SPREAD_GOE
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import pull

OF = {"config": TeacherRun}
MOVED = 0.02  # of 4/pi, by the fluctuations of the data, at the batches in use


def run(bench: DynamicsBench, progress: Progress) -> dict[str, Any]:
    """The verdict: <S^2> of every row and data set within 4.5 sigma of the exact number, and <S^2>/<S>^2 more
    than 10 sigma from Poisson's 2 and within 2 % + 4.5 sigma of 4/pi, which fluctuating data move a little.
    Raises `InputError` for a run of another kind."""
    if not isinstance(bench.config, TeacherRun):
        raise InputError("the check teacher-student is for a run with models: [teacher_student]")
    groups: dict[int, list[dict[str, Any]]] = {}
    for name, row in bench.rows.items():
        groups.setdefault(int(name.split("-")[1]), []).append(row)
    settings = bench.config.training.rows
    rows = [_group(settings[i].n_data, group) for i, group in groups.items()]
    passed = all(
        row["largest_pull"] < GATE and row["from_poisson"] > 10 and row["from_wigner"] < GATE for row in rows
    )
    return {"passed": bool(passed), "rows": rows}


def _group(n_data: int | None, group: list[dict[str, Any]]) -> dict[str, Any]:
    """One rate and batch: of fresh data one row, of data sets their mean and spread."""
    first, n = group[0], len(group)
    a = np.array([row["a"] for row in group])
    sd = float(a.std(ddof=1)) if n > 1 else 0.0
    return {
        "alpha": first["alpha"], "batch": first["batch"], "n_data": n_data, "n_sets": n,
        "a": [float(a.mean()), sd / math.sqrt(n) if n > 1 else first["a_error"]], "spread": sd,
        "statistical": float(np.mean([row["a_error"] for row in group])), "all": a.tolist(),
        "formula": [first["formula_0"], first["formula_3"]],
        "ratio": _over_sets([row["s2_ratio"] for row in group], first["s2_ratio_error"]),
        "largest_pull": max(abs(pull(row["s2"], row["s2_error"], row["s2_exact"], 0.0)) for row in group),
        "from_poisson": min(abs(pull(row["s2_ratio"], row["s2_ratio_error"], 2.0, 0.0)) for row in group),
        "from_wigner": max(_beyond(row["s2_ratio"], row["s2_ratio_error"]) for row in group),
        "turned": int(sum(row["n_turned"] for row in group)),
    }  # fmt: skip


def _over_sets(values: list[float], error: float) -> list[float]:
    """Mean over data sets and its error; of one row its own error."""
    n = len(values)
    return [float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else error]


def _beyond(ratio: float, error: float) -> float:
    """How many sigma a ratio is farther from 4/pi than multiplicative noise moves it."""
    return max(0.0, abs(ratio / SPREAD_GOE - 1) - MOVED) * SPREAD_GOE / error


def text(result: dict[str, Any]) -> str:
    """A row per rate and batch."""
    rows = [
        ["alpha", "B", "data", "<S>/sqrt(alpha A^2/B)", "c = 0", "c = 3", "<S^2>/<S>^2", "<S^2> exact, pull"]
    ]
    for row in result["rows"]:
        data = "fresh" if row["n_data"] is None else f"{row['n_sets']} sets of {row['n_data']}"
        low, high = row["formula"]
        rows.append([
            f"{row['alpha']:g}", str(row["batch"]), data, format_value(*row["a"]), f"{low:.4f}",
            f"{high:.4f}", format_value(*row["ratio"]), f"{row['largest_pull']:.1f}",
        ])  # fmt: skip
    lines = aligned(rows)
    for row in result["rows"]:
        if row["n_data"] is not None and row["n_sets"] > 1:
            lines.append(
                f"alpha = {row['alpha']:g}, B = {row['batch']}: one data set for all replicas differs from "
                f"another by {row['spread']:.3f}, {row['spread'] / row['statistical']:.0f} times the "
                "statistical error of either"
            )
    return "\n".join([*lines, "passed" if result["passed"] else "NOT passed"])


def figure(result: dict[str, Any]) -> Figure:
    """The amplitudes beside the formulas."""
    return students_figure(result)
