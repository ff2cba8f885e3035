"""Cluster updates of the signs of phi, interleaved with an update that moves the amplitudes (HMC or local).

The signs at fixed |phi| are an Ising model with couplings 2 kappa |phi_x phi_y| (Brower, Tamayo, PRL 62
(1989) 1087).  A bond is frozen with probability 1 - exp(-4 kappa phi_x phi_y) where kappa phi_x phi_y > 0,
which joins the sites into the clusters of Fortuin and Kasteleyn (Physica 57 (1972) 536), and the signs of
different clusters are independent.  Exact for phi^4 at any kappa (negative kappa freezes antiparallel
pairs) and on any periodic shape: an axis of extent 2 has two bonds between its sites, as in S, and one of
extent 1 has none that matter.

`wolff_update` grows single clusters and flips each (Wolff, PRL 62 (1989) 361), `swendsen_wang_update`
draws every bond and flips half of all clusters (Swendsen, Wang, PRL 58 (1987) 86).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import stream_id
from lattice.updates.batch import check_phi4
from lattice.updates.kernels import cluster as cluster_kernels
from lattice.updates.kernels import layout

WOLFF = "cluster/wolff"
BOND, FLIP = "cluster/swendsen-wang/bond", "cluster/swendsen-wang/flip"


@dataclass(frozen=True)
class ClusterInfo:
    """Sites of each flipped cluster: size (n, n_clusters) int64."""

    size: Integers


@dataclass(frozen=True)
class SwendsenWangInfo:
    """The clusters of every chain: n_clusters (n,) and sites of the largest (n,), int64; v_m2 (n,).

    v_m2 = sum over clusters of (sum of phi in the cluster)^2 / V is V M^2 averaged over all flips of the
    clusters: the same mean V<M^2> as the field's own, with less noise (Wolff, PRL 60 (1988) 1461).
    """

    n_clusters: Integers
    largest: Integers
    v_m2: Floats


def wolff_update(
    action: Action,
    phi: Floats,
    *,
    seed: int,
    chains: Integers,
    trajectory: int,
    n_clusters: int = 1,
    n_threads: int | None = None,
) -> tuple[Floats, ClusterInfo]:
    """Flip `n_clusters` clusters in every chain: phi (n, *shape) -> (phi', info); the input is left alone.

    Every number depends on (seed, chain, trajectory) only, never on the batch or the threads.  Raises
    `InputError` for bad shapes, dtypes or counters.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> action, cold = ScalarPhi4(0.27, 0.022), np.ones((2, 4, 4))
    >>> phi, info = wolff_update(action, cold, seed=1, chains=np.arange(2), trajectory=0)
    >>> bool(((phi < 0).sum(axis=(1, 2)) == info.size[:, 0]).all())
    True
    """
    form, phi, keys = check_phi4(action, phi, seed, chains, trajectory)
    if n_clusters < 0:
        raise InputError(f"n_clusters must be >= 0, got {n_clusters}")
    n = len(phi)
    flat = phi.reshape(n, -1).copy()
    sizes = np.zeros((n, n_clusters), dtype=np.int64)

    def run(start: int, stop: int) -> None:
        cluster_kernels.wolff_range(
            flat, sizes, layout.neighbour_table(phi.shape[1:]), form.kappa, np.uint64(seed),
            np.uint64(stream_id(WOLFF)), keys, np.uint64(trajectory), start, stop,
        )  # fmt: skip

    layout.in_blocks(run, n, n, n_threads)
    return flat.reshape(phi.shape), ClusterInfo(sizes)


def swendsen_wang_update(
    action: Action,
    phi: Floats,
    *,
    seed: int,
    chains: Integers,
    trajectory: int,
    n_threads: int | None = None,
) -> tuple[Floats, SwendsenWangInfo]:
    """Flip every cluster with probability 1/2: phi (n, *shape) -> (phi', info); the input is left alone.

    The bonds come from (seed, "cluster/swendsen-wang/bond", chain, trajectory), one number for each of the
    V d bonds of S, the flips from ".../flip", at the position of the cluster's lowest site.  Batch and
    threads change no bit.  Raises `InputError` for bad shapes, dtypes or counters.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> action, cold = ScalarPhi4(0.27, 0.022), np.full((2, 4, 4), 9.0)     # every bond is frozen
    >>> phi, info = swendsen_wang_update(action, cold, seed=1, chains=np.arange(2), trajectory=0)
    >>> info.n_clusters.tolist(), info.largest.tolist(), info.v_m2.tolist()
    ([1, 1], [16, 16], [1296.0, 1296.0])
    """
    form, phi, keys = check_phi4(action, phi, seed, chains, trajectory)
    n = len(phi)
    flat = phi.reshape(n, -1).copy()
    info = SwendsenWangInfo(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n))

    def run(start: int, stop: int) -> None:
        cluster_kernels.swendsen_wang_range(
            flat, info.n_clusters, info.largest, info.v_m2, layout.neighbour_table(phi.shape[1:]),
            form.kappa, np.uint64(seed), np.uint64(stream_id(BOND)), np.uint64(stream_id(FLIP)),
            keys, np.uint64(trajectory), start, stop,
        )  # fmt: skip

    layout.in_blocks(run, n, n, n_threads)
    return flat.reshape(phi.shape), info
