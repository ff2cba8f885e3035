"""The diffusion on fields without an action: cumulants along it against exact curves, and the action it
learned.

Forward: held-out fields noised level by level, kappa_n(t) against kappa_n + delta_n2 sigma^2 (variance
expanding). Backward: fresh samples of the run's sampler at every level, and at t = 0 the run's own. Effective
action: the projection of the learned score on phi^2, phi^4 and the hopping at several sigma, against that of
the exact law at that sigma and to first order in 1/N (`diffsq.analysis.network_action`).

Verdict: forward and backward within 4.5 sigma of the exact curves, samples at t = 0 to order 8 within 3
sigma, all counting how many numbers they are; each coupling at the smallest sigma within 4.5 errors and `OFF`
of its own exact size, and that of phi^4 4.5 errors from 0 where the exact one is 10.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsq.analysis import network_action
from diffsq.plots.networks import score_figure
from diffsq.process import cumulants as along
from diffsq.process.cumulants import MIN_BLOCKS, Tally, slices
from diffsq.run_folder.fields import NetworkBench
from diffsq.sampling import steps
from lattice.actions.networks import FreeNet
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.exact.network_fields import site_cumulants, zero_mode_cumulants
from lattice.progress import Progress, counted
from lattice.statistics.notation import aligned, with_pull
from lattice.statistics.pulls import sidak_threshold, sigmas_of

ORDERS = {"site": (2, 4, 6, 8), "M": (2, 4)}
SIDES = {"forward": "forward_pulls", "backward": "backward_pulls", "samples": "sample_pulls"}
TERMS = {"mass": "phi^2", "lam": "phi^4", "kappa": "hopping"}
GATE, CHANCE = 4.5, 2.7e-3
OFF = 0.05
CLEAR = 10.0  # errors of phi^4's exact coupling from 0, from which on the learned one must exclude 0
BATCH = 256
WIDEST = 1.5  # largest sigma of the couplings, in standard deviations of a site


def run(
    bench: NetworkBench, progress: Progress, n_fields: int = 8192, n_samples: int = 2048, n_levels: int = 5
) -> dict[str, Any]:
    """n_fields held-out fields forward, n_samples backward; couplings at n_levels sigma. Raises `InputError`
    for a run without a model, and for nets of inputs."""
    model, samples = bench.learned("network-score")
    if min(n_fields, n_samples) < 20 * MIN_BLOCKS or n_levels < 1:
        raise InputError(f"n_fields and n_samples must be at least {20 * MIN_BLOCKS}, n_levels 1")
    law, shape = bench.action, bench.ensemble.shape
    network_action.as_free_net(law)
    levels = torch.tensor(samples.attrs["generated"]["levels"], dtype=torch.float64, device=bench.device)
    phi, chain = bench.held_out_fields(n_fields)
    exact = {"site": site_cumulants(law, shape), "M": zero_mode_cumulants(law, shape)}
    up = _tallies(len(levels), len(phi))
    for rows in counted(progress, len(phi), BATCH, "forward cumulants"):
        along.forward(
            phi[rows], levels, bench.noise("check/network-score/up", rows), _watch(up, rows, len(phi))
        )
    down, step = _tallies(len(levels), n_samples), steps.STEPS[bench.config.method]
    for rows in counted(progress, n_samples, BATCH, "backward cumulants"):
        noise = bench.noise("check/network-score/down", rows)
        start = model.momenta.colour(noise(2 * len(levels) - 2), model.base.g + levels[-1] ** 2)
        steps.run(step, model, start, levels, noise, bench.frames(), _watch(down, rows, n_samples))
    own = _tallies(1, len(samples))
    _watch(own, np.arange(len(samples)), len(samples))(0, torch.from_numpy(samples.phi))
    sigma = levels.cpu().numpy()
    noise2 = {"site": 1.0, "M": 1 / math.prod(shape)}  # per sigma^2
    curves = {
        name: _curves(name, exact[name], noise2[name], sigma, up[name], down[name], own[name])
        for name in ORDERS
    }
    couplings = _couplings(bench, phi, chain, n_levels)
    reasons = _reasons(curves, couplings[0])
    largest = {side: float(np.abs(_flat(curves, key)).max()) for side, key in SIDES.items()}
    return {
        "passed": not reasons, "reasons": reasons, "law": law.as_dict(), "shape": list(shape),
        "method": bench.config.method, "sigma": sigma.tolist(), "curves": curves, "couplings": couplings,
        "largest": largest,
        "n_fields": len(phi), "n_samples": n_samples, "n_product": len(samples), "fewer": _fewer(law, shape),
    }  # fmt: skip


def _fewer(law: FreeNet, shape: tuple[int, ...]) -> bool:
    """Whether fields have so few neurons that they fill no volume of field space."""
    return law.neurons(shape) < math.prod(shape)


def _tallies(n_levels: int, n: int) -> dict[str, Tally]:
    return {name: Tally(n_levels, int(slices(n).max()) + 1) for name in ORDERS}


def _watch(tallies: dict[str, Tally], rows: Integers, n: int) -> along.Watch:
    """Counts site and M of a batch at every level."""
    block = slices(n)[rows]

    def watch(level: int, x: Tensor) -> None:
        tallies["site"].add(level, x, block)
        tallies["M"].add(level, x.flatten(1).mean(1, keepdim=True), block)

    return watch


def _curves(
    name: str, exact: dict[int, float], noise: float, sigma: Floats, up: Tally, down: Tally, own: Tally
) -> dict[str, Any]:
    """Exact, forward and backward kappa_n at every level, the run's samples at t = 0, and pulls."""
    orders = ORDERS[name]
    start = np.zeros(max(orders))
    for n in orders:
        start[n - 1] = exact[n]
    known = along.flow(start, np.ones_like(sigma), sigma, noise)[:, [n - 1 for n in orders]]
    forward, backward = (tally.curve(sigma, orders, True) for tally in (up, down))
    product = own.curve(np.zeros(1), orders, True)
    return {
        "orders": list(orders), "exact": known.tolist(), "forward": forward.as_dict(),
        "backward": backward.as_dict(), "samples": product.as_dict(),
        "forward_pulls": _pulls(forward.value, forward.error, known, up),
        "backward_pulls": _pulls(backward.value, backward.error, known, down),
        "sample_pulls": _pulls(product.value, product.error, known[:1], own)[0],
    }  # fmt: skip


