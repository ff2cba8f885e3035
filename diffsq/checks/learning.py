"""How fast a Gaussian machine learns, beside the closed forms: trajectories, contrastive divergence, limits.

Machines aligned with the data's modes learn these one by one; the differential equation that they follow is
solved (lattice.exact.gaussian_rbm). At a rate alpha they differ from it by O(alpha): two rates, and the limit
of both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsq.models.rbm import GaussianRBM
from diffsq.plots.machines import learning_figure
from diffsq.run_folder.finished import MachineBench
from diffsq.training.contrastive import Learning, exact_gap, kernel_of, learn
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import (
    cd_factor,
    growth_rate,
    largest_natural_step,
    largest_step,
    relaxation_rate,
    trajectory,
)
from lattice.progress import Progress
from lattice.rng import normals
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import sigmas_of

Y0 = 0.01  # of y = s^2 xi^2 at the start, in units of y*
ORDER = 0.25  # what the limit of two rates may leave of their difference
N_MODES = 6
BESIDE = 0.02  # of the largest stable rate: on either side of it


def run(
    bench: MachineBench, progress: Progress, n_steps: int = 4000, k: list[int] | None = None,
    n_fields: int = 2**20,
) -> dict[str, Any]:  # fmt: skip
    """n_steps of learning at half the rate; k: sweeps of contrastive divergence; n_fields to measure it with.

    The verdict: the limit of both rates is on the closed form, the space that W spans on its law to the order
    of the rate, the factor of contrastive divergence within 4.5 sigma, and just below the largest rate
    learning stays where it should end, just above it leaves. Raises `InputError` where the mass cuts every
    mode.
    """
    mu2 = float(bench.machine.mu2)
    kappa = _distinct(kernel_of(bench.second))
    kappa = kappa[kappa < 0.999 * mu2]
    if not len(kappa):
        raise InputError(f"mu^2 = {mu2:g} cuts every mode: there is nothing to learn")
    kappa = kappa[np.unique(np.linspace(0, len(kappa) - 1, min(N_MODES, len(kappa))).round().astype(int))]
    curves = _curves(kappa, mu2, n_steps, progress)
    factors = [_factor(kappa, mu2, each, n_fields, bench.seed) for each in k or [1, 3]]
    angles = _subspace(kappa, mu2, bench.seed) if len(kappa) > 1 else [0.0, 0.0, 0.0]
    limits = [_limit(kappa, mu2, name) for name in ("exact", "cd", "natural")]
    passed = (
        curves["left"] < ORDER
        and angles[1] <= 0.6 * angles[0] + 1e-9
        and all(row["sigmas"] < 4.5 for rows in factors for row in rows["modes"])
        and all(row["below"] and not row["above"] for row in limits)
    )
    history = [{"step": h["step"], "spectrum": h["spectrum"], "kl": h["kl"]} for h in bench.history]
    s = bench.machine.s  # all else is in units where it is 1
    rates = {
        "growth": growth_rate(kappa, mu2, s).tolist(), "relaxation": relaxation_rate(kappa, mu2, s).tolist()
    }  # fmt: skip
    limits = [{**row, "rate": row["rate"] / s**2} for row in limits]
    return {
        "passed": bool(passed), "mu2": mu2, "kappa": kappa.tolist(), **curves, "factors": factors,
        "angles": angles, "limits": limits, "history": history, "rates": rates,
        "all_kappa": kernel_of(bench.second).tolist(), "rate": bench.about["rate"],
    }  # fmt: skip


def refuse(n_steps: int = 4000, n_fields: int = 2**20, **_: Any) -> None:
    """`InputError` for numbers that measure nothing."""
    if n_steps < 100 or n_fields < 2**12:
        raise InputError(
            f"the check learning needs n_steps >= 100 and n_fields >= 4096, got {n_steps}, {n_fields}"
        )


def _distinct(kappa: Floats) -> Floats:
    """Without the second, third, ... of equal ones, which a machine of one node each learns alike."""
    keep = np.diff(kappa, prepend=-np.inf) > 1e-6 * kappa
    return kappa[keep & np.isfinite(kappa)]


def _curves(kappa: Floats, mu2: float, n_steps: int, progress: Progress) -> dict[str, Any]:
    """y(t) of aligned machines at two rates, on the closed form, and what is left in their limit."""
    rate = 0.2 * largest_step(kappa, mu2)[0]
    times = np.linspace(0, n_steps / 2 * rate, 33)
    y0 = Y0 * (mu2 - kappa)
    exact = np.stack([trajectory(times, float(a), float(b), mu2) for a, b in zip(y0, kappa, strict=True)], 1)
    found = []
    progress.start(n_steps // 2 * 3, "learning")
    for part in (1, 2):
        machine = GaussianRBM(torch.diag(torch.from_numpy(np.sqrt(y0))), torch.tensor(mu2).double())
        second, ys = torch.diag(torch.from_numpy(1 / kappa)), []
        for step, now in learn(machine, second, Learning(rate / part), n_steps // 2 * part):
            ys.append(now.w.diagonal().numpy() ** 2)
            progress.update(1 if step else 0)
        at = times / (rate / part)
        low = np.minimum(at.astype(int), len(ys) - 1)
        high, share = np.minimum(low + 1, len(ys) - 1), (at - low)[:, None]
        rows = np.array(ys)
        found.append((1 - share) * rows[low] + share * rows[high])
    progress.close()
    coarse, fine = (np.abs(y - exact).max() for y in found)
    return {
        "t": times.tolist(), "y": found[1].tolist(), "exact": exact.tolist(), "step_rate": rate,
        "differences": [float(coarse), float(fine)],
        "limit": float(np.abs(2 * found[1] - found[0] - exact).max()),
        "left": float(np.abs(2 * found[1] - found[0] - exact).max() / fine),
    }  # fmt: skip


def _subspace(kappa: Floats, mu2: float, seed: int, n_steps: int = 2000) -> list[float]:
    """Angle of the space that W spans after learning from random weights to exp(s^2 C t) W(0), at two rates,
    and of W(0) to it: a property of every path, however far from aligned, in the limit of small rates."""
    n, n_hidden = len(kappa), max(1, len(kappa) // 2)
    white = normals(seed, "learning/subspace", np.arange(1), 0, n * n_hidden).reshape(n, n_hidden)
    w0, second = torch.from_numpy(0.1 * math.sqrt(mu2) / n * white), torch.diag(torch.from_numpy(1 / kappa))
    most = largest_step(kappa, mu2, n_hidden=n_hidden)[0]
    time = min(1.0 / float(1 / kappa[0] - 1 / kappa[-1]), 0.3 * most * n_steps)
    grown: Floats = np.exp(time * (1 / kappa - 1 / kappa[0]))  # a common factor spans nothing new
    exact = grown[:, None] * w0.numpy()
    angles = []
    for part in (1, 2):
        machine, rate = GaussianRBM(w0, torch.tensor(mu2).double()), time / (n_steps * part)
        for _, now in learn(machine, second, Learning(rate), n_steps * part):
            last = now
        angles.append(_angle(last.w.numpy(), exact))
    return [*angles, _angle(w0.numpy(), exact)]


def _angle(a: Floats, b: Floats) -> float:
    """The largest angle between the spaces that the columns span."""
    p, q = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    return math.asin(min(1.0, float(np.linalg.norm(p - q @ (q.T @ p), 2))))


def _factor(kappa: Floats, mu2: float, k: int, n_fields: int, seed: int) -> dict[str, Any]:
    """What k sweeps of contrastive divergence leave of the gradient of each mode at y = y*/2: sampled, of the
    expectation, and the closed form."""
    y = 0.5 * (mu2 - kappa)
    machine = GaussianRBM(torch.diag(torch.from_numpy(np.sqrt(y))), torch.tensor(mu2).double())
    second = torch.diag(torch.from_numpy(1 / kappa))
    whole, part = exact_gap(machine, second).diagonal(), exact_gap(machine, second, k).diagonal()
    n, parts = len(kappa), 64
    ratios = []
    for index in range(parts):
        white = normals(seed, f"learning/cd{k}", np.array([index]), 0, n_fields // parts * n * (1 + 2 * k))
        noise = torch.from_numpy(white.reshape(-1, 1 + 2 * k, n))
        start = noise[:, 0] * torch.from_numpy(kappa**-0.5)
        phi = start
        for sweep in range(k):
            phi = machine.gibbs(phi, noise[:, 1 + 2 * sweep], noise[:, 2 + 2 * sweep])
        ratios.append(((start**2).mean(0) - (phi**2).mean(0)) / whole)
    found = torch.stack(ratios).numpy()
    error = found.std(0, ddof=1) / math.sqrt(parts)
    known = cd_factor(y, mu2, k)
    modes = [
        {
            "kappa": float(kappa[i]), "sampled": float(found[:, i].mean()), "error": float(error[i]),
            "expected": float(part[i] / whole[i]), "formula": float(known[i]),
            "sigmas": sigmas_of(float(found[:, i].mean() - known[i]), float(error[i]), parts - 1),
        }
        for i in range(n)
    ]  # fmt: skip
    return {"k": k, "modes": modes}


def _limit(kappa: Floats, mu2: float, name: str) -> dict[str, Any]:
    """The largest stable rate, and whether learning stays at its end a little below it and above it."""
    if name == "natural":
        most, mode = largest_natural_step(kappa, mu2)
    else:
        most, mode = largest_step(kappa, mu2, k=1 if name == "cd" else None)
    stays = []
    for side in (1 - BESIDE, 1 + BESIDE):
        how = Learning(side * most, "cd" if name == "cd" else "exact", natural=name == "natural")
        stays.append(_stays(kappa, mu2, how))
    return {"method": name, "rate": most, "kappa": float(kappa[mode]), "below": stays[0], "above": stays[1]}


def _stays(kappa: Floats, mu2: float, how: Learning, n_steps: int = 400) -> bool:
    """Whether a machine that begins 1e-4 from the end comes nearer to it."""
    y = (mu2 - kappa) * (1 + 1e-4)
    machine = GaussianRBM(torch.diag(torch.from_numpy(np.sqrt(y))), torch.tensor(mu2).double())
    second = torch.diag(torch.from_numpy(1 / kappa))
    try:
        for _, now in learn(machine, second, how, n_steps, allow_any_rate=True):
            last = now
    except InputError:  # no longer positive
        return False
    off = np.abs(last.w.diagonal().numpy() ** 2 - (mu2 - kappa)) / (mu2 - kappa)
    return bool(off.max() < 1e-4)


def text(result: dict[str, Any]) -> str:
    """Rates, the closed form, contrastive divergence, and the limits."""
    rows = [
        ["kappa", "y*", "growth", "relaxation", *(f"CD-{f['k']} factor at y*/2" for f in result["factors"])]
    ]
    for i, kappa in enumerate(result["kappa"]):
        cells = [kappa, result["mu2"] - kappa, result["rates"]["growth"][i], result["rates"]["relaxation"][i]]
        factors = [f["modes"][i] for f in result["factors"]]
        shown = [f"{format_value(m['sampled'], m['error'])}, {m['formula']:.6f}" for m in factors]
        rows.append([*(f"{cell:.6g}" for cell in cells), *shown])
    coarse, fine = result["differences"]
    lines = [
        *aligned(rows),
        f"y(t) of aligned machines: off the closed form by {coarse:.3g} at the rate "
        f"{result['step_rate']:.4g}, {fine:.3g} at half of it, {result['limit']:.2g} in the limit of both",
    ]
    first, second, turned = result["angles"]
    lines.append(
        f"the space that half as many nodes span from random weights: {first:.2g} from exp(C t) W(0), "
        f"{second:.2g} at half the rate, having turned by {turned:.3f}"
    )
    for row in result["limits"]:
        sides = "stays below it" if row["below"] else "LEAVES below it"
        sides += ", leaves above it" if not row["above"] else ", STAYS above it"
        name = {"exact": "exact gradient", "cd": "CD-1", "natural": "natural gradient"}[row["method"]]
        lines.append(f"{name}: rate below {row['rate']:.6g}, set by kappa = {row['kappa']:.6g}; {sides}")
    return "\n".join([*lines, "passed" if result["passed"] else "NOT passed"])


def figure(result: dict[str, Any]) -> Figure:
    """Aligned modes on their closed form, and the run's own spectrum step by step."""
    return learning_figure(result)
