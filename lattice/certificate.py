"""The certificate of a Monte Carlo ensemble: has it thermalised, is it long enough, does it sample exp(-S)?

Every check is a deviation in units of its own error (lattice.checks says how errors are found). `GATE` leaves
about one false alarm in 5000 ensembles.

What each check can and cannot see: Schwinger-Dyson <phi dS/dphi> = 1 per site tells exp(-S) from another
weight but is blind to domain walls; hot against cold starts in |M|, s and the density of walls sees those;
the drift and history tests see a thermalisation that was too short for both kinds of start.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats

from lattice.checks import (
    GATE,
    MIN_CHAINS_FOR_SCATTER,
    Check,
    equality,
    failed_check,
    make_check,
    mean_of_chains,
    schwinger_dyson,
    wall_density,
)
from lattice.ensemble import Ensemble
from lattice.shards import Floats
from lattice.statistics import Estimate, EstimatorError, format_value, gamma_method

MIN_THERM_OVER_TAU = 20.0
MIN_CHAIN_OVER_TAU = 10.0
MIN_INDEPENDENT = 100.0
MIN_ACCEPTANCE = 0.3
# the per-configuration quantities with their symbols, and those compared between starts and in time
_SYMBOLS = {
    "abs_magnetization": "|M|",
    "m2": "M^2",
    "action": "S",
    "action_density": "s",
    "phi2": "phi^2",
    "walls": "walls",
}
_COMPARED = ("abs_magnetization", "m2", "action_density", "phi2", "walls")
_TAU_OF = ("abs_magnetization", "m2", "action")


def certify(ensemble: Ensemble, therm_history: dict[str, Any] | None = None) -> dict[str, Any]:
    """Certify a Monte Carlo ensemble.

    therm_history: magnetization, abs_magnetization, action_density, dH of shape (n_therm, n_chains) and
    start, a list of "hot" or "cold" per chain in the order of the chain numbers; None for an ensemble of
    unknown origin.

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
    checks += _history_checks(therm_history)
    checks += _start_checks(data, _starts(ensemble, therm_history))
    checks += _drift_checks(data)
    checks += _scatter_checks(data)
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


def format_certificate(certificate: dict[str, Any]) -> str:
    """The certificate as text for a terminal: a verdict, a line per check, and the autocorrelation times."""
    lines = [f"Certificate: {'PASSED' if certificate['passed'] else 'FAILED'}"]
    if certificate["reason"]:
        lines[0] += f" ({certificate['reason']})"
    lines.append(f"  {certificate['n']} configurations in {certificate['n_chains']} chains")
    for check in certificate["checks"]:
        value = (
            ""
            if check["value"] is None
            else format_value(check["value"], check["error"])
            if check["error"]
            else f"{check['value']:.4g}"
        )
        verdict = "PASSED" if check["passed"] else "FAILED"
        line = (
            f"  {verdict}  {check['name']:<26} {value:<16} expected {check['expected']:<16} {check['detail']}"
        )
        lines.append(line.rstrip())
    times = [
        f"{_SYMBOLS[name]} {format_value(tau['value'], tau['error'])}"
        for name, tau in certificate["tau_int"].items()
        if isinstance(tau, dict)
    ]
    if times:
        lines.append(f"  tau_int (1/2 + sum rho): {', '.join(times)} in {certificate['tau_int']['unit']}")
    if certificate["n_independent"] is not None:
        lines.append(f"  independent configurations N/(2 tau_int): {certificate['n_independent']:.0f}")
    return "\n".join(lines)


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
    if set(history["start"]) != {"hot", "cold"}:
        return failed_check(
            "origin", expected, f"all chains start {history['start'][0]}: hot and cold starts are needed"
        )
    return make_check("origin", None, None, expected, True, "hot and cold starts, history kept")


def _tau_int(data: dict[str, list[Floats]]) -> tuple[dict[str, Estimate], str]:
    tau: dict[str, Estimate] = {}
    problem = ""
    for name in _TAU_OF:
        try:
            tau[name] = gamma_method([part[:, None] for part in data[name]])
        except EstimatorError as error:
            problem = problem or f"{_SYMBOLS[name]}: {error}"
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
    about = f"tau_int({_SYMBOLS[slowest]}) = {format_value(longest, tau[slowest].tau_int_error)}"
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


