r"""Where the flow of a machine ends: at criticality, in a mean field, in the mixture it was trained on?

End points of at least five seeds, from cold and from hot starts, are held to

    critical     e, <|m|> and c1 of this torus at T_c, all three
    mixture      e, <|m|> and c1 of the training grid, all three: the law of a machine without fault
    mean-field   all pairs of spins alike: -e/2 = (V <m^2> - 1)/(V - 1) and c1 = 0, to a share of 1 + e/2

within 4 sigma of the scatter of the seeds, by Student's t. There is no answer where cold and hot starts
differ, where one thermometer is given alone, where seeds are few, and where they scatter so much that two
answers fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from diffsq.analysis.rbm_flow import N_SIGMA, NAMES, EndPoint
from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.statistics.pulls import mean_and_error, sigmas_of

FEWEST = 5
SHARE = 0.05
HELD = ("e", "abs_m", "c1")


@dataclass(frozen=True)
class Ends:
    """values and errors (n_seeds, 4) of e, |m|, m^2 and c1; a column of NaN was not measured. Raises
    `InputError` for other shapes."""

    values: Floats
    errors: Floats

    def __post_init__(self) -> None:
        shape = np.shape(self.values)
        if len(shape) != 2 or shape[1] != len(NAMES) or np.shape(self.errors) != shape:
            raise InputError(f"ends are (n_seeds, {len(NAMES)}), with as many errors, got {shape}")
        if not (np.nan_to_num(self.errors) >= 0).all():
            raise InputError("errors of end points must be 0 or more")

    @classmethod
    def of(cls, points: Sequence[EndPoint]) -> Ends:
        """Of one end point a seed."""
        return cls(np.array([p.values for p in points]), np.array([p.errors for p in points]))


def verdict(
    cold: Ends, hot: Ends, sites: int, critical: Mapping[str, float], mixture: Mapping[str, float], *,
    readings: Mapping[str, Sequence[float]] | None = None, t_critical: float | None = None,
    share: float = SHARE,
) -> dict[str, Any]:  # fmt: skip
    """{verdict, reasons, pulls, values, readings}; verdict: critical, mean-field, mixture, none of these, or
    not converged; a mean field without energy and magnetisation is "independent spins".

    critical and mixture: e, abs_m and c1 (`diffsq.analysis.thermometers`: exact_values at T_c, mixture).
    readings: temperatures by thermometer, one a seed, said beside T_c: no reading decides. share: of
    1 + e/2, the probability weight of unlike neighbours, that mean-field states may miss. pulls: of every
    answer and of cold against hot, in sigma. Raises `InputError` where cold and hot have other seeds, and for
    missing exact values.
    """
    if np.shape(cold.values) != np.shape(hot.values):
        raise InputError(f"cold and hot ends of the same seeds, got {len(cold.values)} and {len(hot.values)}")
    for name, known in (("critical", critical), ("mixture", mixture)):
        if missing := [x for x in HELD if not math.isfinite(known.get(x, math.nan))]:
            raise InputError(f"the {name} values lack {', '.join(missing)}")
    if sites < 2 or not 0 < share < 1:
        raise InputError(f"need two sites or more and a share in (0, 1), got {sites} and {share}")
    result: dict[str, Any] = {"verdict": "not converged", "reasons": [], "pulls": {}, "values": {}}
    result["readings"] = _read(readings or {}, t_critical, result["reasons"])
    if refused := _refusals(cold, hot, result["pulls"]):
        result["reasons"] += refused
        return result
    x = (cold.values + hot.values) / 2
    result["values"] = {name: list(mean_and_error(x[:, i])) for i, name in enumerate(NAMES)}
    fits = _fits(x, sites, critical, mixture, share, result)
    found = [name for name, fit in fits.items() if fit]
    if len(found) > 1:
        result["reasons"].append(f"the seeds scatter too much to tell {' from '.join(found)}: take more")
    else:
        result["verdict"] = found[0] if found else "none of these"
        free = abs(result["values"]["e"][0]) < share and result["values"]["m2"][0] < 2 / sites
        if found == ["mean-field"] and free:
            result["verdict"] = "independent spins"
    return result


def apart(cold: Ends, hot: Ends) -> dict[str, float]:
    """Sigmas by which the ends of cold and hot starts differ, by name; of what was measured."""
    error, found = np.hypot(cold.errors, hot.errors), {}
    for i, name in enumerate(NAMES):
        gap = cold.values[:, i] - hot.values[:, i]
        if np.isfinite(gap).all():
            found[name] = _apart(gap, error[:, i], np.abs(cold.values[:, i]).max())
    return found


def _refusals(cold: Ends, hot: Ends, pulls: dict[str, Any]) -> list[str]:
    """Why there is no answer."""
    n, refused = len(cold.values), []
    if n < FEWEST:
        refused.append(f"{n} seeds: the scatter of machines needs {FEWEST} or more")
    both = np.isfinite(cold.values) & np.isfinite(hot.values)
    given = [bool(both[:, i].all()) for i in range(len(NAMES))]
    lacking = [name for name in NAMES if not given[NAMES.index(name)]]
    if lacking:
        refused.append(f"no {', '.join(lacking)}: one thermometer without the others says nothing")
    for name, sigma in apart(cold, hot).items():
        pulls[f"cold-hot {name}"] = sigma
        if not sigma < N_SIGMA:
            refused.append(f"cold and hot starts end {sigma:.1f} sigma apart in {name}: run longer")
    return refused


def _apart(gap: Floats, error: Floats, scale: float) -> float:
    """The larger of two significances of differences: of their chi^2, and of their mean."""
    error = np.maximum(error, 1e-12 * max(scale, 1e-3))
    if not np.isfinite(error).all():
        return math.inf  # nothing is known
    chi2 = float(((gap / error) ** 2).sum())
    tail = float(scipy.stats.chi2.sf(chi2, len(gap)))
    by_chi2 = float(scipy.stats.norm.isf(tail / 2)) if tail > 1e-300 else math.sqrt(chi2)
    return max(by_chi2, abs(float(gap.sum())) / math.sqrt(float((error**2).sum())))


def _fits(
    x: Floats, sites: int, critical: Mapping[str, float], mixture: Mapping[str, float], share: float,
    result: dict[str, Any],
) -> dict[str, bool]:  # fmt: skip
    """Which answers the seeds allow; their pulls and reasons go into `result`."""
    dof, fits = len(x) - 1, dict[str, bool]()
    for kind, known in (("critical", critical), ("mixture", mixture)):
        sigmas = {}
        for name in HELD:
            mean, error = mean_and_error(x[:, NAMES.index(name)])
            sigmas[name] = sigmas_of(mean - known[name], error, dof, abs(mean))
        result["pulls"][kind] = sigmas
        off = [f"{name} by {value:.1f} sigma" for name, value in sigmas.items() if not value < N_SIGMA]
        fits[kind] = not off
        if off:
            result["reasons"].append(f"not {kind}: {', '.join(off)}")
    e, _, m2, c1 = x.T
    room = share * (1 + float(e.mean()) / 2)
    reach = float(scipy.stats.t.isf(scipy.stats.norm.sf(N_SIGMA), dof))
    excess = {"-e/2 of equal pairs": -e / 2 - (sites * m2 - 1) / (sites - 1), "c1": c1}
    means = {name: mean_and_error(value) for name, value in excess.items()}
    result["pulls"]["mean-field"] = {name: value / room for name, (value, _) in means.items()}  # of the share
    off = [f"{name} off by {value:.4f}, allowed {room:.4f}" for name, (value, error) in means.items()
           if abs(value) > room]  # fmt: skip
    possible = all(abs(value) - reach * error <= room for value, error in means.values())
    # what only the scatter allows is a rival to others, and no answer of its own
    fits["mean-field"] = possible and (not off or any(fits.values()))
    if off:
        result["reasons"].append(f"not mean-field: {', '.join(off)}")
    return fits


def _read(
    readings: Mapping[str, Sequence[float]], t_critical: float | None, reasons: list[str]
) -> dict[str, Any]:
    """Mean, error and pull from T_c of every thermometer."""
    found = {}
    for name, given in readings.items():
        t = real_array(list(given), name)
        if len(t) < 2 or not np.isfinite(t).all():
            reasons.append(f"{name} reads no temperature in some seed")
            continue
        mean, error = mean_and_error(t)
        found[name] = {"t": mean, "error": error}
        if t_critical is not None:
            found[name]["sigma"] = sigmas_of(mean - t_critical, error, len(t) - 1, mean)
    return found
