"""Independent fields of random networks, and their values at points: exact draws, tau_int = 1/2.

Field i is a function of (seed, i) only, whatever the batch it is drawn in (lattice.rng).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import pdtr

from lattice.actions.networks import ErfNet, FreeNet, GaussNet, InputNet, LocalNet, Network, lattice_inputs
from lattice.actions.protocol import check_shape
from lattice.arrays import Floats, Integers, batches, integer_array
from lattice.errors import InputError
from lattice.exact.network_kernel import points_of
from lattice.rng import normals, uniforms
from lattice.updates.kernels.networks import ERF, GAUSS, RELU, input_rows
from lattice.updates.neurons import draw_neurons, fields_of, output_weights

WEIGHTS, HIDDEN, BIAS, COUNT = "network/weights", "network/hidden", "network/bias", "network/count"
NUMBERS = 2**21  # at a time


def draw_fields(law: Network, shape: tuple[int, ...], rows: ArrayLike, seed: int) -> Floats:
    """Fields number `rows` (n,) of a network on a periodic lattice: (n, *shape).

    Raises `InputError` for a shape that is none, a free net with K(p) <= 0 or with a number of neurons that
    is not whole, rows or seeds that do not fit their words, and for what is no network.

    >>> from lattice.actions.networks import CosNet
    >>> draw_fields(CosNet(4, 0.2), (8, 8), [5], seed=1).shape
    (1, 8, 8)
    """
    check_shape(shape)
    keys = integer_array(np.atleast_1d(np.asarray(rows)), "rows")
    if isinstance(law, InputNet):
        return draw_points(law, lattice_inputs(shape), keys, seed).reshape(-1, *shape)
    if not isinstance(law, FreeNet):
        raise InputError(f"a network is one of lattice.actions.networks, not {type(law).__name__}")
    out, mean = np.empty((len(keys), *shape)), law.neurons(shape)
    for part in batches(len(keys), max(1, int(NUMBERS / (3 * mean + 16)))):
        chosen = keys[part]
        counts = _counts(law, shape, chosen, seed)
        out[part] = fields_of(law, shape, draw_neurons(law, shape, counts, seed, chosen, 0))
    return out


def _counts(law: FreeNet, shape: tuple[int, ...], rows: Integers, seed: int) -> Integers:
    """The number of neurons of each field (n,)."""
    mean = law.neurons(shape)
    if not (isinstance(law, LocalNet) and law.poisson):
        return np.full(len(rows), int(mean), dtype=np.int64)
    chance = pdtr(np.arange(math.ceil(mean + 12 * math.sqrt(mean) + 40)), mean)
    return np.searchsorted(chance, uniforms(seed, COUNT, rows, 0, 1)[:, 0]).astype(np.int64)


def draw_points(law: InputNet, points: ArrayLike, rows: ArrayLike, seed: int) -> Floats:
    """Values (n, n_points) of networks number `rows` (n,) at inputs `points` (n_points, d).

    On `lattice_inputs(shape)` these are the fields of `draw_fields`. Raises `InputError` for points that are
    not finite (n_points, d), rows or seeds that do not fit, and nets that have no inputs.
    """
    if not isinstance(law, InputNet):
        raise InputError(f"only nets of inputs have values at points, not {type(law).__name__}")
    x, keys = points_of(points), integer_array(np.atleast_1d(np.asarray(rows)), "rows")
    d, width = x.shape[1], law.width
    scaled = np.ascontiguousarray(x / math.sqrt(d))
    shift = law.sigma_hidden**2 + (scaled**2).sum(1)
    activation = ERF if isinstance(law, ErfNet) else GAUSS if isinstance(law, GaussNet) else RELU
    out = np.empty((len(keys), len(x)))
    for part in batches(len(keys), max(1, NUMBERS // (width * (d + 2)))):
        chosen, found = keys[part], np.empty((len(part), len(x)))
        a = output_weights(law, seed, chosen, 0, width) / math.sqrt(width)
        w = normals(seed, WEIGHTS, chosen, 0, width * d).reshape(-1, width, d)
        b = law.sigma_hidden * normals(seed, HIDDEN, chosen, 0, width)
        bias = law.sigma_b * normals(seed, BIAS, chosen, 0, 1)[:, 0]
        input_rows(found, a, w, b, scaled, shift, activation, bias)
        out[part] = found
    return out
