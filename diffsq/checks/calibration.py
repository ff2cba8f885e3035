"""`diffsq check calibration`: are the sampler's draws of p(x_0 | x_n) the posterior of equilibrium fields?

Ranks of M, |M|, s and phi_x on held-out fields at three noise levels; the mathematics is in
diffsq/calibration.py. On training fields a sampler that memorised them would look right: held-out ones are
the default.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from diffsq.analysis import calibration
from diffsq.analysis.calibration import SPACING, PathRanks, Stream
from diffsq.plots.style import GREY, INK, RAW, WEIGHTED, new_figure, styled
from diffsq.run_folder.finished import Workbench
from diffsq.sampling import steps
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.statistics.notation import aligned, format_entry
from lattice.statistics.uniformity import Uniformity, holm, sensitivity, uniformity
from lattice.statistics.weights import ess_words

ALPHA = 1e-3  # of the whole family of one kind of ranks: a calibrated sampler fails once in a thousand seeds
DEFAULT_LEVELS = (0.05, 0.25, 0.7)  # fractions of N: small, middle and large sigma
LABELS = {"M": "$M$", "|M|": "$|M|$", "s": "$s = S/V$", "phi_x": r"$\phi_x$"}
KINDS = {"raw": ("raw ranks, p after Holm", RAW), "corrected": ("corrected by the path weights", WEIGHTED)}


def run(
    bench: Workbench, progress: Progress, n_fields: int = 400, n_draws: int = 15,
    levels: list[int] | None = None, method: str = "path", held_out: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Ranks of held-out fields among n_draws reverse draws from each of `levels` (default: three).

    method: "path" (raw and corrected ranks), "euler" or "pc" (raw only) through the same levels. held_out:
    False takes fields of all chains, where the held-out ones give too few. Raises `InputError` for a level
    that the path does not have, an unknown or deterministic method, or too few fields.
    """
    if method != "path" and method not in steps.STEPS:
        raise InputError(f"method must be path, euler or pc, got {method!r}")
    if n_fields < 10:
        raise InputError(f"n_fields must be at least 10, got {n_fields}")
    n_levels = bench.path.n_levels
    chosen = sorted(set(levels or (max(1, round(f * n_levels)) for f in DEFAULT_LEVELS)))
    for level in chosen:
        if not 1 <= level <= n_levels:
            raise InputError(f"levels must be in 1 ... {n_levels}, the noise levels of this run; got {level}")
    source = bench.held_out() if held_out else bench.ensemble
    rows, spacing = calibration.independent_rows(source, n_fields)
    phi = torch.from_numpy(source.phi[rows]).to(bench.device)
    sigma = bench.path.levels[chosen].tolist()
    tests: list[dict[str, Any]] = []
    ess: dict[str, float] = {}
    errors: dict[str, float] = {}
    spread: dict[str, dict[str, float]] = {}
    progress.start(len(phi) * sum(chosen), "rank calibration")
    for level, at in zip(chosen, sigma):
        found, here = _ranks_at(bench, phi, level, n_draws, method, progress), {"level": level, "sigma": at}
        for kind in ("raw", "corrected"):
            for name, rank in getattr(found, kind).items():
                about = {"kind": kind, **here, "statistic": name}
                tests.append({**about, **asdict(uniformity(rank, n_draws))})
        if method == "path":
            ess[str(level)], errors[str(level)] = found.ess, found.ess_error
            spread[str(level)] = found.spread
    progress.close()
    p = {kind: _correct(tests, kind) for kind in dict.fromkeys(test["kind"] for test in tests)}
    return {
        "passed": all(value > ALPHA for value in p.values()), "method": method, "n_fields": len(phi),
        "held_out": held_out, "n_chains": len(np.unique(source.chain[rows])), "spacing": spacing,
        "n_draws": n_draws, "levels": chosen, "sigma": sigma, "alpha": ALPHA, "p": p, "ess": ess,
        "ess_error": errors, "spread": spread, "tests": tests,
    }  # fmt: skip


def _ranks_at(
    bench: Workbench, phi: torch.Tensor, level: int, n_draws: int, method: str, progress: Progress
) -> PathRanks:
    stream, frames = Stream(bench.seed, f"check/calibration/{level}"), bench.frames()
    action = bench.action.action
    about = (calibration.field_statistics(action, stream), n_draws, stream)

    def done(n: int) -> None:
        progress.update(n * level)

    if method == "path":
        return calibration.path_ranks(bench.path, level, phi, action, *about, frames, done)
    step, grid = steps.STEPS[method], bench.path.levels
    draw = calibration.plain_draw(step, bench.model, grid, level, stream, frames)
    return PathRanks(calibration.ranks(draw, phi, float(grid[level]), *about, done), {}, 1.0)


