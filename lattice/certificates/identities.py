"""Identities of an ensemble: Schwinger-Dyson per site, and the density of domain walls."""

from __future__ import annotations

import math

import numpy as np
import torch

from lattice.actions.protocol import Action
from lattice.arrays import Floats, real_array
from lattice.ensembles.shards import batches


def schwinger_dyson(phi: Floats, action: Action) -> Floats:
    """(1/V) sum_x phi_x dS/dphi_x of each field (n, *components, *shape) -> (n,); its mean under exp(-S) is
    the number of components (integrate by parts).

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> schwinger_dyson(np.ones((1, 2, 2)), ScalarPhi4(0.0, 0.0)).tolist()
    [2.0]
    """
    phi = real_array(phi, "phi")
    out = np.empty(len(phi))
    for batch in batches(phi.shape):
        part = torch.from_numpy(phi[batch])
        mean = (part * action.grad(part)).mean(dim=tuple(range(1, part.dim())))
        out[batch] = real_array(mean, "phi dS/dphi of real fields")
    return math.prod(action.components) * out


def wall_density(phi: Floats, dim: int | None = None) -> Floats:
    """Fraction of links whose ends differ in sign, of each field (n, *components, *shape) -> (n,); `dim`
    lattice axes, all but the first if not given.

    >>> wall_density(np.array([[1.0, 1.0, -1.0, -1.0]])).tolist()
    [0.5]
    """
    phi = real_array(phi, "phi")
    out, dim = np.empty(len(phi)), dim or phi.ndim - 1
    for batch in batches(phi.shape):
        up = phi[batch] > 0
        rest = tuple(range(1, up.ndim))
        out[batch] = sum((up != np.roll(up, 1, axis)).mean(axis=rest) for axis in rest[-dim:]) / dim
    return out
