"""The checks of a foreign ensemble against itself and its declared action: identities, copies, independence.

Errors come from the scatter of chains or, when the chains are unknown, from taking every configuration as
independent, which is itself checked. None of this sees a slow mode that has not arrived: that is the business
of lattice.interchange.comparison.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import scipy.stats
import torch
from einops import rearrange

from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers, real_array
from lattice.certificates.check import Check, equality, failed_check, make_check
from lattice.certificates.identities import schwinger_dyson, wall_density
from lattice.certificates.monte_carlo import MIN_ACCEPTANCE, MIN_INDEPENDENT, certify
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import batches
from lattice.observables.scalar import primaries
from lattice.statistics.gamma import EstimatorError
from lattice.statistics.pulls import mean_and_error, mean_of_chains
from lattice.statistics.rounding import rms, with_rounding

SLOW = {"m": "M", "abs_m": "|M|", "q": "Q", "abs_q": "|Q|", "s": "s"}  # series whose correlations tell of
# order and independence; M, or of links Q
_FAR, _FAR_RHO = 10.0, 0.1  # in tau_int; nothing that matters is correlated further apart in a true chain
Rows = list[Integers] | None  # the indices of each chain, None: every configuration independent


def series_of(phi: Floats, action: Action) -> dict[str, Floats]:
    """Per-configuration series (n,) of fields phi (n, *shape): M, what lattice.interchange.comparison
    compares, and the two identities.

    `binder` is the linearised 1 - m4/(3 m2^2): its mean is U_L and its scatter gives U_L's error to first
    order. `zero_mode` has mean 0: integrating d/dphi_x [tanh(M) exp(-S)] and summing over x,
    <tanh(M) sum_x dS/dphi_x> = <1 - tanh(M)^2>, with M = (1/V) sum_x phi_x.
    """
    table = primaries(phi, action)
    m2, m4 = table["m2"], table["m4"]
    mean2, mean4 = m2.mean(), m4.mean()  # of fields that all vanish the ratio is NaN
    with np.errstate(all="ignore"):
        ratio = mean4 / (3 * mean2**2)
        binder = 1 - ratio * (1 + (m4 / mean4 - 1) - 2 * (m2 / mean2 - 1))
    return {
        **{name: table[name] for name in ("m", "abs_m", "s", "phi2", "phi4")},
        "vm2": table["g0"],
        "binder": np.where(np.isfinite(binder), binder, 0.0),
        "walls": wall_density(phi),
        "schwinger_dyson": schwinger_dyson(phi, action),
        "zero_mode": zero_mode(phi, action),
    }


def zero_mode(phi: Floats, action: Action) -> Floats:
    """tanh(M) sum_x dS/dphi_x - (1 - tanh(M)^2) of each field (n, *shape) -> (n,), with mean 0."""
    phi = real_array(phi, "phi")
    m, force = np.empty(len(phi)), np.empty(len(phi))
    for batch in batches(phi.shape):
        part = torch.from_numpy(phi[batch])
        axes = tuple(range(1, part.dim()))
        m[batch], force[batch] = part.mean(dim=axes).numpy(), action.grad(part).sum(dim=axes).numpy()
    difference: Floats = np.tanh(m) * force - (1 - np.tanh(m) ** 2)
    return difference


def mean_of(values: Floats, rows: Rows) -> tuple[float, float, float]:
    """(mean, error, degrees of freedom); a constant has no error but its rounding.

    Raises EstimatorError where the Gamma method cannot answer for fewer than eight chains.
    """
    if np.ptp(values) <= (floor := with_rounding(0.0, rms(values))):
        return float(values[0]), floor, math.inf
    if rows is None:
        return *mean_and_error(values), len(values) - 1
    return mean_of_chains([values[part] for part in rows])


def identity_checks(series: dict[str, Floats], rows: Rows) -> list[Check]:
    """Schwinger-Dyson per site and of the zero mode, and <M> = 0."""
    signs = 100 * float((series["m"] > 0).mean())
    wanted = (
        ("Schwinger-Dyson", "schwinger_dyson", 1.0, "phi dS/dphi per site"),
        ("Schwinger-Dyson of M", "zero_mode", 0.0, "tanh(M) sum dS/dphi - (1 - tanh(M)^2)"),
        ("M (Z2)", "m", 0.0, f"M > 0 in {signs:.1f} %"),
    )
    checks = []
    for name, key, expected, detail in wanted:
        try:
            checks.append(equality(name, *mean_of(series[key], rows), expected, detail))
        except EstimatorError as error:
            checks.append(failed_check(name, f"{expected:g}", str(error)))
    return checks


def content_checks(phi: Floats, rows: Rows) -> list[Check]:
    """Enough configurations, no constant fields, no copies. A copy of the predecessor within a known chain is
    a rejected update; any other copy, also up to sign, translation or reflection, is not a new draw."""
    n, least = len(phi), f">= {MIN_INDEPENDENT:g}"
    checks = [make_check("configurations", float(n), None, least, n >= MIN_INDEPENDENT, "")]
    flat = rearrange(phi, "n ... -> n (...)")
    if flat.shape[1] < 2:
        return checks
    constant = flat.min(axis=1) == flat.max(axis=1)
    first = f"first: configuration {int(np.argmax(constant))}" if constant.any() else ""
    count = float(constant.sum())
    checks.append(make_check("constant fields", count, None, "0", not constant.any(), first))
    marks = [hashlib.blake2b(np.sort(np.abs(field)).tobytes(), digest_size=16).digest() for field in flat]
    again = np.zeros(n, dtype=bool)
    for part in rows or []:
        again[part[1:]] = [marks[i] == marks[j] for i, j in zip(part[1:], part[:-1], strict=True)]
    seen: dict[bytes, int] = {}
    copies = [(i, seen[m]) for i, m in enumerate(marks) if not again[i] and seen.setdefault(m, i) != i]
    detail = "up to sign, translation and reflection"
    if copies:
        detail = f"{detail}; first: {copies[0][0]} is a copy of {copies[0][1]}"
    checks.append(make_check("copies", float(len(copies)), None, "0", not copies, detail))
    if again.any():
        share, limit = float(again.mean()), 1 - MIN_ACCEPTANCE
        at_most = f"<= {limit:g}"
        checks.append(make_check("repeats in chains", share, None, at_most, share <= limit, "rejections?"))
    return checks


def independence_check(series: dict[str, Floats]) -> Check:
    """Largest autocorrelation of M, |M| and s, of links Q, |Q| and s, in the order of the file, over all
    distances up to n/2.

    The gate allows for the number of distances looked at: one false alarm in 10^5 files.
    """
    n = len(series["s"])
    lags = np.arange(1, max(2, n // 2))
    found = []
    for key, symbol in _slow(series):
        x = rearrange(series[key] - series[key].mean(), "time -> 1 time")
        if float((x * x).sum()) > 0 and n >= 4:
            rho = _rho(x, axis=1)[lags]
            where = [f"rho({symbol}), between configurations {lag} apart" for lag in lags]
            found.append((np.abs(rho) * np.sqrt(n - lags), rho, where))
    return _largest("independence", found, 3 * len(lags))


def _slow(series: dict[str, Floats]) -> list[tuple[str, str]]:
    return [(key, symbol) for key, symbol in SLOW.items() if key in series]


def _largest(name: str, found: list[tuple[Floats, Floats, list[str]]], n_looked_at: int) -> Check:
    """The check that no correlation found, (sigmas, values, where) each, is far beyond chance."""
    gate = float(scipy.stats.norm.isf(0.5e-5 / max(1, n_looked_at)))
    sigma, rho, text = 0.0, 0.0, "no chains to compare"
    for sigmas, values, where in found:
        at = int(np.argmax(sigmas)) if len(sigmas) else -1
        if at >= 0 and sigmas[at] > sigma:
            sigma, rho, text = float(sigmas[at]), float(values[at]), f"largest {where[at]}"
    return make_check(name, rho, None, f"0, {gate:.1f} sigma", sigma <= gate, f"{sigma:.1f} sigma; {text}")


def chain_checks(ensemble: Ensemble, series: dict[str, Floats]) -> dict[str, Any]:
    """The certificate of known chains without what a foreign file cannot have, its history, and with what
    only a foreign file needs: that its chains are chains."""
    certificate = certify(ensemble, None)
    elsewhere = ("origin", "Schwinger-Dyson", "M (Z2)")
    checks = [check for check in certificate["checks"] if check["name"] not in elsewhere]
    independent = certificate["n_independent"]
    tau = math.inf if independent is None else len(ensemble) / (2 * independent)
    checks.append(order_check(series, ensemble.replicas(), tau))
    return {**certificate, "checks": checks}


def order_check(series: dict[str, Floats], rows: list[Integers], tau: float) -> Check:
    """Are the chains chains?  An array (time, chain) read as (chain, time), or cut into the wrong number of
    chains, has its autocorrelation between the pieces, or far apart in them, where no tau_int sees it.

    Looked at: M, |M| and s at equal positions of chains 1, 2, ..., n_chains/2 apart, and |M| and s inside the
    chains more than 10 tau_int apart (there rho > 0.1 only: a weak slow mode is no wrong order).  The gate
    allows for the number of correlations, as that of `independence_check` does.
    """
    n_chains, length = len(rows), min(len(part) for part in rows)
    lags = np.arange(1, n_chains // 2 + 1)
    far = np.arange(min(math.ceil(_FAR * min(tau, length)), length), length // 2 + 1)
    found = []
    for key, symbol in _slow(series):
        x = np.stack([series[key][part[:length]] for part in rows])
        x = x - x.mean()
        if not float((x * x).sum()) > 0 or length < 2:
            continue
        inside, between = _rho(x, axis=1), _rho(x, axis=0)
        # The variance of a mean of x_c(t) x_c'(t) over t if c and c' are independent chains: exact for any
        # autocorrelation, also of chains that never change sign
        spread = 1 + 2 * float(((1 - np.arange(1, length) / length) * inside[1:] ** 2).sum())
        where = [f"rho({symbol}), equal positions of chains {lag} apart" for lag in lags]
        found.append(
            (np.abs(between[lags]) * np.sqrt((n_chains - lags) * length / spread), between[lags], where)
        )
        if key not in ("m", "q"):  # chains may keep their sign
            beyond = np.abs(inside[far]) * np.sqrt(n_chains * (length - far) / spread)
            where = [f"rho({symbol}), inside chains, {lag} apart" for lag in far]
            found.append((np.where(np.abs(inside[far]) > _FAR_RHO, beyond, 0.0), inside[far], where))
    return _largest("order of chains", found, 3 * len(lags) + 2 * len(far))


def _rho(x: Floats, axis: int) -> Floats:
    """Correlation of x (n_chains, length), of mean zero, with itself shifted along an axis by 0, 1, ...: the
    mean over all pairs, divided by the variance."""
    n = x.shape[axis]
    size = scipy.fft.next_fast_len(2 * n, real=True)
    power = (np.abs(scipy.fft.rfft(x, size, axis=axis)) ** 2).sum(axis=1 - axis)
    gamma = scipy.fft.irfft(power, size)[:n] / (x.shape[1 - axis] * (n - np.arange(n)))
    rho: Floats = gamma / gamma[0]
    return rho
