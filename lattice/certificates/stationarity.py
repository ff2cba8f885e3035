"""Has the ensemble thermalised: hot and domain-wall starts against cold ones, drift over the run, and the
scatter between chains.

Each function returns records of lattice.certificates.check; `data` maps a quantity to its series per chain, M
and what comes of it, or of links Q.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats

from lattice.arrays import Floats, real_array
from lattice.certificates.check import GATE, SYMBOLS, Check, equality, failed_check, make_check, mean_is
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.pulls import MIN_CHAINS_FOR_SCATTER, mean_of_chains
from lattice.statistics.rounding import rms, with_rounding

COMPARED = ("abs_magnetization", "m2", "action_density", "phi2", "walls")
OF_LINKS = ("abs_charge", "charge2", "action_density")  # these instead
SLOW = ("abs_magnetization", "abs_charge", "action_density")
ORDERS = ("magnetization", "charge")  # M, or of links Q


def history_checks(history: dict[str, Any] | None) -> list[Check]:
    """All starts must have met by half of the thermalisation: the cut then has a safety factor of two."""
    if history is None or not several_starts(history["start"]):
        return []
    late = {
        name: real_array(history[name], name)[len(history[name]) // 2 :] for name in SLOW if name in history
    }
    checks = []
    for name, values in late.items():
        parts = [values[:, chain] for chain in range(values.shape[1])]
        label = f"history {SYMBOLS[name]}"
        checks += _against_cold(label, parts, list(history["start"]), "second half")
    return checks


def several_starts(starts: list[str]) -> bool:
    """Whether hot and cold chains are there (and nothing unknown)."""
    return {"hot", "cold"} <= set(starts) <= {"hot", "cold", "wall"}


def start_checks(data: dict[str, list[Floats]], starts: list[str] | None, even: bool) -> list[Check]:
    """Hot and wall starts against cold ones; of an even action also <M> = 0 among the cold chains, which all
    start with M > 0: they have changed sign many times."""
    if starts is None:
        return []
    checks = [
        check for name in _compared(data) for check in _against_cold(SYMBOLS[name], data[name], starts, "")
    ]
    for name in [name for name in ORDERS if even and name in data]:
        cold = [part for part, own in zip(data[name], starts, strict=True) if own == "cold"]
        words = f"{SYMBOLS[name]} of cold starts"
        checks.append(mean_is(words, cold, 0.0, "their common sign is forgotten"))
    return checks


def _compared(data: dict[str, list[Floats]]) -> tuple[str, ...]:
    return OF_LINKS if "charge" in data else COMPARED


def _against_cold(label: str, parts: list[Floats], starts: list[str], detail: str) -> list[Check]:
    """hot - cold and, where chains started with domain walls, wall - cold."""
    groups = {
        start: [part for part, own in zip(parts, starts, strict=True) if own == start]
        for start in ("cold", "hot", "wall")
    }
    return [
        _difference(f"{label} {start}-cold", groups["cold"], groups[start], detail)
        for start in ("hot", "wall")
        if groups[start]
    ]


def _difference(name: str, one: list[Floats], two: list[Floats], detail: str) -> Check:
    """The means of `two` and `one` are equal; a quantity that never changes (walls deep in the broken phase)
    is no disagreement."""
    try:
        (a, a_error, a_dof), (b, b_error, b_dof) = mean_of_chains(one), mean_of_chains(two)
    except EstimatorError as error:
        everything = np.concatenate([*one, *two])
        if np.ptp(everything) <= with_rounding(0.0, rms(everything)):
            return make_check(name, 0.0, None, "0", True, f"constant, {everything[0]:.6g}")
        return failed_check(name, "0", str(error))
    return equality(name, b - a, math.hypot(a_error, b_error), min(a_dof, b_dof), 0.0, detail)


def drift_checks(data: dict[str, list[Floats]]) -> list[Check]:
    """Second half minus first half, and the linear trend from the first to the last configuration."""
    checks = []
    for name in _compared(data):
        parts, symbol = data[name], SYMBOLS[name]
        scale = rms(np.concatenate(parts))
        if min(len(part) for part in parts) < 4:
            checks.append(failed_check(f"{symbol} drift", "0", "chains of fewer than 4 configurations"))
            continue
        halves = [np.array_split(part, 2) for part in parts]
        if len(parts) < MIN_CHAINS_FOR_SCATTER:
            first, second = ([h[i] for h in halves] for i in (0, 1))
            checks.append(_difference(f"{symbol} drift", first, second, "second half - first half"))
            continue
        steps = [np.atleast_1d(h[1].mean() - h[0].mean()) for h in halves]
        checks.append(
            equality(f"{symbol} drift", *mean_of_chains(steps, scale), 0.0, "second half - first half")
        )
        trends = [np.atleast_1d(_slope(part)) for part in parts]
        checks.append(equality(f"{symbol} trend", *mean_of_chains(trends, scale), 0.0, "slope over the run"))
    return checks


def _slope(series: Floats) -> float:
    """Least-squares change of a series from its first to its last entry."""
    time = np.linspace(-0.5, 0.5, len(series))
    return float(time @ series / (time @ time))


def scatter_checks(data: dict[str, list[Floats]]) -> list[Check]:
    """Variance of the chain means against what autocorrelation inside the chains explains: near 1 if all
    chains visit the same states (the ratio inside Gelman and Rubin's R, Statist. Sci. 7 (1992) 457, with
    tau_int in it)."""
    checks = []
    for name in [name for name in SLOW if name in data]:
        parts = data[name]
        if len(parts) < MIN_CHAINS_FOR_SCATTER:
            continue
        label, n = f"{SYMBOLS[name]} between chains", min(len(part) for part in parts)
        if np.ptp(everything := np.concatenate(parts)) <= with_rounding(0.0, rms(everything)):
            checks.append(make_check(label, 0.0, None, "1", True, f"constant, {everything[0]:.6g}"))
            continue
        try:
            inside = gamma_method([part[:, None] for part in parts], centre="replica")
        except EstimatorError as refused:
            checks.append(failed_check(label, "1", str(refused)))
            continue
        # subtracting each chain's own mean lowers Gamma(t) by 2 tau Gamma(0)/n at every t of the window
        tau = inside.tau_int * (1 + (2 * inside.window + 1) / n)
        within = float(np.mean([part.var() for part in parts])) * 2 * tau / n
        ratio = float(np.var([part.mean() for part in parts], ddof=1)) / within
        dof = len(parts) - 1
        limit = 1.25 * float(scipy.stats.chi2.isf(scipy.stats.norm.sf(GATE), dof)) / dof
        expected, detail = f"1, at most {limit:.2f}", "variance of chain means / expected"
        error = ratio * math.sqrt(2.0 / dof)
        checks.append(make_check(label, ratio, error, expected, ratio <= limit, detail))
    return checks
