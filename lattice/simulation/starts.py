"""Start configurations: hot, cold and, where the broken phase has two minima, a pair of domain walls.

That chains from all of them end up alike is the first thing a certificate asks. Hot starts leave domain walls
behind that a short run never removes, and a wall wound around the lattice is the slowest of all; starting
with one shows how long that takes.
"""

from __future__ import annotations

import math

import numpy as np

from lattice.actions.protocol import Action
from lattice.arrays import Floats
from lattice.rng import normals

START = "ensemble/start"


def start_names(n_chains: int, walls: bool = False) -> list[str]:
    """ "hot" for even chains; odd ones "cold" or, with `walls`, "cold" and "wall" in turn.

    >>> start_names(4), start_names(4, walls=True)
    (['hot', 'cold', 'hot', 'cold'], ['hot', 'cold', 'hot', 'wall'])
    """
    odd = ("cold", "wall" if walls else "cold")
    return [odd[chain // 2 % 2] if chain % 2 else "hot" for chain in range(n_chains)]


def has_walls(action: Action, shape: tuple[int, ...], n_chains: int) -> bool:
    """Whether some chains start with walls: phi^4 on a lattice of 4 or more sites along an axis, 4 chains."""
    return action.lam > 0 and max(shape) >= 4 and n_chains >= 4


def start_fields(action: Action, shape: tuple[int, ...], n_chains: int, seed: int) -> Floats:
    """Start configurations (n_chains, *shape) in the order of `start_names`.

    hot: independent normal numbers of width 1; cold: the classical minimum everywhere, or 1 where that is
    zero; wall: the same with the other sign on one half of the longest axis.
    """
    phi = normals(seed, START, np.arange(n_chains), 0, math.prod(shape)).reshape(n_chains, *shape)
    phi[1::2] = classical_field(action, len(shape))
    if has_walls(action, shape, n_chains):
        axis = int(np.argmax(shape))
        half = tuple(slice(shape[axis] // 2) if a == axis else slice(None) for a in range(len(shape)))
        phi[(slice(3, None, 4), *half)] *= -1
    return phi


def classical_field(action: Action, dim: int) -> float:
    """The uniform field that minimises S, 1 where that is zero: phi^2 = (2 d kappa - 1 + 2 lam)/(2 lam).

    >>> from lattice.actions.protocol import ScalarPhi4
    >>> classical_field(ScalarPhi4(0.5, 0.5), 2), classical_field(ScalarPhi4(0.1, 0.022), 2)
    (1.4142135623730951, 1.0)
    """
    if action.lam <= 0:
        return 1.0
    square = (2 * dim * action.kappa - 1 + 2 * action.lam) / (2 * action.lam)
    return math.sqrt(square) if square > 0 else 1.0
