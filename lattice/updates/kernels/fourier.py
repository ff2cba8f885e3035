"""Compiled loops of Fourier-accelerated HMC, in the layout of `kernels` (chains innermost).

A multiplication by A(k) goes to the real Fourier basis and back, one axis after the other. Along an axis the
sites x and L - x are first added and subtracted, so cosines and sines act on half of them each: 2 L
multiplications and additions per site and axis, there and back, in runs over chains that vectorise. Chains
are never mixed and nothing is reassociated: a chain's result does not depend on its company, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled
from lattice.updates.kernels.layout import energy, kick_drift, load, store

TILE = 256  # numbers: a tile of every row of an axis stays in cache


@compiled
def _eight(row: Any, m: Any, x0: Any, x1: Any, x2: Any, x3: Any, x4: Any, x5: Any, x6: Any, x7: Any) -> None:
    a, b, c, d, e, f, g, h = m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7]
    for s in range(row.size):
        low = a * x0[s] + b * x1[s] + c * x2[s] + d * x3[s]
        row[s] += low + (e * x4[s] + f * x5[s] + g * x6[s] + h * x7[s])


@compiled
def _one(row: Any, a: Any, x0: Any) -> None:
    for s in range(row.size):
        row[s] += a * x0[s]


@compiled
def _combine(out: Any, matrix: Any, x: Any, first: Any) -> None:
    """out[first + i] = sum_j matrix[i, j] x[first + j], rows of numbers."""
    n = matrix.shape[0]
    for i in range(n):
        row = out[first + i]
        row[:] = 0.0
        for j in range(0, n - 7, 8):
            k = first + j
            _eight(
                row, matrix[i, j:], x[k], x[k + 1], x[k + 2], x[k + 3], x[k + 4], x[k + 5], x[k + 6], x[k + 7]
            )
        for j in range(n - n % 8, n):
            _one(row, matrix[i, j], x[first + j])


@compiled
def _fold(up: Any, down: Any, even: Any, odd: Any) -> None:
    for s in range(up.size):
        even[s], odd[s] = up[s] + down[s], up[s] - down[s]


@compiled
def _to_modes(x: Any, folded: Any, cosines: Any, sines: Any) -> None:
    """One axis: x (L, w) -> its modes in place, cosines first; `folded` (L, w) is scratch."""
    extent, n_cos = x.shape[0], cosines.shape[0]
    folded[0] = x[0]
    for i in range(1, sines.shape[0] + 1):
        _fold(x[i], x[extent - i], folded[i], folded[n_cos + i - 1])
    if extent % 2 == 0:
        folded[extent // 2] = x[extent // 2]
    _combine(x, cosines, folded, 0)
    _combine(x, sines, folded, n_cos)


@compiled
def _to_sites(x: Any, folded: Any, cosines: Any, sines: Any) -> None:
    """The inverse of `_to_modes`, with the transposed matrices."""
    extent, n_cos = x.shape[0], cosines.shape[0]
    _combine(folded, cosines, x, 0)
    _combine(folded, sines, x, n_cos)
    x[0] = folded[0]
    for i in range(1, sines.shape[0] + 1):
        _fold(folded[i], folded[n_cos + i - 1], x[i], x[extent - i])
    if extent % 2 == 0:
        x[extent // 2] = folded[extent // 2]


@compiled
def _copy_tile(x: Any, tile: Any, lines: Any, line: Any, offset: Any, width: Any, back: Any) -> None:
    """Between x (outer, L, inner) and a tile (L, lines * width): `lines` outer indices from `line` on."""
    for k in range(lines):
        for i in range(tile.shape[0]):
            a, b = x[line + k, i], tile[i]
            if back:
                a[offset : offset + width] = b[k * width : (k + 1) * width]
            else:
                b[k * width : (k + 1) * width] = a[offset : offset + width]


@compiled
def _along(x: Any, cosines: Any, sines: Any, inverse: Any) -> None:
    """Transform the middle axis of x (outer, L, inner) in place, tile by tile."""
    outer, extent, inner = x.shape
    width = min(TILE, inner)
    lines = min(TILE // width, outer)
    tile, folded = np.zeros((extent, lines * width)), np.zeros((extent, lines * width))
    for line in range(0, outer, lines):
        n = min(lines, outer - line)
        for offset in range(0, inner, width):
            w = min(width, inner - offset)
            _copy_tile(x, tile, n, line, offset, w, False)
            if inverse:
                _to_sites(tile, folded, cosines, sines)
            else:
                _to_modes(tile, folded, cosines, sines)
            _copy_tile(x, tile, n, line, offset, w, True)


@compiled
def _all_axes(x: Any, matrices: Any, block: Any, inverse: Any) -> None:
    """x (V * block,) transformed along every axis in place; `matrices` = (cosines, sines) of each axis."""
    inner = block
    for axis in range(len(matrices[0]) - 1, -1, -1):
        cosines, sines = matrices[0][axis], matrices[1][axis]
        extent = cosines.shape[0] + sines.shape[0]
        _along(x.reshape(x.size // (extent * inner), extent, inner), cosines, sines, inverse)
        inner *= extent


@compiled
def multiply_modes(x: Any, weight: Any, forward: Any, backward: Any, block: Any) -> None:
    """x (V * block,) -> F^-1 weight F x in place; weight (V,) in the real Fourier basis; `forward` and
    `backward` hold (cosines, sines) of every axis, the latter transposed."""
    _all_axes(x, forward, block, False)
    for site in range(weight.size):
        numbers = x[site * block : (site + 1) * block]
        for i in range(block):
            numbers[i] *= weight[site]
    _all_axes(x, backward, block, True)


@compiled
def _drift(phi: Any, v: Any, drift: Any) -> None:
    for r in range(phi.shape[0]):
        f, velocity = phi[r], v[r]
        for j in range(f.size):
            f[j] += drift * velocity[j]


@compiled
def hmc_block_fourier(
    phi: Any, out: Any, dh: Any, accepted: Any, chains: Any, start: Any, stop: Any, extent: Any, rows: Any,
    kappa: Any, lam: Any, kicks: Any, drifts: Any, seed: Any, momentum_stream: Any, accept_stream: Any,
    trajectory: Any, inverse_mass: Any, root_mass: Any, forward: Any, backward: Any,
) -> None:  # fmt: skip
    """`kernels.hmc_block` with p = root_mass normal and velocities inverse_mass p, both (V,) in the real
    Fourier basis."""
    n_sites, block = phi.shape[1], stop - start
    n_rows, width = n_sites // extent, extent * block
    now, p, v = np.empty((n_rows, width)), np.empty((n_rows, width)), np.empty((n_rows, width))
    unused = np.empty((n_rows, width))  # what a kick without drift writes
    total, work = np.empty(width), np.empty(width)
    h0, h1 = np.empty(block), np.empty(block)
    load(phi, now, p, chains, start, block, seed, momentum_stream, trajectory)
    multiply_modes(p.reshape(p.size), root_mass, forward, backward, block)
    v[:] = p
    multiply_modes(v.reshape(v.size), inverse_mass, forward, backward, block)
    energy(h0, now, p, v, rows, total, work, kappa, lam)
    for k in range(kicks.size):
        if k > 0:
            _drift(now, v, drifts[k - 1])
        kick_drift(unused, p, now, rows, total, block, kappa, lam, kicks[k], 0.0)
        v[:] = p
        multiply_modes(v.reshape(v.size), inverse_mass, forward, backward, block)
    energy(h1, now, p, v, rows, total, work, kappa, lam)
    store(phi, out, now, dh, accepted, h0, h1, chains, start, seed, accept_stream, trajectory)
