r"""What is measured on each configuration: the primary quantities whose averages everything else is made of.

    M = (1/V) sum_x phi_x            phi~(k) = sum_x phi_x e^{-ikx},   k = 2 pi n / L
    g0 = V M^2                       G(k) = <|phi~(k)|^2>/V
    g1 = |phi~(k1)|^2/V, k1 the smallest momentum along the longest axis (mean over the axes of that length)
    C(t) = sum_x <phi(t, x) phi(0, 0)> = (1/L_t) sum_{k_t} G(k_t, 0) e^{i k_t t},    sum_t C(t) = G(0)

t runs along the longest axis (mean over the axes of that length).  s = S/V with S from `lattice.action`: in
the kappa-lambda convention it excludes the constant lam V.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from lattice.errors import InputError

if TYPE_CHECKING:
    from lattice.action import Action

Array = npt.NDArray[np.float64]
Classes = list[tuple[tuple[int, ...], ...]]

ORDER = 8                    # highest power of phi and of M
_CHUNK_SITES = 1 << 20       # sites handled at a time: bounds the memory of FFTs and powers


def primaries(phi: Array, action: Action) -> dict[str, Array]:
    """Per-configuration primaries of phi (n, *shape): name -> (n,) float64.

    m = M, abs_m = |M|, m1..m8 = M^n, s = S/V, phi1..phi8 = volume averages of phi^n, g0 and g1 as above.
    Raises InputError for fields that are not finite (named by configuration) or not an (n, *shape) array.

    >>> from lattice.action import ScalarPhi4
    >>> p = primaries(np.full((1, 4, 4), 2.0), ScalarPhi4(kappa=0.2, lam=0.0))
    >>> float(p["m2"][0]), float(p["g0"][0]), round(float(p["s"][0]), 6)
    (4.0, 64.0, 0.8)
    """
    phi = checked_fields(phi)
    parts = [_primaries(block, action) for block in _blocks(phi)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def checked_fields(phi: npt.ArrayLike) -> Array:
    """phi as a finite float64 (n, *shape) array; InputError names the first bad configuration otherwise."""
    fields = np.ascontiguousarray(phi, dtype=np.float64)
    if fields.ndim < 2 or fields.size == 0:
        raise InputError(f"phi must be a non-empty (n, *shape) array, got shape {fields.shape}")
    bad = ~np.isfinite(fields.reshape(len(fields), -1)).all(axis=1)
    if bad.any():
        raise InputError(f"NaN or infinite field values in {int(bad.sum())} of {len(fields)} configurations, "
                         f"first in configuration {int(np.argmax(bad))}")
    return fields


def _blocks(phi: Array) -> Iterator[Array]:
    step = max(1, _CHUNK_SITES // math.prod(phi.shape[1:]))
    return (phi[i:i + step] for i in range(0, len(phi), step))


def _primaries(phi: Array, action: Action) -> dict[str, Array]:
    shape, volume = phi.shape[1:], math.prod(phi.shape[1:])
    flat = phi.reshape(len(phi), -1)
    m = flat.mean(axis=1)
    out = {"m": m, "abs_m": np.abs(m), "s": action.action(torch.from_numpy(phi)).numpy() / volume}
    power = np.ones_like(flat)
    for n in range(1, ORDER + 1):
        power *= flat
        out[f"m{n}"], out[f"phi{n}"] = m**n, power.mean(axis=1)
    out["g0"] = volume * m**2
    out["g1"] = np.mean([_mode_power(phi, axis) for axis in longest_axes(shape)], axis=0) / volume
    return out


def _mode_power(phi: Array, axis: int) -> Array:
    """|phi~(k1 along axis)|^2: (n, *shape) -> (n,)."""
    length = phi.shape[1 + axis]
    slices = phi.sum(axis=tuple(1 + a for a in range(phi.ndim - 1) if a != axis))
    angle = 2 * np.pi * np.arange(length) / length
    result: Array = (slices @ np.cos(angle)) ** 2 + (slices @ np.sin(angle)) ** 2
    return result


def longest_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the largest extent, along which k1 and t are taken.

    >>> longest_axes((64, 8)), longest_axes((16, 16))
    ((0,), (0, 1))
    """
    return tuple(a for a, extent in enumerate(shape) if extent == max(shape))


