"""What the finite steps of the flow do to its averages, measured: the same noise in steps of half the size.

The density that the flow states is that of its differential equation, so that a weighted average is off by
the integrator's error. With the first n samples drawn by N and by 2 N steps from the same noise,

    change = <O>_(2N) - <O>_N,     |bias of N| <= (|change| + its error)/(1 - 2^-3),

as the error of a method of order 4 falls by 2^4 where its steps are small; one order is given away, for those
that are not. The jackknife of the difference is over pairs. (N/2 steps would be cheaper, and tell less: the
method of many steps may be unstable there.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diffsq.sampling.flow_sets import HALF
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.observables import scalar
from lattice.observables.gauge import gauge_definitions, gauge_primaries
from lattice.observables.names import in_short_table
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.gamma import Derived
from lattice.statistics.notation import format_value

ORDER = 3  # counted on for the bound
ADVISED = 2  # for the advice: steps that are flagged may be too large for any order
LIMIT = 0.3  # share of the statistical error that discretisation may take
N_BLOCKS = 20


def discretisation(folder: Path, samples: Ensemble) -> dict[str, Any] | None:
    """Of every observable and ln Z: change, its error, bound on the bias and its share of the statistical
    error of all samples; None for samples of another sampler.

    {"n": pairs, "steps": [N, 2 N], "observables": {name: {change, change_error, bound, share}}, "largest":
    [name, share], "enough": steps that would do, null where these do, "log_weight": [mean, standard
    deviation] of the change of log w}
    """
    if not (folder / HALF / "manifest.json").is_file() or samples.log_weight is None:
        return None
    half = read_ensemble(folder / HALF, samples.action)
    assert half.log_weight is not None
    n, steps = len(half), int(samples.attrs["generated"]["n_steps"])
    weights = samples.log_weight[:n], half.log_weight
    both = samples.select(np.arange(n)).phi, half.phi
    links = samples.action.field == "angle"
    primaries: Any = gauge_primaries if links else scalar.primaries
    tables = [primaries(phi, samples.action) for phi in both]
    top = max(float(w.max()) for w in weights)
    w = np.stack([np.exp(log_w - top) for log_w in weights], 1)
    found = {"ln_z": _entry(lambda rows: np.log(rows.mean(0)), w, len(samples))}
    known = (
        gauge_definitions(samples.shape) if links else scalar.definitions(samples.shape, samples.action.even)
    )
    for name, (columns, f, _) in known.items():
        if not in_short_table(name):
            continue
        series = np.stack([np.stack([table[c] for c in columns], 1) for table in tables], 1)
        data = np.concatenate([w[:, :, None] * series, w[:, :, None]], 2)

        def averages(rows: Floats, f: Derived = f or _first) -> Floats:
            sums = rows.sum(0)
            return np.array([f(each[:-1] / each[-1]) for each in sums])

        entry = _entry(averages, data, len(samples))
        if not math.isnan(entry["bound"]):  # undefined, as a ratio of loops that are noise
            found[name] = entry
    name = max(found, key=lambda key: found[key]["share"])
    share = found[name]["share"]
    change = weights[1] - weights[0]
    return {
        "n": n, "links": links, "steps": [steps, 2 * steps], "observables": found, "largest": [name, share],
        "enough": math.ceil(steps * (2 * share / LIMIT) ** (1 / ADVISED)) if share > LIMIT else None,
        "log_weight": [float(change.mean()), float(change.std())],
    }  # fmt: skip


def _first(means: Floats) -> float:
    return float(means[0])


def _entry(estimate: Callable[[Floats], Floats], data: Floats, n_all: int) -> dict[str, float]:
    """estimate(rows) -> (2,), with N and with 2 N steps, of data (n, ...)."""
    with np.errstate(all="ignore"):
        change, change_error = jackknife_of(lambda rows: float(np.diff(estimate(rows))[0]), data, N_BLOCKS)
        _, error = jackknife_of(lambda rows: float(estimate(rows)[0]), data, N_BLOCKS)
    bound, error = (abs(change) + change_error) / (1 - 2**-ORDER), error * math.sqrt(len(data) / n_all)
    share = bound / error if error > 0 else (0.0 if bound == 0 else math.inf)
    return {"change": change, "change_error": change_error, "bound": bound, "share": share}


def words(found: dict[str, Any]) -> str:
    """What the run says of it, in a line."""
    (name, share), steps = found["largest"], found["steps"]
    lnz = found["observables"]["ln_z"]
    return (
        f"discretisation: at most {share:.2g} of the statistical error (largest: {name}); ln Z with "
        f"{steps[1]} - {steps[0]} steps {format_value(lnz['change'], lnz['change_error'])} on {found['n']} "
        "pairs"
    )


def warning(found: dict[str, Any]) -> list[str]:
    """A line where the bound is above LIMIT of the error, with the number of steps that would do."""
    name, share = found["largest"]
    if found["enough"] is None:
        return []
    more = "" if found.get("links") else ", or correct it: `diffsq check flow RUN`"
    return [
        f"the finite steps of the flow may bias {name} by {share:.2g} of its statistical error; take "
        f"sampling.n_levels {found['enough']} (now {found['steps'][0]}){more}"
    ]
