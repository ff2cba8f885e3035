r"""Updates of Ising and Potts spins: heat bath, Metropolis, Wolff, Swendsen-Wang, with or without a field.

Local sweeps visit site after site. Clusters of equal states freeze a bond with probability 1 - exp(-K)
(Fortuin, Kasteleyn, Physica 57 (1972) 536), K = 2/T for Ising and 1/T for Potts. In a field the ghost spin
of Coniglio et al. is summed over its bonds: `wolff` accepts a cluster's new state with min(1, (w'/w)^size),
`swendsen_wang` draws every cluster's state by w^size. Wolff, PRL 62 (1989) 361; Swendsen, Wang, PRL 58 (1987)
86.

Numbers depend on (seed, stream, chain, trajectory) only: batch and threads change no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.actions.protocol import Action
from lattice.actions.spins import Spins, spins_of
from lattice.arrays import Floats, Integers, Labels
from lattice.errors import InputError
from lattice.rng import stream_id
from lattice.updates.batch import check_batch
from lattice.updates.kernels import layout
from lattice.updates.kernels import spins as kernels

HEAT_BATH, METROPOLIS = "spins/heat-bath", "spins/metropolis"
WOLFF, WOLFF_STATE = "spins/wolff", "spins/wolff/state"
BOND, STATE = "spins/swendsen-wang/bond", "spins/swendsen-wang/state"
MOST = 600.0  # of an exponent
LAZY = 15 / 16  # share of the offers of a two-state Metropolis sweep that are made
BLOCK = 256  # chains at a time of two-state sweeps


@dataclass(frozen=True)
class SweepInfo:
    """Fraction of the visits that changed a spin: moved (n,)."""

    moved: Floats


@dataclass(frozen=True)
class SpinClusters:
    """Of Wolff: size (n, n_clusters) of each cluster that changed its state, 0 where that was refused. Of
    Swendsen-Wang: size (n, 1) of the largest, n_clusters (n,)."""

    size: Integers
    n_clusters: Integers


class _Batch(NamedTuple):
    action: Spins
    labels: Labels
    shape: tuple[int, ...]
    random: Any

    def back(self) -> Floats:
        return self.action.values(self.labels).reshape(self.shape)


def _batch(action: Action, phi: Floats, seed: int, chains: Integers, trajectory: int) -> _Batch:
    spins = spins_of(action, "these updates know")
    fields, keys = check_batch(action, phi, seed, chains, trajectory)
    labels = np.ascontiguousarray(spins.labels(fields).reshape(len(fields), -1))
    exponent = 2 * (fields.ndim - 1) * spins.coupling + float(np.ptp(spins.log_weights))
    if exponent > MOST:
        raise InputError(
            f"action.temperature = {spins.temperature:g} is too low for these updates, exp({exponent:.0f}) "
            f"overflows: take {1.05 * spins.temperature * exponent / MOST:.2g} or more"
        )
    return _Batch(spins, labels, fields.shape, (np.uint64(seed), keys, np.uint64(trajectory)))


def heat_bath_sweep(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, n_sweeps: int = 1,
    n_threads: int | None = None,
) -> tuple[Floats, SweepInfo]:  # fmt: skip
    """Every spin in turn from its law given its neighbours: phi (n, *shape) -> (phi', info); the input is
    left alone. Raises `InputError` for bad shapes, dtypes, counters, spins or number of sweeps.

    >>> from lattice.actions.spins import Ising
    >>> cold = np.ones((2, 4, 4))
    >>> heat_bath_sweep(Ising(0.1), cold, seed=1, chains=np.arange(2), trajectory=0)[1].moved.tolist()
    [0.0, 0.0]
    """
    return _sweep(True, _batch(action, phi, seed, chains, trajectory), n_sweeps, n_threads)


def spin_metropolis_sweep(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, n_sweeps: int = 1,
    n_threads: int | None = None,
) -> tuple[Floats, SweepInfo]:  # fmt: skip
    """As `heat_bath_sweep`, by Metropolis: every spin in turn is offered another state.

    Two states are accepted with LAZY min(1, exp(-dS)): moves without a change of S would otherwise always be
    made, and visited in turn they split the states of many lattices into classes that never meet.
    """
    return _sweep(False, _batch(action, phi, seed, chains, trajectory), n_sweeps, n_threads)


def _sweep(heat_bath: bool, given: _Batch, n_sweeps: int, n_threads: int | None) -> tuple[Floats, SweepInfo]:
    action, labels, shape = given.action, given.labels, given.shape[1:]
    n, volume = labels.shape
    if not 1 <= n_sweeps < 2**31 // volume:
        raise InputError(f"n_sweeps must be >= 1, and n_sweeps * sites < 2^31, got {n_sweeps}")
    info, table = SweepInfo(np.empty(n)), layout.neighbour_table(shape)
    seed, keys, trajectory = given.random
    stream = np.uint64(stream_id(HEAT_BATH if heat_bath else METROPOLIS))
    neighbours = 2 * sum(extent > 1 for extent in shape)
    if action.n_states == 2:
        chances = _chances(action, neighbours, heat_bath)

        def run(start: int, stop: int) -> None:
            kernels.two_state_block(
                labels, info.moved, keys, start, stop, table, chances, n_sweeps, seed, stream, trajectory
            )

        layout.in_blocks(run, n, BLOCK, n_threads)
        return given.back(), info
    kernel: Callable[..., None] = kernels.heat_bath_range if heat_bath else kernels.metropolis_range
    bond, weight = np.exp(action.coupling * np.arange(neighbours + 1)), np.exp(action.log_weights)

    def go(start: int, stop: int) -> None:
        kernel(labels, info.moved, table, bond, weight, n_sweeps, seed, stream, keys, trajectory, start, stop)

    layout.in_blocks(go, n, n, n_threads)
    return given.back(), info


def _chances(action: Spins, neighbours: int, heat_bath: bool) -> NDArray[np.uint64]:
    """2^32 times the probability of state 1 afterwards, by 2 (neighbours in state 1) + own state."""
    ones = np.arange(neighbours + 1)
    down, up = action.log_weights
    gain = action.coupling * (2.0 * ones - neighbours) + up - down  # ln of p(1)/p(0)
    if heat_bath:
        p = np.repeat(1 / (1 + np.exp(-gain)), 2)
    else:
        up, down = (LAZY * np.exp(np.minimum(x, 0)) for x in (gain, -gain))
        p = np.stack([up, 1 - down], axis=1).ravel()
    return np.asarray(np.round(p * 2.0**32), dtype=np.uint64)


def spin_wolff_update(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, n_clusters: int = 1,
    n_threads: int | None = None,
) -> tuple[Floats, SpinClusters]:  # fmt: skip
    """`n_clusters` single clusters of every chain: phi (n, *shape) -> (phi', info). Raises as
    `heat_bath_sweep`.

    >>> from lattice.actions.spins import Ising
    >>> phi, info = spin_wolff_update(
    ...     Ising(0.1), np.ones((2, 4, 4)), seed=1, chains=np.arange(2), trajectory=0
    ... )
    >>> info.size.tolist(), float(phi.mean())
    ([[16], [16]], -1.0)
    """
    if n_clusters < 0:
        raise InputError(f"n_clusters must be >= 0, got {n_clusters}")
    given = _batch(action, phi, seed, chains, trajectory)
    n = len(given.labels)
    info = SpinClusters(np.zeros((n, n_clusters), np.int64), np.full(n, n_clusters, np.int64))
    _clusters(kernels.wolff_range, (info.size,), (WOLFF, WOLFF_STATE), given, n_threads)
    return given.back(), info


def spin_swendsen_wang_update(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, n_threads: int | None = None
) -> tuple[Floats, SpinClusters]:  # fmt: skip
    """Every cluster of every chain takes a new state: phi (n, *shape) -> (phi', info). Raises as
    `heat_bath_sweep`."""
    given = _batch(action, phi, seed, chains, trajectory)
    n = len(given.labels)
    largest, count = np.empty(n, np.int64), np.empty(n, np.int64)
    _clusters(kernels.swendsen_wang_range, (count, largest), (BOND, STATE), given, n_threads)
    return given.back(), SpinClusters(largest[:, None], count)


def _clusters(
    kernel: Callable[..., None], infos: tuple[Integers, ...], streams: tuple[str, str], given: _Batch,
    n_threads: int | None,
) -> None:  # fmt: skip
    action, (seed, keys, trajectory) = given.action, given.random
    numbers = (seed, *(np.uint64(stream_id(name)) for name in streams), keys, trajectory)
    neighbours, own = layout.neighbour_table(given.shape[1:]), (action.coupling, action.log_weights)

    def run(start: int, stop: int) -> None:
        kernel(given.labels, *infos, neighbours, *own, *numbers, start, stop)

    layout.in_blocks(run, len(given.labels), len(given.labels), n_threads)
