"""The table of observables of any ensemble, Monte Carlo or generated, each with its error.

Unweighted ensembles: Gamma method, chains as replicas.  With log_weight: self-normalised weights and the
block jackknife.  Derived quantities (susceptibility, Binder, xi, cumulant ratios) are propagated in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lattice.cumulants import cumulants_from_moments
from lattice.errors import InputError
from lattice.notation import format_value
from lattice.observables import (
    lattice_momentum_squared,
    longest_axes,
    primaries,
    two_point_series,
    xi_second_moment,
)
from lattice.statistics import (
    Derived,
    Estimate,
    EstimatorError,
    effective_sample_size,
    gamma_method,
    jackknife_weighted,
    normalised_weights,
)

if TYPE_CHECKING:
    from lattice.ensemble import Ensemble

Array = npt.NDArray[np.float64]
Measurement = dict[str, Any]

GAMMA = "Gamma method over replicas (Wolff hep-lat/0306017)"
JACKKNIFE = "self-normalised weights, block jackknife"
TAU_CONVENTION = "tau_int = 1/2 + sum_t rho(t)"
CUMULANT_ORDERS = (2, 4, 6, 8)


@dataclass(frozen=True)
class _Sample:
    """How this ensemble is averaged: replicas (index arrays) without weights, or log weights (n,)."""

    replicas: Sequence[npt.NDArray[np.int64]]
    log_weight: Array | None
    s_tau: float
    n_blocks: int

    def mean(self, x: Array) -> Array:
        """Average over configurations: (n, n_obs) -> (n_obs,)."""
        weights = np.ones(len(x)) if self.log_weight is None else normalised_weights(self.log_weight)
        result: Array = weights @ x / weights.sum()
        return result

    def estimate(self, x: Array, f: Derived | None) -> Estimate:
        if self.log_weight is not None:
            return jackknife_weighted(x, self.log_weight, f, self.n_blocks)
        return gamma_method([x[index] for index in self.replicas], f, self.s_tau)


def measure(ensemble: Ensemble, *, s_tau: float = 2.0, n_blocks: int = 100,
            ignore_weights: bool = False) -> Measurement:
    """All observables of an ensemble, as a JSON-safe dict (undefined numbers are None, never NaN).

    {"ensemble": {identity, action, shape, n, n_replicas, weighted, ess, ess_error},
     "observables": {name: {"value", "error", "tau_int", "tau_int_error"[, "reason"]}},
     "two_point": {t, C, C_error, momenta, khat2, multiplicity, G, G_error},   see `two_point`
     "tau_unit", "tau_convention", "method"}

    M = (1/V) sum phi; susceptibility V(<M^2> - <|M|>^2), susceptibility_full V<M^2>, binder
    1 - <M^4>/(3<M^2>^2), action_density <S>/V, phi2 and phi4 per site, xi_2nd along the longest axis, kappa_n
    of a single site and kappa_n_m of M (n = 2, 4, 6, 8, odd moments included), with kappa_n_ratio =
    kappa_n/kappa_2^(n/2).
    ess is (sum w)^2/(N sum w^2).  What an estimator refuses keeps its value, error None and a "reason".

    ignore_weights=True measures a weighted ensemble as drawn: independent configurations, Gamma method.
    Raises InputError for NaN fields or weights, an empty ensemble, or unevenly spaced trajectories (tau_int
    would be wrong).
    """
    sample = _sample(ensemble, s_tau, n_blocks, ignore_weights)
    table = primaries(ensemble.phi, ensemble.action)
    observables = {name: _entry(sample, np.stack([table[c] for c in columns], axis=1), f, why)
                   for name, (columns, f, why) in _definitions(ensemble.phi.shape[1:]).items()}
    return {"ensemble": _ensemble_block(ensemble, sample, ignore_weights), "observables": observables,
            "two_point": {key: _json_list(x) for key, x in _two_point(ensemble, sample).items()},
            "tau_unit": _tau_unit(ensemble, sample), "tau_convention": TAU_CONVENTION,
            "method": GAMMA + f", S_tau = {s_tau:g}" if sample.log_weight is None else JACKKNIFE}


def two_point(ensemble: Ensemble, *, s_tau: float = 2.0, n_blocks: int = 100, ignore_weights: bool = False,
              n_momenta: int = 64) -> dict[str, Array]:
    """Two-point function with errors (nan where refused), in momentum space and in time.

    t (n_t,), C, C_error: C(t) = sum_x <phi(t,x) phi(0)> along the longest axis, t = 0..L/2; sums to G(0).
    momenta (c, d) integers n of k = 2 pi n/L, khat2 (c,), multiplicity (c,), G, G_error (c,):
    G(k) = <|phi~(k)|^2>/V of the n_momenta lowest classes under the lattice's symmetry.
    Raises like `measure`.
    """
    return _two_point(ensemble, _sample(ensemble, s_tau, n_blocks, ignore_weights), n_momenta)


def _two_point(ensemble: Ensemble, sample: _Sample, n_momenta: int = 64) -> dict[str, Array]:
    g, c, classes = two_point_series(ensemble.phi, n_momenta)
    shape = ensemble.phi.shape[1:]
    return {"t": np.arange(c.shape[1], dtype=np.float64), "C": sample.mean(c), "C_error": _errors(sample, c),
            "momenta": np.array([members[0] for members in classes], dtype=np.float64),
            "khat2": np.array([lattice_momentum_squared(members[0], shape) for members in classes]),
            "multiplicity": np.array([len(members) for members in classes], dtype=np.float64),
            "G": sample.mean(g), "G_error": _errors(sample, g)}


def _errors(sample: _Sample, x: Array) -> Array:
    """Errors of the columns of x (n, n_obs), nan where the estimator refuses."""
    out = np.full(x.shape[1], math.nan)
    for i in range(x.shape[1]):
        try:
            out[i] = sample.estimate(x[:, i:i + 1], None).error
        except EstimatorError:
            continue
    return out


def _sample(ensemble: Ensemble, s_tau: float, n_blocks: int, ignore_weights: bool) -> _Sample:
    n = len(ensemble.phi)
    if n == 0:
        raise InputError("the ensemble has no configurations")
    everything = [np.arange(n, dtype=np.int64)]
    if ensemble.log_weight is not None:
        if ignore_weights:              # draws are independent: their order is one series
            return _Sample(everything, None, s_tau, n_blocks)
        log_weight = np.asarray(ensemble.log_weight, dtype=np.float64)
        if log_weight.shape != (n,):
            raise InputError(f"{n} configurations but log_weight of shape {log_weight.shape}")
        normalised_weights(log_weight)  # refuses NaN
        return _Sample(everything, log_weight, s_tau, n_blocks)
    replicas = [np.asarray(index, dtype=np.int64) for index in ensemble.replicas()]
    if all(len(index) == 1 for index in replicas):
        replicas = everything           # one configuration per chain: independent by construction
    else:
        _check_spacing(ensemble, replicas)
    return _Sample(replicas, None, s_tau, n_blocks)


def _check_spacing(ensemble: Ensemble, replicas: Sequence[npt.NDArray[np.int64]]) -> None:
    """Refuse gaps: rho(t) of an unevenly spaced chain belongs to no t."""
    spacing: int | None = None
    for index in replicas:
        trajectory = np.asarray(ensemble.trajectory)[index]
        steps = np.diff(trajectory)
        if len(steps) == 0:
            continue
        spacing = int(steps[0]) if spacing is None else spacing
        if spacing <= 0 or np.any(steps != spacing):
            at = int(np.argmax(steps != spacing)) if spacing > 0 else 0
            chain = int(np.asarray(ensemble.chain)[index[0]])
            raise InputError(f"chain {chain}: trajectory {int(trajectory[at])} is followed by "
                             f"{int(trajectory[at + 1])} where the spacing is {spacing}; tau_int needs "
                             "evenly spaced chains")


def _definitions(shape: tuple[int, ...]) -> dict[str, tuple[tuple[str, ...], Derived | None, str]]:
    """name -> (primaries, function of their means, why it can be undefined)."""
    volume, length = math.prod(shape), shape[longest_axes(shape)[0]]
    out: dict[str, tuple[tuple[str, ...], Derived | None, str]] = {
        "abs_magnetization": (("abs_m",), None, ""),
        "magnetization": (("m1",), None, ""),
        "susceptibility": (("m2", "abs_m"), lambda x: volume * (x[0] - x[1] ** 2), ""),
        "susceptibility_full": (("m2",), lambda x: volume * x[0], ""),
        "binder": (("m2", "m4"), lambda x: 1 - x[1] / (3 * x[0] ** 2), "<M^2> = 0"),
        "action_density": (("s",), None, ""),
        "phi2": (("phi2",), None, ""),
        "phi4": (("phi4",), None, ""),
        "xi_2nd": (("g0", "g1"), lambda x: xi_second_moment(x[0], x[1], length),
                   "xi_2nd is undefined: G(0) = {0:.6g} is not above G(k1) = {1:.6g}" if length > 1
                   else "xi_2nd is undefined: the lattice has no momentum besides k = 0"),
    }
    for suffix, column in (("", "phi"), ("_m", "m")):
        for n in CUMULANT_ORDERS:
            columns = tuple(f"{column}{i}" for i in range(1, n + 1))
            out[f"kappa{n}{suffix}"] = (columns, _cumulant, "")
            if n > 2:
                out[f"kappa{n}{suffix}_ratio"] = (columns, _cumulant_ratio, "kappa_2 = 0")
    return out


def _cumulant(moments: Array) -> float:
    """kappa_n from m_1..m_n."""
    return float(cumulants_from_moments(moments)[-1])


def _cumulant_ratio(moments: Array) -> float:
    """kappa_n/kappa_2^(n/2); nan where kappa_2 <= 0."""
    kappa = cumulants_from_moments(moments)
    return float(kappa[-1] / kappa[1] ** (len(moments) // 2)) if kappa[1] > 0 else math.nan


def _entry(sample: _Sample, x: Array, f: Derived | None, why_undefined: str) -> dict[str, Any]:
    """One observable; what the estimator refuses is listed with the reason instead of stopping the rest."""
    means = sample.mean(x)
    with np.errstate(all="ignore"):
        value = float(means[0]) if f is None else float(f(means))
    refused = {"value": _json_number(value), "error": None, "tau_int": None, "tau_int_error": None}
    if not math.isfinite(value):
        return {**refused, "reason": why_undefined.format(*means) or "not a finite number"}
    try:
        estimate = sample.estimate(x, f)
    except EstimatorError as error:
        return {**refused, "reason": str(error)}
    return {"value": value, "error": _json_number(estimate.error), "tau_int": _json_number(estimate.tau_int),
            "tau_int_error": _json_number(estimate.tau_int_error)}


def _ensemble_block(ensemble: Ensemble, sample: _Sample, ignore_weights: bool) -> dict[str, Any]:
    block: dict[str, Any] = {
        "identity": ensemble.identity, "action": ensemble.action.as_dict(),
        "shape": [int(extent) for extent in ensemble.phi.shape[1:]], "n": len(ensemble.phi),
        "n_replicas": len(sample.replicas), "weighted": sample.log_weight is not None,
        "ess": None, "ess_error": None}
    if ignore_weights and ensemble.log_weight is not None:
        block["note"] = "log weights ignored: the configurations as drawn"
    if sample.log_weight is not None:
        try:
            block["ess"], block["ess_error"] = effective_sample_size(sample.log_weight, sample.n_blocks)
        except EstimatorError as error:
            block["note"] = f"no ESS: {error}"
    return block


def _tau_unit(ensemble: Ensemble, sample: _Sample) -> str:
    if sample.log_weight is not None:
        return "none (weighted configurations, jackknife errors)"
    stride = ensemble.attrs.get("stride")
    if stride is None or ensemble.log_weight is not None:
        return "saved configurations"
    return f"saved configurations (1 = {int(stride)} trajector{'y' if int(stride) == 1 else 'ies'})"


def _json_number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def _json_list(x: Array) -> list[Any]:
    if x.ndim > 1:
        return [_json_list(row) for row in x]
    return [None if not math.isfinite(v) else int(v) if v == int(v) else float(v) for v in x]


def format_table(measurements: Measurement | Mapping[str, Measurement]) -> str:
    """Aligned text: one measurement -> value(error), tau_int(error); {label: measurement} -> a column each.

    Footnotes: the error method, the tau_int convention with its unit, the reason for every missing error.
    """
    single = "observables" in measurements
    columns: dict[str, Measurement] = {"value": dict(measurements)} if single else dict(measurements)
    names = list(dict.fromkeys(name for m in columns.values() for name in m["observables"]))
    rows = [["observable", *columns] + (["tau_int"] if single else [])]
    notes = []
    for name in names:
        entries = {label: m["observables"].get(name) for label, m in columns.items()}
        row = [name, *(_printed(e, "value", "error") for e in entries.values())]
        rows.append(row + [_printed(e, "tau_int", "tau_int_error") for e in entries.values()] * single)
        notes += [f"{name}{'' if single else f' ({label})'}: {e['reason']}"
                  for label, e in entries.items() if e and "reason" in e]
    for label, m in columns.items():
        prefix = "" if single else f"{label}: "
        block = m["ensemble"]
        ess = block.get("ess")
        notes.append(f"{prefix}n = {block['n']}, {m['method']}"
                     + (f", ESS/N = {format_value(ess, block['ess_error'])}" if ess is not None else
                        f"; {m['tau_convention']}, in {m['tau_unit']}"))
    return "\n".join([*aligned(rows), *notes])


def _printed(entry: Mapping[str, Any] | None, value: str, error: str) -> str:
    if entry is None or entry[value] is None:
        return "-"
    return f"{entry[value]:.6g}" if entry[error] is None else format_value(entry[value], entry[error])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, the first row a header -> lines with columns aligned and a rule below the header.

    >>> aligned([["name", "value"], ["binder", "0.5316(5)"]])
    ['name    value', '------  ---------', 'binder  0.5316(5)']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
