"""Second moments <phi phi^T> of fields, of data or exact, and the kernel of a lattice in momentum space.

A matrix of translations has the eigenvalues G(k) on plane waves: averaged over the symmetries of the lattice,
second moments are known far better than their single elements, and degenerate modes stay degenerate.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from lattice.actions.protocol import Action, as_phi4
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator

CHUNK = 4096  # fields whose power is summed at a time


def power_of(phi: Floats) -> Floats:
    """G(k) = <|phi~(k)|^2>/V of fields (n, *shape), on all momenta, averaged over the symmetries."""
    axes, total = tuple(range(1, phi.ndim)), np.zeros(phi.shape[1:])
    for first in range(0, len(phi), CHUNK):
        total += (np.abs(np.fft.fftn(phi[first : first + CHUNK], axes=axes)) ** 2).sum(0)
    return symmetrised(total / (len(phi) * math.prod(phi.shape[1:])))


def symmetrised(power: Floats) -> Floats:
    """Averaged over reflections and over permutations of axes of equal extent: (*shape)."""
    for axis in range(power.ndim):
        power = (power + np.roll(np.flip(power, axis), 1, axis)) / 2
    orders = [
        order
        for order in itertools.permutations(range(power.ndim))
        if all(power.shape[a] == power.shape[b] for a, b in enumerate(order))
    ]
    found: Floats = np.mean([power.transpose(order) for order in orders], axis=0)
    return found


def circulant(power: Floats) -> Tensor:
    """The matrix (V, V) of translations with these eigenvalues on plane waves; sites in row order."""
    shape = power.shape
    column = np.fft.ifftn(power).real
    places = np.indices(shape).reshape(len(shape), -1)
    apart = tuple((places[axis][:, None] - places[axis][None]) % extent for axis, extent in enumerate(shape))
    return torch.from_numpy(np.ascontiguousarray(column[apart]))


def projected(matrix: Tensor, shape: tuple[int, ...]) -> Floats:
    """Expectation of a matrix (V, V) in every plane wave, averaged over the lattice's symmetries: (*shape).

    Of a matrix of translations its eigenvalues.
    """
    whole = matrix.numpy().reshape(*shape, *shape)
    d = len(shape)
    waves = np.fft.ifftn(np.fft.fftn(whole, axes=range(d)), axes=range(d, 2 * d))
    size = math.prod(shape)
    return symmetrised(np.diagonal(waves.reshape(size, size)).real.reshape(shape))


def data_second(phi: Floats) -> Tensor:
    """<phi phi^T> (V, V) of fields (n, *shape), not centred."""
    flat = torch.from_numpy(np.ascontiguousarray(phi).reshape(len(phi), -1))
    return flat.mT @ flat / len(flat)


def exact_power(action: Action, shape: tuple[int, ...]) -> Floats:
    """G(k) of the free field. Raises `InputError` for another action."""
    form = as_phi4(action, "the exact propagator is of")
    if form.lam != 0:
        raise InputError("the exact propagator is that of the free field, lam = 0")
    return np.asarray(free_propagator(form.kappa, shape).real)
