"""Ensembles of independent exact draws of U(1) links, in the schema of all others, with their certificate.

Configuration i is a function of (seed, i) only (`lattice.simulation.gauge_draws`), its group i mod 64, kept
as a chain: blocks of errors, and what is held out of a training. A longer ensemble goes on from a shorter
one, and one that was killed from its last shard, with the same bits.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lattice.actions.u1 import U1, check_links
from lattice.arrays import Floats
from lattice.certificates.check import GATE, mean_is
from lattice.certificates.links import charge_check, exact_checks, link_quantities
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import batches
from lattice.exact.u1 import charge_law, wilson_loop
from lattice.memory import require_memory
from lattice.observables import gauge
from lattice.progress import Progress, Silent
from lattice.simulation.gauge_draws import draw_links
from lattice.simulation.parameters import ExactDraws
from lattice.simulation.recipe import Recipe


def generate_link_draws(
    action: U1, shape: tuple[int, ...], params: ExactDraws, seed: int, out: Path, *,
    progress: Progress | None = None,
) -> Ensemble:  # fmt: skip
    """Exact draws of `action` in the folder `out`, `n_configs` rounded up to the same number in each group,
    with the certificate that they are of its law.

    Raises `InputError` where S is complex or of a class of its own, for a shape that is no torus, and when
    `out` holds others (each change is named).
    """
    links = check_links(action, "exact draws of a lattice are of")
    links.check_normalisable(shape)
    groups = params.groups
    require_memory(16.0 * groups.n_saved * math.prod(shape), f"an ensemble of {groups.n_saved} fields",
                   "take a smaller ensemble.n_configs")  # fmt: skip
    recipe = Recipe(links, tuple(shape), groups, seed)
    if (made := recipe.made(out)) is not None:
        return made
    recipe.begin(out)
    bar, n = progress or Silent(), groups.n_chains
    writer = recipe.writer(out, {"name": "exact draws", "parameters": groups.model_dump(mode="json")}, 0, 1)
    bar.start(groups.n_saved, "exact draws")
    for k, times, kept in recipe.spans(writer):
        if kept is None:
            phi = draw_links(links.beta.real, shape, len(times) * n, recipe.seed, times.start * n)
            fields = phi.reshape(len(times), n, *recipe.fields)
            recipe.write(writer, k, fields, np.arange(times.start, times.stop) + 1, {})
        bar.update(len(times) * n)
    bar.close()
    ensemble = writer.read()
    return recipe.finish(writer, ensemble, certify_draws(ensemble))


def certify_draws(ensemble: Ensemble) -> dict[str, Any]:
    """Independent links against the exact numbers of their torus: plaquette, 2 x 2 loop, holonomies, <Q> and
    <Q^2>, P(Q), and the identity of the force. JSON data, as `lattice.certificates.monte_carlo.certify`
    returns."""
    links, chains = check_links(ensemble.action, "exact draws of a lattice are of"), ensemble.replicas()
    beta, volume = links.beta.real, math.prod(ensemble.shape)
    data = {name: [x[rows] for rows in chains] for name, x in link_quantities(ensemble).items()}
    loop, words = _loops(ensemble.phi), "sin theta dS/da - cos theta per angle"
    identity = mean_is("Schwinger-Dyson", data["schwinger_dyson"], 0.0, words)
    checks = [
        *exact_checks(ensemble, data), mean_is("Q (C)", data["charge"], 0.0, "charge conjugation"), identity,
        charge_check(np.concatenate(data["charge"]), charge_law(beta, volume)),
    ]  # fmt: skip
    if volume > 4:  # else the loop around everything, which is 1
        exact = wilson_loop(beta, volume, 4)
        parts = [loop[rows] for rows in chains]
        checks.insert(1, mean_is("2x2 loop", parts, exact, "against the exact number"))
    failed = [check["name"] for check in checks if not check["passed"]]
    return {
        "passed": not failed,
        "reason": f"failed: {', '.join(failed)}" if failed else "",
        "checks": checks,
        "tau_int": {"unit": "saved configurations"},
        "n": len(ensemble),
        "n_chains": len(chains),
        "n_independent": float(len(ensemble)),
        "acceptance": None,
        "exp_minus_dH": None,
        "schwinger_dyson": {"value": identity["value"], "error": identity["error"]},
        "gate": GATE,
    }


def _loops(phi: Floats) -> Floats:
    """The 2 x 2 loop of links (n, 2, L0, L1), averaged over where it lies, (n,)."""
    parts = [gauge.wilson_loop(torch.from_numpy(phi[part]), 2, 2).numpy() for part in batches(phi.shape)]
    return np.concatenate(parts)
