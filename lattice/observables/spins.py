r"""What is measured of spins: order, energy, specific heat, correlations, in one form for Ising and Potts.

With x_a the fraction of sites in state a, q states, V sites,

    M^2 = (q sum_a x_a^2 - 1)/(q - 1),   |M| of Ising: sqrt(M^2); of Potts: (q max_a x_a - 1)/(q - 1)
    U_L = 1 - (q - 1)/(q + 1) <M^4>/<M^2>^2                        (1 - <M^4>/(3 <M^2>^2) at q = 2)
    e = T <S>/V,   C = (<S^2> - <S>^2)/V = T^-2 (<E^2> - <E>^2)/V,   chi = V (<M^2> - <|M|>^2)
    g(x, y) = [q delta(l_x, l_y) - 1]/(q - 1), at q = 2 s_x s_y:  `nearest` over all bonds,
    `farthest` half an extent along an axis, c1 = nearest - farthest: the connected short-range correlation

xi_2nd by g as for scalar fields. Exact values stand beside where `lattice.exact.spins` knows them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lattice.actions.spins import Ising, Spins
from lattice.arrays import Floats, Labels
from lattice.ensembles.shards import batches
from lattice.observables.scalar import Definition, checked_fields, longest_axes, xi_second_moment


def spin_primaries(phi: Floats, action: Spins) -> dict[str, Floats]:
    """Per-configuration primaries of spins phi (n, *shape): name -> (n,). Raises `InputError` for what is no
    spin of this action.

    >>> p = spin_primaries(np.ones((1, 4, 4)), Ising(2.0))
    >>> [float(p[name][0]) for name in ("abs_m", "m2", "s", "nearest", "farthest")]
    [1.0, 1.0, -1.0, 1.0, 1.0]
    """
    phi = checked_fields(phi)
    parts = [_primaries(phi[part], action) for part in batches(phi.shape)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _primaries(phi: Floats, action: Spins) -> dict[str, Floats]:
    labels, q, shape = action.labels(phi), action.n_states, phi.shape[1:]
    volume, axes = math.prod(shape), tuple(range(1, phi.ndim))
    share = np.stack([(labels == a).mean(axis=axes) for a in range(q)])
    m2 = (q * (share**2).sum(axis=0) - 1) / (q - 1)
    m = action.order(torch.from_numpy(phi)).numpy()
    s = action.action(torch.from_numpy(phi)).numpy() / volume
    near = np.mean([_alike(labels, 1, axis, q) for axis in axes], axis=0)
    far = np.mean([_alike(labels, shape[axis - 1] // 2, axis, q) for axis in axes], axis=0)
    return {
        "m": m, "abs_m": np.abs(m), "m2": m2, "m4": m2**2, "s": s, "s2": volume * s**2, "nearest": near,
        "farthest": far, "g0": volume * m2, "g1": _smallest_mode(labels, q),
    }  # fmt: skip


def _alike(labels: Labels, distance: int, axis: int, q: int) -> Floats:
    same = (labels == np.roll(labels, distance, axis)).mean(axis=tuple(range(1, labels.ndim)))
    return np.asarray((q * same - 1) / (q - 1))


def _smallest_mode(labels: Labels, q: int) -> Floats:
    """g~(k1) of the smallest momentum along the longest axes, (n,)."""
    shape, volume = labels.shape[1:], math.prod(labels.shape[1:])
    found = []
    for axis in longest_axes(shape):
        angle = 2 * np.pi * np.arange(shape[axis]) / shape[axis]
        others = tuple(1 + a for a in range(len(shape)) if a != axis)
        sums = np.stack([(labels == a).sum(axis=others) for a in range(q)])
        power = (sums @ np.cos(angle)) ** 2 + (sums @ np.sin(angle)) ** 2
        found.append(power.sum(axis=0) * q / (q - 1) / volume)
    return np.asarray(np.mean(found, axis=0))


def spin_definitions(shape: tuple[int, ...], action: Spins) -> dict[str, Definition]:
    """The observables of spins on this lattice, by name, as `lattice.observables.scalar.definitions`."""
    volume, length, t, q = math.prod(shape), max(shape), action.temperature, action.n_states
    kurtosis = (q - 1) / (q + 1)
    no_xi = "xi_2nd is undefined: G(0) = {0:.6g} is not above G(k1) = {1:.6g}"
    out: dict[str, Definition] = {
        "abs_magnetization": (("abs_m",), None, ""),
        "susceptibility": (("m2", "abs_m"), lambda x: volume * (x[0] - x[1] ** 2), ""),
        "susceptibility_full": (("m2",), lambda x: volume * x[0], ""),
        "binder": (("m2", "m4"), lambda x: 1 - kurtosis * x[1] / x[0] ** 2, "<M^2> = 0"),
        "energy": (("s",), lambda x: t * x[0], ""),
        "specific_heat": (("s2", "s"), lambda x: x[0] - volume * x[1] ** 2, ""),
        "action_density": (("s",), None, ""),
        "nearest": (("nearest",), None, ""),
        "farthest": (("farthest",), None, ""),
        "c1": (("nearest", "farthest"), lambda x: x[0] - x[1], ""),
    }
    if length > 1:
        out["xi_2nd"] = (("g0", "g1"), lambda x: xi_second_moment(x[0], _sound(*x), length), no_xi)
    if isinstance(action, Ising):
        out["magnetization"] = (("m",), None, "")
    return out


def _sound(g0: Any, g1: Any) -> Any:
    """G(k1), 0 where it is rounding."""
    return g1 if g1 > 1e-12 * g0 else 0.0


def entries_with(exact: dict[str, float], observables: dict[str, Any]) -> dict[str, Any]:
    """Observables with the exact values that are known."""
    return {name: e | ({"exact": exact[name]} if name in exact else {}) for name, e in observables.items()}
