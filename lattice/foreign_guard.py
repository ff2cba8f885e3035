"""A foreign ensemble against a short certified run of our own at the same couplings and lattice.

<phi dS/dphi> = 1 holds within each sector of a field with domain walls and says nothing about their number:
the slow modes of a file whose thermalisation nobody here has seen are judged by comparison only. Files that
fail get hints: another convention, another kappa, hot starts, correlated order.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from pathlib import Path

import numpy as np

from lattice.action import CONVENTIONS, Action, from_kappa_lambda
from lattice.checks import GATE, Check, failed_check, make_check, sigmas_of
from lattice.ensemble import Ensemble
from lattice.foreign_checks import Rows, mean_of, series_of
from lattice.generate import generate
from lattice.notation import format_value
from lattice.parameters import EnsembleParameters
from lattice.progress import Progress
from lattice.shards import Floats
from lattice.statistics import EstimatorError

GUARD_CONFIGS, GUARD_INDEPENDENT, GUARD_ATTEMPTS = 4096, 500.0, 3
GUARDED = {
    "abs_m": "|M|",
    "vm2": "V M^2",
    "binder": "U_L",
    "s": "s",
    "phi2": "phi^2",
    "phi4": "phi^4",
    "walls": "walls",
}


def own_run(action: Action, shape: tuple[int, ...], seed: int, progress: Progress | None) -> Ensemble:
    """A short certified run at (action, shape); longer ones follow until the certificate passes, at most
    three. The last one is returned whatever its certificate says."""
    # not the user's seed itself: the file may have been made here with the same one
    seed = int.from_bytes(hashlib.sha256(f"guard/{seed}".encode()).digest()[:6], "big")
    for attempt in range(GUARD_ATTEMPTS):
        longer = 2**attempt
        params = EnsembleParameters(
            n_configs=GUARD_CONFIGS,
            n_chains=64,
            n_therm=400 * longer,
            stride=2 * longer,
            length_jitter=0.6,  # no length is then a period of the magnetisation deep in the broken phase
            n_clusters=4,
        )
        with tempfile.TemporaryDirectory() as folder:
            ensemble = generate(action, shape, params, seed, Path(folder), progress=progress)
        certificate = ensemble.attrs["certificate"]
        if certificate["passed"] and certificate["n_independent"] >= GUARD_INDEPENDENT:
            break
    return ensemble


def guard_checks(
    series: dict[str, Floats], rows: Rows, own: Ensemble
) -> tuple[list[Check], dict[str, dict[str, float]]]:
    """The file against our own run: checks, and per quantity value, error, own_value, own_error, sigmas."""
    certificate = own.attrs["certificate"]
    n = certificate["n_independent"]
    text = "certified" if certificate["passed"] else f"it could not be certified: {certificate['reason']}"
    checks = [make_check("own run", n, None, "certified", certificate["passed"], text)]
    reference, own_rows = series_of(own.phi, own.action), own.replicas()
    table: dict[str, dict[str, float]] = {}
    for key, symbol in GUARDED.items():
        own_value, own_error, own_dof = mean_of(reference[key], own_rows)
        expected = format_value(own_value, own_error) if own_error > 0 else f"{own_value:.6g}"
        try:
            value, error, dof = mean_of(series[key], rows)
        except EstimatorError as reason:
            checks.append(failed_check(f"{symbol} of own run", expected, str(reason)))
            continue
        # a short file that missed a rare state shows too small a scatter: ours is then the better measure
        likely = max(error, float(reference[key].std()) / math.sqrt(len(series[key])))
        difference, combined = value - own_value, math.hypot(likely, own_error)
        sigmas = sigmas_of(difference, combined, min(dof, own_dof))
        signed = math.copysign(sigmas, difference)
        detail = f"{signed:+.1f} sigma; a difference of {GATE * combined:.2g} is seen"
        checks.append(make_check(f"{symbol} of own run", value, error, expected, sigmas <= GATE, detail))
        table[key] = {
            "value": value,
            "error": error,
            "own_value": own_value,
            "own_error": own_error,
            "sigmas": sigmas,
        }
    return checks, table


def hints(
    action: Action,
    dim: int,
    series: dict[str, Floats],
    rows: Rows,
    table: dict[str, dict[str, float]],
    failed: set[str],
) -> list[str]:
    """What may be behind the failed checks: another convention, another kappa, the starts, the order."""
    out = []
    rescaled = _rescaled(action, dim, table) if failed & {f"{s} of own run" for s in GUARDED.values()} else []
    out += rescaled
    if "Schwinger-Dyson" in failed and action.kappa != 0 and not rescaled:
        local = 2 * (1 - 2 * action.lam) * series["phi2"] + 4 * action.lam * series["phi4"]
        hopping = (local - series["schwinger_dyson"]) / action.kappa
        kappa = (float(local.mean()) - 1) / float(hopping.mean())
        error = mean_of(local - kappa * hopping, rows)[1] / abs(float(hopping.mean()))
        if error > 0:
            out.append(
                f"with lam = {action.lam:g}, <phi dS/dphi> = 1 asks for kappa = "
                f"{format_value(kappa, error)}; declared: {action.kappa:g}"
            )
    slow = failed & {"|M| of own run", "walls of own run", "V M^2 of own run"}
    if slow and not failed & {"Schwinger-Dyson"}:
        out.append(
            "Schwinger-Dyson holds, but the slow modes disagree: the chains had not reached equilibrium "
            "(hot starts that keep domain walls look like this)"
        )
    if "M (Z2)" in failed and abs(float(np.sign(series["m"]).mean())) > 0.9:
        out.append("nearly all configurations have one sign of M; a random sign for each would restore Z2")
    if "independence" in failed:
        out.append(
            "the configurations are correlated in the order of the file: if it holds chains one after the "
            "other, give their number (n_chains)"
        )
    elif "copies" in failed and rows is None:
        out.append("copies that follow their original may be rejected updates: give the number of chains")
    return out


def _rescaled(action: Action, dim: int, table: dict[str, dict[str, float]]) -> list[str]:
    powers = {"abs_m": 1, "phi2": 2, "phi4": 4}
    if action.kappa <= 0 or not powers.keys() <= table.keys():
        return []
    for name, convention in CONVENTIONS.items():
        scale = from_kappa_lambda(name, action.kappa, action.lam, dim).field_scale
        pulls = []
        for key, power in powers.items():
            row, factor = table[key], scale**power
            combined = math.hypot(row["error"], factor * row["own_error"])
            pulls.append(sigmas_of(row["value"] - factor * row["own_value"], combined, math.inf))
        if max(pulls) <= GATE:
            return [
                f"the fields are {scale:.6g} = sqrt({convention.field:g} kappa) times ours: the convention "
                f"{name!r}, {convention.action}; divide them by {scale:.10g}"
            ]
    return []
