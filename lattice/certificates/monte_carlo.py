"""The certificate of a Monte Carlo ensemble: has it thermalised, is it long enough, does it sample exp(-S)?

Every check is a deviation in units of its own error (lattice.certificates.check says how errors are found).
`GATE` leaves about one false alarm in 5000 ensembles.

What each check can and cannot see: Schwinger-Dyson <phi dS/dphi> = 1 per site tells exp(-S) from another
weight but is blind to domain walls; hot and domain-wall starts against cold ones in |M|, s and the density of
walls see those; the drift and history tests see a thermalisation that was too short for all of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lattice.arrays import Floats
from lattice.certificates.check import GATE, SYMBOLS, Check, equality, failed_check, make_check
from lattice.certificates.identities import schwinger_dyson, wall_density
from lattice.certificates.stationarity import (
    drift_checks,
    history_checks,
    scatter_checks,
    several_starts,
    start_checks,
    starts,
)
from lattice.ensembles.ensemble import Ensemble
from lattice.statistics.gamma import Estimate, EstimatorError, gamma_method
from lattice.statistics.notation import format_value
from lattice.statistics.pulls import mean_of_chains

MIN_THERM_OVER_TAU = 40.0  # hot starts leave domains that outlive tau_int of the equilibrium
MIN_CHAIN_OVER_TAU = 10.0
MIN_INDEPENDENT = 100.0
MIN_ACCEPTANCE = 0.3
_TAU_OF = ("abs_magnetization", "m2", "action")


def certify(ensemble: Ensemble, therm_history: dict[str, Any] | None = None) -> dict[str, Any]:
    """Certify a Monte Carlo ensemble.

    therm_history: magnetization, abs_magnetization, action_density, dH of shape (n_therm, n_chains) and
    start, a list of "hot", "cold" or "wall" per chain in the order of the chain numbers; None for an ensemble
    of unknown origin.

    Returns JSON data: passed, reason ("" or "cannot be certified: ..."), checks (each name, value, error,
    expected, passed, detail), tau_int (per quantity value and error, in saved configurations, with `unit`),
    n_independent, acceptance, exp_minus_dH, schwinger_dyson. It never raises for an ensemble that is merely
    bad: it fails it.
    """
    series = _quantities(ensemble)
    chains = ensemble.replicas()
    data = {name: [values[rows] for rows in chains] for name, values in series.items()}
    checks: list[Check] = [_origin(ensemble, therm_history, chains)]
    tau, problem = _tau_int(data)
    checks += _length_checks(ensemble, data, tau, problem, therm_history)
    checks += history_checks(therm_history)
    checks += start_checks(data, starts(ensemble, therm_history))
    checks += drift_checks(data)
    checks += scatter_checks(data)
    checks += _update_checks(ensemble, chains, data)
    failed = [check for check in checks if not check["passed"]]
    reason = ""
    if failed:
        cannot = next((check for check in failed if check["name"] in ("origin", "chain length")), None)
        reason = (
            f"cannot be certified: {cannot['detail']}"
            if cannot
            else "failed: " + ", ".join(check["name"] for check in failed)
        )
    by_name = {check["name"]: check for check in checks}
    return {
        "passed": not failed,
        "reason": reason,
        "checks": checks,
        "tau_int": {**{name: _tau_json(estimate) for name, estimate in tau.items()}, "unit": _unit(ensemble)},
        "n": len(ensemble),
        "n_chains": len(chains),
        "n_independent": len(ensemble) / (2 * max(e.tau_int for e in tau.values()))
        if len(tau) == len(_TAU_OF)
        else None,
        "acceptance": _summary(by_name.get("acceptance")),
        "exp_minus_dH": _summary(by_name.get("exp(-dH)")),
        "schwinger_dyson": _summary(by_name.get("Schwinger-Dyson")),
        "gate": GATE,
    }


def _quantities(ensemble: Ensemble) -> dict[str, Floats]:
    volume = math.prod(ensemble.shape)
    m, action = ensemble.series["magnetization"], ensemble.series["action"]
    return {
        "magnetization": m,
        "abs_magnetization": np.abs(m),
        "m2": m**2,
        "action": action,
        "action_density": action / volume,
        "phi2": ensemble.series["phi2"],
        "walls": wall_density(ensemble.phi),
        "schwinger_dyson": schwinger_dyson(ensemble.phi, ensemble.action),
    }


def _origin(ensemble: Ensemble, history: dict[str, Any] | None, chains: list[Any]) -> Check:
    expected = "known history"
    if ensemble.log_weight is not None:
        return failed_check(
            "origin", expected, "a sampled ensemble is judged by its weights, not by a certificate"
        )
    if len(chains) == len(ensemble):
        return failed_check(
            "origin", expected, "one configuration per chain: neither tau_int nor drift can be measured"
        )
    if history is None:
        return failed_check(
            "origin", expected, "no thermalisation history, and no hot and cold starts to compare"
        )
    if len(history["start"]) != len(chains):
        return failed_check(
            "origin", expected, f"the history has {len(history['start'])} chains, the ensemble {len(chains)}"
        )
    if not several_starts(history["start"]):
        return failed_check(
            "origin", expected, f"all chains start {history['start'][0]}: hot and cold starts are needed"
        )
    kinds = [name for name in ("hot", "cold", "wall") if name in history["start"]]
    return make_check("origin", None, None, expected, True, f"{', '.join(kinds)} starts, history kept")


def _tau_int(data: dict[str, list[Floats]]) -> tuple[dict[str, Estimate], str]:
    tau: dict[str, Estimate] = {}
    problem = ""
    for name in _TAU_OF:
        try:
            tau[name] = gamma_method([part[:, None] for part in data[name]])
        except EstimatorError as error:
            problem = problem or f"{SYMBOLS[name]}: {error}"
    return tau, problem


def _length_checks(
    ensemble: Ensemble,
    data: dict[str, list[Floats]],
    tau: dict[str, Estimate],
    problem: str,
    history: dict[str, Any] | None,
) -> list[Check]:
    expected = f">= {MIN_CHAIN_OVER_TAU:g} tau_int"
    if problem:
        return [failed_check("chain length", expected, problem)]
    slowest = max(tau, key=lambda name: tau[name].tau_int)
    longest = tau[slowest].tau_int
    shortest = min(len(part) for part in data[slowest])
    about = f"tau_int({SYMBOLS[slowest]}) = {format_value(longest, tau[slowest].tau_int_error)}"
    checks = [
        make_check(
            "chain length",
            shortest / longest,
            None,
            expected,
            shortest >= MIN_CHAIN_OVER_TAU * longest,
            f"{shortest} per chain, {about}",
        ),
        make_check(
            "independent configurations",
            len(ensemble) / (2 * longest),
            None,
            f">= {MIN_INDEPENDENT:g}",
            len(ensemble) / (2 * longest) >= MIN_INDEPENDENT,
            about,
        ),
    ]
    n_therm = len(history["dH"]) if history is not None else int(ensemble.attrs.get("n_therm") or 0)
    if n_therm:
        ratio = n_therm / (longest * int(ensemble.attrs.get("stride") or 1))
        expected = f">= {MIN_THERM_OVER_TAU:g} tau_int"
        detail = f"{n_therm} trajectories" + (
            ""
            if ratio >= MIN_THERM_OVER_TAU
            else f"; {math.ceil(n_therm * MIN_THERM_OVER_TAU / ratio)} are needed"
        )
        checks.append(
            make_check("thermalisation length", ratio, None, expected, ratio >= MIN_THERM_OVER_TAU, detail)
        )
    return checks


def _update_checks(ensemble: Ensemble, chains: list[Any], data: dict[str, list[Floats]]) -> list[Check]:
    checks = []
    series = {
        name: [ensemble.series[name][rows] for rows in chains]
        for name in ("accepted", "dH")
        if name in ensemble.series
    }
    if "accepted" in series:
        value = float(np.mean(np.concatenate(series["accepted"])))
        detail = "" if value < 0.995 else "larger steps would be cheaper"
        checks.append(
            make_check("acceptance", value, None, f">= {MIN_ACCEPTANCE:g}", value >= MIN_ACCEPTANCE, detail)
        )
    if "dH" in series and any(part.any() for part in series["dH"]):  # a local update has no dH, stored as 0
        with np.errstate(over="ignore"):
            checks.append(
                _mean_is("exp(-dH)", [np.exp(-part) for part in series["dH"]], 1.0, "exactness of HMC")
            )
    checks.append(_mean_is("Schwinger-Dyson", data["schwinger_dyson"], 1.0, "phi dS/dphi per site"))
    signs = float((np.concatenate(data["magnetization"]) > 0).mean())
    checks.append(_mean_is("M (Z2)", data["magnetization"], 0.0, f"M > 0 in {100 * signs:.1f} %"))
    return checks


def _mean_is(name: str, parts: list[Floats], expected: float, detail: str) -> Check:
    try:
        return equality(name, *mean_of_chains(parts), expected, detail)
    except EstimatorError as error:
        return failed_check(name, f"{expected:g}", str(error))


def _tau_json(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.tau_int, "error": estimate.tau_int_error}


def _unit(ensemble: Ensemble) -> str:
    stride = ensemble.attrs.get("stride")
    return (
        "saved configurations"
        if not stride
        else f"saved configurations (one every {stride} trajector{'y' if stride == 1 else 'ies'})"
    )


def _summary(check: Check | None) -> dict[str, Any] | None:
    return None if check is None else {"value": check["value"], "error": check["error"]}
