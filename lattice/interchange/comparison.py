"""A foreign ensemble against a short certified run of our own at the same couplings and lattice.

<phi dS/dphi> = 1 holds within each sector of a field with domain walls and says nothing about their number:
the slow modes of a file whose thermalisation nobody here has seen are judged by comparison only. Files that
fail get hints: another convention, another kappa, hot starts, correlated order.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from lattice.actions.conventions import CONVENTIONS, from_kappa_lambda
from lattice.actions.protocol import Action
from lattice.arrays import Floats
from lattice.certificates.check import GATE, Check, failed_check, make_check
from lattice.certificates.identities import schwinger_dyson
from lattice.certificates.monte_carlo import MIN_THERM_OVER_TAU
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.files import scratch_folder
from lattice.interchange.identities import Rows, mean_of, series_of, zero_mode
from lattice.progress import Progress
from lattice.simulation.monte_carlo import generate
from lattice.simulation.parameters import MonteCarlo
from lattice.statistics.gamma import EstimatorError
from lattice.statistics.notation import format_value, printed
from lattice.statistics.pulls import sigmas_of

GUARD_CONFIGS, GUARD_INDEPENDENT, GUARD_ATTEMPTS = 4096, 500.0, 3
MAX_BYTES, MIN_CONFIGS = 2**30, 512  # of our own run's fields
GUARDED = {"abs_m": "|M|", "vm2": "V M^2", "binder": "U_L", "s": "s", "phi2": "phi^2", "phi4": "phi^4",
           "walls": "walls"}  # fmt: skip


def own_run(action: Action, shape: tuple[int, ...], seed: int, progress: Progress | None) -> Ensemble:
    """A short certified run at (action, shape), at most `MAX_BYTES` of fields; longer ones follow until it is
    good enough (`enough`), at most three. The last one is returned whatever its certificate says.

    Raises InputError as `generate` does, and where `too_large` has something to say.
    """
    if reason := too_large(shape):
        raise InputError(reason)
    most = MAX_BYTES // (8 * math.prod(shape)) // 32 * 32  # a multiple of 32 chains
    n_configs = min(GUARD_CONFIGS, most)
    # not the user's seed itself: the file may have been made here with the same one
    seed = int.from_bytes(hashlib.sha256(f"guard/{seed}".encode()).digest()[:6], "big")
    n_therm, stride = math.ceil(10 * MIN_THERM_OVER_TAU), 2
    for attempt in range(GUARD_ATTEMPTS):
        params = MonteCarlo(
            n_configs=n_configs, n_chains=64 if n_configs == GUARD_CONFIGS else 32, n_therm=n_therm,
            stride=stride, n_clusters=4, cluster="wolff" if action.phi4 else "none",
            length_jitter=0.6,  # no length is then a period of the magnetisation deep in the broken phase
        )  # fmt: skip
        with scratch_folder() as folder:
            ensemble = generate(action, shape, params, seed, folder, progress=progress)
        if enough(ensemble) or attempt == GUARD_ATTEMPTS - 1:
            break
        n_therm, stride = _longer(ensemble.attrs["certificate"], n_therm, stride)
    return ensemble


def too_large(shape: tuple[int, ...]) -> str:
    """Why no run of our own can be made on a lattice of this size; "" if it can.

    >>> too_large((16, 16, 16, 16)), too_large((24, 24, 24, 24))[:55]
    ('', 'a run of 512 configurations on 24x24x24x24 takes 1.36e+')
    """
    needed = 8 * math.prod(shape) * MIN_CONFIGS
    lattice = "x".join(map(str, shape))
    return "" if needed <= MAX_BYTES else (
        f"a run of {MIN_CONFIGS} configurations on {lattice} takes {needed:.3g} bytes, more than the "
        f"{MAX_BYTES:.3g} it may"
    )  # fmt: skip


def wanted_independent(own: Ensemble) -> float:
    """500 independent configurations, or a quarter of those that the size of the lattice allows."""
    return min(GUARD_INDEPENDENT, len(own) / 4)


def enough(own: Ensemble) -> bool:
    """Is our own run certified, with as many independent configurations as are wanted?"""
    certificate = own.attrs["certificate"]
    return bool(certificate["passed"]) and certificate["n_independent"] >= wanted_independent(own)


def _longer(certificate: dict[str, Any], n_therm: int, stride: int) -> tuple[int, int]:
    """(n_therm, stride) of the next attempt: 2 to 8 times as long, by the tau_int that was seen."""
    seen = [tau["value"] for tau in certificate["tau_int"].values() if isinstance(tau, dict)]
    tau = stride * max(seen, default=0.0)  # in trajectories
    therm, step = math.ceil(1.5 * MIN_THERM_OVER_TAU * tau), math.ceil(tau)
    return min(max(therm, 2 * n_therm), 8 * n_therm), min(max(step, 2 * stride), 8 * stride)


def guard_checks(
    series: dict[str, Floats], rows: Rows, own: Ensemble
) -> tuple[list[Check], dict[str, dict[str, float]]]:
    """The file against our own run: checks, and per quantity value, error, own_value, own_error, sigmas."""
    certificate = own.attrs["certificate"]
    n, wanted = certificate["n_independent"], wanted_independent(own)
    text = "independent configurations, certified"
    if not certificate["passed"]:
        text = f"it could not be certified: {certificate['reason']}"
    elif n < wanted:
        text = f"{n:.0f} independent configurations judge nobody"
    checks = [make_check("own run", n, None, f"certified, >= {wanted:g}", enough(own), text)]
    reference, own_rows = series_of(own.phi, own.action), own.replicas()
    table: dict[str, dict[str, float]] = {}
    for key, symbol in GUARDED.items():
        own_value, own_error, own_dof = mean_of(reference[key], own_rows)
        expected = printed(own_value, own_error)
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
        table[key] = {"value": value, "error": error, "own_value": own_value, "own_error": own_error,
                      "sigmas": sigmas}  # fmt: skip
    return checks, table


def hints(phi: Floats, action: Action, series: dict[str, Floats], rows: Rows, failed: set[str]) -> list[str]:
    """What may be behind the failed checks: another convention, another kappa, the starts, the order."""
    out = []
    if "Schwinger-Dyson" in failed:
        out += _rescaled(phi, action, rows) or _other_kappa(action, series, rows)
    elif failed & {"|M| of own run", "walls of own run", "V M^2 of own run"}:
        out.append(
            "Schwinger-Dyson holds, but the slow modes disagree: the chains had not reached equilibrium "
            "(hot starts that keep domain walls look like this)"
        )
    if "M (Z2)" in failed and abs(float(np.sign(series["m"]).mean())) > 0.9:
        out.append("nearly all configurations have one sign of M; a random sign for each would restore Z2")
    if "order of chains" in failed:
        out.append(
            "different chains go together: the axes look like (time, chain), which should be swapped (layout "
            "n,chain,lattice), or "
            "n_chains is wrong (or all chains drift alike)"
        )
    if "independence" in failed:
        out.append(
            "the configurations are correlated in the order of the file: if it holds chains one after the "
            "other, give their number (n_chains)"
        )
    elif "copies" in failed and rows is None:
        out.append("copies that follow their original may be rejected updates: give the number of chains")
    return out


def _other_kappa(action: Action, series: dict[str, Floats], rows: Rows) -> list[str]:
    """The kappa at which <phi dS/dphi> would be 1."""
    if (form := action.phi4) is None or form.kappa == 0:
        return []
    local = 2 * (1 - 2 * form.lam) * series["phi2"] + 4 * form.lam * series["phi4"]
    hopping = (local - series["schwinger_dyson"]) / form.kappa
    kappa = (float(local.mean()) - 1) / float(hopping.mean())
    error = mean_of(local - kappa * hopping, rows)[1] / abs(float(hopping.mean()))
    asked = f"with lam = {form.lam:g}, <phi dS/dphi> = 1 asks for kappa = {format_value(kappa, error)}"
    return [f"{asked}; declared: {form.kappa:g}"] if error > 0 else []


def _rescaled(phi: Floats, action: Action, rows: Rows) -> list[str]:
    """Does another convention's factor make both identities hold?"""
    if (form := action.phi4) is None or form.kappa <= 0:
        return []
    for name, convention in CONVENTIONS.items():
        scale = from_kappa_lambda(name, form.kappa, form.lam, phi.ndim - 1).field_scale
        try:
            local, error, dof = mean_of(schwinger_dyson(phi / scale, action), rows)
            global_, its_error, its_dof = mean_of(zero_mode(phi / scale, action), rows)
        except EstimatorError:
            continue
        if max(sigmas_of(local - 1, error, dof), sigmas_of(global_, its_error, its_dof)) <= GATE:
            return [
                f"the fields are {scale:.6g} = sqrt({convention.field:g} kappa) times ours: the convention "
                f"{name!r}, {convention.action}; divide them by {scale:.10g}"
            ]
    return []
