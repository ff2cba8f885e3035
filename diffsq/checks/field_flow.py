"""The flow of machines that have learned spins in fields: is its end a temperature and a field, and does that
lie on the line of the largest specific heat?

u = -<sum s s>/V and m of the end of each seed are inverted for (T, H) exactly, and <m^2> is held against that
place (`diffsq.analysis.field_thermometer`); independent spins, u = -2 m^2, have no such place. The line T(H)
of the largest C on the same torus is exact, too. Claimed: S. S. Funai, D. Giataganas, 1810.08179.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from diffsq.analysis.field_thermometer import hottest_in_field, place_of
from diffsq.analysis.flow_pairs import STARTS, start_spins
from diffsq.analysis.flow_verdict import Ends, apart
from diffsq.analysis.rbm_flow import Flow, flow
from diffsq.checks.spin_flow import label_of
from diffsq.config.spins import FlowRun
from diffsq.models.binary_rbm import BinaryRBM
from diffsq.plots.spin_flow import field_flow_figure
from diffsq.run_folder.finished import DynamicsBench
from diffsq.training.spin_rows import read_machines
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.ising import moments_in_field
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import mean_and_error, sigmas_of

OF = {"config": FlowRun}
MOST_ROW = 10
SHOWN = (0.25, 0.5, 1.0, 1.5, 2.0)
APART = 4.0  # sigma
CLOSE = 0.1  # of T, within which an end is said to be on the line
STEP = 1e-3  # of H
LINE = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.5)  # fields; straight between


def run(bench: DynamicsBench, progress: Progress, *, n_sweeps: int | None = None) -> dict[str, Any]:
    """The place of the end of every row, of its mean and of every seed. passed: cold and hot starts agree
    within 4 sigma in all rows. n_sweeps: instead of the config's.

    Raises `InputError` for a run of another kind, of Potts spins, and on a torus whose rows are too long.
    """
    config = bench.config
    if not isinstance(config, FlowRun) or config.ensemble.q != 2:
        raise InputError("the check field-flow is for a run with models: [spin_flow] of Ising spins")
    shape = config.lattice.shape
    if len(shape) != 2 or not 2 <= min(shape) <= MOST_ROW or shape[0] != shape[1]:
        raise InputError(f"the check field-flow is for square tori up to {MOST_ROW} sites, got {list(shape)}")
    torus = (shape[0], shape[1])
    line = [[h, *hottest_in_field(torus, h)] for h in LINE]
    rows = {name: row for name, row in bench.rows.items() if name.startswith("flow-")}
    sweeps = n_sweeps or config.training.n_sweeps
    progress.start(len(rows) * config.training.n_seeds, "flows")
    found = [
        {
            "name": name,
            **row["row"],
            **_end(config, torus, line, row, bench.folder / "train" / name, sweeps, progress),
        }
        for name, row in rows.items()
    ]
    progress.close()
    reasons = [
        f"{row['name']}: cold and hot ends {row['apart']:.1f} sigma apart"
        for row in found
        if row["apart"] >= APART
    ]
    return {
        "passed": not reasons, "reasons": reasons, "rows": found, "line": line, "shape": list(shape),
        "n_seeds": config.training.n_seeds, "mixture": _mixture(config, torus),
    }  # fmt: skip


def _mixture(config: FlowRun, shape: tuple[int, int], part: list[float] | None = None) -> dict[str, Any]:
    """u and m of the training grid, exactly, of the temperatures in `part`, and their place."""
    section, (low, high) = config.ensemble, part or (0.0, math.inf)
    chosen = [t for t in section.temperatures if low <= t <= high]
    pairs = [moments_in_field(shape, t, h) for h in section.fields for t in chosen]
    if section.ground_state and low == 0:
        pairs.append((-2.0, 0.0))
    u, m = np.mean(pairs, axis=0)
    place = place_of(float(u), float(m), shape)
    found = place.found
    return {"u": float(u), "m": float(m), "t": place.t if found else None, "h": place.h if found else None,
            "found": found}  # fmt: skip


def signed_end(one: Flow) -> tuple[Floats, Floats]:
    """u, m with its sign, m^2 and c1 (4,) of the second half of a flow, and their errors."""
    half = one.series[len(one.series) // 2 :]
    each = np.stack(
        [half[..., 0], half[..., 1], half[..., 1] ** 2, -half[..., 0] / 2 - half[..., 2]], -1
    ).mean(0)
    return each.mean(0), each.std(0, ddof=1) / math.sqrt(len(each))


def _end(
    config: FlowRun, shape: tuple[int, int], line: list[list[float]], row: dict[str, Any], folder: Path,
    n_sweeps: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """u, m and c1 of the end of every seed from cold and from hot starts, and the place of their mean; where
    they differ, of the cold starts, all spins along the field."""
    machines: BinaryRBM = read_machines(row, folder)[row["followed"][-1]]
    up = 1.0 if sum(config.ensemble.fields) >= 0 else -1.0
    ends, errors = [], []
    for k in range(len(machines.w)):
        seed = (config.seed + stream_id(f"field-flow/{row['sha256']}/{k}")) % 2**64
        both = []
        for i, kind in enumerate(STARTS):
            spins = start_spins(kind, config.training.n_chains, row["n_sites"], 2, seed)
            spins = up * np.abs(spins) if kind == "cold" else spins
            found = flow(machines.one(k), spins, n_sweeps, (seed + i) % 2**64, "sample", shape)
            both.append(signed_end(found))
        ends.append([value for value, _ in both])
        errors.append([error for _, error in both])
        progress.update(1)
    each, noise = np.array(ends), np.array(errors)  # (seeds, starts, 4)
    away = float(max(apart(Ends(each[:, 0], noise[:, 0]), Ends(each[:, 1], noise[:, 1])).values()))
    values = each.mean(1) if away < APART else each[:, 0]
    starts = {
        kind: {name: list(mean_and_error(each[:, i, at])) for name, at in (("u", 0), ("m", 1))}
        for i, kind in enumerate(STARTS)
    }
    about = {"apart": away, **starts, "mixture": _mixture(config, shape, row["row"]["part"])}
    return about | _place(values, shape, line)


def _place(values: Floats, shape: tuple[int, int], line: list[list[float]]) -> dict[str, Any]:
    """u, m, c1, and T and H, of the ends (seeds, 4), beside the line of the largest C."""
    places = [place_of(float(u), float(m), shape) for u, m in values[:, :2]]
    temperatures, h = ([getattr(p, x) for p in places if p.found] for x in ("t", "h"))
    about: dict[str, Any] = {
        "u": list(mean_and_error(values[:, 0])), "m": list(mean_and_error(values[:, 1])),
        "c1": list(mean_and_error(values[:, 3])), "n_found": len(temperatures),
        "mean_field": float(np.mean(values[:, 0] + 2 * values[:, 2])),
    }  # fmt: skip
    if len(temperatures) < len(places):
        return about
    known = [_m2(shape, p.t, p.h) for p in places]
    excess = values[:, 2] - np.array(known)
    about |= {"t": list(mean_and_error(np.array(temperatures))), "h": list(mean_and_error(np.array(h)))}
    about["m2"] = [*mean_and_error(excess), sigmas_of(*mean_and_error(excess), len(excess) - 1)]
    if all(line[0][0] <= x <= line[-1][0] for x in h):
        gap = np.array(temperatures) - np.interp(h, *np.array(line).T[:2])
        off = sigmas_of(*mean_and_error(gap), len(gap) - 1)
        about |= {"hottest": float(np.interp(about["h"][0], *np.array(line).T[:2])), "off": off}
        about |= {"gap": list(mean_and_error(gap))}
    return about


def _m2(shape: tuple[int, int], t: float, h: float) -> float:
    """<m^2> at a temperature and field: m^2 + T (dm/dH)/V."""
    low, own, high = (moments_in_field(shape, t, h + x)[1] for x in (-STEP, 0.0, STEP))
    return own**2 + t * (high - low) / (2 * STEP * math.prod(shape))


def verdict_of(row: dict[str, Any]) -> str:
    """What the end of a row is, in words: none while starts differ."""
    if row["apart"] >= APART:
        return f"no end: cold and hot starts {row['apart']:.0f} sigma apart (here: cold)"
    if "t" not in row:
        return f"(T, H) in {row['n_found']} of the seeds' ends only: u + 2 m^2 = {row['mean_field']:.3f}"
    if row["m2"][2] >= APART:
        return f"no (T, H): <m^2> is {row['m2'][2]:.1f} sigma from that of spins with this u and m"
    if "off" not in row:
        return "a temperature and a field outside those of the line of the largest C"
    if row["off"] >= APART:
        return f"{row['off']:.0f} sigma off the line of the largest C"
    if abs(row["gap"][0]) + scipy.stats.t.isf(0.025, row["n_found"] - 1) * row["gap"][1] > CLOSE:
        return f"undecided: {format_value(*row['gap'])} from the line of the largest C"
    return "on the line of the largest C"


def text(result: dict[str, Any]) -> str:
    """A line per row, the line of the largest C, the verdicts."""
    lines = [["machines", "m cold", "m hot", "u", "m", "c1", "T", "H", "T of largest C at H", "verdict"]]
    for row in result["rows"]:
        place = [format_value(*row[name]) for name in ("t", "h")] if "t" in row else ["-", "-"]
        hottest = f"{row['hottest']:.4f}" if "off" in row else "-"
        lines.append([
            label_of(row), *(format_value(*row[start]["m"]) for start in STARTS),
            *(format_value(*row[name]) for name in ("u", "m", "c1")), *place, hottest,
            verdict_of(row),
        ])  # fmt: skip
    line = ", ".join(f"{t:.4f} (H = {h:g})" for h, t, _ in result["line"] if h in SHOWN)
    null = result["mixture"]
    where = f"which read as T = {null['t']:.3f}, H = {null['h']:.3f}" if null["found"] else "no (T, H)"
    words = "passed" if result["passed"] else f"NOT passed: {'; '.join(result['reasons'])}"
    return "\n".join([
        *aligned(lines),
        f"errors: scatter of {result['n_seeds']} seeds; largest C on this torus at T = {line}",
        f"a machine without fault ends in the mixture: u = {null['u']:.4f}, m = {null['m']:.4f}, {where}",
        words,
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """Ends in the plane of T and H, and of m and u."""
    return field_flow_figure(result, [label_of(row) for row in result["rows"]])