def _pulls(value: Floats, error: Floats, known: Floats, tally: Tally) -> list[list[float]]:
    dof = tally.counts.shape[1] - 1
    return [
        [math.copysign(sigmas_of(v - k, e, dof), v - k) for v, e, k in zip(*row, strict=True)]
        for row in zip(value, error, known, strict=True)
    ]


def _couplings(bench: NetworkBench, phi: Tensor, chain: Integers, n_levels: int) -> list[dict[str, Any]]:
    """Learned beside known, from the smallest trained sigma up."""
    model, _ = bench.learned("network-score")
    low, high = (float(model.base.log_sigma[end].exp()) for end in (0, -1))
    top = min(high, max(WIDEST * float(model.sigma_data), 2 * low))
    noise, found = bench.noise("check/network-score/couplings", np.arange(len(phi))), []
    for i, sigma in enumerate(np.geomspace(low, top, n_levels).tolist()):
        learned = network_action.learned_couplings(
            model, phi + sigma * noise(i), sigma, None, bench.frames()(i)
        )
        found.append(
            {"sigma": sigma, **network_action.compared(bench.action, bench.ensemble.shape, sigma, learned)}
        )
    return found


def _flat(curves: dict[str, Any], key: str) -> Floats:
    return np.concatenate([np.ravel(c[key]) for c in curves.values()])


def _reasons(curves: dict[str, Any], smallest: dict[str, Any]) -> list[str]:
    found = []
    for side, key in SIDES.items():
        pulls = _flat(curves, key)
        if side == "samples":
            passed = bool(np.abs(pulls).max() <= sidak_threshold(pulls.size, CHANCE))
        else:
            passed = along.consistent(pulls, GATE)[0]
        if not passed:
            found.append(f"{side}: largest of {pulls.size} pulls {np.abs(pulls).max():.1f}")
    where = f"at sigma = {smallest['sigma']:.3g}"
    for name, label in TERMS.items():
        c = smallest[name]
        if abs(c["value"] - c["exact"]) > GATE * c["error"] + OFF * abs(c["exact"]):
            found.append(f"coupling of {label} {where} is {c['value']:.4g}, exactly {c['exact']:.4g}")
    c = smallest["lam"]
    if abs(c["exact"]) > CLEAR * c["error"] and c["value"] * np.sign(c["exact"]) <= GATE * c["error"]:
        found.append(f"coupling of phi^4 {where} does not exclude 0")
    return found


def text(result: dict[str, Any]) -> str:
    """Cumulants of the samples with pulls, the largest pulls of both curves, the couplings by sigma."""
    sides = ["forward, largest pull", "backward, largest pull", "backward at t = 0"]
    rows = [["of", "n", "exact", f"{result['n_product']} samples", *sides]]
    for name, c in result["curves"].items():
        up, down = (np.abs(c[key]).max(0) for key in ("forward_pulls", "backward_pulls"))
        back = c["backward"]
        for i, n in enumerate(c["orders"]):
            sampled = with_pull(
                c["samples"]["value"][0][i], c["samples"]["error"][0][i], c["sample_pulls"][i]
            )
            end = with_pull(back["value"][0][i], back["error"][0][i], c["backward_pulls"][0][i])
            exact = f"{c['exact'][0][i]:.6g}"
            rows.append([name, str(n), exact, sampled, f"{up[i]:.1f}", f"{down[i]:.1f}", end])
    table = [["sigma", "", "learned", "exact", "first order in 1/N", "free"]]
    for level in result["couplings"]:
        for name, label in TERMS.items():
            c = level[name]
            table.append([
                f"{level['sigma']:.3f}", label, with_pull(c["value"], c["error"], c["pull"]),
                *(f"{c[kind]:.5g}" for kind in ("exact", "first", "free")),
            ])  # fmt: skip
    lines = [f"kappa_n at t = 0; sampler {result['method']}", *aligned(rows), "",
             "effective action at sigma, S = sum [-2 kappa hopping + mass phi^2 + lam phi^4]",
             f"gated at the smallest sigma, within {GATE:g} errors and {OFF:.0%} of the exact coupling",
             *aligned(table)]  # fmt: skip
    if result["fewer"]:
        lines.append("fewer neurons than sites: the fields fill no volume, and S exists at sigma > 0 only")
    verdict = "passed" if result["passed"] else f"NOT passed: {'; '.join(result['reasons'])}"
    return "\n".join([*lines, f"network-score: {verdict}"])


def figure(result: dict[str, Any]) -> Figure:
    """kappa_n(t) forward and backward against the exact curves, and the couplings against sigma."""
    return score_figure(result)
