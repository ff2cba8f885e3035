r"""The theta term by weights: what samples of theta = 0 know of <e^{i theta Q}> and chi(theta), up to where.

With the weights of the sampler and Q of the links

    Z(theta)/Z(0) = <cos theta Q>,      <Q^k>_theta = <Q^k e^{i theta Q}>/<e^{i theta Q}>,
    chi(theta) = -(1/V) d^2 ln Z/dtheta^2 = (<Q^2>_theta - <Q>_theta^2)/V.

The sign problem: where <cos theta Q> is less than `SIGN` of its errors chi(theta) is not known, which is
said; <cos theta Q> itself is known everywhere, to its error.
Held against Z(theta) of the finite torus (lattice.exact.u1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffsq.checks.topology import UNSEEN, charges_of
from diffsq.plots.gauge import theta_figure
from diffsq.run_folder.finished import GaugeBench
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.u1 import ChargeLaw, charge_law
from lattice.progress import Progress
from lattice.statistics.gamma import Derived, EstimatorError
from lattice.statistics.jackknife import jackknife_weighted
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import normalised_weights

SIGN = 5.0  # errors of <cos theta Q>, below which nothing is known
FAR = 4.0  # sigma
DEFAULT = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, math.pi]


def run(bench: GaugeBench, progress: Progress, thetas: list[float] | None = None) -> dict[str, Any]:
    """passed: <cos theta Q> at every theta, and chi where it is known, are within 4 sigma of the exact ones;
    or no charge was seen, and none expected.

    Samples of the first model of the run, by their weights.
    """
    thetas = DEFAULT if thetas is None else thetas
    samples = bench.samples[bench.config.models[0]]
    if samples.log_weight is None:
        raise InputError("the check theta needs samples with log-weights")
    shape = bench.ensemble.shape
    volume, q = math.prod(shape), charges_of(samples)
    law, log_w = charge_law(bench.action.beta.real, volume), samples.log_weight
    progress.start(len(thetas), "theta")
    points = []
    for theta in thetas:
        points.append(_point(theta, q, log_w, law, volume))
        progress.update()
    progress.close()
    grid = np.linspace(min(thetas), max(thetas), 101)
    exact = [_exact(theta, law, volume) for theta in grid.tolist()]
    pulls = [p["sign_pull"] for p in points] + [p["chi_pull"] for p in points if p["known"]]
    pulls = [pull for pull in pulls if pull is not None]
    none = not q.any() and float(law.probability[law.charge != 0].sum()) * len(q) < UNSEEN
    return {
        "passed": (bool(pulls) or none) and all(abs(pull) < FAR for pull in pulls), "points": points,
        "n": len(q),
        "curve": {"theta": grid.tolist(), **{name: [e[name] for e in exact] for name in ("sign", "chi")}},
        "volume": volume, "beta": bench.action.beta.real, "shape": list(shape),
    }  # fmt: skip


def _point(theta: float, q: Floats, log_w: Floats, law: ChargeLaw, volume: int) -> dict[str, Any]:
    data, exact = _parts(theta, q), _exact(theta, law, volume)
    value, error = _estimate(data[:, :1], log_w, None)
    chi, chi_error = _estimate(data, log_w, lambda x: _chi(x, volume))
    return {
        "theta": theta, "sign": [value, error], "chi": [chi, chi_error], "exact": exact,
        "known": value > SIGN * error and chi_error > 0,
        "sign_pull": (value - exact["sign"]) / error if error else None,
        "chi_pull": (chi - exact["chi"]) / chi_error if chi_error else None,
    }  # fmt: skip


def _estimate(data: Floats, log_w: Floats, f: Derived | None) -> tuple[float, float]:
    """Value and error, which is 0 where the estimator refuses: all charges alike, or too few."""
    try:
        found = jackknife_weighted(data, log_w, f)
    except EstimatorError:
        w = normalised_weights(log_w)
        means = w @ data / w.sum()
        return float(means[0]) if f is None else f(means), 0.0
    return found.value, found.error


def _exact(theta: float, law: ChargeLaw, volume: int) -> dict[str, float]:
    means = law.probability @ _parts(theta, law.charge.astype(np.float64))
    return {"sign": float(means[0]), "chi": _chi(means, volume)}


def _chi(means: Floats, volume: int) -> float:
    """chi(theta) of the means of `_parts`; 0 where there is no sign at all."""
    return (
        0.0 if abs(means[0]) < 1e-12 else float((means[2] / means[0] + (means[1] / means[0]) ** 2) / volume)
    )


def _parts(theta: float, q: Floats) -> Floats:
    """cos theta Q, Q sin theta Q, Q^2 cos theta Q (n, 3): what charge conjugation leaves."""
    cos, sin = np.cos(theta * q), np.sin(theta * q)
    return np.stack([cos, q * sin, q**2 * cos], 1)


def text(result: dict[str, Any]) -> str:
    """A row for each theta."""
    rows = [["theta", "<cos theta Q>", "exact", "pull", "chi(theta)", "exact", "pull"]]
    for p in result["points"]:
        cells = [f"{p['theta']:.4g}"]
        for name in ("sign", "chi"):
            value, error = p[name]
            if name == "chi" and not p["known"]:
                cells += ["sign problem", f"{p['exact'][name]:.5g}", "-"]
                continue
            pull = p[f"{name}_pull"]
            cells += [
                format_value(value, error) if error else f"{value:.6g}", f"{p['exact'][name]:.5g}",
                "-" if pull is None else f"{pull:+.1f}",
            ]  # fmt: skip
        rows.append(cells)
    verdict = "passed" if result["passed"] else "NOT passed"
    return "\n".join([
        *aligned(rows),
        f"{result['n']} samples of theta = 0 by weights; chi is not known where the sign is below {SIGN:g} "
        f"errors; {verdict}",
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """Z(theta)/Z(0) and chi(theta)."""
    return theta_figure(result)


def refuse(thetas: list[float] | None = None) -> None:
    """`InputError` for no theta, or one that is not finite."""
    if thetas is not None and (not thetas or not all(math.isfinite(theta) for theta in thetas)):
        raise InputError(f"thetas must be finite numbers, one at least, got {thetas}")
