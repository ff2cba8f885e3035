r"""One model at any beta: beta changed in the law of a plaquette, and the control, beta/beta_0 on the score.

The model of lifted flux holds beta in its plaquette law alone: its harmonics times beta/beta_0 are the model
at beta, whose samples here have weights, ESS and ln Z of the new coupling. On the circle the network of the
run (models: [..., torus]) was trained at beta_0, and its score is multiplied at every noise level

    published     by beta/beta_0 (Zhu et al. 2410.19602)
    propagator    by (beta/beta_0) (1 + beta_0 sigma^2 k^2)/(1 + beta sigma^2 k^2), mode by mode

The first is right at sigma = 0 alone: at large noise the score is no multiple of beta, a plaquette's being
e^{-2 sigma^2} <cos theta> whose last factor saturates at one. Charges are decided at sigma of about one,
where 4 sigma^2 takes a plaquette around the circle; `profile` shows <Q^2> of the links on the way down beside
that of exact links with the same noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsq.checks.topology import UNSEEN, of_counts
from diffsq.models.blocks import slices
from diffsq.models.gauge import GaugeScore
from diffsq.models.gauge_flow import GaugeFlow
from diffsq.models.plaquette_law import PlaquetteLaw
from diffsq.models.torus import TorusScore
from diffsq.plots.gauge import rescaling_figure
from diffsq.process.torus import levels, noisy
from diffsq.run_folder.finished import GaugeBench
from diffsq.sampling.angle_kernel import AnglePath
from diffsq.sampling.gauge_sets import flow_links
from diffsq.sampling.streams import noise_of
from lattice.actions.u1 import U1
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.u1 import charge_law, ln_z, wilson_loop
from lattice.progress import Progress
from lattice.rng import stream_id, uniforms
from lattice.simulation.gauge_draws import draw_links
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import effective_sample_size, normalised_weights

BETAS = [1.0, 2.0, 4.0, 7.0, 10.0]
BLOCK = 128
LEAST_ESS, FAR = 0.9, 4.0
LOWEST = 0.15  # of the levels at beta: what the first adds to a plaquette, in its standard deviations
Found = dict[str, Any]


def run(
    bench: GaugeBench, progress: Progress, *, betas: list[float] | None = None, n_samples: int = 1024,
    n_levels: int = 100,
) -> dict[str, Any]:  # fmt: skip
    """passed: at every beta the lifted flux has ESS/N >= 0.9, ln Z within 4 sigma and 1e-3 of the exact one,
    which finite steps may take, and <Q^2> within 4 sigma; where no charge was seen, none was expected. The
    network on the circle is a control, of n_samples in n_levels steps.
    """
    betas, torus = BETAS if betas is None else betas, bench.models.get("torus")
    ways = ["propagator", "published"] if isinstance(torus, TorusScore) else []
    shape = bench.ensemble.shape
    progress.start(len(betas) * (1 + len(ways)), "couplings")
    points = []
    for beta in betas:
        point: Found = {"beta": beta, "rows": {"lifted flux": _lifted(bench, beta, n_samples)}}
        progress.update()
        for way in ways:
            assert isinstance(torus, TorusScore)
            point["rows"][way] = _on_circle(torus, beta, way, n_samples, n_levels, bench.seed)
            progress.update()
        volume = math.prod(shape)
        point["exact"] = {
            "q2": charge_law(beta, volume).moment(2), "ln_z": ln_z(beta, volume),
            "plaquette": wilson_loop(beta, volume, 1),
        }  # fmt: skip
        points.append(point)
    progress.close()
    own = [(p["rows"]["lifted flux"], p["exact"]) for p in points]
    return {
        "passed": bool(own) and all(_right(row, exact) for row, exact in own), "points": points,
        "beta0": bench.action.beta.real, "shape": list(shape), "n": n_samples,
    }  # fmt: skip


def _right(row: Found, exact: Found) -> bool:
    z, (q2, error) = row["ln_z"], row["weighted_q2"]
    charged = abs(q2 - exact["q2"]) < FAR * error if error else exact["q2"] * row["n"] < UNSEEN
    return bool(row["ess"] >= LEAST_ESS and abs(z[0] - exact["ln_z"]) < FAR * z[1] + 1e-3 and charged)


def _lifted(bench: GaugeBench, beta: float, n: int) -> Found:
    model, shape = bench.score, bench.ensemble.shape
    score = GaugeScore(shape, model.harmonics * (beta / bench.action.beta.real))
    target = GaugeScore(shape, torch.tensor([beta], dtype=torch.float64))
    flow, parts = GaugeFlow(score), list[tuple[Tensor, Tensor]]()
    for rows in slices(n, BLOCK):
        index = np.arange(rows.start, rows.stop)
        parts.append(flow_links(flow, target, index, bench.seed, f"rescaling/{beta:.12g}"))
    links, log_w = (torch.cat(column) for column in zip(*parts, strict=True))
    return _row(beta, links, log_w.numpy())


def _row(beta: float, links: Tensor, log_w: Floats) -> Found:
    action, volume = U1(beta), math.prod(links.shape[-2:])
    q = action.order(links).numpy()
    plaquette = -action.action(links).numpy() / (beta * volume)
    (ess, ess_error), w = effective_sample_size(log_w), normalised_weights(log_w)
    raw, weighted = (of_counts(charge_law(beta, volume), q, weight) for weight in (None, w))
    top = float(log_w.max())
    z = np.exp(log_w - top)
    return {
        "ess": ess, "ess_error": ess_error, "n": len(q), "q2": raw["q2"], "p": raw["p"],
        "observed": raw["observed"],
        "weighted_q2": weighted["q2"],
        "plaquette": [float(plaquette.mean()), float(plaquette.std() / math.sqrt(len(q)))],
        "ln_z": [top + math.log(z.mean()), float(z.std() / z.mean() / math.sqrt(len(z)))],
    }  # fmt: skip


def _on_circle(score: TorusScore, beta: float, way: str, n: int, n_levels: int, seed: int) -> Found:
    """Paths on the circle with the score rescaled, and <Q^2> on the way down."""
    shape, action = score.shape, U1(beta)
    spread = PlaquetteLaw(torch.tensor([beta], dtype=torch.float64)).spread
    path = AnglePath.of(score, n_levels, beta, way)  # type: ignore[arg-type]
    low = min(LOWEST * math.sqrt(min(spread, 1.0)) / 2, score.span[0])
    path = AnglePath(score, levels(low, n_levels), path.variance, beta, path.rescaling)
    stream, seen = f"rescaling/{way}/{beta:.12g}", dict[int, list[Tensor]]()
    links, log_w = list[Tensor](), list[Tensor]()

    def watch(level: int, a: Tensor) -> None:
        seen.setdefault(level, []).append(action.order(a) ** 2)

    for rows in slices(n, BLOCK):
        index = np.arange(rows.start, rows.stop)
        u = torch.from_numpy(uniforms(seed, f"{stream}/start", index, 0, 2 * math.prod(shape)))
        start = math.pi * (2 * u - 1).reshape(-1, 2, *shape)
        found = path.sample(action.action, start, noise_of(seed, stream, index, (2, *shape)), watch)
        links.append(found[0])
        log_w.append(found[1])
    row = _row(beta, torch.cat(links), torch.cat(log_w).numpy())
    exact = torch.from_numpy(draw_links(beta, shape, n, (seed + stream_id(stream)) % 2**63))
    noise = noise_of(seed, f"{stream}/exact", np.arange(n), (2, *shape))
    profile = []
    for level in range(0, n_levels + 1, max(1, n_levels // 25)):
        sigma = float(path.levels[level])
        known = action.order(noisy(exact, sigma, noise(level))) ** 2
        own = torch.cat(seen[level])
        profile.append([sigma, float(own.mean()), float(known.mean())])
    return {**row, "profile": profile}


def text(result: dict[str, Any]) -> str:
    """A row for each coupling and way."""
    rows = [["beta", "model", "<Q^2> raw", "exact", "ratio", "plaquette", "exact", "ESS", "ln Z - exact"]]
    for p in result["points"]:
        for name, row in p["rows"].items():
            q2, ratio = row["q2"], row["q2"][0] / p["exact"]["q2"]
            trusted = row["ess"] > 0.1
            z = format_value(row["ln_z"][0] - p["exact"]["ln_z"], row["ln_z"][1]) if trusted else "-"
            label = name if name == "lifted flux" else f"circle, {name}"
            raw = format_value(*q2) if q2[1] else f"{q2[0]:g}"
            rows.append([
                f"{p['beta']:g}", label, raw, f"{p['exact']['q2']:.5g}", f"{ratio:.3g}",
                format_value(*row["plaquette"]), f"{p['exact']['plaquette']:.5g}",
                f"{row['ess']:.5f}", z,
            ])  # fmt: skip
    verdict = "passed" if result["passed"] else "NOT passed"
    return "\n".join([
        *aligned(rows),
        f"one model of beta_0 = {result['beta0']:g}, {result['n']} samples of each; ln Z where ESS/N is over "
        f"0.1; the verdict is of the lifted flux: {verdict}",
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """<Q^2> against beta, and on the way down at the largest."""
    return rescaling_figure(result)


def refuse(betas: list[float] | None = None, n_samples: int = 1024, n_levels: int = 100) -> None:
    """`InputError` for options that make no sense."""
    if betas is not None and (not betas or any(not 0 < beta < math.inf for beta in betas)):
        raise InputError(f"betas must be finite and above 0, one at least, got {betas}")
    if n_samples < BLOCK or n_levels < 10:
        raise InputError(f"n_samples must be at least {BLOCK}, n_levels 10; got {n_samples}, {n_levels}")
