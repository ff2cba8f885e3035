r"""Is a complex Langevin run right?  A verdict with its numbers: trusted, doubtful or wrong.

    tail        the magnitude |K| of the drift must fall off faster than any power (Nagata, Nishimura,
                Shimasaki 1606.07627).  Hill's exponent of P(|K| > k) ~ k^-alpha from the m largest values of
                the run, m = 10, 30, 100, ...: exponential tails give alpha ~ ln(N/m) or more, power laws a
                constant.  z^3 drifts that are not confined have alpha = 4/3, the one-link model 2: with
                v = z^-2 or e^{iz} the drift at infinity is constant in v and the density smooth there.
                Of links |K| is the largest on the way between two configurations (the series peak_drift):
                an excursion to k lasts 1/k, and its alpha is 1 for 2 of the configurations themselves.
    boundary    B_O(Y) = <Theta(Y - |y|) (O'' + K O')> for O = z^2, z^4 (one-link: e^{iz}, e^{2iz}; of links
                U_p, U_p^2 and their inverses), per site, |y| the largest of the sites, or of the plaquettes
                (Scherzer, Seiler, Sexty, Stamatescu 1808.05187, 1910.01427).  It goes to zero with the weight
                p beyond Y in a right run; a plateau that is not zero, here a value that loses less than half
                when p falls tenfold, is a boundary term.
    Schwinger-Dyson, the same without cut-off: 0 in any stationary state that has these moments.
    step size   the run's own averages against the limit step -> 0 of runs at larger steps
    starts      chains from real starts against chains from complex ones
    hot, cold   of links: chains from hot starts against chains from cold ones
    topology    of links: chains go from one charge to another, or, where S is complex, have but one
                (`lattice.certificates.sectors`)
    escapes     excursions with |K| beyond 1000 drift scales (`lattice.updates.complex_langevin.ESCAPE`)

A power-law tail or a boundary term: wrong.  Anything else that fails: doubtful.  Errors are those of
independent chains.  A bad region that a run has never met leaves no trace in it: "trusted" is said of
numbers at the size of their own errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.protocol import Action
from lattice.arrays import Complexes, Floats
from lattice.certificates import drift as parts_of
from lattice.certificates.drift import Curves, chain_averages, chain_scales
from lattice.certificates.sectors import (
    MIN_DRAWS,
    charges,
    expected_outside,
    has_sectors,
    is_cold,
    is_real,
    topology,
    worst_difference,
)
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import batches
from lattice.errors import InputError
from lattice.statistics.extrapolation import extrapolate_step
from lattice.statistics.pulls import mean_and_error, sigmas_of
from lattice.statistics.rounding import rms, with_rounding

GATE = 4.5  # sigma: some ten numbers are looked at
MAX_STEP_PULL = 1.5  # own errors from the limit; their difference is known to about 0.3 of them
MIN_EXPONENT = 3.5  # of the drift tail; power laws of cubic and exponential drifts have 4/3 and 2
FAR = 0.011  # weight beyond a cut-off from which a plateau may begin
PLATEAU = 0.5  # what |B| must lose when the weight beyond the cut-off falls tenfold
MIN_CHAINS = 16
PEAK = "peak_drift"  # the series of links: the largest |K| of the trajectory that ends here
REAL = "Im z is 0 up to rounding"
Check = dict[str, Any]


@dataclass(frozen=True)
class _Data:
    """The run by chains: z (n_chains, n_times, *shape), |K|, of links its peaks, and |y| (n_chains, n_times),
    chain numbers (n_chains,)."""

    action: Action
    z: Complexes
    drift: Floats
    y: Floats
    chain: NDArray[np.int64]


def verdict(
    ensemble: Ensemble, *, steps: Mapping[str, Any] | None = None, escapes: int = 0
) -> dict[str, Any]:
    """The verdict on a complexified ensemble, JSON data.

    steps: {"step", "order", "sizes": [{"step", "averages": {name: [value, error]}} or {"step", "runaway"}]},
    the runs at larger steps (`lattice.simulation.complex_langevin` makes them); None: not known, which is
    doubtful.

    Returns verdict ("trusted", "doubtful", "wrong"), reason (one sentence), passed, checks (each name, value,
    error, limit, passed, detail), drift_histogram (edges, density, error), tail (m, drift, exponent, error),
    boundary ("Re z^2", ...: Y, weight, value, error), steps and escapes. Raises `InputError` for an ensemble
    that is not complexified, has fewer than 16 chains, or chains of different lengths.
    """
    data = _data(ensemble)
    n = data.drift.size
    tail = parts_of.drift_tail(data.drift)
    densities = parts_of.boundary_density(data.action, data.z).items()
    curves = {name: parts_of.cut_off(density, data.y) for name, density in densities}
    flat = {f"{part} {name}": curve for name, pair in curves.items() for part, curve in pair.items()}
    averages = chain_averages(data.action, data.z)
    tail_check, power = _tail_check(tail)
    boundary_checks = [_boundary_check(name, curve, n) for name, curve in curves.items()]
    scales = chain_scales(data.action, data.z)
    table, step_check = _step_check(averages, scales, steps)
    checks = [
        tail_check, *boundary_checks, _schwinger_dyson(flat), step_check,
        _starts_check(averages, scales, data.chain), *_topology_checks(data, averages, scales),
        _check("escapes", escapes, None, 0, escapes == 0, f"{escapes} excursions"), _cut_check(curves, n),
    ]  # fmt: skip
    failed = [check for check in checks if not check["passed"]]
    wrong = power or any(not check["passed"] for check in boundary_checks)
    word = "trusted" if not failed else "wrong" if wrong else "doubtful"
    reason = "; ".join(f"{check['name']}: {check['detail']}" for check in failed)
    return {
        "verdict": word,
        "reason": reason or "the drift falls off fast, no boundary term, step size and starts agree",
        "passed": word == "trusted", "checks": checks,
        "drift_histogram": parts_of.drift_histogram(data.drift), "tail": tail, "boundary": flat,
        "steps": table, "escapes": int(escapes),
    }  # fmt: skip


def _data(ensemble: Ensemble) -> _Data:
    if ensemble.action.holomorphic is ensemble.action:
        raise InputError("a complex Langevin verdict needs an ensemble of complex fields (x + iy)")
    parts = ensemble.replicas()
    lengths = {len(part) for part in parts}
    if len(parts) < MIN_CHAINS or len(lengths) > 1:
        raise InputError(
            f"a verdict needs {MIN_CHAINS} or more chains of equal length, got {len(parts)} chains of "
            f"{min(lengths)} to {max(lengths)} configurations"
        )
    order = np.stack(parts)  # (n_chains, n_times)
    phi = ensemble.phi[order.reshape(-1)]
    z = phi[:, 0] + 1j * phi[:, 1]
    action = ensemble.action.holomorphic
    drift, y = np.empty(len(z)), np.empty(len(z))
    for part in batches(z.shape):
        y[part] = np.abs(parts_of.variables(action, z[part]).imag).reshape(len(drift[part]), -1).max(axis=1)
        size = np.abs(action.grad(torch.from_numpy(z[part])).numpy())
        drift[part] = size.reshape(len(size), -1).max(axis=1)
    y[y <= with_rounding(0.0, rms(z))] = 0.0
    drift = ensemble.series[PEAK][order] if PEAK in ensemble.series else drift.reshape(order.shape)
    return _Data(
        action, z.reshape(*order.shape, *z.shape[1:]), drift, y.reshape(order.shape),
        ensemble.chain[order[:, 0]],
    )  # fmt: skip


def _tail_check(tail: dict[str, list[float]]) -> tuple[Check, bool]:
    """The check, and whether the tail certainly is a power law."""
    rows = list(zip(*(tail[key] for key in ("m", "exponent", "error")), strict=True))
    m, exponent, error = min(rows, key=lambda row: row[1] + 2 * row[2])
    passed = exponent + 2 * error > MIN_EXPONENT
    sure = any(a + 3 * e < MIN_EXPONENT for _, a, e in rows)
    kind = "no power law" if passed else "a power law: the drift does not fall off exponentially"
    law = f"P(|K| > k) ~ k^-{exponent:.1f} in the" if exponent < 1e6 else "one drift for all of the"
    detail = f"{law} {m:.0f} largest drifts, {kind}"
    return _check("drift tail", exponent, error, MIN_EXPONENT, passed, detail), sure and not passed


def _boundary_check(name: str, curve: Curves, n: int) -> Check:
    """The most significant value that is part of a plateau, or else the value at the last cut-off."""
    b = np.array(curve["Re"]["value"]) + 1j * np.array(curve["Im"]["value"])
    weight, cuts = np.array(curve["Re"]["weight"]), curve["Re"]["Y"]
    best = (-1.0, 0.0, 0.0, cuts[-1], "Re")
    if cuts[-1] == 0:
        value, error = (curve["Re"][key][-1] for key in ("value", "error"))
        return _check(f"boundary term Re {name}", value, error, 0.0, True, f"none: {REAL}")
    for i in range(len(b) - 3):  # weights are a factor sqrt(10) apart, the last one is 0
        if weight[i] > FAR or abs(b[i + 2]) < PLATEAU * abs(b[i]):
            continue
        for part in ("Re", "Im"):
            value, error = curve[part]["value"][i + 2], curve[part]["error"][i + 2]
            if error > 0 and (sigmas := sigmas_of(value, error)) > best[0]:
                best = (sigmas, value, error, cuts[i + 2], part)
    sigmas, value, error, cut, part = best
    passed = sigmas <= GATE
    label = f"boundary term {part} {name}"
    if sigmas < 0:
        return _check(label, b[-1].real, curve["Re"]["error"][-1], 0.0, True, "falls to zero")
    word = "consistent with zero" if passed else "a plateau that is not zero"
    return _check(label, value, error, 0.0, passed, f"{word}, {sigmas:.1f} sigma at Y = {cut:.3g}")


def _cut_check(curves: dict[str, Curves], n: int) -> Check:
    """Cut-offs with so little beyond them that a boundary term could be told from an ordinary tail."""
    curve = next(iter(curves.values()))["Re"]
    if curve["Y"][-1] == 0:
        return _check("cut-offs", 0.0, None, 0.0, True, f"none needed: {REAL}")
    far = sum(weight <= FAR for weight in curve["weight"][:-3])
    detail = f"{far} cut-offs far out" if far else f"{n} configurations reach too few cut-offs for a plateau"
    return _check("cut-offs", float(far), None, 1.0, far > 0, detail)


def _schwinger_dyson(parts: Curves) -> Check:
    """The worst component of <O'' + K O'> = 0 without cut-off."""
    ends = [(curve["value"][-1], curve["error"][-1], label) for label, curve in parts.items()]
    rows = [(sigmas_of(v, e), v, e, label) for v, e, label in ends if e > 0]
    worst, value, error, label = max(rows, key=lambda row: row[0], default=(-1.0, 0.0, 0.0, ""))
    detail = f"<O'' + K O'> of {label} is {worst:.1f} sigma from 0"
    return _check("Schwinger-Dyson", value, error, 0.0, worst <= GATE, detail)


