"""Start configurations: hot, cold and, where the broken phase has two minima, a pair of domain walls.

That chains from all of them end up alike is the first thing a certificate asks. Hot starts leave domain walls
behind that a short run never removes, and a wall wound around the lattice is the slowest of all; starting
with one shows how long that takes.
"""

from __future__ import annotations

import math

import numpy as np

from lattice.actions.protocol import Action
from lattice.actions.spins import Spins
from lattice.arrays import Floats
from lattice.rng import normals, uniforms

START = "ensemble/start"


def start_names(n_chains: int, walls: bool = False) -> list[str]:
    """ "hot" for even chains; odd ones "cold" or, with `walls`, "cold" and "wall" in turn.

    >>> start_names(4), start_names(4, walls=True)
    (['hot', 'cold', 'hot', 'cold'], ['hot', 'cold', 'hot', 'wall'])
    """
    odd = ("cold", "wall" if walls else "cold")
    return [odd[chain // 2 % 2] if chain % 2 else "hot" for chain in range(n_chains)]


def has_walls(action: Action, shape: tuple[int, ...], n_chains: int) -> bool:
    """Whether some chains start with walls: there are 4, an axis of 4 sites, and two classical fields."""
    return (
        action.even and action.classical_field(len(shape)) is not None and max(shape) >= 4 and n_chains >= 4
    )


def start_fields(action: Action, shape: tuple[int, ...], n_chains: int, seed: int) -> Floats:
    """Start configurations (n_chains, *components, *shape) in the order of `start_names`.

    hot: independent normal numbers of width 1, angles on the circle, or spins of any state; cold: the
    classical field everywhere, 1 where there is none, angles 0; wall: the same with the other sign on one
    half of the longest axis.
    """
    whole = (*action.components, *shape)
    spins, angles = isinstance(action, Spins), action.field == "angle"
    numbers = uniforms if spins or angles else normals
    phi = numbers(seed, START, np.arange(n_chains), 0, math.prod(whole)).reshape(n_chains, *whole)
    if isinstance(action, Spins):
        phi = action.values((phi * action.n_states).astype(np.int8))
    if angles:
        phi = (action.period or 2 * math.pi) * (phi - 0.5)
    phi[1::2] = action.classical_field(len(shape)) or (0.0 if angles else 1.0)
    if has_walls(action, shape, n_chains):
        longest = int(np.argmax(shape))
        np.moveaxis(phi, longest - len(shape), -1)[3::4, ..., : shape[longest] // 2] *= -1
    return phi
