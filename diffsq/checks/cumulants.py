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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from diffsq.analysis.point_cumulants import flows
from diffsq.plots.cumulants import draw_flows, draw_observables
from diffsq.process.cumulants import (
    MIN_BLOCKS,
    Curve,
    Tally,
    Watch,
    columns_of,
    consistent,
    exact_average,
    forward,
    forward_pulls,
    signal,
    slices,
    watch_into,
)
from diffsq.process.sde import SDES
from diffsq.run_folder.finished import PointBench, Workbench
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.observables.scalar import momentum_classes
from lattice.progress import Progress
from lattice.statistics.blocks import jackknife_errors
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.pulls import sigmas_of
from lattice.statistics.weights import normalised_weights

BATCH = 64
CHUNK = 4096  # stored fields at a time
GATE = 4.5
RATIOS = {"kappa_4/kappa_2^2": 4, "kappa_6/kappa_2^3": 6}


@dataclass(frozen=True)
class Observable:
    """What is followed: label, projection (V, m) or None for the sites, its noise variance per sigma^2."""

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
        label = f"k = ({', '.join(str(n) for n in members[0])})"
        out[name] = Observable(label, torch.from_numpy(real_modes(shape, members)))
    return out


def real_modes(shape: tuple[int, ...], members: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """Orthonormal columns along cos kx and -sin kx, for one k of each pair +-k: (V, number of real modes).

    Each projection has variance G(k), and noise variance sigma^2; `lattice.observables` has them shorter by
    sqrt(2) where k is not -k, which drops out of the ratios.
    """
    columns: list[NDArray[np.float64]] = []
    seen: set[tuple[int, ...]] = set()
    for n in members:
        opposite = tuple(-i % extent for i, extent in zip(n, shape))
        if opposite in seen:
            continue
        seen.add(n)
        phase = sum(2 * np.pi * i * x / extent for i, x, extent in zip(n, np.indices(shape), shape)).ravel()
        columns += [np.cos(phase), -np.sin(phase)] if opposite != n else [np.cos(phase)]
    basis = np.stack(columns, axis=1)
    out: NDArray[np.float64] = basis / np.sqrt((basis**2).sum(axis=0))
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
    columns_of(orders, 8)
    z2 = all(n % 2 == 0 for n in orders)  # phi^4 is even; odd orders need the general estimator
    levels = bench.path.kernel.levels
    sigma = levels.cpu().numpy()
    f = signal(SDES[sde](float(levels[1]), float(levels[-1])), levels)
    seen = observables(bench.ensemble.shape)
    up, n_chains = _forward(bench, progress, seen, f, n_fields)
    down = _backward(bench, progress, seen, f, n_samples)
    truth = {name: _stored(bench.ensemble, o, _blocks(bench.ensemble.chain)) for name, o in seen.items()}
    product = bench.samples
    assert product.log_weight is not None
    weight, block = normalised_weights(product.log_weight), slices(len(product))
    found, pulls = {}, {}
    for name, o in seen.items():
        raw, corrected = (_stored(product, o, block, w) for w in (None, weight))
        pulls[name] = forward_pulls(up[name], f, sigma, orders, z2, o.noise)
        found[name] = {
            "label": o.label,
            "forward": up[name].curve(sigma, orders, z2).as_dict(),
            "average": exact_average(up[name], f, sigma, orders, z2, o.noise).as_dict(),
            "analytic": exact_average(truth[name], f, sigma, orders, z2, o.noise).as_dict(),
            "backward": down[name].curve(sigma, orders, z2).as_dict(),
            "kappa2": float(truth[name].replicas(z2)[0][0, 1]),
            "forward_pulls": pulls[name].max(axis=0).tolist(),
            "start": _compare(orders, z2, truth[name], raw, corrected),
        }
    gates = {"forward": _gate(np.concatenate([p.ravel() for p in pulls.values()]))}
    for side in ("raw", "corrected"):
        gates[side] = _gate(np.array([p for entry in found.values() for p in entry["start"][side]["pull"]]))
    return {
        "passed": all(gate["passed"] for gate in gates.values()),
        "gates": gates, "sde": sde, "shape": list(bench.ensemble.shape), "orders": list(orders),
        "estimator": "odd moments zero" if z2 else "all moments",
        "sigma": sigma.tolist(), "signal": f.tolist(), "n_fields": int(up["phi"].counts[0].sum()),
        "n_chains": n_chains, "n_samples": n_samples, "n_product": len(product), "observables": found,
    }  # fmt: skip


def _blocks(chain: NDArray[np.int64]) -> NDArray[np.int64]:
    """Jackknife block of each field: its chain, or one of 20 slices where there are fewer than 10 chains."""
    labels, block = np.unique(chain, return_inverse=True)
    return block if len(labels) >= MIN_BLOCKS else slices(len(chain), 20)


def _forward(
    bench: Workbench, progress: Progress, seen: dict[str, Observable], f: NDArray[np.float64], n: int
) -> tuple[dict[str, Tally], int]:
    phi, chain = bench.held_out_fields(n)
    levels, block = bench.path.kernel.levels, _blocks(chain)
    tallies = {name: Tally(len(levels), int(block.max()) + 1) for name in seen}
    progress.start(len(phi), "forward cumulants")
    for start in range(0, len(phi), BATCH):
        rows = np.arange(start, min(start + BATCH, len(phi)))
        noise = bench.noise("check/cumulants/forward", rows)
        forward(phi[rows], levels, noise, _watch(tallies, seen, f, block[rows]))
        progress.update(len(rows))
    progress.close()
    return tallies, len(np.unique(chain))


def _backward(
    bench: Workbench, progress: Progress, seen: dict[str, Observable], f: NDArray[np.float64], n: int
) -> dict[str, Tally]:
    levels, block = bench.path.kernel.levels, slices(n, min(100, n // 10))
    tallies = {name: Tally(len(levels), int(block.max()) + 1) for name in seen}
    progress.start(n, "backward cumulants")
    for start in range(0, n, BATCH):
        rows = np.arange(start, min(start + BATCH, n))
        noise = bench.noise("check/cumulants/backward", rows)
        watch = _watch(tallies, seen, f, block[rows])
        bench.path.sample(bench.action.action, noise, bench.frames(), watch)
        progress.update(len(rows))
    progress.close()
    return tallies


def _watch(
    tallies: dict[str, Tally], seen: dict[str, Observable], f: NDArray[np.float64], block: NDArray[np.int64]
) -> Watch:
    watches = [watch_into(tallies[name], f, block, o.basis) for name, o in seen.items()]

    def watch(n: int, x: Tensor) -> None:
        for each in watches:
            each(n, x)

    return watch


def _stored(
    ensemble: Ensemble, o: Observable, block: NDArray[np.int64], weight: NDArray[np.float64] | None = None
) -> Tally:
    """Of the fields of an ensemble, at t = 0."""
    tally = Tally(1, int(block.max()) + 1)
    for start in range(0, len(ensemble), CHUNK):
        rows = slice(start, start + CHUNK)
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
        off, error = curve.value - reference[0].value, np.hypot(curve.error, reference[0].error)
        pull = np.sign(off[0]) * [sigmas_of(o, e, dof) for o, e in zip(off[0], error[0])]
        out[name] = {"value": curve.value[0].tolist(), "error": curve.error[0].tolist(), "ratios": ratio}
        if name != "ensemble":
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


def _gate(pulls: NDArray[np.float64]) -> dict[str, Any]:
    passed, p = consistent(pulls, GATE)
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
            cells = [format_value(start[s]["value"][i], start[s]["error"][i]) for s in start]
            cells[1:] = [f"{c} [{start[s]['pull'][i]:+.1f}]" for c, s in zip(cells[1:], ("raw", "corrected"))]
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
