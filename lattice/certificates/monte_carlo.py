"""The certificate of a Monte Carlo ensemble: has it thermalised, is it long enough, does it sample exp(-S)?

Every check is a deviation in units of its own error (lattice.certificates.check says how errors are found).
`GATE` leaves about one false alarm in 5000 ensembles.

What each check can and cannot see: Schwinger-Dyson <phi dS/dphi> = 1 per site tells exp(-S) from another
weight but is blind to domain walls; hot and domain-wall starts against cold ones in |M|, s and the density of
walls see those; the drift and history tests see a thermalisation that was too short for all of them. Of U(1)
links Q takes the part of M, and `lattice.certificates.links` looks at their sectors and exact numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lattice.actions.protocol import Action
from lattice.actions.spins import Potts, Spins
from lattice.arrays import Floats
from lattice.certificates.check import GATE, SYMBOLS, Check, failed_check, make_check, mean_is
from lattice.certificates.identities import angle_identity, callen, schwinger_dyson, wall_density
from lattice.certificates.links import (
    advice,
    chain_charges_check,
    exact_checks,
    is_links,
    link_history,
    link_quantities,
    may_stay,
    topology_check,
)
from lattice.certificates.stationarity import (
    drift_checks,
    history_checks,
    scatter_checks,
    several_starts,
    start_checks,
)
from lattice.ensembles.ensemble import Ensemble
from lattice.statistics.gamma import Estimate, EstimatorError, gamma_method
from lattice.statistics.notation import format_value
from lattice.statistics.pulls import mean_of_chains
from lattice.statistics.rounding import with_rounding

MIN_THERM_OVER_TAU = 40.0  # hot starts leave domains that outlive tau_int of the equilibrium
MIN_CHAIN_OVER_TAU = 10.0
MIN_INDEPENDENT = 100.0
MIN_ACCEPTANCE = 0.3
MOST_MISSED = 10.0  # excitations expected where none was seen: P(0) = e^-10
_TAU_OF = ("abs_magnetization", "m2", "action")
_TAU_OF_LINKS = ("charge", "charge2", "action")
Series = dict[str, list[Floats]]


def certify(ensemble: Ensemble, therm_history: dict[str, Any] | None = None) -> dict[str, Any]:
    """Certify a Monte Carlo ensemble of any real action.

    therm_history: magnetization, abs_magnetization, action_density, dH of shape (n_therm, n_chains) and
    start, a list of "hot", "cold" or "wall" per chain in the order of the chain numbers; None for an ensemble
    of unknown origin.

    Returns JSON data: passed, reason ("" or "cannot be certified: ..."), checks (each name, value, error,
    expected, passed, detail), tau_int (per quantity value and error, in saved configurations, with `unit`),
    n_independent, acceptance, exp_minus_dH, schwinger_dyson. It never raises for an ensemble that is merely
    bad: it fails it.
    """
    chains, links = ensemble.replicas(), is_links(ensemble.action)
    quantities = link_quantities(ensemble) if links else _quantities(ensemble)
    data = {name: [values[rows] for rows in chains] for name, values in quantities.items()}
    therm_history = link_history(therm_history) if links else therm_history
    starts = _starts(therm_history, len(chains))
    checks: list[Check] = [_origin(ensemble, therm_history, chains)]
    may_freeze = may_stay(ensemble) if links else ensemble.action.field == "spin"
    tau, problem = _tau_int(data, _TAU_OF_LINKS if links else _TAU_OF, may_freeze)
    if links:
        checks.append(topology_check(ensemble, data["charge"], tau.get("charge")))
    checks += _length_checks(ensemble, data, tau, problem, therm_history)
    checks += history_checks(therm_history)
    checks += start_checks(data, starts, ensemble.action.even)
    checks += drift_checks(data)
    checks += scatter_checks(data)
    checks += _update_checks(ensemble, chains)
    checks.append(_identity(ensemble, data["schwinger_dyson"]))
    if isinstance(ensemble.action, Potts) and not ensemble.action.h:
        share = (ensemble.phi == 0).mean(axis=tuple(range(1, ensemble.phi.ndim)))
        words = "share of the state 0, as of all others"
        checks.append(mean_is("states (Zq)", [share[rows] for rows in chains], 1 / ensemble.action.q, words))
    if ensemble.action.even and links:
        checks.append(mean_is("Q (C)", data["charge"], 0.0, "charge conjugation"))
    elif ensemble.action.even:
        signs = float((np.concatenate(data["magnetization"]) > 0).mean())
        checks.append(mean_is("M (Z2)", data["magnetization"], 0.0, f"M > 0 in {100 * signs:.1f} %"))
    if links:
        checks += [*exact_checks(ensemble, data), *chain_charges_check(ensemble, data)]
    by_name = {check["name"]: {"value": check["value"], "error": check["error"]} for check in checks}
    slowest = None if problem else max(e.tau_int for e in tau.values())
    return {
        "passed": all(check["passed"] for check in checks),
        "reason": _reason([check for check in checks if not check["passed"]]),
        "checks": checks,
        "tau_int": {
            **{name: {"value": e.tau_int, "error": e.tau_int_error} for name, e in tau.items()},
            "unit": _unit(ensemble),
        },
        "n": len(ensemble),
        "n_chains": len(chains),
        "n_independent": len(ensemble) / (2 * slowest) if slowest else None,
        "acceptance": by_name.get("acceptance"),
        "exp_minus_dH": by_name.get("exp(-dH)"),
        "schwinger_dyson": by_name["Schwinger-Dyson"],
        "gate": GATE,
    }


def _reason(failed: list[Check]) -> str:
    for check in failed:
        if check["name"] == "topology":
            return f"failed: topology: {check['detail']}"
        if check["name"] in ("origin", "chain length"):
            return f"cannot be certified: {check['detail']}"
    return "failed: " + ", ".join(check["name"] for check in failed) if failed else ""


def _quantities(ensemble: Ensemble) -> dict[str, Floats]:
    m, action = ensemble.series["magnetization"], ensemble.series["action"]
    return {
        "magnetization": m,
        "abs_magnetization": np.abs(m),
        "m2": m**2,
        "action": action,
        "action_density": action / math.prod(ensemble.shape),
        "phi2": ensemble.series["phi2"],
        "walls": wall_density(ensemble.phi, len(ensemble.shape), isinstance(ensemble.action, Spins)),
        "schwinger_dyson": _of_identity(ensemble.phi, ensemble.action),
    }


def _of_identity(phi: Floats, action: Action) -> Floats:
    if isinstance(action, Spins):
        return callen(phi, action)
    return angle_identity(phi, action) if action.field == "angle" else schwinger_dyson(phi, action)


def _identity(ensemble: Ensemble, parts: list[Floats]) -> Check:
    """Schwinger-Dyson, of angles on the circle, or Callen's identity of spins. Frozen spins show no
    excitation: that is right where so few are expected."""
    if ensemble.action.field == "angle":
        words = "sin theta dS/da - cos theta" if is_links(ensemble.action) else "(dS/da)^2 - d^2 S/da^2"
        return mean_is("Schwinger-Dyson", parts, 0.0, f"{words} per angle")
    if ensemble.action.field != "spin":
        expected = float(math.prod(ensemble.action.components))
        return mean_is("Schwinger-Dyson", parts, expected, "phi dS/dphi per site")
    series = np.concatenate(parts)
    if np.ptp(series) <= with_rounding(0.0, 1.0):
        missed = abs(float(series[0])) * series.size * math.prod(ensemble.shape)
        words = f"no excitation seen, at most {missed:.2g} expected"
        return make_check("Schwinger-Dyson", float(series[0]), None, "0", missed < MOST_MISSED, words)
    return mean_is("Schwinger-Dyson", parts, 0.0, "Callen's identity of spins, per bond")


def _starts(history: dict[str, Any] | None, n_chains: int) -> list[str] | None:
    """How every chain started, None where that is not known or all alike."""
    known = history is not None and len(history["start"]) == n_chains and several_starts(history["start"])
    return list(history["start"]) if history is not None and known else None


def _origin(ensemble: Ensemble, history: dict[str, Any] | None, chains: list[Any]) -> Check:
    problem = ""
    if ensemble.log_weight is not None:
        problem = "a sampled ensemble is judged by its weights, not by a certificate"
    elif len(chains) == len(ensemble):
        problem = "one configuration per chain: neither tau_int nor drift can be measured"
    elif history is None:
        problem = "no thermalisation history, and no hot and cold starts to compare"
    elif len(history["start"]) != len(chains):
        problem = f"the history has {len(history['start'])} chains, the ensemble {len(chains)}"
    elif not several_starts(history["start"]):
        problem = f"all chains start {history['start'][0]}: hot and cold starts are needed"
    if problem or history is None:
        return failed_check("origin", "known history", problem)
    kinds = [name for name in ("hot", "cold", "wall") if name in history["start"]]
    return make_check("origin", None, None, "known history", True, f"{', '.join(kinds)} starts, history kept")


def _tau_int(data: Series, names: Sequence[str], may_freeze: bool) -> tuple[dict[str, Estimate], str]:
    """tau_int, and why one has none. Spins may all be frozen in the same ground state, links in Q = 0 where
    that is right: then nothing moves."""
    tau: dict[str, Estimate] = {}
    problem = ""
    for name in names:
        if may_freeze and np.ptp(series := np.concatenate(data[name])) == 0:
            tau[name] = Estimate(float(series[0]), 0.0, 0.5, 0.0, 0, series.size)
            continue
        try:
            tau[name] = gamma_method([part[:, None] for part in data[name]])
        except EstimatorError as error:
            problem = problem or f"{SYMBOLS[name]}: {error}"
    return tau, problem


def _length_checks(
    ensemble: Ensemble, data: Series, tau: dict[str, Estimate], problem: str, history: dict[str, Any] | None
) -> list[Check]:
    expected = f">= {MIN_CHAIN_OVER_TAU:g} tau_int"
    if problem:
        return [failed_check("chain length", expected, problem)]
    slowest = max(tau, key=lambda name: tau[name].tau_int)
    longest = tau[slowest].tau_int
    shortest, n = min(len(part) for part in data[slowest]), len(ensemble) / (2 * longest)
    about = f"tau_int({SYMBOLS[slowest]}) = {format_value(longest, tau[slowest].tau_int_error)}"
    relative = tau[slowest].tau_int_error / longest
    long_enough = shortest >= MIN_CHAIN_OVER_TAU * longest
    detail = f"{shortest} per chain, {about}"
    if not long_enough and slowest.startswith("charge"):
        detail += f"; {advice(ensemble)}"
    checks = [
        make_check(
            "chain length", shortest / longest, shortest / longest * relative, expected, long_enough, detail
        ),
        make_check(
            "independent configurations",
            n,
            n * relative,
            f">= {MIN_INDEPENDENT:g}",
            n >= MIN_INDEPENDENT,
            about,
        ),
    ]
    n_therm = len(history["dH"]) if history is not None else int(ensemble.attrs.get("n_therm") or 0)
    if n_therm:
        ratio = n_therm / (longest * int(ensemble.attrs.get("stride") or 1))
        expected, passed = f">= {MIN_THERM_OVER_TAU:g} tau_int", ratio >= MIN_THERM_OVER_TAU
        needed = "" if passed else f"; {math.ceil(n_therm * MIN_THERM_OVER_TAU / ratio)} are needed"
        detail = f"{n_therm} trajectories{needed}"
        checks.append(make_check("thermalisation length", ratio, ratio * relative, expected, passed, detail))
    return checks


def _update_checks(ensemble: Ensemble, chains: list[Any]) -> list[Check]:
    checks = []
    direct = is_links(ensemble.action) and not np.any(ensemble.series.get("dH", 0.0))  # heat bath
    direct |= ensemble.action.field == "spin"
    if (accepted := ensemble.series.get("accepted")) is not None and not direct:
        parts = [accepted[rows] for rows in chains]
        value = float(np.mean(np.concatenate(parts)))
        try:
            error = mean_of_chains(parts)[1] or None
        except EstimatorError:  # always accepted
            error = None
        detail = "" if value < 0.995 else "larger steps would be cheaper"
        checks.append(
            make_check("acceptance", value, error, f">= {MIN_ACCEPTANCE:g}", value >= MIN_ACCEPTANCE, detail)
        )
    dH = ensemble.series.get("dH")
    if dH is not None and dH.any():  # a local update has no dH, stored as 0
        with np.errstate(over="ignore"):
            weights = [np.exp(-dH[rows]) for rows in chains]
        checks.append(mean_is("exp(-dH)", weights, 1.0, "exactness of HMC"))
    return checks


def _unit(ensemble: Ensemble) -> str:
    if not (stride := ensemble.attrs.get("stride")):
        return "saved configurations"
    return f"saved configurations (one every {stride} trajector{'y' if stride == 1 else 'ies'})"
