r"""Topology of U(1) samples: P(Q) of every sampler against the exact law, and how fast Q forgets.

For the training links and for every sample set, raw, by weights and as a Metropolis chain of independent
proposals: <Q>, <Q^2>, P(Q) with a chi^2 of the sectors that are seen ten times or more, and tau_int of Q and
Q^2. Weighted counts are those of ESS configurations, those of a chain of N/(2 tau_int). A sampler that stays
in one sector fails, whatever its averages within it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import chi2 as chi2_law

from diffsq.exactness.weights import independence_metropolis
from diffsq.plots.gauge import charges_figure
from diffsq.run_folder.finished import GaugeBench
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.exact.u1 import ChargeLaw, charge_law
from lattice.observables.gauge import charge
from lattice.progress import Progress
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import effective_sample_size, normalised_weights

LEAST_COUNT = 10.0
LEAST_P = 1e-3
MOST_TAU = 1.0


def run(bench: GaugeBench, progress: Progress, least_p: float = LEAST_P) -> dict[str, Any]:
    """passed: P(Q) of the weighted samples and of the chain have a chi^2 of probability `least_p` or more,
    and the chain of the first model moves between sectors, tau_int(Q) <= 1.
    """
    action, shape = bench.action, bench.ensemble.shape
    law = charge_law(action.beta.real, math.prod(shape))
    progress.start(1 + 3 * len(bench.samples), "charges")
    rows = {"training": of_chains(law, bench.ensemble)}
    progress.update()
    for name, samples in bench.samples.items():
        q = charges_of(samples)
        assert samples.log_weight is not None
        rows[f"{name} raw"] = of_counts(law, q, np.ones(len(q)), float(len(q)))
        progress.update()
        w = normalised_weights(samples.log_weight)
        ess = effective_sample_size(samples.log_weight)[0] * len(q)
        rows[f"{name} weighted"] = of_counts(law, q, w, ess)
        progress.update()
        order = independence_metropolis(samples.log_weight, bench.seed)[0]
        rows[f"{name} metropolis"] = of_series(law, [q[order]])
        progress.update()
    progress.close()
    first = next(iter(bench.samples), "")
    judged = [rows[f"{first} {way}"] for way in ("weighted", "metropolis")] if first else []
    moving = bool(judged) and judged[1]["tau_q"] is not None and judged[1]["tau_q"][0] <= MOST_TAU
    return {
        "passed": all(row["p"] is not None and row["p"] >= least_p for row in judged) and moving,
        "rows": rows, "charge": law.charge.tolist(), "probability": law.probability.tolist(),
        "exact": {"q2": law.moment(2)}, "least_p": least_p, "beta": action.beta.real, "shape": list(shape),
    }  # fmt: skip


def charges_of(samples: Ensemble) -> Floats:
    """Q (n,)."""
    found: Floats = charge(torch.from_numpy(samples.phi)).numpy()
    return found


def of_chains(law: ChargeLaw, ensemble: Ensemble) -> dict[str, Any]:
    """Of Markov chains, or of independent draws where each is a chain of its own."""
    q, chains = charges_of(ensemble), ensemble.replicas()
    if all(len(rows) == 1 for rows in chains):
        return of_counts(law, q, np.ones(len(q)), float(len(q)))
    return of_series(law, [q[rows] for rows in chains])


def of_series(law: ChargeLaw, series: list[Floats]) -> dict[str, Any]:
    """Of chains of Q."""
    taus = {"tau_q": _tau(series), "tau_q2": _tau([q**2 for q in series])}
    q = np.concatenate(series)
    slow = max((tau[0] for tau in taus.values() if tau is not None), default=0.5)
    counts = float(len(q)) / (2 * max(slow, 0.5)) if taus["tau_q"] is not None else 0.0
    return of_counts(law, q, np.ones(len(q)), counts) | taus


def _tau(series: list[Floats]) -> list[float] | None:
    """tau_int of a series, with its error; None where it never changes or is too short."""
    try:
        found = gamma_method([x[:, None] for x in series])
    except EstimatorError:
        return None
    return [found.tau_int, found.tau_int_error]


def of_counts(law: ChargeLaw, q: Floats, weight: Floats, n: float) -> dict[str, Any]:
    """<Q>, <Q^2> and P(Q) of weighted configurations as good as n independent ones, with chi^2."""
    share = weight / weight.sum()
    observed = np.array([share[q == k].sum() for k in law.charge])
    expected = n * law.probability
    kept = expected >= LEAST_COUNT
    chi2 = dof = p = None
    if kept.sum() > 1:
        rest = expected[~kept].sum()
        own, known = list(n * observed[kept]), list(expected[kept])
        if rest >= LEAST_COUNT:
            own, known = [*own, n - sum(own)], [*known, rest]
        chi2 = float(sum((a - b) ** 2 / b for a, b in zip(own, known, strict=True)))
        dof = len(own) - 1
        p = float(chi2_law.sf(chi2, dof))
    mean, square = float(share @ q), float(share @ q**2)
    errors = [math.sqrt(max(float(share @ x**2) - float(share @ x) ** 2, 0) / max(n, 1)) for x in (q, q**2)]
    return {
        "q": [mean, errors[0]], "q2": [square, errors[1]], "observed": observed.tolist(), "n": n,
        "chi2": chi2, "dof": dof, "p": p, "sectors": int((observed > 0).sum()), "tau_q": None, "tau_q2": None,
    }  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """A row for each sampler."""
    exact = result["exact"]["q2"]
    rows = [["sampler", "<Q>", "<Q^2>", "pull", "chi^2/dof", "p", "tau(Q)", "tau(Q^2)", "sectors"]]
    for name, row in result["rows"].items():
        tau = [format_value(*row[key]) if row[key] else "-" for key in ("tau_q", "tau_q2")]
        (q, q_error), (q2, q2_error) = row["q"], row["q2"]
        known = row["n"] > 1 and q2_error > 0
        rows.append([
            name, format_value(q, q_error) if known else f"{q:.3g}",
            format_value(q2, q2_error) if known else f"{q2:.3g}",
            f"{(q2 - exact) / q2_error:+.1f}" if known else "-",
            f"{row['chi2']:.1f}/{row['dof']}" if row["chi2"] is not None else "-",
            f"{row['p']:.2g}" if row["p"] is not None else "-", *tau, str(row["sectors"]),
        ])  # fmt: skip
    verdict = "passed" if result["passed"] else "NOT passed"
    return "\n".join([
        *aligned(rows), f"exact <Q^2> = {exact:.6g}; p of a chi^2 of P(Q); tau_int = 1/2 + sum rho; {verdict}"
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """P(Q)."""
    return charges_figure(result)
