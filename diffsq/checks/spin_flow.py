"""The flow v -> h -> v -> ... of machines that have learned spins: where it ends, and what that is.

Every machine is followed from cold and from random spins; e, |m| and c1 at the end, means over seeds, are
held against the exact values at T_c, against a mean field, and against the mixture of temperatures it has
learned from, which is where a machine without fault ends (`diffsq.analysis.flow_verdict`).  Temperatures are
read off e and |m| exactly, and by a network, with its own calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsq.analysis.flow_pairs import STARTS, start_spins, until_they_agree
from diffsq.analysis.flow_verdict import FEWEST, Ends, verdict
from diffsq.analysis.rbm_flow import N_SIGMA, NAMES, Flow, autocorrelation, end_point, flow, mixing_time
from diffsq.analysis.spin_scale import Scale
from diffsq.analysis.thermometers import MOST_ROW
from diffsq.config.spins import FlowRow, FlowRun
from diffsq.exactness.annealed import annealed, base_field
from diffsq.models.binary_rbm import BinaryRBM
from diffsq.plots.spin_flow import spin_flow_figure
from diffsq.run_folder.finished import DynamicsBench
from diffsq.training.spin_grid import data_of, read_grid
from diffsq.training.spin_rows import read_machines
from diffsq.training.thermometer import Thermometer, as_units, load_thermometer
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.statistics.gamma import EstimatorError
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import mean_and_error

OF = {"config": FlowRun}
THERMOMETERS = (("T_E", "e"), ("T_m", "abs_m"))
CURVE = 24  # points of the curves that are kept
MIXED = 5.0  # sigma, of thousands of differences
N_DATA, N_RUNS, N_ANNEAL = 1000, 200, 1000


@dataclass(frozen=True)
class _Network:
    """The trained thermometer with its calibration."""

    thermometer: Thermometer
    row: dict[str, Any]

    @classmethod
    def of(cls, bench: DynamicsBench) -> _Network | None:
        row = bench.rows.get("thermometer")
        if row is None:
            return None
        return cls(load_thermometer(bench.folder / "train" / "thermometer" / "weights.safetensors"), row)

    def end(self, pair: list[Flow]) -> float:
        """The mean reading at the end of both flows of a machine; NaN beyond those at true temperatures."""
        ends = [self.thermometer.read(as_units(one.kept[max(one.kept)], one.q)).mean() for one in pair]
        low, high = (edge(self.row["mean"]) for edge in (min, max))
        return float(np.mean(ends)) if low <= np.mean(ends) <= high else math.nan

    def curves(self, pairs: list[list[Flow]]) -> dict[str, Any]:
        """Mean readings against the sweep over seeds, and the scatter of a configuration at the end."""
        at = sorted(pairs[0][0].kept)
        read = [
            [[self.thermometer.read(as_units(one.kept[n], one.q)) for n in at] for one in pair]
            for pair in pairs
        ]
        means = np.array(read).mean(-1)  # (seeds, starts, steps)
        return {
            "n": at, "cold": means[:, 0].mean(0).tolist(), "hot": means[:, 1].mean(0).tolist(),
            "sd": float(np.array([one[-1] for pair in read for one in pair]).std()),
        }  # fmt: skip


def run(
    bench: DynamicsBench, progress: Progress, *, n_chains: int | None = None, longest: int = 8
) -> dict[str, Any]:
    """The verdict on every row, at its last step. passed: cold and hot starts agree in the rows learned by
    cd, and no control (shuffled, random weights, a part of the grid without T_c) is called critical; of
    controls and of persistent or tempered chains, which may mix slowly, starts that disagree are said.
    n_chains: instead of the config's; longest: times n_sweeps that are made where starts disagree.

    Raises `InputError` for a run of another kind, with fields, and on a torus that is not square or has no
    exact values.
    """
    config = bench.config
    if not isinstance(config, FlowRun):
        raise InputError("the check spin-flow is for a run with models: [spin_flow]")
    if any(config.ensemble.fields):
        raise InputError("the check spin-flow is for spins without a field; take field-flow")
    shape = config.lattice.shape
    if len(shape) != 2 or shape[0] != shape[1] or not 3 <= shape[0] <= MOST_ROW:
        raise InputError(
            f"the check spin-flow is for square tori of 3 to {MOST_ROW} sites a side, lattice.shape is "
            f"{list(shape)}"
        )
    grid = (*((0.0,) if config.ensemble.ground_state else ()), *config.ensemble.temperatures)
    scale = Scale(config.ensemble.q, (shape[0], shape[1]), grid, config.seed)
    rows, n = [], n_chains or config.training.n_chains
    flows = {name: row for name, row in bench.rows.items() if name.startswith("flow-")}
    network = _Network.of(bench)
    steps = sum(len(row["followed"]) for row in flows.values())
    progress.start(steps * config.training.n_seeds, "flows")
    for name, row in flows.items():
        followed = read_machines(row, bench.folder / "train" / name)
        found = [
            _followed(config, scale, network, row, step, m, n, longest, progress)
            for step, m in followed.items()
        ]
        ln_p = _likelihood(config, row, followed[row["followed"][-1]], bench, name)
        rows.append({"name": name, **row["row"], "at": found, "log_likelihood": ln_p})
    progress.close()
    reasons = _reasons(rows, scale.t_critical)
    return {
        "passed": not reasons, "reasons": reasons, "rows": rows, "shape": list(shape), "q": scale.q,
        "t_critical": scale.t_critical, "critical": scale.critical(), "n_seeds": config.training.n_seeds,
        "thermometer": network.row if network else None,
    }  # fmt: skip


def _followed(
    config: FlowRun, scale: Scale, network: _Network | None, row: dict[str, Any], step: int,
    machines: BinaryRBM, n: int, longest: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """The flow of all seeds at one step of learning, and what it is."""
    n_sweeps, starts = config.training.n_sweeps, []
    for k in range(len(machines.w)):
        seed = (config.seed + stream_id(f"flow/{row['sha256']}/{step}/{k}")) % 2**64
        begin = [start_spins(kind, n, row["n_sites"], scale.q, seed) for kind in STARTS]
        starts.append((machines.one(k), seed, begin))
    pairs = until_they_agree(starts, n_sweeps, longest, scale.shape, bool(network), progress)
    means = [
        [flow(one, spins[:16], n_sweeps, seed, "mean", scale.shape) for spins in begin]
        for one, seed, begin in starts
    ]
    ends = [Ends.of([end_point(pair[i]) for pair in pairs]) for i in (0, 1)]
    cold, hot = ends
    low, high = row["row"]["part"] or (0.0, math.inf)
    learned = [t for t in scale.grid if low <= t <= high]
    null = scale.mixture(learned)
    both = (cold.values + hot.values) / 2
    readings = {
        label: [scale.read(name, float(x), 0.0).t for x in both[:, NAMES.index(name)]]
        for label, name in THERMOMETERS
    }
    if network:
        readings["T_NN"] = [network.end(pair) for pair in pairs]
    found = verdict(
        cold,
        hot,
        row["n_sites"],
        scale.critical(),
        null,
        readings=readings,
        t_critical=scale.t_critical,
        q=scale.q if scale.q > 2 else 0,
        ordered=scale.ordered(float(both[:, 0].mean())),
    )
    return {
        "step": step, "sweeps": len(pairs[0][0].series) - 1,
        "cold": cold.values.tolist(), "hot": hot.values.tolist(),
        "cold_error": cold.errors.tolist(), "hot_error": hot.errors.tolist(),
        "readings": {name: _finite(t) for name, t in readings.items()},
        "end": {name: list(mean_and_error(both[:, i])) for i, name in enumerate(NAMES)}, "mixture": null,
        "network": network.curves(pairs) if network else None,
        "mixing": [mixing_time(a, b, n_sigma=MIXED) for a, b in pairs], "tau": _tau(pairs),
        "curves": _curves(pairs, scale),
        "fixed": [[end.means[-1].tolist() for end in pair] for pair in means],
        "singular": np.linalg.svd(machines.one(0).w.double().numpy(), compute_uv=False).tolist(),
        "verdict": found["verdict"], "reasons": found["reasons"], "pulls": found["pulls"],
    }  # fmt: skip


def _likelihood(
    config: FlowRun, row: dict[str, Any], machines: BinaryRBM, bench: DynamicsBench, name: str
) -> dict[str, Any]:
    """ln p per site of the spins it has learned, of the first machine, with ln Z by annealing; the error is
    that of ln Z."""
    one, own = machines.one(0), FlowRow(**row["row"])
    grid, keys = (
        read_grid(config, bench.folder / "ensemble"),
        (config.seed + stream_id(f"rows/{name}")) % 2**64,
    )
    rows = data_of(grid, own, config.training.n_seeds, keys)[0]
    data = rows[:: max(1, len(rows) // N_DATA)]
    seed = (config.seed + stream_id(f"annealed/{name}")) % 2**64
    found = annealed(one, N_RUNS, N_ANNEAL, seed, base_field(one, data))
    exact = one.to(torch.float64)
    mean = float(-exact.free_energy(exact.encode(data)).mean()) - found.ln_z
    sites = row["n_sites"]
    return {"value": mean / sites, "error": found.error / sites, "ess": found.ess, "trusted": found.trusted}


def _finite(t: list[float]) -> list[float | None]:
    """Temperatures beyond all as None."""
    return [x if math.isfinite(x) else None for x in t]


def _tau(pairs: list[list[Flow]]) -> list[float | None]:
    """The longer tau_int of e and m of each seed in sweeps, from hot starts; None where it was refused."""
    found: list[float | None] = []
    for _, hot in pairs:
        try:
            found.append(max(x.tau_int for x in autocorrelation(hot).values()))
        except EstimatorError:
            found.append(None)
    return found


def _curves(pairs: list[list[Flow]], scale: Scale) -> dict[str, Any]:
    """e, |m| and c1 over seeds against the sweep, mean and scatter of a seed."""
    n = len(pairs[0][0].series)
    at = np.unique(np.concatenate([[0], np.geomspace(1, n - 1, CURVE).round().astype(int)]))
    found: dict[str, Any] = {"n": at.tolist()}
    for i, start in enumerate(STARTS):
        each = np.stack([pair[i].means[at] for pair in pairs])  # (seeds, steps, 4)
        found[start] = {
            "mean": each.mean(0).tolist(),
            "spread": each.std(0, ddof=min(1, len(each) - 1)).tolist(),
            **{label: _band(scale, name, each[..., NAMES.index(name)]) for label, name in THERMOMETERS},
        }
    return found


def _band(scale: Scale, name: str, each: Floats) -> list[list[float | None]]:
    """Temperatures read off the mean over machines (seeds, steps), and off one scatter less and more."""
    mean, spread = each.mean(0), each.std(0, ddof=min(1, len(each) - 1))
    return [_finite([scale.read(name, float(x), 0.0).t for x in mean + k * spread]) for k in (0, -1, 1)]


def is_control(row: dict[str, Any], t_critical: float) -> bool:
    """Whether a row is one that must not be critical."""
    low, high = row["part"] or (0.0, math.inf)
    return bool(row["shuffled"] or row["n_steps"] == 0 or not low <= t_critical <= high)


def _reasons(rows: list[dict[str, Any]], t_critical: float) -> list[str]:
    few = rows and len(rows[0]["at"][-1]["cold"]) < FEWEST
    reasons = [f"fewer than {FEWEST} seeds: no verdict, of controls neither"] if few else []
    for row in rows:
        last, control = row["at"][-1], is_control(row, t_critical)
        if control and last["verdict"] == "critical":
            reasons.append(f"{row['name']}: a control is called critical")
        away = [x for name, x in last["pulls"].items() if name.startswith("cold-hot") and not x < N_SIGMA]
        if away and row["method"] == "cd" and not control:
            reasons.append(f"{row['name']}: {'; '.join(last['reasons'])}")
    return reasons


def label_of(row: dict[str, Any]) -> str:
    """A row in words."""
    nodes = {"spin": "±1", "bit": "{0,1}"}[row["units"]]
    how = {"cd": f"CD-{row['k']}", "pcd": f"PCD-{row['k']}", "tempered": "tempered"}[row["method"]]
    part = "" if row["part"] is None else f", T {row['part'][0]:g} to {row['part'][1]:g}"
    extra = part + ", biases" * row["biases"] + ", shuffled" * row["shuffled"]
    return (
        f"{nodes} N_h {row['n_hidden']} {how}{extra}"
        if row["n_steps"]
        else f"random W, N_h {row['n_hidden']}"
    )


def text(result: dict[str, Any]) -> str:
    """A line per row and followed step, the reasons, the verdicts."""
    head = ["machines", "steps", "sweeps", "e", "T_E", "|m|", "T_m", "T_NN", "c1", "agree after",
            "|m| by means", "mixture T_E, T_m", "verdict"]  # fmt: skip
    lines = [head]
    for row in result["rows"]:
        for at in row["at"]:
            end, null = at["end"], at["mixture"]
            mixing = [m for m in at["mixing"] if m is not None]
            numbers = [
                format_value(*end["e"]), _temperature(at["readings"]["T_E"]), format_value(*end["abs_m"]),
                _temperature(at["readings"]["T_m"]), _temperature(at["readings"].get("T_NN", [])),
                format_value(*end["c1"]),
            ]  # fmt: skip
            lines.append([
                label_of(row), str(at["step"]), str(at["sweeps"]), *(numbers if has_end(at) else _both(at)),
                "none" if len(mixing) < len(at["mixing"]) else f"{min(mixing)}-{max(mixing)}",
                _fixed(at["fixed"]), f"{null['t_e']:.3f}, {null['t_m']:.3f}", at["verdict"],
            ])  # fmt: skip
    c = result["critical"]
    notes = [
        f"T_c = {result['t_critical']:.6f}: e {c['e']:.4f}, |m| {c['abs_m']:.4f}, c1 {c['c1']:.4f} on this "
        f"torus; errors: scatter of {result['n_seeds']} seeds; mixture: what a machine without fault reads"
    ]
    for row in result["rows"]:
        last = row["at"][-1]
        ln_p = row["log_likelihood"]
        words = format_value(ln_p["value"], ln_p["error"]) + (
            "" if ln_p["trusted"] else " (few runs carry it)"
        )
        why = "; ".join(last["reasons"])
        notes.append(f"{label_of(row)}: ln p = {words} a site; {last['verdict']}" + f": {why}" * bool(why))
    if (own := result["thermometer"]) is not None:
        i = int(np.argmin(np.abs(np.array(own["t"]) - result["t_critical"])))
        notes.append(
            f"T_NN: a network; at T = {own['t'][i]:g} it reads {own['mean'][i]:.3f} with a spread of "
            f"{own['sd'][i]:.3f}, of the same with sites shuffled {own['shuffled_mean'][i]:.3f}"
        )
    words = "passed" if result["passed"] else f"NOT passed: {'; '.join(result['reasons'])}"
    return "\n".join([*aligned(lines), *notes, words])


def has_end(at: dict[str, Any]) -> bool:
    """Whether cold and hot starts have ended alike."""
    return all(x < N_SIGMA for name, x in at["pulls"].items() if name.startswith("cold-hot"))


def _both(at: dict[str, Any]) -> list[str]:
    """e, |m| and c1 of cold and of hot starts, where they differ: no end, and no temperature."""
    cold, hot = (np.array(at[start]).mean(0) for start in STARTS)
    e, m, c1 = (f"{cold[i]:.3f} cold, {hot[i]:.3f} hot" for i in (0, 1, 3))
    return [e, "-", m, "-", "-", c1]


def _fixed(ends: list[Any]) -> str:
    """|m| of the fixed points of the flow by expectation values, from cold starts and from hot."""
    shown = [format_value(*mean_and_error(np.array([end[i][1] for end in ends]))) for i in (0, 1)]
    return ", ".join(shown)


def _temperature(t: list[float | None]) -> str:
    finite = [x for x in t if x is not None]
    if not t:
        return "-"
    if len(finite) < len(t):
        return "beyond"
    return format_value(*mean_and_error(np.array(finite))) if len(finite) > 1 else f"{finite[0]:.3f}"


def figure(result: dict[str, Any]) -> Figure:
    """The flows in T_E, T_m and c1, and the end points of all rows."""
    return spin_flow_figure(result, [label_of(row) for row in result["rows"]])
