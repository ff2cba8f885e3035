"""Identities of an ensemble: Schwinger-Dyson per site, that of spins, and the density of domain walls."""

from __future__ import annotations

import math

import numpy as np
import torch

from lattice.actions.protocol import Action
from lattice.actions.spins import Spins
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


def callen(phi: Floats, action: Spins) -> Floats:
    """(1/Vd) sum_x [n_x - sum_a p_x(a) n_x(a)] of spins (n, *shape) -> (n,), n_x(a) the neighbours of x in
    state a, n_x those in its own, p_x(a) the law of a spin given its neighbours; its mean under exp(-S) is 0
    (Callen, Phys. Lett. 4 (1963) 161).

    >>> from lattice.actions.spins import Ising
    >>> bool(abs(callen(np.ones((1, 4, 4)), Ising(0.1)))[0] < 1e-12)
    True
    """
    labels, weights = action.labels(phi), action.log_weights
    axes = tuple(range(1, labels.ndim))
    out, dim = np.empty(len(phi)), len(axes)
    for batch in batches((len(phi), action.n_states, *phi.shape[1:])):
        own = labels[batch]
        others = [np.roll(own, shift, a) for a in axes if own.shape[a] > 1 for shift in (1, -1)]
        same = np.array([sum((o == a).astype(np.float64) for o in others) for a in range(action.n_states)])
        log_p = action.coupling * same + weights.reshape(-1, *[1] * own.ndim)
        p = np.exp(log_p - log_p.max(axis=0))
        mean = (p * same).sum(axis=0) / p.sum(axis=0)
        there = np.take_along_axis(same, own[None].astype(np.int64), 0)[0]
        out[batch] = (there - mean).mean(axis=axes) / dim
    return out


def wall_density(phi: Floats, dim: int | None = None, states: bool = False) -> Floats:
    """Fraction of links whose ends differ in sign (above 0, or not), or, with `states`, at all, of each field
    (n, *components, *shape) -> (n,); `dim` lattice axes, all but the first if not given.

    >>> wall_density(np.array([[1.0, 1.0, -1.0, -1.0]])).tolist()
    [0.5]
    """
    phi = real_array(phi, "phi")
    out, dim = np.empty(len(phi)), dim or phi.ndim - 1
    for batch in batches(phi.shape):
        up = phi[batch] if states else phi[batch] > 0
        rest = tuple(range(1, up.ndim))
        out[batch] = sum((up != np.roll(up, 1, axis)).mean(axis=rest) for axis in rest[-dim:]) / dim
    return out