def _correct(tests: list[dict[str, Any]], kind: str) -> float:
    """Put the p-values of this kind, corrected by Holm's method, into its tests; returns the smallest."""
    family = [test for test in tests if test["kind"] == kind]
    for test, p in zip(family, holm([test["p"] for test in family])):
        found = Uniformity(**{name: test[name] for name in Uniformity.__dataclass_fields__})
        test |= {"p_corrected": p, "words": found.words(p > ALPHA)}
    return min(float(test["p_corrected"]) for test in family)


def text(result: dict[str, Any]) -> str:
    """A table, one line per kind, noise level and statistic, and the verdict."""
    rows = [["ranks", "sigma", "of", "chi2/dof", "p (Holm)", "<u>", "var u", "reading"]]
    for t in sorted(result["tests"], key=lambda t: (t["kind"] != "raw", t["level"])):
        rows.append([
            t["kind"], f"{t['sigma']:.3g}", t["statistic"], f"{t['chi2']:.1f}/{t['n_bins'] - 1}",
            f"{t['p_corrected']:.2g}", format_entry(t, "mean"), format_entry(t, "variance"), t["words"],
        ])  # fmt: skip
    bias, width = sensitivity(result["n_fields"], result["n_draws"])
    parts = [
        *aligned(rows),
        "u = (rank + 1/2)/(K + 1): 1/2 if calibrated, more where the draws are too low",
        "var u, over that of uniform ranks: 1 if calibrated, more where the draws are too narrow",
        f"{result['n_fields']} {'held-out fields' if result['held_out'] else 'fields'} of "
        f"{result['n_chains']} chains, {result['spacing']} saved configurations apart "
        f"(>= {SPACING} tau_int), K = {result['n_draws']} draws of each, method {result['method']}",
        f"4 sigma would be: a bias of {bias:.2f} posterior standard deviations, or a width "
        f"{100 * width:.0f} % off",
    ]
    if result["ess"]:
        effective = ", ".join(
            ess_words(value, result["ess_error"][level], result["spread"][level])
            for level, value in result["ess"].items()
        )
        parts.append(f"ESS of the draws of one field, over K, per level: {effective}")
    for kind, p in result["p"].items():
        verdict = "uniform" if p > result["alpha"] else "NOT uniform"
        parts.append(f"{kind} ranks: {verdict}, p = {p:.2g} over all levels and statistics")
    return "\n".join([*parts, f"calibration: {'passed' if result['passed'] else 'FAILED'}"])


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Rank histograms, a row per noise level and a column per statistic, with the band of uniform ranks."""
    names = [name for name in LABELS if any(test["statistic"] == name for test in result["tests"])]
    drawn = new_figure(3.0 * len(names), 2.45 * len(result["levels"]) + 0.7)
    panels = drawn.subplots(len(result["levels"]), len(names), sharex=True, sharey=True, squeeze=False)
    for row, level, sigma in zip(panels, result["levels"], result["sigma"]):
        for axes, name in zip(row, names):
            here = [t for t in result["tests"] if t["level"] == level and t["statistic"] == name]
            _histogram(axes, here, result["n_fields"], result["n_draws"])
        row[0].set_ylabel(rf"$\sigma_{{{level}}} = {sigma:.2g}$" + "\ncount / expected")
    for top, bottom, name in zip(panels[0], panels[-1], names):
        top.set_title(f"rank of {LABELS[name]}")
        bottom.set_xlabel("draws below the truth")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return drawn


def _histogram(axes: Axes, tests: list[dict[str, Any]], n: int, n_draws: int) -> None:
    expected = n / (n_draws + 1)
    low, high = stats.binom.interval(0.95, n, 1 / (n_draws + 1))
    axes.axhspan(
        (low - 0.5) / expected, (high + 0.5) / expected, color=GREY, alpha=0.25, linewidth=0,
        label="uniform ranks, 95 % of the bins",
    )  # fmt: skip
    axes.axhline(1.0, color=INK, linewidth=0.8)
    top = 2.0
    for i, test in enumerate(tests):
        label, colour = KINDS[test["kind"]]
        count = np.array(test["counts"]) / expected
        top = max(top, 1.35 * float(count.max()))
        if test["kind"] == "raw":
            edges = np.arange(n_draws + 2) - 0.5
            axes.stairs(count, edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(count, edges, color=colour, linewidth=1.4, label=label)
        else:
            axes.plot(np.arange(n_draws + 1), count, "o", color=colour, markersize=4, label=label)
        axes.annotate(
            f"$p$ = {test['p_corrected']:.2g}", (0.95, 0.95 - 0.11 * i), xycoords="axes fraction",
            ha="right", va="top", color=colour, fontsize=11,
        )  # fmt: skip
    axes.set(xlim=(-0.8, n_draws + 0.8), ylim=(0, max(top, axes.get_ylim()[1])))
