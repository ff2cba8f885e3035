r"""`diffsq check score`: how far the score is from the true one, in nats, by noise level and momentum shell.

The path KL of a denoiser D (`diffsq.training.loss`) knows E[phi|x] only through draws of phi. Two averages
a, b over the posterior of x, independent of each other, leave no noise in the mean:

    KL = 1/2 int d(ln sigma^2) sum_k <(a - D)(k)* (b - D)(k)> / sigma^2.

The first chain starts at the field that x was made from, the second goes on from where the first has been
forgotten (`diffsq.training.posterior_fields`). What a network gains over the base needs one average,
and where the noise of the averages is what limits the others its error is smaller.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import shells
from diffsq.plots.training import score_errors
from diffsq.run_folder.finished import Workbench
from diffsq.training.posterior_fields import PosteriorMeans, posterior_means
from diffsq.training.validation import HeldOut, left_out_means, spread_levels
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.statistics.blocks import jackknife_errors
from lattice.statistics.notation import aligned, format_value

BATCH = 32  # fields that move together
LEAST = 0.5  # acceptance of the trajectories
REMEMBERS = 0.1, 3.0  # correlation across the gap that is allowed, and that in units of n_fields^-1/2


def run(
    bench: Workbench, progress: Progress, n_fields: int = 128, n_levels: int = 12, n_traj: int = 63,
    n_gap: int = 48,
) -> dict[str, Any]:  # fmt: skip
    """Error of the Wiener filter, the base and, if there is one, base and network, on held-out fields.

    n_traj trajectories of either average, n_gap between them. The verdict is on the averages, not on the
    score: trajectories are accepted, and the second average remembers nothing of the first. Raises
    `InputError` for a law without an action and for the flow of one sector, which has another posterior.
    """
    if not bench.action.has_action:
        raise InputError("the posterior of a law without an action cannot be sampled: see `validation.json`")
    if bench.flow is not None and bench.flow.base.sector:
        raise InputError("the flow of this run is that of one sector: the check score is for both signs")
    refuse(n_fields, n_levels, n_traj, n_gap)
    model = bench.model
    source = bench.held_out()
    held_out = HeldOut.of(source, np.arange(len(source)), bench.seed, bench.device)
    index, labels = shells(model.momenta)
    names = ["wiener", "base", *(["network"] if has_network(model) else [])]
    sigma = spread_levels(model, n_levels)
    width = model.log_range / n_levels
    n_block = int(held_out.block.max()) + 1
    sums = np.zeros((n_levels, n_block, len(names) + 2, len(labels)))
    counts, about = np.zeros((n_levels, n_block)), []
    progress.start(n_levels * min(n_fields, len(source)), "posterior averages")
    begun = time.monotonic()
    for level, s in enumerate(sigma):
        fields, block = held_out.take(n_fields, level)
        seen = []
        for rows in torch.split(torch.arange(len(fields)), BATCH):
            found = _compared(bench, fields[rows], s, level, rows, n_traj, n_gap)
            np.add.at(sums[level], block[rows.numpy()], found["rates"] @ _of_shells(index, len(labels)))
            np.add.at(counts[level], block[rows.numpy()], 1.0)
            seen.append(found["health"])
            progress.update(len(rows))
        about.append(np.concatenate(seen))
    progress.close()
    seconds = (time.monotonic() - begun) / (sum(map(len, about)) * (2 * n_traj + n_gap))
    return _result(names, labels, sigma, width, sums, counts, about, n_traj, seconds)


def has_network(model: LatticeScore) -> bool:
    """One of either kind."""
    return model.unet is not None or model.base.network is not None


def refuse(n_fields: int = 128, n_levels: int = 12, n_traj: int = 63, n_gap: int = 48) -> None:
    """`InputError` for numbers that measure nothing."""
    if n_fields < 16 or n_levels < 2 or n_traj < 1 or n_gap < 0:
        raise InputError(
            "the check score needs n_fields >= 16, n_levels >= 2, n_traj >= 1 and n_gap >= 0, got "
            f"{n_fields}, {n_levels}, {n_traj}, {n_gap}"
        )


def _of_shells(index: Tensor, n: int) -> Floats:
    """(n_class, n_shell): which shell a class is in."""
    found: Floats = np.eye(n)[index.cpu().numpy()]
    return found


def _compared(
    bench: Workbench, phi: Tensor, sigma: Tensor, level: int, rows: Tensor, n_traj: int, n_gap: int
) -> dict[str, Floats]:
    """Of one batch at one level: `_rates`; health (n, 4): zero mode of the last field of the first
    average, squared and times that where the second begins; the error by one draw; acceptance."""
    p, base, chains = bench.model.momenta, bench.model.base, rows.numpy()
    s = sigma.expand(len(phi))
    x = phi + sigma * bench.noise(f"check/score/{level}", chains)(0)
    seed = (bench.seed + stream_id(f"check/score/{level}")) % 2**64

    def averaged(start: Tensor, n: int, first: int) -> PosteriorMeans:
        return posterior_means(base, bench.action, start, x, s, n, seed=seed, chains=chains, first=first)

    a = averaged(phi, n_traj, 0)
    gap = averaged(a.last, n_gap, n_traj + 1)
    b = averaged(gap.last, n_traj, n_traj + n_gap + 2)
    known, rates = _rates(bench, x, sigma, a.phi, b.phi)
    w, c = (p.expand(q) for q in base.wiener(sigma[None]))
    centre = w * p.modes(x) + c.sqrt() * base.regression(p.modes(x), sigma[None])

    def seen(field: Tensor) -> Any:
        """Its modes about the centre, of an even action summed over the sign: as it enters an average."""
        weight = torch.tanh((x * field).flatten(1).sum(1) / s**2)[:, None, None] if bench.action.even else 1.0
        return p.modes(weight * field) - centre

    first, last = seen(a.last), seen(gap.last)  # the last of one average, and where the other begins
    together = torch.stack([(first[..., 0, 0].conj() * q[..., 0, 0]).real for q in (first, last)], 1)
    one_draw = p.total((p.modes(phi) - known).abs() ** 2)[:, None] / (2 * sigma**2)
    accepted = torch.from_numpy(a.acceptance)[:, None].to(one_draw)
    return {"rates": rates, "health": torch.cat([together, one_draw, accepted], 1).cpu().numpy()}


def _rates(bench: Workbench, x: Tensor, sigma: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Floats]:
    """D (n, *half) of the last predictor; integrand of the path KL per field and class of each, what the
    network gains over the base by the mean of both averages, and the noise of one: (n, n_name + 2, n_class).
    """
    model, p = bench.model, bench.model.momenta
    xk, ak, bk = (p.modes(q) for q in (x, a, b))
    w, c = (p.expand(q) for q in model.base.wiener(sigma[None]))
    known = [w * xk, w * xk + c.sqrt() * model.base.regression(xk, sigma[None])]
    if has_network(model):
        known.append(model.denoise(xk, sigma.expand(len(x))))
    rows = [((ak - d).conj() * (bk - d)).real for d in known]
    middle = 0.5 * (ak + bk)
    rows.append((middle - known[1]).abs() ** 2 - (middle - known[-1]).abs() ** 2)
    rows.append(0.5 * (ak - bk).abs() ** 2)
    rates: Floats = (p.class_sum(p.weight * torch.stack(rows, 1)) / (2 * sigma**2)).cpu().numpy()
    return known[-1], rates


def _result(
    names: list[str], labels: list[dict[str, Any]], sigma: Tensor, width: float, sums: Floats, counts: Floats,
    health: list[Floats], n_traj: int, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    mean, left_out = left_out_means(sums, counts)  # (level, row, shell), (level, block, row, shell)
    columns = [*names, "gain", "noise"]
    levels = []
    for i, s in enumerate(sigma.tolist()):
        own, cross, one_draw, accepted = health[i].T
        noise = float(mean[i, -1].sum())
        levels.append({
            "sigma": s, "memory": float(cross.mean() / own.mean()), "acceptance": float(accepted.mean()),
            "noise": noise, "one_draw": float(one_draw.mean()),
            **_with_errors(columns[:-1], mean[i].sum(-1), left_out[i].sum(-1)),
        })  # fmt: skip
    shell = _with_errors(columns[:-1], width * mean.sum(0), width * left_out.sum(0))
    total = _with_errors(columns[:-1], width * mean.sum((0, 2)), width * left_out.sum((0, 3)))
    allowed = REMEMBERS[0] + REMEMBERS[1] / math.sqrt(len(health[0]))
    healthy = all(q["acceptance"] > LEAST and abs(q["memory"]) < allowed for q in levels)
    return {
        "passed": healthy, "names": names, "shells": labels, "levels": levels, "shell": shell, "total": total,
        "n_traj": n_traj, "n_fields": int(counts[0].sum()), "seconds_per_trajectory": seconds,
    }  # fmt: skip


def _with_errors(names: list[str], value: Floats, left_out: Floats) -> dict[str, Any]:
    """Values (n_name, ...) and their jackknife errors, left_out (block, n_name, ...), by name."""
    error = jackknife_errors(left_out)
    found = {name: value[i].tolist() for i, name in enumerate(names)}
    return found | {f"{name}_error": error[i].tolist() for i, name in enumerate(names)}


def text(result: dict[str, Any]) -> str:
    """Per level, per shell and in all: nats per field, value(error)."""
    names = [*result["names"], *(["gain"] if "network" in result["names"] else [])]

    def cells(row: dict[str, Any], at: int | None = None) -> list[str]:
        pairs = [(row[name], row[f"{name}_error"]) for name in names]
        return [format_value(*(pair if at is None else (pair[0][at], pair[1][at]))) for pair in pairs]

    rows = [["sigma", *names, "one draw", "noise of an average", "acceptance", "memory"]]
    for level in result["levels"]:
        rows.append([
            f"{level['sigma']:.3g}", *cells(level), f"{level['one_draw']:.3g}", f"{level['noise']:.3g}",
            f"{level['acceptance']:.2f}", f"{level['memory']:+.2f}",
        ])  # fmt: skip
    by_shell = [["integrated over ln sigma^2", *names]]
    for i, shell in enumerate(result["shells"]):
        by_shell.append([shell["label"], *cells(result["shell"], i)])
    by_shell.append(["all", *cells(result["total"])])
    lines = [
        *aligned(rows),
        "nats per field and unit of ln sigma^2: <(a - D)(b - D)>/(2 sigma^2), a and b independent averages",
        "",
        *aligned(by_shell),
        "nats per field: the path KL of the score; gain: of the network over the base",
        f"{result['n_fields']} held-out fields at each level, averages over {result['n_traj'] + 1} fields, "
        f"{1e3 * result['seconds_per_trajectory']:.2g} ms a trajectory",
    ]
    if any(level["acceptance"] <= LEAST for level in result["levels"]):
        lines.append("more than half of the trajectories are refused: the averages are not to be trusted")
    elif not result["passed"]:
        lines.append("the second average remembers the first: raise n_gap")
    return "\n".join([*lines, "passed" if result["passed"] else "NOT passed"])


def figure(result: dict[str, Any]) -> Figure:
    """Errors against sigma, and by shell."""
    levels = result["levels"]
    curves = {
        name: (
            [level[name] for level in levels], [level[f"{name}_error"] for level in levels],
            result["shell"][name], result["shell"][f"{name}_error"],
        )
        for name in result["names"]
    }  # fmt: skip
    return score_errors([q["sigma"] for q in levels], [q["label"] for q in result["shells"]], curves)