def _step_check(
    averages: dict[str, Floats], scales: dict[str, float], steps: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Check]:
    """The extrapolations, and the worst of the run's own deviations from its limit."""
    if steps is None or not steps["sizes"]:
        return {}, _check("step size", None, None, MAX_STEP_PULL, False, "no runs at other step sizes")
    lost = [size for size in steps["sizes"] if "runaway" in size]
    if lost:
        return dict(steps), _check("step size", None, None, MAX_STEP_PULL, False, lost[0]["runaway"])
    sizes = [float(steps["step"]), *(float(size["step"]) for size in steps["sizes"])]
    h = np.array(sizes) ** int(steps["order"])
    table: dict[str, Any] = {"step": sizes, "order": int(steps["order"]), "limits": {}}
    worst, why = (-1.0, 0.0, 0.0, ""), ""
    for name, means in averages.items():
        own, larger = mean_and_error(means), [size["averages"][name] for size in steps["sizes"]]
        points = np.array([[x, with_rounding(error, scales[name])] for x, error in (own, *larger)])
        if np.abs(points).max() <= with_rounding(0.0, scales[name]):
            continue  # a component that vanishes identically
        fit = extrapolate_step(h, points[:, 0], points[:, 1])
        pull = sigmas_of(own[0] - fit.value, points[0, 1])
        table["limits"][name] = {
            "value": points[:, 0].tolist(), "error": points[:, 1].tolist(), "limit": fit.value,
            "limit_error": fit.error, "p_value": fit.p_value, "trusted": fit.trusted, "pull": pull,
        }  # fmt: skip
        worst = max(worst, (pull, own[0] - fit.value, points[0, 1], name))
        why = why or ("" if fit.trusted else f"{name}: {fit.reason}")
    pull, value, error, name = worst
    detail = why or f"{name} is {pull:.1f} of its errors from the limit step -> 0"
    return table, _check("step size", value, error, MAX_STEP_PULL, not why and pull <= MAX_STEP_PULL, detail)


