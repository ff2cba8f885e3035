r"""What is measured: the primary quantities of each configuration, and the functions of their averages.

    M = (1/V) sum_x phi_x            phi~(k) = sum_x phi_x e^{-ikx},   k = 2 pi n / L
    g0 = V M^2                       G(k) = <|phi~(k)|^2>/V
    g1 = |phi~(k1)|^2/V, k1 the smallest momentum along the longest axis (mean over the axes of that length)
    C(t) = sum_x <phi(t, x) phi(0, 0)> = (1/L_t) sum_{k_t} G(k_t, 0) e^{i k_t t},    sum_t C(t) = G(0)

    x_k = Re, Im phi~(k)/sqrt(V) over the two lowest classes of momenta, k1 and k2; <x_k^2> = G(k)/2 (but G(k)
          where k = -k, which has no imaginary part)

t runs along the longest axis (mean over the axes of that length).  s = S/V with S from
`lattice.actions.protocol`: in the kappa-lambda convention it excludes the constant lam V.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from einops import rearrange

from lattice.arrays import Floats, real_array
from lattice.ensembles.shards import check_finite
from lattice.errors import InputError
from lattice.statistics.cumulants import cumulant, cumulant_ratio, cumulant_ratio_z2

if TYPE_CHECKING:
    from lattice.actions.protocol import Action


Classes = tuple[tuple[tuple[int, ...], ...], ...]
# primaries, function of their means (None: the mean itself), why it can be undefined
Definition = tuple[tuple[str, ...], Callable[[Any], Any] | None, str]
ORDER = 8  # highest power of phi, of M and of momentum modes
_CHUNK_SITES = 1 << 18  # sites handled at a time: bounds the memory of FFTs and powers, fits a cache


def primaries(phi: Floats, action: Action) -> dict[str, Floats]:
    """Per-configuration primaries of phi (n, *shape): name -> (n,) float64.

    m = M, abs_m = |M|, m1..m8 = M^n, s = S/V where S is known, phi1..phi8 = volume averages of phi^n, g0 and
    g1 as above, k1_1..k1_8 and k2_1..k2_8 = x_k^n averaged over `mode_classes` (only those the lattice has).
    Raises InputError for fields that are not finite (named by configuration) or not an (n, *shape) array.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> p = primaries(np.full((1, 4, 4), 2.0), ScalarPhi4(kappa=0.2, lam=0.0))
    >>> float(p["m2"][0]), float(p["g0"][0]), round(float(p["s"][0]), 6)
    (4.0, 64.0, 0.8)
    """
    phi = checked_fields(phi)
    parts = [_primaries(block, action) for block in _blocks(phi)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def checked_fields(phi: npt.ArrayLike) -> Floats:
    """phi as a finite float64 (n, *shape) array; InputError names the first bad configuration otherwise."""
    fields = real_array(phi, "phi")
    if fields.ndim < 2 or fields.size == 0:
        raise InputError(f"phi must be a non-empty (n, *shape) array, got shape {fields.shape}")
    check_finite(fields)
    return fields


def _blocks(phi: Floats) -> Iterator[Floats]:
    step = max(1, _CHUNK_SITES // math.prod(phi.shape[1:]))
    return (phi[i : i + step] for i in range(0, len(phi), step))


def _primaries(phi: Floats, action: Action) -> dict[str, Floats]:
    shape, volume = phi.shape[1:], math.prod(phi.shape[1:])
    sites = rearrange(phi, "n ... -> n (...)")
    m = sites.mean(axis=1)
    out = {"m": m, "abs_m": np.abs(m)}
    if action.has_action:
        out["s"] = action.action(torch.from_numpy(phi)).numpy() / volume
    laws = {"phi": sites, "m": rearrange(m, "n -> n 1")}
    laws |= {f"{name}_": sites @ _mode_basis(shape, name) for name in mode_classes(shape)}
    for law, x in laws.items():
        power = x
        for n in range(1, ORDER + 1):
            out[f"{law}{n}"] = power.mean(axis=1)
            power = power * x
    out["g0"] = volume * m**2
    out["g1"] = np.mean([_mode_power(phi, axis) for axis in longest_axes(shape)], axis=0) / volume
    return out


def _mode_power(phi: Floats, axis: int) -> Floats:
    """|phi~(k1 along axis)|^2: (n, *shape) -> (n,)."""
    length = phi.shape[1 + axis]
    slices = phi.sum(axis=tuple(1 + a for a in range(phi.ndim - 1) if a != axis))
    angle = 2 * np.pi * np.arange(length) / length
    return np.asarray((slices @ np.cos(angle)) ** 2 + (slices @ np.sin(angle)) ** 2)


def mode_classes(shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The two lowest classes of non-zero momenta, {"k1": members, "k2": members}; a tiny lattice has fewer.

    >>> [c[0] for c in mode_classes((8, 8)).values()], [c[0] for c in mode_classes((64, 8)).values()]
    ([(1, 0), (1, 1)], [(1, 0), (2, 0)])
    """
    return dict(zip(("k1", "k2"), momentum_classes(shape)[1:3]))


@lru_cache(maxsize=8)
def _mode_basis(shape: tuple[int, ...], name: str) -> Floats:
    """`real_modes` of a class over sqrt(V)."""
    modes: Floats = real_modes(shape, mode_classes(shape)[name]) / math.sqrt(math.prod(shape))
    return modes


