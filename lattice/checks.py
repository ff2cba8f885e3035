"""What the checks of a certificate are made of: two field functions, errors of chain means, and the record of
a check.

Chains are independent, so with eight or more of them the error of a mean comes from the scatter of the chain
means, whatever the autocorrelation, and a deviation is Student's t turned into the equivalent number of
normal standard deviations; with fewer chains the Gamma method (Wolff, hep-lat/0306017) gives the error.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats
import torch

from lattice.action import Action
from lattice.shards import Floats, batches
from lattice.statistics import gamma_method

GATE = 4.5  # standard deviations
MIN_CHAINS_FOR_SCATTER = 8
# the per-configuration quantities of a certificate, with their symbols
SYMBOLS = {
    "abs_magnetization": "|M|",
    "m2": "M^2",
    "action": "S",
    "action_density": "s",
    "phi2": "phi^2",
    "walls": "walls",
}

Check = dict[str, Any]


def schwinger_dyson(phi: Floats, action: Action) -> Floats:
    """(1/V) sum_x phi_x dS/dphi_x of each field (n, *shape) -> (n,); its mean is 1 under exp(-S) (integrate
    by parts).

    >>> from lattice.action import ScalarPhi4
    >>> schwinger_dyson(np.ones((1, 2, 2)), ScalarPhi4(0.0, 0.0)).tolist()
    [2.0]
    """
    out = np.empty(len(phi))
    for batch in batches(phi.shape):
        part = torch.from_numpy(phi[batch])
        out[batch] = (part * action.grad(part)).mean(dim=tuple(range(1, part.dim()))).numpy()
    return out


def wall_density(phi: Floats) -> Floats:
    """Fraction of links whose ends differ in sign, of each field (n, *shape) -> (n,).

    >>> wall_density(np.array([[1.0, 1.0, -1.0, -1.0]])).tolist()
    [0.5]
    """
    out = np.empty(len(phi))
    for batch in batches(phi.shape):
        up = phi[batch] > 0
        axes = range(1, up.ndim)
        out[batch] = sum((up != np.roll(up, 1, axis)).mean(axis=tuple(axes)) for axis in axes) / (up.ndim - 1)
    return out


def mean_of_chains(parts: list[Floats]) -> tuple[float, float, float]:
    """(mean, error, degrees of freedom) of per-chain series: scatter of chain means, or the Gamma method for
    few chains.

    Raises EstimatorError when there are few chains and the Gamma method cannot answer.
    """
    if len(parts) >= MIN_CHAINS_FOR_SCATTER:
        means = np.array([part.mean() for part in parts])
        return float(means.mean()), float(means.std(ddof=1)) / math.sqrt(len(means)), len(means) - 1
    estimate = gamma_method([part[:, None] for part in parts])
    return estimate.value, estimate.error, math.inf


def sigmas_of(deviation: float, error: float, dof: float) -> float:
    """|deviation|/error as the equivalent number of standard deviations of a normal law."""
    if not error > 0:
        return 0.0 if deviation == 0 else math.inf
    t = abs(deviation) / error
    if math.isinf(dof) or not math.isfinite(t):
        return t
    return float(min(t, -scipy.stats.norm.ppf(max(scipy.stats.t.sf(t, dof), 1e-300))))


def equality(name: str, value: float, error: float, dof: float, expected: float, detail: str = "") -> Check:
    """The check that value(error) equals `expected` within the gate."""
    sigmas = sigmas_of(value - expected, error, dof)
    text = f"{sigmas:.1f} sigma" + (f"; {detail}" if detail else "")
    passed = math.isfinite(value) and sigmas <= GATE
    return make_check(name, value, error, f"{expected:g}", passed, text)


def make_check(
    name: str, value: float | None, error: float | None, expected: str, passed: bool, detail: str
) -> Check:
    """The record of a check, JSON data."""
    return {
        "name": name,
        "value": value,
        "error": error,
        "expected": expected,
        "passed": bool(passed),
        "detail": detail,
    }


def failed_check(name: str, expected: str, detail: str) -> Check:
    """A check that could not be made, or that has no number."""
    return make_check(name, None, None, expected, False, detail)
