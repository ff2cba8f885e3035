"""What a learned model of one real variable makes of kappa_n without sampling error, and its limits.

The probability flow is a smooth map of a normal start: moments of its samples are integrals over that start
law, here by the trapezoidal rule, which is exact to rounding. The limits of many steps and of a small last
noise level are then seen apart from statistics:

    N -> infinity     Runge-Kutta of order 4 in steps of order 1/N: Richardson from N and 2N, if N/2 agrees
    epsilon -> 0      the last step x_0 = D(x_1, epsilon) takes epsilon^2 off a variance: from epsilon and
                      2 epsilon. Down to the lowest level learned.

What is left then is the error of learning, and of the normal start law: kappa_n/sigma_N^n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from diffsq.models.points import PointModel
from diffsq.models.tabulated import Tabulated
from diffsq.process.sde import SDES, VESDE, VPSDE
from diffsq.sampling.flow import flow_points
from diffsq.sampling.point_path import start_law
from lattice.arrays import Floats
from lattice.statistics.cumulants import cumulants_from_moments
from lattice.statistics.notation import aligned

ORDERS = (2, 4, 6, 8)
NODES, REACH = 2**15 + 1, 8.5  # of the start law, in standard deviations: between peaks its map is steep


@torch.no_grad()
def pushed(model: Tabulated, levels: torch.Tensor, n: int = NODES) -> Floats:
    """kappa_2, 4, 6, 8 (4,) of the samples of the flow through levels (N+1,), 0 = sigma_0 < ... < sigma_N."""
    z = torch.linspace(-REACH, REACH, n, dtype=torch.float64)
    weight = torch.exp(-0.5 * z**2).numpy()
    x = flow_points(model, start_law(model, levels[-1]).draw(z[:, None]), levels)[:, 0].numpy()
    moments = np.zeros(ORDERS[-1])
    for order in ORDERS:
        moments[order - 1] = weight @ x**order / weight.sum()
    return np.asarray(cumulants_from_moments(moments).real[[order - 1 for order in ORDERS]])


def limits(
    models: dict[str, PointModel], processes: dict[str, int], n_nodes: int = NODES
) -> list[dict[str, Any]]:
    """Rows {model, sde, of, n_levels, epsilon, kappa (4,)} for models by kind and processes {sde: N}.

    of "N": N/2, N, 2N and, with n_levels null, the limit; of "epsilon": 1, 2, 4 times the lowest level,
    at 2N, and, with epsilon null, the limit.
    """
    rows = []
    for kind, model in models.items():
        fast = Tabulated(model)
        for sde, n_levels in processes.items():
            about = {"model": kind, "sde": sde}
            rows += [{**about, **row} for row in _limits(fast, model, SDES[sde], n_levels, n_nodes)]
    return rows


def _limits(
    fast: Tabulated, model: PointModel, sde: type[VESDE] | type[VPSDE], n_levels: int, n_nodes: int
) -> Iterator[dict[str, Any]]:
    def at(n: int, epsilon: float) -> Floats:
        return pushed(fast, sde(epsilon, model.sigma_max).levels(n), n_nodes)

    def row(of: str, n: int | None, epsilon: float | None, kappa: Floats | None) -> dict[str, Any]:
        found = None if kappa is None else kappa.tolist()
        return {"of": of, "n_levels": n, "epsilon": epsilon, "kappa": found}

    low, numbers = model.sigma_min, [n_levels // 2, n_levels, 2 * n_levels]
    steps = [at(n, low) for n in numbers]
    yield from (row("N", n, low, kappa) for n, kappa in zip(numbers, steps))
    yield row("N", None, low, many_steps(numbers, steps))
    scales = [factor * low for factor in (1.0, 2.0, 4.0) if factor * low < model.sigma_max]
    small = [steps[2], *(at(numbers[2], epsilon) for epsilon in scales[1:])]
    yield from (row("epsilon", numbers[2], epsilon, kappa) for epsilon, kappa in zip(scales, small))
    if len(small) > 1:
        yield row("epsilon", numbers[2], None, small[0] + (small[0] - small[1]) / 3)


def many_steps(numbers: Sequence[int], values: Sequence[Floats]) -> Floats | None:
    """Richardson's limit of `values` at N/2, N, 2N levels; None where they do not converge as N^-4 yet.

    N levels are N - 1 steps; from N to 2N the change must be less than a quarter of that before it, and less
    than a thousandth of the value.
    """
    first, last = values[1] - values[0], values[2] - values[1]
    allowed = np.minimum(0.25 * np.abs(first) + 1e-9 * np.abs(values[2]), 1e-3 * np.abs(values[2]))
    if (np.abs(last) > allowed).any():
        return None
    ratio = (numbers[2] - 1) / (numbers[1] - 1)
    return values[2] + last / (ratio**4 - 1)


def limit_cells(rows: list[dict[str, Any]], exact: dict[str, list[float]]) -> list[list[str]]:
    """The table, its header first, then the exact numbers; empty without rows.

    exact: as `lattice.observables.holomorphic.exact_numbers`.
    """
    if not rows:
        return []
    names = [f"kappa{order}" for order in ORDERS]
    cells = [["model", "process", "limit of", "N", "epsilon", *names]]
    cells.append(["exact", "", "", "", "", *(f"{exact[name][0]:.7g}" for name in names)])
    for row in rows:
        n = "infinity" if row["n_levels"] is None else str(row["n_levels"])
        epsilon = "0" if row["epsilon"] is None else f"{row['epsilon']:.3g}"
        numbers = ["-"] * len(ORDERS) if row["kappa"] is None else [f"{value:.7g}" for value in row["kappa"]]
        cells.append([row["model"], row["sde"], row["of"], n, epsilon, *numbers])
    return cells


def limit_lines(rows: list[dict[str, Any]], exact: dict[str, list[float]]) -> list[str]:
    """The table as text."""
    cells = limit_cells(rows, exact)
    return ["", "the flow of the learned laws without sampling error:", *aligned(cells)] if cells else []