def _starts_check(averages: dict[str, Floats], scales: dict[str, float], chain: NDArray[np.int64]) -> Check:
    """The worst deviation between chains from real starts (even numbers) and complex ones (odd)."""
    worst, value, error, label = worst_difference(averages, scales, chain % 2 == 0, chain % 2 == 1)
    if worst < 0:
        return _check("starts", None, None, GATE, False, "all chains have the same start")
    detail = f"real and complex starts differ by {worst:.1f} sigma in {label}"
    return _check("starts", value, error, GATE, worst <= GATE, detail)


def _topology_checks(data: _Data, averages: dict[str, Floats], scales: dict[str, float]) -> list[Check]:
    """Of links: hot and cold starts agree, charges squared too, and every chain has many, or all have one."""
    if not has_sectors(data.action):
        return []
    charge, cold = charges(data.action, data.z), is_cold(data.chain)
    averages = {**averages, "Q^2": (charge**2).mean(axis=1)}
    scales = {**scales, "Q^2": float((charge**2).max())}
    worst, value, error, label = worst_difference(averages, scales, ~cold, cold)
    detail = f"hot and cold starts differ by {worst:.1f} sigma in {label}"
    detail = detail if worst >= 0 else "all chains start hot, or all cold"
    expected = expected_outside(data.action, math.prod(data.z.shape[-2:]), charge.size)
    found = topology(charge, real=is_real(data.action), expected=expected)
    return [
        _check("hot, cold", value, error, GATE, 0 <= worst <= GATE, detail),
        _check("topology", found["value"], None, MIN_DRAWS, found["passed"], found["detail"]),
    ]


def _check(
    name: str, value: float | None, error: float | None, limit: float, passed: bool, detail: str
) -> Check:
    return {
        "name": name, "value": value, "error": error, "limit": limit, "passed": bool(passed), "detail": detail
    }  # fmt: skip
