r"""Topology of U(1) samples: P(Q) of every sampler against the exact law, and how fast Q forgets.

For the training links and for every sample set, raw, by weights and as a Metropolis chain of independent
proposals: <Q>, <Q^2>, tau_int of both, and P(Q) with a chi^2 (lattice.statistics.frequencies), rare charges
taken together with the outermost common one. A chain counts as N/(2 tau_int) configurations; weights have
the errors of their own sums. A sampler that stays in one sector fails, whatever its averages within it, where
exact draws, as many, would not have stayed there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsq.exactness.weights import independence_metropolis
from diffsq.plots.gauge import charges_figure
from diffsq.run_folder.finished import GaugeBench
from lattice.arrays import Floats
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.exact.u1 import ChargeLaw, charge_law
from lattice.observables.gauge import charge
from lattice.progress import Progress
from lattice.statistics.frequencies import frequencies
from lattice.statistics.gamma import EstimatorError, gamma_method
from lattice.statistics.notation import aligned, format_value
from lattice.statistics.weights import normalised_weights

LEAST_P = 1e-3
MOST_TAU = 1.0
FAR = 5.0  # sigma, of <Q^2>
UNSEEN = 10.0  # charges expected where none was seen: P(0) = e^-10


def run(bench: GaugeBench, progress: Progress, least_p: float = LEAST_P) -> dict[str, Any]:
    """passed: of the first of the run's models, by weights and as a chain, P(Q) has a chi^2 of probability
    `least_p` or more and <Q^2> is within 5 sigma, and the chain moves between sectors, tau_int(Q) <= 1.
    """
    action, shape = bench.action, bench.ensemble.shape
    law = charge_law(action.beta.real, math.prod(shape))
    progress.start(1 + 3 * len(bench.samples), "charges")
    rows = {"training": of_chains(law, bench.ensemble)}
    progress.update()
    for name, samples in bench.samples.items():
        q = charges_of(samples)
        assert samples.log_weight is not None
        rows[f"{name} raw"] = of_counts(law, q)
        progress.update()
        rows[f"{name} weighted"] = of_counts(law, q, normalised_weights(samples.log_weight))
        progress.update()
        order = independence_metropolis(samples.log_weight, bench.seed)[0]
        rows[f"{name} metropolis"] = of_series(law, [q[order]])
        progress.update()
    progress.close()
    first, exact = bench.config.models[0], law.moment(2)
    weighted, chain = (rows[f"{first} {way}"] for way in ("weighted", "metropolis"))
    right = all(row["p"] >= least_p and abs(_pull(row, exact)) < FAR for row in (weighted, chain))
    others = float(law.probability[law.charge != 0].sum())
    moving = chain["tau_q"] is not None and chain["tau_q"][0] <= MOST_TAU
    stays = not chain["q2"][0] and others * len(bench.samples[first]) < UNSEEN
    return {
        "passed": bool(right and (moving or stays)), "rows": rows, "charge": law.charge.tolist(),
        "probability": law.probability.tolist(), "exact": {"q2": exact}, "least_p": least_p,
        "beta": action.beta.real, "shape": list(shape),
    }  # fmt: skip


def _pull(row: dict[str, Any], exact: float) -> float:
    """Of <Q^2>; 0 where no charge was seen, which is the business of P(Q)."""
    value, error = row["q2"]
    return (value - exact) / error if error > 0 else 0.0


def charges_of(samples: Ensemble) -> Floats:
    """Q (n,)."""
    found: Floats = charge(torch.from_numpy(samples.phi)).numpy()
    return found


def of_chains(law: ChargeLaw, ensemble: Ensemble) -> dict[str, Any]:
    """Of Markov chains, or of independent draws where each is a chain of its own."""
    q, chains = charges_of(ensemble), ensemble.replicas()
    if all(len(rows) == 1 for rows in chains):
        return of_counts(law, q)
    return of_series(law, [q[rows] for rows in chains])


def of_series(law: ChargeLaw, series: list[Floats]) -> dict[str, Any]:
    """Of chains of Q."""
    taus = {"tau_q": _tau(series), "tau_q2": _tau([q**2 for q in series])}
    q = np.concatenate(series)
    slow = max((tau[0] for tau in taus.values() if tau is not None), default=0.5)
    n = len(q) / (2 * max(slow, 0.5)) if taus["tau_q"] is not None else float(len(series))
    return of_counts(law, q, n=n) | taus


def _tau(series: list[Floats]) -> list[float] | None:
    """tau_int of a series, with its error; None where it never changes or is too short."""
    try:
        found = gamma_method([x[:, None] for x in series])
    except EstimatorError:
        return None
    return [found.tau_int, found.tau_int_error]


def of_counts(
    law: ChargeLaw, q: Floats, weight: Floats | None = None, n: float | None = None
) -> dict[str, Any]:  # fmt: skip
    """<Q>, <Q^2>, P(Q) and its chi^2 of configurations with weights, or as good as n independent ones."""
    w = np.ones(len(q)) if weight is None else weight
    share = w / w.sum()
    n = float(len(q)) if n is None else n
    means = [float(share @ x) for x in (q, q**2)]
    scale = math.sqrt(len(q) / n) if weight is None else 1.0
    errors = [scale * float(np.sqrt(share**2 @ (x - m) ** 2)) for x, m in zip((q, q**2), means)]
    found = frequencies(q, *law, n=n, weight=weight)
    observed = np.array([share[q == k].sum() for k in law.charge])
    return {
        "q": [means[0], errors[0]], "q2": [means[1], errors[1]], "observed": observed.tolist(),
        "n": n if weight is None else 1 / float((share**2).sum()), "chi2": found.chi2, "dof": found.dof,
        "p": found.p, "sectors": len(np.unique(q)), "tau_q": None, "tau_q2": None,
    }  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """A row for each sampler."""
    exact = result["exact"]["q2"]
    rows = [["sampler", "<Q>", "<Q^2>", "pull", "chi^2/dof", "p", "tau(Q)", "tau(Q^2)", "sectors"]]
    for name, row in result["rows"].items():
        tau = [format_value(*row[key]) if row[key] else "-" for key in ("tau_q", "tau_q2")]
        (q, q_error), (q2, q2_error) = row["q"], row["q2"]
        known = q2_error > 0
        rows.append([
            name, format_value(q, q_error) if known else f"{q:.3g}",
            format_value(q2, q2_error) if known else f"{q2:.3g}",
            f"{(q2 - exact) / q2_error:+.1f}" if known else "-",
            f"{row['chi2']:.1f}/{row['dof']}", f"{row['p']:.2g}" if row["dof"] else "-", *tau,
            str(row["sectors"]),
        ])  # fmt: skip
    verdict = "passed" if result["passed"] else "NOT passed"
    return "\n".join([
        *aligned(rows), f"exact <Q^2> = {exact:.6g}; p of a chi^2 of P(Q); tau_int = 1/2 + sum rho; {verdict}"
    ])  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """P(Q)."""
    return charges_figure(result)


def refuse(least_p: float = LEAST_P) -> None:
    """`InputError` for a probability that everything or nothing has."""
    if not 0 < least_p < 0.5:
        raise InputError(f"least_p must be between 0 and 0.5, got {least_p:g}")
