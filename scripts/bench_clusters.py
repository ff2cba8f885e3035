"""Wolff clusters as usually written, for `bench_updates`: single clusters of one field, phi (V,), in place.

They return the sizes of the clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.arrays import Floats


def wolff_stack(
    phi: Floats, neighbours: Any, kappa: float, n_clusters: int, uniform: Callable[[], float]
) -> list[int]:
    """The textbook program: a Python stack, one bond at a time; neighbours (V, 2d) an array or nested lists.

    With lists the field is one, too: scalars of arrays are several times slower. Draws uniforms in the order
    of `wolff_update`, so with its numbers it gives its fields.
    """
    field: Any = phi.tolist() if isinstance(neighbours, list) else phi
    exp, sizes = math.exp, []
    for _ in range(n_clusters):
        root = min(int(uniform() * len(field)), len(field) - 1)
        member = bytearray(len(field))
        member[root] = 1
        stack, cluster = [root], [root]
        while stack:
            x = stack.pop()
            coupling = -4.0 * kappa * field[x]
            for y in neighbours[x]:
                if not member[y]:
                    bond = coupling * field[y]
                    if bond < 0.0 and uniform() < 1.0 - exp(bond):
                        member[y] = 1
                        stack.append(y)
                        cluster.append(y)
        for x in cluster:
            field[x] = -field[x]
        sizes.append(len(cluster))
    phi[:] = field
    return sizes


def wolff_frontier(
    phi: Floats, neighbours: NDArray[np.int64], kappa: float, n_clusters: int, rng: np.random.Generator
) -> list[int]:
    """The same with NumPy over the whole front of the growing cluster; neighbours (V, 2d)."""
    sizes = []
    for _ in range(n_clusters):
        front = np.array([rng.integers(phi.size)])
        member = np.zeros(phi.size, dtype=bool)
        member[front] = True
        while front.size:
            ends = neighbours[front]
            bond = 4.0 * kappa * phi[front, None] * phi[ends]
            frozen = (rng.random(ends.shape) < -np.expm1(-np.maximum(bond, 0.0))) & ~member[ends]
            front = np.unique(ends[frozen])
            member[front] = True
        phi[member] *= -1.0
        sizes.append(int(member.sum()))
    return sizes
