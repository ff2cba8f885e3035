"""Single-cluster Wolff update of the signs of phi, interleaved with HMC, which moves the amplitudes.

The signs at fixed |phi| are an Ising model with couplings 2 kappa |phi_x phi_y|; its clusters are exact for
phi^4 at any kappa (negative kappa freezes antiparallel bonds) and on any periodic shape.  Random numbers
come from (seed, "cluster/wolff", chain, trajectory).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lattice import cluster_kernels, kernels
from lattice.action import ScalarPhi4
from lattice.errors import InputError
from lattice.hmc import check_fields
from lattice.rng import check_counters, stream_id

WOLFF = "cluster/wolff"


@dataclass(frozen=True)
class ClusterInfo:
    """Sites of each flipped cluster: size (n, n_clusters) int64."""

    size: NDArray[np.int64]


def wolff_update(
    action: ScalarPhi4,
    phi: NDArray[np.float64],
    *,
    seed: int,
    chains: NDArray[np.int64],
    trajectory: int,
    n_clusters: int = 1,
    n_threads: int | None = None,
) -> tuple[NDArray[np.float64], ClusterInfo]:
    """Flip `n_clusters` clusters in every chain: phi (n, *shape) -> (phi', info); the input is left alone.

    Every number depends on (seed, chain, trajectory) only, never on the batch or the threads.  Raises
    `InputError` for bad shapes, dtypes or counters.

    >>> action, cold = ScalarPhi4(0.27, 0.022), np.ones((2, 4, 4))
    >>> phi, info = wolff_update(action, cold, seed=1, chains=np.arange(2), trajectory=0)
    >>> bool(((phi < 0).sum(axis=(1, 2)) == info.size[:, 0]).all())
    True
    """
    phi = check_fields(phi)
    keys = check_counters(seed, chains, trajectory)
    if len(keys) != len(phi):
        raise InputError(f"chains must name every field: {len(phi)} fields, {len(keys)} chains")
    if n_clusters < 0:
        raise InputError(f"n_clusters must be >= 0, got {n_clusters}")
    n, threads = len(phi), kernels.available_threads(n_threads)
    flat = phi.reshape(n, -1).copy()
    sizes = np.zeros((n, n_clusters), dtype=np.int64)
    share = -(-n // threads)

    def run(start: int) -> None:
        cluster_kernels.wolff_range(
            flat, sizes, kernels.neighbour_table(phi.shape[1:]), float(action.kappa), np.uint64(seed),
            np.uint64(stream_id(WOLFF)), keys, np.uint64(trajectory), start, min(start + share, n),
        )  # fmt: skip

    kernels.run_threaded(run, range(0, n, share), threads)
    return flat.reshape(phi.shape), ClusterInfo(sizes)
