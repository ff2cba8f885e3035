"""Cumulants of the field through the run's own process: per site, of M and per momentum mode.

Forward: held-out fields noised to every level, against the curve from their own kappa_n(0) (the formulas are
those of `diffsq.process.cumulants`). Backward: the run's path sampler, raw at every level, and at t = 0 the
run's samples raw and corrected by their weights, against the training ensemble. sde = ve and vp are two
pictures of one path, in x and in f x with f = 1/sqrt(1 + sigma^2).

    phi     every site, averaged over them          k1, k2   (2/V)^{1/2} Re, Im phi~(k), two smallest |k|
    M       (1/V) sum_x phi_x, noise sigma^2/V      uv       the same, largest |k|; 1/V where k = -k

Verdict: forward, raw and corrected each within 4.5 sigma, counting how many numbers were compared.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsq.analysis.point_cumulants import flows
from diffsq.models.blocks import block_size
from diffsq.plots.cumulants import draw_flows, draw_observables
from diffsq.process import cumulants as along
from diffsq.process.cumulants import MIN_BLOCKS, Curve, Tally, Watch, slices
from diffsq.process.sde import SDES
from diffsq.run_folder.finished import PointBench, Workbench
from lattice.arrays import Floats, Integers, batches
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.scalar import momentum_classes, real_modes
from lattice.progress import Progress, counted
from lattice.statistics.blocks import chain_blocks, jackknife_errors
from lattice.statistics.notation import aligned, format_value, with_pull
from lattice.statistics.pulls import sigmas_of
from lattice.statistics.weights import normalised_weights

BATCH = 64
CHUNK = 4096, 2**20  # stored fields, and sites, at a time
GATE = 4.5
RATIOS = {"kappa_4/kappa_2^2": 4, "kappa_6/kappa_2^3": 6}


@dataclass(frozen=True)
class Observable:
    """What is followed: label, projection (V, m) or None for the sites, its noise variance per sigma^2.

    Modes are orthonormal: variance G(k), noise variance sigma^2. `lattice.observables` has them shorter by
    sqrt(2) where k is not -k, which drops out of the ratios.
    """

    label: str
    basis: Tensor | None
    noise: float = 1.0


def observables(shape: tuple[int, ...]) -> dict[str, Observable]:
    """phi, M, k1, k2 and uv, as far as the lattice has them.

    >>> {name: o.label for name, o in observables((4, 4)).items()}
    {'phi': 'site', 'M': 'M', 'k1': 'k = (1, 0)', 'k2': 'k = (1, 1)', 'uv': 'k = (2, 2)'}
    """
    volume = math.prod(shape)
    out = {
        "phi": Observable("site", None),
        "M": Observable("M", torch.full((volume, 1), 1 / volume, dtype=torch.float64), 1 / volume),
    }
    classes = momentum_classes(shape)
    chosen = dict(zip(("k1", "k2"), classes[1:3])) | ({"uv": classes[-1]} if len(classes) > 3 else {})
    for name, members in chosen.items():
        label, basis = f"k = ({', '.join(str(n) for n in members[0])})", real_modes(shape, members)
        out[name] = Observable(label, torch.from_numpy(basis / np.sqrt((basis**2).sum(axis=0))))
    return out


def run(
    bench: Workbench | PointBench,
    progress: Progress,
    n_fields: int = 2048,
    n_samples: int = 1024,
    orders: Sequence[int] = (2, 4, 6, 8),
    sde: str = "ve",
) -> dict[str, Any]:
    """kappa_n(t) of n_fields held-out fields forward and n_samples of the path sampler backward."""
    if isinstance(bench, PointBench):
        bench.real_only("cumulants")
        bench.draws.progress = progress
        return {"passed": None, "flows": flows(bench.draws)}
    if sde not in SDES:
        raise InputError(f"sde must be one of {', '.join(SDES)}, got {sde!r}")
    if n_fields < 20 * MIN_BLOCKS or n_samples < 20 * MIN_BLOCKS:
        raise InputError(f"n_fields and n_samples must be at least {20 * MIN_BLOCKS}")
    along.columns_of(orders, 8)
    z2 = all(n % 2 == 0 for n in orders)  # phi^4 is even; odd orders need the general estimator
    levels = bench.path.levels
    sigma = levels.cpu().numpy()
    f = along.signal(SDES[sde](float(levels[1]), float(levels[-1])), levels)
    seen = observables(bench.ensemble.shape)
    phi, chain = bench.held_out_fields(n_fields)

    def noise_up(rows: Integers, watch: Watch) -> None:
        along.forward(phi[rows], levels, bench.noise("check/cumulants/forward", rows), watch)

    def draw_down(rows: Integers, watch: Watch) -> None:
        noise = bench.noise("check/cumulants/backward", rows)
        bench.path.sample(bench.action.action, noise, bench.frames(), watch)

    block = chain_blocks(chain)
    up = _along(noise_up, counted(progress, len(phi), BATCH, "forward cumulants"), seen, f, block)
    block = slices(n_samples, min(100, n_samples // 10))
    down = _along(draw_down, counted(progress, n_samples, BATCH, "backward cumulants"), seen, f, block)
    block = chain_blocks(bench.ensemble.chain, bench.ensemble.trajectory)
    truth = {name: _stored(bench.ensemble, o, block) for name, o in seen.items()}
    product = bench.samples
    assert product.log_weight is not None
    weight, block = normalised_weights(product.log_weight), slices(len(product))
    found, pulls = {}, {}
    for name, o in seen.items():
        raw, corrected = (_stored(product, o, block, w) for w in (None, weight))
        pulls[name] = along.forward_pulls(up[name], f, sigma, orders, z2, o.noise)
        found[name] = {
            "label": o.label,
            "forward": up[name].curve(sigma, orders, z2).as_dict(),
            "average": along.exact_average(up[name], f, sigma, orders, z2, o.noise).as_dict(),
            "analytic": along.exact_average(truth[name], f, sigma, orders, z2, o.noise).as_dict(),
            "backward": down[name].curve(sigma, orders, z2).as_dict(),
            "kappa2": float(truth[name].replicas(z2)[0][0, 1]),
            "forward_pulls": pulls[name].max(axis=0).tolist(),
            "start": _compare(orders, z2, truth[name], raw, corrected),
        }
    gates = {"forward": _gate(np.concatenate([p.ravel() for p in pulls.values()]))}
    for side in ("raw", "corrected"):
        gates[side] = _gate(np.concatenate([entry["start"][side]["pull"] for entry in found.values()]))
    return {
        "passed": all(gate["passed"] for gate in gates.values()),
        "gates": gates, "sde": sde, "shape": list(bench.ensemble.shape), "orders": list(orders),
        "estimator": "odd moments zero" if z2 else "all moments",
        "sigma": sigma.tolist(), "signal": f.tolist(), "n_fields": len(phi),
        "n_chains": len(np.unique(chain)), "n_samples": n_samples, "n_product": len(product),
        "observables": found,
    }  # fmt: skip


def _along(
    go: Callable[[Integers, Watch], None], parts: Iterable[Integers], seen: dict[str, Observable], f: Floats,
    block: Integers,
) -> dict[str, Tally]:  # fmt: skip
    """What is seen at every level while `go` takes these rows through all levels, under a watch."""
    tallies = {name: Tally(len(f), int(block.max()) + 1) for name in seen}
    for rows in parts:
        watches = [along.watch_into(tallies[name], f, block[rows], o.basis) for name, o in seen.items()]

        def watch(n: int, x: Tensor, watches: list[Watch] = watches) -> None:
            for each in watches:
                each(n, x)

        go(rows, watch)
    return tallies


def _stored(ensemble: Ensemble, o: Observable, block: Integers, weight: Floats | None = None) -> Tally:
    """Of the fields of an ensemble, at t = 0."""
    tally = Tally(1, int(block.max()) + 1)
    for rows in batches(len(ensemble), block_size(ensemble.shape, *CHUNK)):
        x = torch.from_numpy(np.asarray(ensemble.phi[rows], dtype=np.float64))
        seen = x if o.basis is None else x.flatten(1) @ o.basis
        tally.add(0, seen, block[rows], None if weight is None else weight[rows])
    return tally


def _compare(orders: Sequence[int], z2: bool, truth: Tally, raw: Tally, corrected: Tally) -> dict[str, Any]:
    """kappa_n(0) and the ratios of ensemble, raw and corrected samples, with pulls against the ensemble."""
    out: dict[str, Any] = {}
    reference, dof = _numbers(truth, orders, z2), truth.counts.shape[1] - 1
    for name, tally in (("ensemble", truth), ("raw", raw), ("corrected", corrected)):
        curve, ratio = _numbers(tally, orders, z2)
        out[name] = {"value": curve.value[0].tolist(), "error": curve.error[0].tolist(), "ratios": ratio}
        if name != "ensemble":
            off, error = curve.value - reference[0].value, np.hypot(curve.error, reference[0].error)
            pull = np.sign(off[0]) * [
                sigmas_of(o, e, dof, abs(v)) for o, e, v in zip(off[0], error[0], curve.value[0])
            ]
            out[name]["pull"] = pull.tolist()
    return out


def _numbers(tally: Tally, orders: Sequence[int], z2: bool) -> tuple[Curve, list[list[float]]]:
    """kappa_n at t = 0, and the ratios kappa_n/kappa_2^{n/2} as [value, error] by the even estimator."""
    value, without = tally.replicas(z2)
    even, left = tally.replicas(True)
    ratios = []
    for n in RATIOS.values():
        best, rest = (k[..., n - 1] / k[..., 1] ** (n / 2) for k in (even, left))
        ratios.append([float(best[0]), float(jackknife_errors(rest[..., None], -2)[0, 0])])
    return Curve.of(np.zeros(1), orders, value, without), ratios


def _gate(pulls: Floats) -> dict[str, Any]:
    passed, p = along.consistent(pulls, GATE)
    return {"passed": passed, "p": p, "worst": float(np.abs(pulls).max()), "n": int(pulls.size)}


def text(result: dict[str, Any]) -> str:
    """kappa_n(0) of ensemble, raw and corrected samples with pulls, ratios, and the largest forward pulls."""
    if "flows" in result:
        return "\n".join(_flow_line(flow) for flow in result["flows"])
    rows = [["", "n", "ensemble", "raw", "corrected", "forward, largest pull"]]
    ratios = [["", "ratio", "ensemble", "raw", "corrected"]]
    for name, entry in result["observables"].items():
        start = entry["start"]
        for i, n in enumerate(result["orders"]):
            numbers = ([of[k][i] for k in ("value", "error", "pull") if k in of] for of in start.values())
            truth, *others = numbers
            cells = [format_value(*truth), *(with_pull(*other) for other in others)]
            about = f"{name} ({entry['label']})" if name[0] in "ku" else name
            rows.append([about if i == 0 else "", str(n), *cells, f"{entry['forward_pulls'][i]:.1f}"])
        for i, label in enumerate(RATIOS):
            cells = [format_value(*start[s]["ratios"][i]) for s in start]
            ratios.append([name if i == 0 else "", label, *cells])
    chains = f"{result['n_fields']} held-out fields of {result['n_chains']} chains forward"
    lines = [
        f"cumulants at t = 0, value(error) [pull against the ensemble]; process: {result['sde']}",
        *aligned(rows),
        "",
        "ratios, odd moments zero; compare with the table of observables of the run",
        *aligned(ratios),
        "",
        f"{chains}, {result['n_samples']} samples backward, {result['n_product']} of the run at t = 0; "
        f"estimator: {result['estimator']}",
    ]
    for name, gate in result["gates"].items():
        verdict = "passed" if gate["passed"] else "FAILED"
        lines.append(f"{name:<10} {verdict}: largest of {gate['n']} pulls {gate['worst']:.1f} sigma")
    lines.append(
        f"cumulants: {'passed' if result['passed'] else 'FAILED'} (gate {GATE:g} sigma for the largest pull, "
        "counting their number)"
    )
    return "\n".join(lines)


def figure(result: dict[str, Any]) -> Figure:
    """kappa_n(t)/kappa_2(0)^{n/2} forward and backward against the analytic curves, a row per observable."""
    return draw_flows(result["flows"]) if "flows" in result else draw_observables(result)


def _flow_line(flow: dict[str, Any]) -> str:
    """kappa_n at the lowest level, of samples of one variable."""
    ends = zip(flow["orders"], flow["backward"]["value"][1], flow["backward"]["error"][1], strict=True)
    numbers = ", ".join(f"kappa{n} {format_value(value, error)}" for n, value, error in ends)
    return f"{flow['model']}, {flow['sde'].upper()}, sigma = {flow['sigma'][1]:.3g}: {numbers}"
