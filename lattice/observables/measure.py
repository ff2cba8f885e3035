"""The table of observables of any ensemble, Monte Carlo or generated, each with its error.

Unweighted ensembles: Gamma method, chains as replicas, or as a second opinion the blocked jackknife.  With
log_weight: self-normalised weights and the block jackknife.  Derived quantities (susceptibility, Binder, xi,
cumulant ratios) are propagated in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.observables.names import in_short_table
from lattice.observables.scalar import (
    definitions,
    lattice_momentum_squared,
    mode_classes,
    primaries,
    two_point_series,
    z2_even,
)
from lattice.statistics.gamma import Derived, Estimate, EstimatorError, gamma_method
from lattice.statistics.jackknife import jackknife, jackknife_weighted
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import effective_sample_size, normalised_weights

if TYPE_CHECKING:
    from lattice.ensembles.ensemble import Ensemble


Measurement = dict[str, Any]
Method = Literal["gamma", "jackknife"]
GAMMA = "Gamma method over replicas (Wolff hep-lat/0306017)"
JACKKNIFE = "blocked jackknife over replicas, blocks of (2 N tau_int^2)^(1/3), tau_int by the Gamma method"
WEIGHTED = "self-normalised weights, block jackknife"
TAU_CONVENTION = "tau_int = 1/2 + sum_t rho(t)"
MIN_ESS = 0.1  # ESS/N below which weighted averages, and their errors, are not to be trusted


@dataclass(frozen=True)
class _Sample:
    """How this ensemble is averaged: replicas (index arrays) without weights, or log weights (n,)."""

    replicas: Sequence[npt.NDArray[np.int64]]
    log_weight: Floats | None
    s_tau: float
    n_blocks: int
    method: Method = "gamma"

    def mean(self, x: Floats) -> Floats:
        """Average over configurations: (n, n_obs) -> (n_obs,)."""
        weights = np.ones(len(x)) if self.log_weight is None else normalised_weights(self.log_weight)
        result: Floats = weights @ x / weights.sum()
        return result

    def estimate(self, x: Floats, f: Derived | None) -> Estimate:
        if self.log_weight is not None:
            return jackknife_weighted(x, self.log_weight, f, self.n_blocks)
        data = [x[index] for index in self.replicas]
        return (jackknife if self.method == "jackknife" else gamma_method)(data, f, self.s_tau)

    @property
    def how(self) -> str:
        """The error method in words."""
        if self.log_weight is not None:
            return WEIGHTED
        return (GAMMA if self.method == "gamma" else JACKKNIFE) + f", S_tau = {self.s_tau:g}"


def measure(
    ensemble: Ensemble,
    *,
    s_tau: float = 2.0,
    n_blocks: int = 100,
    ignore_weights: bool = False,
    method: Method = "gamma",
    two_point: bool = True,
) -> Measurement:
    """All observables of an ensemble, as a JSON-safe dict (undefined numbers are None, never NaN).

    {"ensemble": {identity, action, shape, n, n_replicas, weighted, ess, ess_error},
     "observables": {name: {"value", "error", "tau_int", "tau_int_error", "bias"[, "reason"]}},
     "two_point": {t, C, C_error, momenta, khat2, multiplicity, G, G_error},   see `two_point`
     "modes": {"k1": n, "k2": n}, "tau_unit", "tau_convention", "method"}

    M = (1/V) sum phi; susceptibility V(<M^2> - <|M|>^2), susceptibility_full V<M^2>, binder
    1 - <M^4>/(3<M^2>^2), action_density <S>/V, phi2 and phi4 per site, xi_2nd along the longest axis.
    kappa1..kappa8 of a single site, with _m of M, with _k1 and _k2 of Re, Im phi~(k)/sqrt(V) in the two
    lowest classes of momenta ("modes", k = 2 pi n/L), odd moments included. _ratio: kappa_n/kappa_2^(n/2),
    n = 3..8; _ratio_z2, n = 4, 6, 8: the same number with the odd moments at their exact value 0, with far
    smaller errors in the broken phase, right only for a symmetric law, given only where S(-phi) = S(phi).
    ess is (sum w)^2/(N sum w^2). bias is the O(1/N) bias of the value, which is not corrected for it.

    method="jackknife" gives unweighted ensembles blocked-jackknife errors, the second opinion on the Gamma
    method. two_point=False leaves G(k) and C(t) out ("two_point" is then None).
    What an estimator refuses keeps its value, error None and a "reason".

    ignore_weights=True measures a weighted ensemble as drawn: independent configurations, one series.
    Raises InputError for NaN fields or weights, an empty ensemble, an unknown method, or unevenly spaced
    trajectories (tau_int would be wrong).
    """
    if ensemble.action.as_dict().get("field") == "x+iy":
        raise InputError(
            "this ensemble holds complex fields x + iy: measure it with "
            "lattice.observables.holomorphic.complex_table"
        )
    sample = _sample(ensemble, s_tau, n_blocks, ignore_weights, method)
    shape = ensemble.phi.shape[1:]
    table = primaries(ensemble.phi, ensemble.action)
    known = definitions(shape, z2_even(ensemble.action, ensemble.phi))
    observables = {
        name: _entry(sample, np.stack([table[c] for c in columns], axis=1), f, why)
        for name, (columns, f, why) in known.items()
    }
    curves = {k: _json_list(x) for k, x in _two_point(ensemble, sample).items()} if two_point else None
    return {
        "ensemble": _ensemble_block(ensemble, sample, ignore_weights),
        "observables": observables,
        "two_point": curves,
        "modes": {name: list(members[0]) for name, members in mode_classes(shape).items()},
        "tau_unit": _tau_unit(ensemble, sample),
        "tau_convention": TAU_CONVENTION,
        "method": sample.how,
    }


def two_point(
    ensemble: Ensemble,
    *,
    s_tau: float = 2.0,
    n_blocks: int = 100,
    ignore_weights: bool = False,
    n_momenta: int = 64,
    method: Method = "gamma",
) -> dict[str, Floats]:
    """Two-point function with errors (nan where refused), in momentum space and in time.

    t (n_t,), C, C_error: C(t) = sum_x <phi(t,x) phi(0)> along the longest axis, t = 0..L/2; sums to G(0).
    momenta (c, d) integers n of k = 2 pi n/L, khat2 (c,), multiplicity (c,), G, G_error (c,):
    G(k) = <|phi~(k)|^2>/V of the n_momenta lowest classes under the lattice's symmetry.
    Raises like `measure`.
    """
    return _two_point(ensemble, _sample(ensemble, s_tau, n_blocks, ignore_weights, method), n_momenta)


def _two_point(ensemble: Ensemble, sample: _Sample, n_momenta: int = 64) -> dict[str, Floats]:
    g, c, classes = two_point_series(ensemble.phi, n_momenta)
    shape = ensemble.phi.shape[1:]
    return {
        "t": np.arange(c.shape[1], dtype=np.float64),
        "C": sample.mean(c),
        "C_error": _errors(sample, c),
        "momenta": np.array([members[0] for members in classes], dtype=np.float64),
        "khat2": np.array([lattice_momentum_squared(members[0], shape) for members in classes]),
        "multiplicity": np.array([len(members) for members in classes], dtype=np.float64),
        "G": sample.mean(g),
        "G_error": _errors(sample, g),
    }


def _errors(sample: _Sample, x: Floats) -> Floats:
    """Errors of the columns of x (n, n_obs), nan where the estimator refuses."""
    out = np.full(x.shape[1], math.nan)
    for i in range(x.shape[1]):
        try:
            out[i] = sample.estimate(x[:, i : i + 1], None).error
        except EstimatorError:
            continue
    return out


def _sample(ensemble: Ensemble, s_tau: float, n_blocks: int, ignore_weights: bool, method: Method) -> _Sample:
    n = len(ensemble.phi)
    if method not in ("gamma", "jackknife"):
        raise InputError(f"method must be 'gamma' or 'jackknife', got {method!r}")
    if n == 0:
        raise InputError("the ensemble has no configurations")
    everything = [np.arange(n, dtype=np.int64)]
    if ensemble.log_weight is not None:
        if ignore_weights:  # draws are independent: their order is one series
            return _Sample(everything, None, s_tau, n_blocks, method)
        log_weight = np.asarray(ensemble.log_weight, dtype=np.float64)
        if log_weight.shape != (n,):
            raise InputError(f"{n} configurations but log_weight of shape {log_weight.shape}")
        normalised_weights(log_weight)  # refuses NaN
        return _Sample(everything, log_weight, s_tau, n_blocks)
    replicas = [np.asarray(index, dtype=np.int64) for index in ensemble.replicas()]
    if all(len(index) == 1 for index in replicas):
        replicas = everything  # one configuration per chain: independent by construction
    else:
        _check_spacing(ensemble, replicas)
    return _Sample(replicas, None, s_tau, n_blocks, method)


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
            raise InputError(
                f"chain {chain}: trajectory {int(trajectory[at])} is followed by "
                f"{int(trajectory[at + 1])} where the spacing is {spacing}; tau_int needs "
                "evenly spaced chains"
            )


def _entry(sample: _Sample, x: Floats, f: Derived | None, why_undefined: str) -> dict[str, Any]:
    """One observable; what the estimator refuses is listed with the reason instead of stopping the rest."""
    means = sample.mean(x)
    with np.errstate(all="ignore"):
        value = float(means[0]) if f is None else float(f(means))
    refused = {
        "value": _json_number(value),
        "error": None,
        "tau_int": None,
        "tau_int_error": None,
        "bias": None,
    }
    if not math.isfinite(value):
        return {**refused, "reason": why_undefined.format(*means) or "not a finite number"}
    try:
        estimate = sample.estimate(x, f)
    except EstimatorError as error:
        return {**refused, "reason": str(error)}
    return {
        "value": value,
        "error": _json_number(estimate.error),
        "tau_int": _json_number(estimate.tau_int),
        "tau_int_error": _json_number(estimate.tau_int_error),
        "bias": _json_number(estimate.bias),
    }


def _ensemble_block(ensemble: Ensemble, sample: _Sample, ignore_weights: bool) -> dict[str, Any]:
    block: dict[str, Any] = {
        "identity": ensemble.identity,
        "action": ensemble.action.as_dict(),
        "shape": [int(extent) for extent in ensemble.phi.shape[1:]],
        "n": len(ensemble.phi),
        "n_replicas": len(sample.replicas),
        "weighted": sample.log_weight is not None,
        "ess": None,
        "ess_error": None,
    }
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


def _json_list(x: Floats) -> list[Any]:
    if x.ndim > 1:
        return [_json_list(row) for row in x]
    return [None if not math.isfinite(v) else int(v) if v == int(v) else float(v) for v in x]


def second_opinion(a: Measurement, b: Measurement, factor: float = 1.5) -> list[str]:
    """One line for each observable whose errors in two measurements of one ensemble differ by the factor.

    a, b: `measure` with method="gamma" and "jackknife"; the observables of the short table.
    """
    lines = []
    for name in filter(in_short_table, a["observables"].keys() & b["observables"].keys()):
        one, two = (m["observables"][name]["error"] for m in (a, b))
        if one and two and max(one / two, two / one) > factor:
            lines.append(
                f"{name}: error {one:.2g} by the {a['method'].split(' over')[0]}, "
                f"{two:.2g} by the {b['method'].split(' over')[0]}"
            )
    return sorted(lines)


def format_table(measurements: Measurement | Mapping[str, Measurement], *, everything: bool = False) -> str:
    """Aligned text: one measurement -> value(error), tau_int(error); {label: measurement} -> a column each.

    Of the cumulants only those of `lattice.observables.names.in_short_table`, all of them with
    everything=True. Footnotes: the error method, the tau_int convention with its unit, the reason for every
    missing error.
    """
    single = "observables" in measurements
    columns: dict[str, Measurement] = {"value": dict(measurements)} if single else dict(measurements)
    names = list(
        dict.fromkeys(
            name for m in columns.values() for name in m["observables"] if everything or in_short_table(name)
        )
    )
    rows = [["observable", *columns] + (["tau_int"] if single else [])]
    notes = []
    for name in names:
        entries = {label: m["observables"].get(name) for label, m in columns.items()}
        row = [name, *(_printed(e, "value", "error") for e in entries.values())]
        rows.append(row + [_printed(e, "tau_int", "tau_int_error") for e in entries.values()] * single)
        notes += [
            f"{name}{'' if single else f' ({label})'}: {e['reason']}"
            for label, e in entries.items()
            if e and "reason" in e
        ]
    for label, m in columns.items():
        prefix = "" if single else f"{label}: "
        block = m["ensemble"]
        ess = block.get("ess")
        notes.append(
            f"{prefix}n = {block['n']}, {m['method']}"
            + (
                f", ESS/N = {format_value(ess, block['ess_error'])}"
                if ess is not None
                else f"; {m['tau_convention']}, in {m['tau_unit']}"
            )
        )
    return "\n".join([*aligned(rows), *notes])


def _printed(entry: Mapping[str, Any] | None, value: str, error: str) -> str:
    if entry is None or entry[value] is None:
        return "-"
    return f"{entry[value]:.6g}" if entry[error] is None else format_value(entry[value], entry[error])