def xi_second_moment(g0: float, g1: float, length: int) -> float:
    """xi_2nd = sqrt(G(0)/G(k1) - 1)/(2 sin(pi/L)); nan where G(0) <= G(k1) or there is no k1 (L = 1).

    >>> round(xi_second_moment(5.0, 1.0, 6), 6)
    2.0
    """
    if length < 2 or not g0 > g1 > 0:
        return math.nan
    return math.sqrt(g0 / g1 - 1) / (2 * math.sin(math.pi / length))


def momentum_power(phi: Array) -> Array:
    """|phi~(k)|^2/V on all k: (n, *shape) -> (n, *shape), numpy FFT ordering of k."""
    axes, volume = tuple(range(1, phi.ndim)), math.prod(phi.shape[1:])
    result: Array = np.abs(np.fft.fftn(phi, axes=axes)) ** 2 / volume
    return result


def momentum_classes(shape: tuple[int, ...]) -> Classes:
    """Momenta n (k = 2 pi n/L) grouped by the lattice's symmetry, ordered by k^2 = 4 sum sin^2(k/2).

    Related by reflection of an axis or by exchange of axes of equal length.  The first entry of each class
    has 0 <= n <= L/2, descending on axes of equal length.

    >>> [(c[0], len(c)) for c in momentum_classes((4, 4))]
    [((0, 0), 1), ((1, 0), 4), ((1, 1), 4), ((2, 0), 2), ((2, 1), 4), ((2, 2), 1)]
    """
    groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for n in itertools.product(*(range(extent) for extent in shape)):
        groups.setdefault(_representative(n, shape), []).append(n)
    ordered = sorted(groups, key=lambda n: (round(lattice_momentum_squared(n, shape), 12), n))
    return [(n, *(other for other in groups[n] if other != n)) for n in ordered]


def _representative(n: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    folded = [min(i, extent - i) for i, extent in zip(n, shape)]
    for extent in set(shape):
        axes = [a for a, e in enumerate(shape) if e == extent]
        for a, value in zip(axes, sorted((folded[a] for a in axes), reverse=True)):
            folded[a] = value
    return tuple(folded)


def lattice_momentum_squared(n: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """k^2 = 4 sum_mu sin^2(pi n_mu/L_mu), the lattice Laplacian's eigenvalue."""
    return sum(4 * math.sin(math.pi * i / extent) ** 2 for i, extent in zip(n, shape))


def two_point_series(phi: Array, n_momenta: int | None = None) -> tuple[Array, Array, Classes]:
    """Per-configuration two-point functions of phi (n, *shape).

    Returns G (n, n_class), averaged within each of the n_momenta lowest `momentum_classes` (None: all);
    C (n, L_t//2 + 1) for t = 0..L_t/2; those classes.  Raises InputError like `primaries`.
    """
    phi = checked_fields(phi)
    shape = phi.shape[1:]
    classes = momentum_classes(shape)
    label = np.empty(shape, dtype=np.int64)
    for i, members in enumerate(classes):
        for n in members:
            label[n] = i
    order = np.argsort(label, axis=None, kind="stable")
    starts = np.concatenate(([0], np.cumsum([len(c) for c in classes])[:-1]))
    sizes = np.array([len(c) for c in classes], dtype=np.float64)
    g_parts, c_parts = [], []
    for block in _blocks(phi):
        power = momentum_power(block)
        grouped = np.add.reduceat(power.reshape(len(block), -1)[:, order], starts, axis=1) / sizes
        g_parts.append(grouped[:, :n_momenta])
        c_parts.append(np.mean([_correlator(power, axis) for axis in longest_axes(shape)], axis=0))
    return np.concatenate(g_parts), np.concatenate(c_parts), classes[:n_momenta]


def _correlator(power: Array, axis: int) -> Array:
    """C(t), t = 0..L_t/2, from |phi~(k)|^2/V with the other momenta zero: (n, *shape) -> (n, L_t//2 + 1)."""
    index = tuple(slice(None) if a in (-1, axis) else 0 for a in range(-1, power.ndim - 1))
    result: Array = np.fft.ifft(power[index], axis=1).real[:, :power.shape[1 + axis] // 2 + 1]
    return result
