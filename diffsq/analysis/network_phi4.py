r"""phi^4 by networks: <phi^2>, <phi^4> and <phi_0 phi_1> of neurons moved by Metropolis, over N, and limits.

Fields of N neurons of the law P(theta) exp(-lam sum f^4), whose undeformed part has the propagator of the
quadratic part of S (`lattice.updates.neurons`), tend to phi^4 as N grows. Three laws of output weights have
three ways there and one limit: each mean is fitted as a + b_law/N + c_law/N^2 with one a, and held against
the transfer matrix; the error of kappa_4 = <phi^4> - 3 <phi^2>^2 of the limits counts their covariance.
K(p) > 0 for all p is needed: the broken phase at tree level is out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats

from lattice.actions.networks import CosNet, Network
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.rng import stream_id
from lattice.updates.neurons import neuron_sweep, start_neurons

QUANTITIES = ("phi2", "phi4", "next")
SKIPPED = 0.2  # of the sweeps, before the first is measured


def seed_of(law: Network, seed: int) -> int:
    """The seed of the neurons of one law of weights and width: each has numbers of its own."""
    return (seed + stream_id(f"neurons/{law.as_dict()}")) % 2**64


def deformed(
    law: CosNet, shape: tuple[int, ...], seed: int, n_chains: int, n_sweeps: int,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """<phi^2>, <phi^4> and <phi_0 phi_1> of the deformed law, each [value, error] from the scatter of chains,
    the "covariance" of the first two, and the acceptance. Random numbers from `seed_of`. Raises `InputError`
    as `neuron_sweep`, and for fewer than 8 chains or 10 sweeps."""
    if n_chains < 8 or n_sweeps < 10:
        raise InputError(f"n_chains must be >= 8 and n_sweeps >= 10, got {n_chains} and {n_sweeps}")
    chains = np.arange(n_chains)
    seed = seed_of(law, seed)
    state = start_neurons(law, shape, seed, chains)
    sums, accepted, first = np.zeros((n_chains, 3)), 0.0, int(SKIPPED * n_sweeps)
    for t in range(1, n_sweeps + 1):
        state, phi, ratio = neuron_sweep(
            law, law.lam, state, shape=shape, seed=seed, chains=chains, trajectory=t
        )
        if t > first:
            sums += _numbers(phi)
            accepted += float(ratio.mean())
        done()
    means, n = sums / (n_sweeps - first), n_sweeps - first
    pairs = [[float(x.mean()), float(x.std(ddof=1) / np.sqrt(n_chains))] for x in means.T]
    both = float(np.cov(means[:, 0], means[:, 1])[0, 1] / n_chains)
    return {**dict(zip(QUANTITIES, pairs, strict=True)), "covariance": both, "acceptance": accepted / n}


def _numbers(phi: Floats) -> Floats:
    flat = phi.reshape(len(phi), -1)
    near = (phi * np.roll(phi, 1, axis=1)).reshape(len(phi), -1)
    return np.stack([(flat**2).mean(1), (flat**4).mean(1), near.mean(1)], axis=1)


def limit(table: Sequence[dict[str, Any]], quadratic: bool, name: str = "phi2") -> dict[str, Any]:
    """Fit of a + b/N (+ c/N^2) with one a for all laws to `name`: "value" [a, error], "slopes" b by law,
    chi2, dof and p, and "weights" of the rows in a. table: rows with law, width and name [value, error].
    Raises `InputError` for too few rows.

    >>> rows = [{"law": "x", "width": n, "phi2": [1 + 2 / n, 0.1]} for n in (1, 2, 4)]
    >>> found = limit(rows, False)
    >>> round(found["value"][0], 9), round(found["slopes"]["x"], 9), found["dof"]
    (1.0, 2.0, 1)
    """
    laws = list(dict.fromkeys(x["law"] for x in table))
    powers = (1, 2) if quadratic else (1,)
    y, error = (np.array([x[name][i] for x in table]) for i in (0, 1))
    columns = [np.ones(len(table))]
    for law in laws:
        own = np.array([x["law"] == law for x in table])
        columns += [own / np.array([x["width"] for x in table], dtype=float) ** p for p in powers]
    design = np.stack(columns, axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1] or len(table) <= design.shape[1]:
        raise InputError(f"{len(table)} numbers do not fix a limit and {design.shape[1] - 1} slopes")
    scaled = design / error[:, None]
    inverse = np.linalg.inv(scaled.T @ scaled)
    weights = inverse @ scaled.T / error
    best = weights @ y
    chi2, dof = float((((y - design @ best) / error) ** 2).sum()), len(table) - design.shape[1]
    step = len(powers)
    return {
        "value": [float(best[0]), float(inverse[0, 0] ** 0.5)],
        "slopes": {law: float(best[1 + i * step]) for i, law in enumerate(laws)},
        "chi2": chi2, "dof": dof, "p": float(scipy.stats.chi2.sf(chi2, dof)),
        "weights": weights[0].tolist(),
    }  # fmt: skip


def fourth_cumulant(table: Sequence[dict[str, Any]], limits: dict[str, dict[str, Any]]) -> list[float]:
    """kappa_4 = <phi^4> - 3 <phi^2>^2 of the limits, [value, error]; table: as `limit`, with "covariance"."""
    (two, two_error), (four, four_error) = (limits[name]["value"] for name in ("phi2", "phi4"))
    weights = zip(limits["phi2"]["weights"], limits["phi4"]["weights"], table, strict=True)
    both = sum(a * b * x["covariance"] for a, b, x in weights)
    variance = four_error**2 + (6 * two * two_error) ** 2 - 2 * 6 * two * both
    return [four - 3 * two**2, max(variance, 0.0) ** 0.5]
