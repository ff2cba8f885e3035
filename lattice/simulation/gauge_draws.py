r"""Independent exact draws of two-dimensional U(1) on a torus.

Plaquettes are independent but for their sum, a multiple of 2 pi: one after the other

    theta_k ~ e^{beta cos theta} f_{V-k}(-S_k - theta),    f_n(s) = sum_m (I_m/I_0)^n e^{i m s},

S_k what there is before, f_n the density of the sum of the n that are left; the last one is what is missing.
theta_k is drawn from the von Mises law (Best and Fisher, Appl. Stat. 28 (1979) 152) and accepted with
probability f_n/f_n(0). Links of these plaquettes, with holonomies uniform on the circle, are turned by a
gauge transformation uniform at each site: the law of all links is e^{-S} with Haar measure, gauge orbits and
all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from lattice.arrays import Floats, Integers, wrapped
from lattice.errors import InputError
from lattice.exact.u1 import check_torus
from lattice.rng import uniforms
from lattice.seeds import check_seed

SMALL = 1e-17
NUMBERS = 2**22  # cosines at a time
BLOCKS = 4000  # of up to 1024 attempts at one plaquette: where the sum is x sigma off, e^{x^2/2} are needed


def draw_links(beta: float, shape: Sequence[int], n: int, seed: int, first: int = 0) -> Floats:
    """Configurations first ... first + n - 1 of the stream of `seed`, angles in (-pi, pi]: (n, 2, L0, L1).

    A configuration depends on (seed, its number) only. Raises `InputError` for beta outside of 1e-6 to 1e6,
    and for a lattice that has not two extents of at least 2.

    >>> draw_links(2.0, (4, 6), 3, seed=1).shape
    (3, 2, 4, 6)
    """
    if len(shape) != 2 or min(shape) < 2 or any(extent % 1 for extent in shape):
        raise InputError(f"U(1) is drawn on two periodic extents of at least 2, got {list(shape)}")
    if n < 1:
        raise InputError(f"n must be >= 1, got {n}")
    rows, columns = (int(extent) for extent in shape)
    check_torus(beta, rows * columns)
    index = first + np.arange(n)
    seed = check_seed(seed)
    theta = draw_plaquettes(beta, rows * columns, index, seed).reshape(n, rows, columns)
    free = 2 * math.pi * uniforms(seed, "u1/gauge", index, 0, rows * columns + 2)
    return with_gauge(theta, free)


def with_gauge(theta: Floats, free: Floats) -> Floats:
    """Links in (-pi, pi] of plaquettes (n, L0, L1), whose sum is a multiple of 2 pi, with the angles `free`
    (n, 2 + V) of two holonomies and of the gauge transformation of each site: (n, 2, L0, L1)."""
    links = links_of(theta, free[:, :2])
    gauge = free[:, 2:].reshape(theta.shape)
    for mu in (0, 1):
        links[:, mu] += gauge - np.roll(gauge, -1, mu + 1)
    return wrapped(links)


def links_of(theta: Floats, holonomy: Floats) -> Floats:
    """Links (n, 2, L0, L1) with these plaquettes (n, L0, L1), whose sum is a multiple of 2 pi, and angles
    (n, 2) of the loops along axis 0 at column 0, and along axis 1 at row 0.

    Axis 1 has angles in its last column only, axis 0 what the plaquettes of the columns before it ask for.
    """
    n, rows, columns = theta.shape
    links = np.zeros((n, 2, rows, columns))
    links[:, 0, 0, :] = holonomy[:, :1]
    links[:, 0, :, 1:] -= np.cumsum(theta, 2)[:, :, :-1]
    whole = theta.sum(2)  # of a row: what the last column has to make up for
    links[:, 1, 1:, -1] = np.cumsum(whole, 1)[:, :-1]
    links[:, 1, :, -1] += holonomy[:, 1:]
    return links


def draw_plaquettes(beta: float, volume: int, index: Integers, seed: int) -> Floats:
    """Plaquettes of the configurations `index` (n,), each in (-pi, pi]: (n, V). Their sum is 2 pi Q."""
    ratio = ive(np.arange(int(8 * math.sqrt(beta) + 16)), beta) / ive(0, beta)
    theta, total = np.empty((len(index), volume)), np.zeros(len(index))
    for k in range(volume - 1):
        theta[:, k] = _one(beta, ratio, volume - 1 - k, total, k, index, seed)
        total += theta[:, k]
    theta[:, -1] = wrapped(-total)
    return theta


def _one(beta: float, ratio: Floats, left: int, total: Floats, k: int, index: Integers, seed: int) -> Floats:
    """The next plaquette (n,), with `left` after it."""
    with np.errstate(under="ignore"):
        weight = ratio**left
    weight = weight[weight > SMALL]
    orders, top = np.arange(1, len(weight)), 1 + 2 * weight[1:].sum()
    found, open_ = np.empty(len(index)), np.arange(len(index))
    for block in range(BLOCKS):
        size = 2 ** min(block // 4, 10)
        u = uniforms(seed, f"u1/{k}", index[open_], block, 4 * size).reshape(-1, size, 4)
        theta, kept = von_mises(beta, u[..., :3])
        s = total[open_, None] + theta
        kept &= u[..., 3] * top < _density(s, orders, weight[1:])
        done, which = kept.any(1), kept.argmax(1)
        found[open_[done]] = theta[done, which[done]]
        open_ = open_[~done]
        if not len(open_):
            return found
    raise InputError(f"beta = {beta:g}: {len(open_)} plaquettes were refused every time")


def _density(s: Floats, orders: Integers, weight: Floats) -> Floats:
    """f_n(s) of sums s (n, m), its weights those of the orders 1, 2, ..."""
    rows = max(1, NUMBERS // (s.shape[1] * max(1, len(orders))))
    parts = [s[first : first + rows] for first in range(0, len(s), rows)]
    return np.concatenate([1 + 2 * np.cos(part[..., None] * orders) @ weight for part in parts])


def von_mises(beta: float, u: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """An angle of density e^{beta cos theta} from three uniform numbers (..., 3), and whether it is one."""
    tau = 1 + math.sqrt(1 + 4 * beta**2)
    rho = (tau - math.sqrt(2 * tau)) / (2 * beta)
    r = (1 + rho**2) / (2 * rho)
    z = np.cos(math.pi * u[..., 0])
    f = (1 + r * z) / (r + z)
    c = beta * (r - f)
    kept = (c * (2 - c) > u[..., 1]) | (np.log(c / u[..., 1]) + 1 - c >= 0)
    return np.where(u[..., 2] < 0.5, -1.0, 1.0) * np.arccos(np.clip(f, -1, 1)), kept
