"""Ensembles of random networks: independent fields in the schema of all others, certified by exact cumulants.

Field number i is a function of (seed, i) only (`lattice.simulation.network_fields`), its group i mod
n_chains: a longer ensemble goes on from a shorter one with the same bits.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lattice.actions.networks import Network
from lattice.actions.protocol import check_shape
from lattice.certificates.networks import certify_network
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.memory import require_memory
from lattice.progress import Progress, Silent
from lattice.simulation.network_fields import draw_fields
from lattice.simulation.parameters import RandomNetworks
from lattice.simulation.recipe import Recipe


def generate_networks(
    law: Network, shape: tuple[int, ...], params: RandomNetworks, seed: int, out: Path, *,
    progress: Progress | None = None,
) -> Ensemble:  # fmt: skip
    """Fields of a network in the folder `out`, with their certificate.

    Raises `InputError` for a law that is no network, one that is not there on this lattice (K(p) <= 0, a
    number of neurons that is not whole), and when `out` holds others (each change is named).
    """
    if not isinstance(law, Network):
        raise InputError(
            f"{type(law).__name__} is no random network: ensembles of an action are made by Markov chains"
        )
    check_shape(shape)
    law.check_normalisable(shape)
    recipe: Recipe[RandomNetworks] = Recipe(law, shape, params, seed)  # type: ignore[arg-type]
    require_memory(8.0 * params.n_saved * math.prod(shape), f"an ensemble of {params.n_saved} fields",
                   "take a smaller ensemble.n_configs")  # fmt: skip
    if (made := recipe.made(out)) is not None:
        return made
    recipe.begin(out)
    progress = progress or Silent()
    algorithm = {"name": "random networks", "parameters": params.model_dump(mode="json")}
    writer, n = recipe.writer(out, algorithm, 0, 1), params.n_chains
    progress.start(params.n_saved, "random networks")
    for k, times, kept in recipe.spans(writer):
        if kept is None:
            phi = draw_fields(law, shape, np.arange(times.start * n, times.stop * n), recipe.seed)
            recipe.write(
                writer, k, phi.reshape(len(times), n, *shape), np.arange(times.start, times.stop) + 1, {}
            )
        progress.update(len(times) * n)
    progress.close()
    ensemble = writer.read()
    return recipe.finish(writer, ensemble, certify_network(ensemble))
