"""How an ensemble is averaged: over replicas or with weights, and with which errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lattice.actions.u1 import U1
from lattice.arrays import Floats, Integers, real_array
from lattice.ensembles.columns import check_distinct
from lattice.errors import InputError
from lattice.statistics.gamma import MIN_REPLICA, Derived, Estimate, EstimatorError, gamma_method
from lattice.statistics.irregular import Grid, grid_of
from lattice.statistics.jackknife import jackknife, jackknife_weighted
from lattice.statistics.weights import normalised_weights

if TYPE_CHECKING:
    from lattice.ensembles.ensemble import Ensemble

Method = Literal["gamma", "jackknife"]
GAMMA = "Gamma method over replicas (Wolff hep-lat/0306017)"
JACKKNIFE = "blocked jackknife over replicas, blocks of (2 N tau_int^2)^(1/3), tau_int by the Gamma method"
WEIGHTED = "self-normalised weights, block jackknife"
_OF_ESTIMATE = ("error", "tau_int", "tau_int_error", "bias")


@dataclass(frozen=True)
class Averages:
    """How this ensemble is averaged: replicas (index arrays) without weights, or log weights (n,).

    times: of replicas with gaps, or of which some are short, the trajectory numbers of each; note says so.
    """

    replicas: Sequence[Integers]
    log_weight: Floats | None
    s_tau: float
    n_blocks: int
    method: Method
    times: Sequence[Integers] | None = None
    note: str = ""

    @property
    def weights(self) -> Floats | None:
        return None if self.log_weight is None else normalised_weights(self.log_weight)

    def mean(self, x: Floats) -> Floats:
        """Average over configurations: (n, n_obs) -> (n_obs,)."""
        own = self.weights
        weights = np.ones(len(x)) if own is None else own
        result: Floats = weights @ x / weights.sum()
        return result

    def estimate(self, x: Floats, f: Derived | None) -> Estimate:
        if self.log_weight is not None:
            return jackknife_weighted(x, self.log_weight, f, self.n_blocks)
        data = [x[index] for index in self.replicas]
        if self.method == "jackknife":
            return jackknife(data, f, self.s_tau, times=self.times)
        return gamma_method(data, f, self.s_tau, times=self.times)

    def entry(self, x: Floats, f: Derived | None, why_undefined: str = "") -> dict[str, Any]:
        """One observable; what the estimator refuses has its reason and does not stop the rest."""
        means = self.mean(x)
        with np.errstate(all="ignore"):
            value = float(means[0]) if f is None else float(f(means))
        found = entry_of(value)
        if not math.isfinite(value):
            return {**found, "reason": why_undefined.format(*means) or "not a finite number"}
        try:
            estimate = self.estimate(x, f)
        except EstimatorError as error:
            return {**found, "reason": str(error)}
        return found | {key: json_number(getattr(estimate, key)) for key in _OF_ESTIMATE}

    def errors(self, x: Floats) -> Floats:
        """Errors of the columns of x (n, n_obs), nan where the estimator refuses."""
        out = np.full(x.shape[1], math.nan)
        for i in range(x.shape[1]):
            try:
                out[i] = self.estimate(x[:, i : i + 1], None).error
            except EstimatorError:
                continue
        return out

    @property
    def how(self) -> str:
        """The error method in words."""
        if self.log_weight is not None:
            return WEIGHTED
        method = (GAMMA if self.method == "gamma" else JACKKNIFE) + f", S_tau = {self.s_tau:g}"
        return f"{method}; {self.note}" if self.note else method


def usual_method(ensemble: Ensemble) -> Method:
    """ "gamma", but "jackknife" over blocks of chains for many that are all too short to show a tau_int."""
    lengths = [len(index) for index in ensemble.replicas()]
    short = (
        ensemble.log_weight is None
        and len(lengths) >= 2 * MIN_REPLICA
        and 1 < max(lengths, default=0) < MIN_REPLICA
    )
    return "jackknife" if short else "gamma"


def averages(
    ensemble: Ensemble, s_tau: float, n_blocks: int, ignore_weights: bool, method: Method
) -> Averages:
    """The averages over an ensemble; InputError as `lattice.observables.measure.measure` says."""
    n, action = len(ensemble.phi), ensemble.action
    if action.components and action.holomorphic is action and not isinstance(action, U1):
        raise InputError(
            f"fields are measured if they have one component, real or complex; those of "
            f"{type(action).__name__} have {action.components[0]}"
        )
    if method not in ("gamma", "jackknife"):
        raise InputError(f"method must be 'gamma' or 'jackknife', got {method!r}")
    if n == 0:
        raise InputError("the ensemble has no configurations")
    check_distinct(np.asarray(ensemble.chain), np.asarray(ensemble.trajectory))
    everything = [np.arange(n, dtype=np.int64)]
    if ensemble.log_weight is not None:
        if ignore_weights:  # draws are independent: their order is one series
            return Averages(everything, None, s_tau, n_blocks, method)
        log_weight = real_array(ensemble.log_weight, "log_weight")
        if log_weight.shape != (n,):
            raise InputError(f"{n} configurations but log_weight of shape {log_weight.shape}")
        normalised_weights(log_weight)  # refuses NaN
        return Averages(everything, log_weight, s_tau, n_blocks, method)
    replicas = [np.asarray(index, dtype=np.int64) for index in ensemble.replicas()]
    if all(len(index) == 1 for index in replicas):  # one configuration per chain: independent by construction
        return Averages(everything, None, s_tau, n_blocks, method)
    trajectory, chain = np.asarray(ensemble.trajectory), np.asarray(ensemble.chain)
    replicas = [index[np.argsort(trajectory[index], kind="stable")] for index in replicas]
    times = [trajectory[index] for index in replicas]
    notes = _irregularities(grid_of(times), [int(chain[index[0]]) for index in replicas])
    return Averages(replicas, None, s_tau, n_blocks, method, times if notes else None, "; ".join(notes))


def _irregularities(grid: Grid, chains: Sequence[int]) -> list[str]:
    """What is uneven in these chains, and how the errors take it."""
    notes, lengths = [], np.array([len(part) for part in grid.positions])
    gaps = [chain for chain, part in zip(chains, grid.positions) if len(part) < part[-1] + 1]
    if gaps:
        notes.append(
            f"pairs at equal distance: {len(gaps)} of {len(chains)} chains, first chain {gaps[0]}, have gaps "
            f"or a larger spacing than {grid.unit}"
        )
    short = np.flatnonzero(lengths < MIN_REPLICA)
    if 0 < len(short) < len(lengths) and lengths[short].sum() <= lengths.sum() / 4:
        which = f"chain {chains[short[0]]} has" if len(short) == 1 else f"{len(short)} chains have"
        notes.append(
            f"{which} only {lengths[short].min()} configurations, whose pairs are taken with the others'"
        )
    return notes


def entry_of(value: float, **known: float) -> dict[str, Any]:
    return {"value": json_number(value), **dict.fromkeys(_OF_ESTIMATE), **known}


def json_number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None
