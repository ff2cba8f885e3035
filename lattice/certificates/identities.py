"""Identities of an ensemble: Schwinger-Dyson per site, of angles and links, that of spins, and the density of
domain walls."""

from __future__ import annotations

import math

import numpy as np
import torch

from lattice.actions.protocol import Action
from lattice.actions.spins import Spins
from lattice.actions.u1 import U1, circulation
from lattice.arrays import Floats, real_array
from lattice.ensembles.shards import batches
from lattice.rng import uniforms

DIRECTION = "identity/direction"


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


def force_identity(phi: Floats, action: Action) -> Floats:
    """(1/2) dS/da d(-sum cos theta)/da - cos theta of links and plaquettes, the mean of each over the field:
    links (n, 2, L0, L1) -> (n,); its mean under exp(-S) is 0, gauge invariant. With S of `U1` it says
    beta^2 <(sin theta_1 - sin theta_2)^2> = beta <cos theta_1 + cos theta_2> of the plaquettes of a link.

    >>> force_identity(np.zeros((1, 2, 4, 4)), U1(2.0)).tolist()
    [-1.0]
    """
    phi = real_array(phi, "phi")
    out = np.empty(len(phi))
    for batch in batches(phi.shape):
        part = torch.from_numpy(phi[batch])
        product = (action.grad(part) * U1(1.0).grad(part)).mean(dim=(1, 2, 3))
        out[batch] = (0.5 * product - circulation(part).cos().mean(dim=(1, 2))).numpy()
    return out


def angle_identity(phi: Floats, action: Action) -> Floats:
    """[(v dS/da)^2 - v d^2 S/da^2 v]/V of angles (n, *components, *shape) -> (n,), v a random sign each; its
    mean under exp(-S) is 0, as a circle has no ends, of any periodic S. (<phi dS/dphi> is not 1 on a circle.)

    The second derivative along v is a difference of gradients, good to 1e-9.

    >>> from lattice.actions.u1 import OneLink
    >>> angle_identity(np.zeros((1, 4)), OneLink(2.0)).round(6).tolist()
    [-2.0]
    """
    phi = real_array(phi, "phi")
    out, step = np.empty(len(phi)), 1e-4
    for batch in batches(phi.shape):
        part = torch.from_numpy(phi[batch])
        rows = np.arange(batch.start, batch.start + len(part))
        signs = np.where(uniforms(0, DIRECTION, rows, 0, part[0].numel()) < 0.5, -1.0, 1.0)
        v = torch.from_numpy(signs.reshape(part.shape))
        ahead, here, behind = (
            (v * action.grad(part + k * step * v)).flatten(1).sum(1) for k in (1.0, 0.0, -1.0)
        )
        out[batch] = ((here**2 - (ahead - behind) / (2 * step)) / part[0].numel()).numpy()
    return out


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
