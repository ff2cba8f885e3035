r"""Where the flow of a machine ends: at criticality, in a mean field, in the mixture it was trained on?

End points of at least five seeds, from cold and from hot starts, are held to

    critical     e, <|m|> and c1 of this torus at T_c, all three
    mixture      e, <|m|> and c1 of the training grid, all three: the law of a machine without fault
    mean-field   all pairs of spins alike: their correlation is (V <m^2> - 1)/(V - 1), for neighbours too, and
                 c1 = 0, to a share of 1 + e/2

within 4 sigma of the scatter of the seeds, by Student's t; and near them, by a 95 % interval, for five seeds
allow much. There is no answer ("not converged") where cold and hot starts differ and where one thermometer is
given alone, nor ("too few seeds") where they agree and seeds are few; and none ("undecided") where more than
one fits, or one is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from diffsq.analysis.rbm_flow import N_SIGMA, NAMES, EndPoint, nearest
from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.statistics.pulls import mean_and_error, sigmas_of

FEWEST = 5
SHARE = 0.05
CLOSE = {"e": 0.1, "abs_m": 0.06, "c1": 0.03}  # "is" means nearer than this, by a 95 % interval
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
    share: float = SHARE, q: int = 0, ordered: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """{verdict, reasons, pulls, values, readings}; verdict: critical, mean-field, mixture, none of these,
    undecided, too few seeds, or not converged; a mean field without energy and magnetisation is "independent
    spins".

    critical and mixture: e, abs_m and c1 (`diffsq.analysis.thermometers`: exact_values at T_c, mixture), with
    errors as abs_m_error where they are measured. q: of Potts, 0 of +-1. ordered: c1 of spins of one
    temperature with this energy; where it is as small as what mean-field states may have, they are not told.
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
    n, refused = len(cold.values), _refusals(cold, hot, result["pulls"])
    if few := [f"{n} seeds: the scatter of machines needs {FEWEST} or more"] * (n < FEWEST):
        result["verdict"] = "not converged" if refused else "too few seeds"
    if few or refused:
        result["reasons"] += few + refused
        return result
    x = (cold.values + hot.values) / 2
    result["values"] = {name: list(mean_and_error(x[:, i])) for i, name in enumerate(NAMES)}
    possible, sure = _fits(x, sites, critical, mixture, share, q, result)
    free = abs(nearest(result["values"]["e"][0], q)) < share and result["values"]["m2"][0] < 2 / sites
    if not free and ordered is not None and sure == ["mean-field"] and ordered < 2 * _room(x, share):
        result["reasons"].append(
            f"so ordered that spins of one temperature look alike: c1 = {ordered:.4f} there"
        )
        sure = []
    if len(possible) > 1 or (possible and possible != sure):
        result["verdict"] = "undecided"
        words = " from ".join(possible) if len(possible) > 1 else f"that it is {possible[0]}"
        result["reasons"].append(
            f"the seeds scatter too much, or differ too little, to tell {words}: take more"
        )
        return result
    result["verdict"] = sure[0] if sure else "none of these"
    if sure == ["mean-field"] and free:
        result["verdict"] = "independent spins"
    return result


def _room(x: Floats, share: float) -> float:
    """What mean-field states may miss: a share of the probability of unlike neighbours."""
    return share * (1 + float(x[:, 0].mean()) / 2)


def apart(cold: Ends, hot: Ends) -> dict[str, float]:
    """Sigmas by which the ends of cold and hot starts differ, by name; of what was measured."""
    error, found = np.hypot(cold.errors, hot.errors), {}
    for i, name in enumerate(NAMES):
        gap = cold.values[:, i] - hot.values[:, i]
        if np.isfinite(gap).all():
            found[name] = _apart(gap, error[:, i], np.abs(cold.values[:, i]).max())
    return found


def _refusals(cold: Ends, hot: Ends, pulls: dict[str, Any]) -> list[str]:
    """Why there is no answer, however many seeds."""
    refused = []
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
    x: Floats, sites: int, critical: Mapping[str, float], mixture: Mapping[str, float], share: float, q: int,
    result: dict[str, Any],
) -> tuple[list[str], list[str]]:  # fmt: skip
    """Which answers the seeds allow, and which of these they show; pulls and reasons go into `result`."""
    dof, possible, sure = len(x) - 1, list[str](), list[str]()
    half = float(scipy.stats.t.isf(0.025, dof))
    for kind, known in (("critical", critical), ("mixture", mixture)):
        sigmas, near = {}, True
        for name in HELD:
            mean, error = mean_and_error(x[:, NAMES.index(name)])
            error = math.hypot(error, known.get(f"{name}_error", 0.0))
            sigmas[name] = sigmas_of(mean - known[name], error, dof, abs(mean))
            near &= abs(mean - known[name]) + half * error <= CLOSE[name]
        result["pulls"][kind] = sigmas
        off = [f"{name} by {value:.1f} sigma" for name, value in sigmas.items() if not value < N_SIGMA]
        if off:
            result["reasons"].append(f"not {kind}: {', '.join(off)}")
        else:
            possible.append(kind)
            sure += [kind] if near else []
    e, _, m2, c1 = x.T
    room = _room(x, share)
    reach = float(scipy.stats.t.isf(scipy.stats.norm.sf(N_SIGMA), dof))
    excess = {"neighbours beyond equal pairs": nearest(e, q) - (sites * m2 - 1) / (sites - 1), "c1": c1}
    means = {name: mean_and_error(value) for name, value in excess.items()}
    result["pulls"]["mean-field"] = {name: value / room for name, (value, _) in means.items()}  # of the share
    off = [f"{name} off by {value:.4f}, allowed {room:.4f}" for name, (value, error) in means.items()
           if abs(value) > room]  # fmt: skip
    if off:
        result["reasons"].append(f"not mean-field: {', '.join(off)}")
    # what only the scatter allows is a rival to others, and no answer of its own
    if not off or (possible and all(abs(value) - reach * error <= room for value, error in means.values())):
        possible.append("mean-field")
        sure += [] if off else ["mean-field"]
    return possible, sure


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
