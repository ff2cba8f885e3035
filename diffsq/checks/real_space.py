"""Real-space renormalisation beside the flow of a machine: block spins and a recursion run away from T_c.

Block spins of 2 x 2 by majority, T_E of every stage on the torus that is left; and the recursion K' = (3/8)
ln cosh 4K, its fixed point and exponent (`lattice.exact.real_space`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from diffsq.analysis.blocking import blocked
from diffsq.config.spins import FlowRun
from diffsq.plots.spin_flow import real_space_figure
from diffsq.run_folder.finished import DynamicsBench
from lattice.errors import InputError
from lattice.exact.ising import CRITICAL
from lattice.exact.real_space import EXACT_K, fixed_point, flow, thermal_exponent
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_value

OF = {"config": FlowRun}
SHARE = 0.06  # by which T_E of a block at T_c may differ from T_c: blocks are no nearest-neighbour model
AT_CRITICAL = 1e-3  # share by which a temperature may differ from T_c and count as T_c
N_STEPS = 12


def run(
    bench: DynamicsBench, progress: Progress, *, side: int = 64, n_stages: int = 3,
    temperatures: list[float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """passed: below T_c the temperature of blocks falls at every stage, above it rises, at T_c it stays
    within 6 %. temperatures: 2.1, T_c and 2.5 if not given.

    Raises `InputError` for a run of another kind and for sides that cannot be halved so often.
    """
    if not isinstance(bench.config, FlowRun) or bench.config.ensemble.q != 2:
        raise InputError("the check real-space is for a run with models: [spin_flow] of Ising spins")
    if n_stages < 1 or side % 2**n_stages or side // 2**n_stages < 4:
        raise InputError(f"a side of {side} cannot be halved {n_stages} times to 4 sites or more")
    chosen = temperatures or [2.1, CRITICAL, 2.5]
    progress.start(len(chosen), "block spins")
    rows = []
    for i, t in enumerate(chosen):
        stages = [asdict(stage) for stage in blocked(t, side, n_stages, bench.config.seed + i)]
        rows.append(
            {
                "t": t,
                "stages": stages,
                "reason": _reason(t, [(s["t_e"]["t"], s["t_e"]["error"]) for s in stages]),
            }
        )
        progress.update(1)
    progress.close()
    y, nu = thermal_exponent()
    k = fixed_point()
    reasons = [row["reason"] for row in rows if row["reason"]]
    starts = [round(k * x, 6) for x in (0.85, 0.95, 1.0, 1.05, 1.15)]
    return {
        "passed": not reasons, "reasons": reasons, "rows": rows, "fixed_point": k, "nu": nu, "y_t": y,
        "recursion": {f"{x:g}": flow(k if x == round(k, 6) else x, N_STEPS).tolist() for x in starts},
    }  # fmt: skip


def _reason(t: float, read: list[tuple[float, float]]) -> str:
    """What is wrong with the temperatures of the stages and their errors, "" if nothing. A step counts where
    it is beyond twice its error; one at least must."""
    if abs(t / CRITICAL - 1) < AT_CRITICAL:
        worst = max(abs(x / CRITICAL - 1) for x, _ in read)
        return "" if worst < SHARE else f"at T_c a block reads {100 * worst:.1f} % off T_c"
    wanted, seen = 1 if t > CRITICAL else -1, 0
    for (a, a_error), (b, b_error) in itertools.pairwise(read):
        if a == b:
            continue  # frozen, or as hot as can be
        error = math.hypot(a_error, b_error) if math.isfinite(a + b) and a and b else 0.0
        if abs(b - a) > 2 * error:
            seen += 1 if (b - a) * wanted > 0 else -len(read)
    return "" if seen > 0 else f"T = {t:g} does not run away from T_c"


def text(result: dict[str, Any]) -> str:
    """T_E stage by stage, and the recursion."""
    extents = [stage["extent"] for stage in result["rows"][0]["stages"]]
    lines = [["T", *(f"T_E at L = {n}" for n in extents), "|m|, last"]]
    for row in result["rows"]:
        cells = [_shown(stage["t_e"]) for stage in row["stages"]]
        lines.append([f"{row['t']:.6g}", *cells, format_value(*row["stages"][-1]["abs_m"])])
    words = "passed" if result["passed"] else f"NOT passed: {'; '.join(result['reasons'])}"
    return "\n".join([
        *aligned(lines),
        "2 x 2 blocks by majority: away from T_c on both sides, the opposite of a flow into it",
        f"recursion K' = (3/8) ln cosh 4K: K* = {result['fixed_point']:.6f} (exact K_c {EXACT_K:.6f}), nu = "
        f"{result['nu']:.4f} (exact 1)", words,
    ])  # fmt: skip


def _shown(reading: dict[str, float]) -> str:
    t, error = reading["t"], reading["error"]
    if t == 0 or not math.isfinite(t):
        return "0" if t == 0 else "infinite"
    return format_value(t, error)


def figure(result: dict[str, Any]) -> Figure:
    """T_E against the stage, and K against the step of the recursion."""
    return real_space_figure(result)
