r"""Updates of U(1) links on a torus: heat bath, and winding moves between charges.

Heat bath: of its two plaquettes a link a has e^{beta cos(a + f) + beta cos(b - a)} = e^{k cos(a - m)} with
k = 2 beta cos((f + b)/2), m = (b - f)/2, a von Mises law. Winding: links whose plaquettes are all +-2 pi/V
are added, somewhere on the torus, and accepted with min(1, e^{-dS}); the move back is offered as often. Local
updates change Q by dislocations only, which die out as e^{-c beta}; this one changes it on any smooth field
(Fucito, Solomon, Phys. Lett. B134 (1984) 235; Albandea et al., arXiv:2106.14234).

Numbers depend on (seed, stream, chain, trajectory) only: batch and threads change no bit. HMC of links is in
`lattice.updates.hmc`. All leave angles in (-pi, pi].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.actions.protocol import Action
from lattice.actions.u1 import check_links
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import stream_id
from lattice.updates.batch import check_batch
from lattice.updates.kernels import layout
from lattice.updates.kernels import u1 as kernels

HEAT_BATH, WINDING = "u1/heat-bath", "u1/winding"


@dataclass(frozen=True)
class LinkSweeps:
    """Random points that were tried for each link, on average: attempts (n,)."""

    attempts: Floats


@dataclass(frozen=True)
class WindingMoves:
    """Of each move: dS (n, n_moves), and whether it was accepted (n, n_moves)."""

    dS: Floats  # noqa: N815 - the action's name
    accepted: NDArray[np.bool_]


def link_heat_bath(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, n_sweeps: int = 1,
    n_threads: int | None = None,
) -> tuple[Floats, LinkSweeps]:  # fmt: skip
    """Every link in turn from its law given its two plaquettes: phi (n, 2, L0, L1) -> (phi', info); the input
    is left alone. Raises `InputError` for bad shapes, dtypes, counters, a complex S or number of sweeps.

    >>> from lattice.actions.u1 import U1
    >>> phi, info = link_heat_bath(U1(2.0), np.zeros((2, 2, 4, 4)), seed=1, chains=np.arange(2), trajectory=0)
    >>> phi.shape, bool((info.attempts < 2).all())
    ((2, 2, 4, 4), True)
    """
    beta, links, nb, keys = _links(action, phi, seed, chains, trajectory)
    if not 1 <= n_sweeps < 2**26 // links.shape[1]:  # counters are of 32 bits
        raise InputError(f"n_sweeps must be >= 1, and n_sweeps * links < 2^26, got {n_sweeps}")
    info = LinkSweeps(np.empty(len(links)))
    random = (np.uint64(seed), np.uint64(stream_id(HEAT_BATH)), keys, np.uint64(trajectory))

    def run(start: int, stop: int) -> None:
        kernels.heat_bath_range(links, info.attempts, nb, beta, n_sweeps, *random, start, stop)

    layout.in_blocks(run, len(links), len(links), n_threads)
    return links.reshape(np.shape(phi)), info


def winding_update(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, n_moves: int = 1,
    n_threads: int | None = None,
) -> tuple[Floats, WindingMoves]:  # fmt: skip
    """`n_moves` winding moves of every chain: phi (n, 2, L0, L1) -> (phi', info). Raises as `link_heat_bath`.

    A move turns Q into Q +- 1 unless a plaquette crosses pi. The links added are 2 pi x_0/V along axis 1 and,
    in the last row, -2 pi x_1/L1 along axis 0, with x counted from a random site.

    >>> from lattice.actions.u1 import U1
    >>> cold = np.zeros((1, 2, 16, 16))
    >>> _, info = winding_update(U1(7.0), cold, seed=1, chains=np.arange(1), trajectory=0)
    >>> info.dS.round(4).tolist()
    [[0.5397]]
    """
    beta, links, nb, keys = _links(action, phi, seed, chains, trajectory)
    if not 0 <= n_moves < 2**30:
        raise InputError(f"n_moves must be >= 0, got {n_moves}")
    size = (len(links), n_moves)
    info = WindingMoves(np.empty(size), np.empty(size, dtype=np.bool_))
    random = (np.uint64(seed), np.uint64(stream_id(WINDING)), keys, np.uint64(trajectory))

    def run(start: int, stop: int) -> None:
        kernels.winding_range(
            links, info.dS, info.accepted, nb, np.shape(phi)[-1], beta, *random, start, stop
        )

    layout.in_blocks(run, len(links), len(links), n_threads)
    return links.reshape(np.shape(phi)), info


def _links(
    action: Action, phi: Floats, seed: int, chains: Integers, trajectory: int
) -> tuple[float, Floats, NDArray[np.uint64], Any]:
    """beta, a copy of the links (n, 2V), their neighbours and the keys of the chains."""
    links = check_links(action, "these updates know")
    fields, keys = check_batch(action, phi, seed, chains, trajectory)
    action.check_normalisable(fields.shape[2:])
    flat = np.array(fields.reshape(len(fields), -1))
    return links.beta.real, flat, layout.neighbour_table(fields.shape[2:]), keys