def real_modes(shape: tuple[int, ...], members: Sequence[tuple[int, ...]]) -> Floats:
    """cos kx, -sin kx for one k of each pair +-k among members: (V, number of real modes)."""
    columns, seen = [], set()
    for n in members:
        opposite = tuple(-i % extent for i, extent in zip(n, shape))
        if opposite in seen:
            continue
        seen.add(n)
        phase = sum(2 * np.pi * i * x / extent for i, x, extent in zip(n, np.indices(shape), shape)).ravel()
        columns += [np.cos(phase), -np.sin(phase)] if opposite != n else [np.cos(phase)]
    return np.stack(columns, axis=1)


def longest_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the largest extent, along which k1 and t are taken.

    >>> longest_axes((64, 8)), longest_axes((16, 16))
    ((0,), (0, 1))
    """
    return tuple(a for a, extent in enumerate(shape) if extent == max(shape))


def xi_second_moment(g0: Any, g1: Any, length: int) -> Any:
    """xi_2nd = sqrt(G(0)/G(k1) - 1)/(2 sin(pi/L)); nan where G(0) <= G(k1) or there is no k1 (L = 1).

    >>> float(round(xi_second_moment(5.0, 1.0, 6), 6))
    2.0
    """
    if length < 2 or not g0 > g1 > 0:
        return math.nan
    return np.sqrt(g0 / g1 - 1) / (2 * math.sin(math.pi / length))


@lru_cache(maxsize=32)
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
    return tuple((n, *(other for other in groups[n] if other != n)) for n in ordered)


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


def two_point_series(phi: Floats, n_momenta: int | None = None) -> tuple[Floats, Floats, Classes]:
    """Per-configuration two-point functions of phi (n, *shape).

    Returns G (n, n_class), averaged within each of the n_momenta lowest `momentum_classes` (None: all);
    C (n, L_t//2 + 1) for t = 0..L_t/2; those classes.  Raises InputError like `primaries`.
    """
    phi = checked_fields(phi)
    shape = phi.shape[1:]
    classes = momentum_classes(shape)[:n_momenta]
    half = (*shape[:-1], shape[-1] // 2 + 1)  # phi~(-k) is the conjugate of phi~(k)
    label = np.full(shape, len(classes))
    for i, members in enumerate(classes):
        label[tuple(np.array(members).T)] = i
    labels = label[..., : half[-1]].ravel()
    order = np.argsort(labels, kind="stable")[: np.count_nonzero(labels < len(classes))]
    starts = np.searchsorted(labels[order], np.arange(len(classes)))
    copies = np.full(half, 2.0)
    copies[..., 0] = 1.0
    if shape[-1] % 2 == 0:
        copies[..., -1] = 1.0
    share = copies.ravel()[order] / np.array([len(c) for c in classes])[labels[order]]
    g_parts, c_parts, axes = [], [], tuple(range(1, len(shape) + 1))
    for block in _blocks(phi):
        modes = scipy.fft.rfftn(block, axes=axes)
        power = (modes.real**2 + modes.imag**2) / math.prod(shape)
        modes_ = rearrange(power, "n ... -> n (...)")[:, order]
        g_parts.append(np.add.reduceat(modes_ * share, starts, axis=1))
        c_parts.append(np.mean([_correlator(power, a, shape[a]) for a in longest_axes(shape)], axis=0))
    return np.concatenate(g_parts), np.concatenate(c_parts), classes


def _correlator(power: Floats, axis: int, length: int) -> Floats:
    """C(t), t = 0..length/2, from |phi~(k)|^2/V, half of the last axis: (n, *half) -> (n, length//2 + 1)."""
    line = power[tuple(slice(None) if a in (-1, axis) else 0 for a in range(-1, power.ndim - 1))]
    if axis == power.ndim - 2:
        line = line[:, np.minimum(np.arange(length), length - np.arange(length))]
    return np.asarray(scipy.fft.ifft(line, axis=1).real[:, : length // 2 + 1])


def definitions(shape: tuple[int, ...], even: bool) -> dict[str, Definition]:
    """The observables of `lattice.observables.measure` on this lattice, by name.

    even: the action is symmetric under phi -> -phi, so that ratios with exact odd moments (_z2) are offered.
    """
    volume, length = math.prod(shape), max(shape)
    no_xi = "xi_2nd is undefined: " + (
        "G(0) = {0:.6g} is not above G(k1) = {1:.6g}"
        if length > 1
        else "the lattice has no momentum besides k = 0"
    )
    out: dict[str, Definition] = {
        "abs_magnetization": (("abs_m",), None, ""),
        "magnetization": (("m1",), None, ""),
        "susceptibility": (("m2", "abs_m"), lambda x: volume * (x[0] - x[1] ** 2), ""),
        "susceptibility_full": (("m2",), lambda x: volume * x[0], ""),
        "binder": (("m2", "m4"), lambda x: 1 - x[1] / (3 * x[0] ** 2), "<M^2> = 0"),
        "action_density": (("s",), None, ""),
        "phi2": (("phi2",), None, ""),
        "phi4": (("phi4",), None, ""),
        "xi_2nd": (("g0", "g1"), lambda x: xi_second_moment(x[0], x[1], length), no_xi),
    }
    laws = {"": "phi", "_m": "m"} | {f"_{name}": f"{name}_" for name in mode_classes(shape)}
    for suffix, law in laws.items():
        for n in range(1, ORDER + 1):
            moments = tuple(f"{law}{i}" for i in range(1, n + 1))
            out[f"kappa{n}{suffix}"] = (moments, cumulant, "")
            if n > 2:
                out[f"kappa{n}{suffix}_ratio"] = (moments, cumulant_ratio, "kappa_2 = 0")
            if even and n > 2 and n % 2 == 0:
                out[f"kappa{n}{suffix}_ratio_z2"] = (moments[1::2], cumulant_ratio_z2, "kappa_2 = 0")
    return out