def _history_checks(history: dict[str, Any] | None) -> list[Check]:
    """Hot and cold must have met by half of the thermalisation: the cut then has a safety factor of two."""
    if history is None or set(history["start"]) != {"hot", "cold"}:
        return []
    late = {
        name: np.asarray(history[name])[len(history[name]) // 2 :]
        for name in ("abs_magnetization", "action_density")
    }
    checks = []
    for name, values in late.items():
        parts = [values[:, chain] for chain in range(values.shape[1])]
        checks.append(
            _hot_minus_cold(
                f"history {_SYMBOLS[name]} hot-cold", parts, list(history["start"]), "second half"
            )
        )
    return checks


def _starts(ensemble: Ensemble, history: dict[str, Any] | None) -> list[str] | None:
    n_chains = len(np.unique(ensemble.chain))
    if history is None or len(history["start"]) != n_chains or set(history["start"]) != {"hot", "cold"}:
        return None
    return list(history["start"])


def _start_checks(data: dict[str, list[Floats]], starts: list[str] | None) -> list[Check]:
    if starts is None:
        return []
    return [_hot_minus_cold(f"{_SYMBOLS[name]} hot-cold", data[name], starts, "") for name in _COMPARED]


def _hot_minus_cold(name: str, parts: list[Floats], starts: list[str], detail: str) -> Check:
    groups = {
        start: [part for part, own in zip(parts, starts, strict=True) if own == start]
        for start in ("hot", "cold")
    }
    try:
        (hot, hot_error, hot_dof), (cold, cold_error, cold_dof) = (
            mean_of_chains(groups["hot"]),
            mean_of_chains(groups["cold"]),
        )
    except EstimatorError as error:
        return _constant_or_failed(name, [*groups["hot"], *groups["cold"]], error)
    error2 = hot_error**2 + cold_error**2
    return equality(name, hot - cold, math.sqrt(error2), min(hot_dof, cold_dof), 0.0, detail)


def _constant_or_failed(name: str, parts: list[Floats], error: EstimatorError) -> Check:
    """A quantity that never changes (walls deep in the broken phase) is no disagreement; anything else is."""
    everything = np.concatenate(parts)
    if everything.min() == everything.max():
        return make_check(name, 0.0, None, "0", True, f"constant, {everything[0]:.6g}")
    return failed_check(name, "0", str(error))


def _drift_checks(data: dict[str, list[Floats]]) -> list[Check]:
    """Second half minus first half, and the linear trend from the first to the last configuration."""
    checks = []
    for name in _COMPARED:
        parts, symbol = data[name], _SYMBOLS[name]
        if min(len(part) for part in parts) < 4:
            checks.append(failed_check(f"{symbol} drift", "0", "chains of fewer than 4 configurations"))
            continue
        halves = [np.array_split(part, 2) for part in parts]
        if len(parts) < MIN_CHAINS_FOR_SCATTER:
            checks.append(_half_difference(f"{symbol} drift", [h[0] for h in halves], [h[1] for h in halves]))
            continue
        steps = [np.atleast_1d(h[1].mean() - h[0].mean()) for h in halves]
        checks.append(equality(f"{symbol} drift", *mean_of_chains(steps), 0.0, "second half - first half"))
        trends = [np.atleast_1d(_slope(part)) for part in parts]
        checks.append(equality(f"{symbol} trend", *mean_of_chains(trends), 0.0, "slope over the run"))
    return checks


def _slope(series: Floats) -> float:
    """Least-squares change of a series from its first to its last entry."""
    time = np.linspace(-0.5, 0.5, len(series))
    return float(time @ series / (time @ time))


def _half_difference(name: str, first: list[Floats], second: list[Floats]) -> Check:
    try:
        (a, a_error, _), (b, b_error, _) = mean_of_chains(first), mean_of_chains(second)
    except EstimatorError as error:
        return _constant_or_failed(name, [*first, *second], error)
    return equality(name, b - a, math.hypot(a_error, b_error), math.inf, 0.0, "second half - first half")


def _scatter_checks(data: dict[str, list[Floats]]) -> list[Check]:
    """Variance of the chain means against what autocorrelation inside the chains explains: near 1 if all
    chains visit the same states (the ratio inside Gelman and Rubin's R, Statist. Sci. 7 (1992) 457, with
    tau_int in it)."""
    checks = []
    for name in ("abs_magnetization", "action_density"):
        parts = data[name]
        if len(parts) < MIN_CHAINS_FOR_SCATTER:
            continue
        label, n = f"{_SYMBOLS[name]} between chains", min(len(part) for part in parts)
        try:
            inside = gamma_method([part[:, None] for part in parts], centre="replica")
        except EstimatorError as error:
            checks.append(failed_check(label, "1", str(error)))
            continue
        # subtracting each chain's own mean lowers Gamma(t) by 2 tau Gamma(0)/n at every t of the window
        tau = inside.tau_int * (1 + (2 * inside.window + 1) / n)
        within = float(np.mean([part.var() for part in parts])) * 2 * tau / n
        ratio = float(np.var([part.mean() for part in parts], ddof=1)) / within
        dof = len(parts) - 1
        limit = 1.25 * float(scipy.stats.chi2.isf(scipy.stats.norm.sf(GATE), dof)) / dof
        error_of_ratio = ratio * math.sqrt(2.0 / dof)
        checks.append(
            make_check(
                label,
                ratio,
                error_of_ratio,
                f"1, at most {limit:.2f}",
                ratio <= limit,
                "variance of chain means / expected",
            )
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
    if "dH" in series:
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
