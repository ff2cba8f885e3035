"""Where the efficiency of a run is lost: by level and shell, and how it depends on the number of levels.

Path KL is quoted as half the variance of log w (a quarter of that of the difference of two), which it is
where log w is Gaussian; the mean differences are exact but much noisier where the KL is small.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from diffsq.analysis.localise import divergence_below, shares
from diffsq.exactness.weights import forward_ess, forward_spread
from diffsq.models.momentum import shells
from diffsq.plots.style import BLUE, INK, SERIES, VERMILLION, panels, rows, styled
from diffsq.run_folder.finished import Workbench
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.levels import levels_of
from lattice.arrays import Floats, batches
from lattice.errors import InputError
from lattice.progress import Progress, counted
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.notation import aligned, format_entry, format_value
from lattice.statistics.weights import effective_sample_size, spread_of

BLOCK = 64
PROCESSES = ("ve", "vp")


def run(
    bench: Workbench, progress: Progress, n_fields: int = 512, n_samples: int = 1024, n_marks: int = 8,
    n_levels: tuple[int, ...] = (20, 40, 80), processes: tuple[str, ...] = PROCESSES,
) -> dict[str, Any]:  # fmt: skip
    """Localise the loss on n_fields held-out fields; ESS of other levels and processes on n_samples."""
    unknown = set(processes) - set(PROCESSES)
    if unknown:
        raise InputError(f"processes must be among {', '.join(PROCESSES)}, got {', '.join(unknown)}")
    index, labels = shells(bench.model.momenta)
    phi, chain = bench.held_out_fields(n_fields)
    path, action = bench.path, bench.action.action
    n = path.n_levels
    marks = sorted({int(mark) for mark in np.linspace(1, n, min(n_marks, n)).round()})
    parts = []
    for part in counted(progress, len(phi), BLOCK, "divergence by level"):
        up, down = (bench.noise(f"check/levels/{name}", part) for name in ("up", "down"))
        parts.append(divergence_below(path, phi[part], action, up, down, bench.frames(), marks).cpu())
    difference = torch.cat(parts).numpy()
    below = [jackknife_of(lambda d: 0.25 * float(d.var()), column, chain=chain) for column in difference.T]
    noise = bench.noise("check/levels/shares", np.arange(len(phi)))
    found = shares(path, phi, action, noise, bench.frames(), index)
    return {
        "passed": None, "shape": list(bench.ensemble.shape), "n_fields": len(phi),
        "sigma": path.levels[1:].tolist(), "marks": marks, "kl_below": [value for value, _ in below],
        "kl_below_error": [error for _, error in below], "shells": labels, "shares": found.table.tolist(),
        "share_of_action": found.rest, "variance": found.variance,
        "scan": _scan(bench, progress, n_samples, n_levels, processes),
    }  # fmt: skip


def _scan(
    bench: Workbench, progress: Progress, n_samples: int, n_levels: tuple[int, ...],
    processes: tuple[str, ...],
) -> list[dict[str, Any]]:  # fmt: skip
    """ESS and path KL for each process and number of levels."""
    found = []
    progress.start(len(n_levels) * len(processes), "levels")
    for process, n in itertools.product(processes, n_levels):
        sampling = bench.config.sampling.model_copy(update={"n_levels": n})
        config = bench.config.model_copy(update={"sampling": sampling})
        levels = levels_of(config, bench.model, process).to(bench.device)
        efficiency = _efficiency(bench, ReversePath(bench.model, levels), n_samples)
        found.append({"process": process, "n_levels": n, **efficiency})
        progress.update()
    progress.close()
    return found


def _efficiency(bench: Workbench, path: ReversePath, n: int) -> dict[str, Any]:
    phi, chain = bench.held_out_fields(n)
    action, reverse, forward = bench.action.action, [], []
    for part in batches(n, BLOCK):
        noise = bench.noise("check/levels/reverse", part)
        reverse.append(path.sample(action, noise, bench.frames())[1].cpu())
    for part in batches(len(phi), BLOCK):
        noise = bench.noise("check/levels/forward", part)
        forward.append(path.weigh(phi[part], action, noise, bench.frames())[0].cpu())
    down, up = torch.cat(reverse).numpy(), torch.cat(forward).numpy()
    ess, ess_error = effective_sample_size(down)
    other, other_error = forward_ess(up, chain)
    kl_down, error_down = jackknife_of(half_variance, down)
    kl_up, error_up = jackknife_of(half_variance, up, chain=chain)
    return {
        "ess": ess, "ess_error": ess_error, "ess_forward": other, "ess_forward_error": other_error,
        "spread": {"reverse": spread_of(down), "forward": forward_spread(up, chain)},
        "kl": 0.5 * (kl_down + kl_up), "kl_error": 0.5 * float(np.hypot(error_down, error_up)),
    }  # fmt: skip


def half_variance(log_weight: Floats) -> float:
    """Var(log w)/2, the path KL where log w is Gaussian; far less noisy than the difference of means."""
    return 0.5 * float(log_weight.var())


def text(result: dict[str, Any]) -> str:
    """Tables: loss below each level, shares of the shells, and the scan."""
    lines = [
        "path KL below a level (Var/2, mean of both directions, nats per field)",
        "  level   sigma     below          gained",
    ]
    last = 0.0
    for mark, value, error in zip(result["marks"], result["kl_below"], result["kl_below_error"]):
        sigma = result["sigma"][mark - 1]
        lines.append(f"  {mark:5d}  {sigma:7.3f}   {format_value(value, error):<13}  {value - last:+.4f}")
        last = value
    lines += ["", f"shares of Var(log w) = {result['variance']:.4f}, by momentum shell (they add up)"]
    for shell, value in zip(result["shells"], np.array(result["shares"]).sum(0)):
        lines.append(f"  {shell['label']:<11} {shell['multiplicity']:6d} modes  {value:+.4f}")
    lines += [f"  {'action':<11} {'':6}        {result['share_of_action']:+.4f}", ""]
    several = ("e^-Var(log w)", "largest weight")
    rows = [["levels", "N", "ESS/N reverse", *several, "forward", *several, "path KL (Var/2)", "per site"]]
    volume = math.prod(result["shape"])
    for row in result["scan"]:
        cells = [row["process"], str(row["n_levels"])]
        for name, way in (("ess", "reverse"), ("ess_forward", "forward")):
            spread = row["spread"][way]
            largest = f"{spread['largest_weight']:.2g}"
            cells += [format_entry(row, name), format_entry(spread, "exp_minus_var"), largest]
        per_site = format_value(row["kl"] / volume, row["kl_error"] / volume)
        rows.append([*cells, format_entry(row, "kl"), per_site])
    return "\n".join([*lines, *aligned(rows)])


@styled
def figure(result: dict[str, Any]) -> Figure:
    """Path KL below each level; shares of the shells; path KL against the number of levels."""
    page, (left, middle, right) = panels(13.5, 4.2, 1, 3, width_ratios=(1.1, 1, 1.1))
    sigma = np.array(result["sigma"])[np.array(result["marks"]) - 1]
    left.errorbar(sigma, result["kl_below"], result["kl_below_error"], color=BLUE, marker="o")
    left.set(xscale="log", ylim=(0, None), xlabel=r"noise level $\sigma$")
    left.set_ylabel("path KL below it [nats per field]")
    left.xaxis.set_minor_formatter(NullFormatter())
    values = [*np.array(result["shares"]).sum(0), result["share_of_action"]]
    names = [shell["label"].replace("k", "$k$") for shell in result["shells"]] + ["action"]
    colours = [BLUE] * len(result["shells"]) + [VERMILLION]
    middle.barh(rows(middle, names), values, height=0.6, color=colours)
    middle.axvline(0.0, color=INK, linewidth=0.8)
    middle.xaxis.set_major_locator(MaxNLocator(4))
    middle.set(xlabel=rf"share of Var(log $w$) = {result['variance']:.3g}")
    _draw_scan(right, result["scan"])
    return page


def _draw_scan(axes: Axes, scan: list[dict[str, Any]]) -> None:
    for process, (colour, marker) in zip(PROCESSES, SERIES):
        here = [row for row in scan if row["process"] == process]
        if here:
            n, kl, error = ([row[key] for row in here] for key in ("n_levels", "kl", "kl_error"))
            axes.errorbar(n, kl, error, color=colour, marker=marker, label=process)
    axes.set(xscale="log", xlabel="number of levels $N$", ylabel="path KL [nats per field]")
    axes.set_ylim(bottom=0)
    numbers = sorted({row["n_levels"] for row in scan})
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend()
