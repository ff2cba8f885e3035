"""Compiled loops behind random networks: neurons into fields, and Metropolis steps of neurons.

Sums run over the neurons of one field in order, so that a field depends on no other, bit for bit. Waves are
products of one phase per axis, and places are shifted axis by axis: no table of all pairs of sites.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lattice.rng import compiled

ERF, RELU, GAUSS = 0, 1, 2


@compiled
def wave(re: Any, im: Any, size: Any, place: Any, phase: Any, extents: Any, cosines: Any, sines: Any) -> None:
    """re (V,) = size cos(k x + phase), k the mode number `place` in row order; im is spoilt."""
    re[0], im[0] = size * math.cos(phase), size * math.sin(phase)
    volume, made = re.size, 1
    for axis in range(extents.size):
        extent = extents[axis]
        volume //= extent
        digit = (place // volume) % extent
        for s in range(made - 1, -1, -1):
            x, y = re[s], im[s]
            for n in range(extent - 1, -1, -1):
                c, d = cosines[axis, (digit * n) % extent], sines[axis, (digit * n) % extent]
                re[s * extent + n], im[s * extent + n] = x * c - y * d, x * d + y * c
        made *= extent


@compiled
def bump(re: Any, sites: Any, size: Any, place: Any, extents: Any, profile: Any) -> None:
    """re (V,) = size g(x - c), c the site number `place` in row order; sites is spoilt."""
    sites[0] = 0
    volume, made = re.size, 1
    for axis in range(extents.size):
        extent = extents[axis]
        volume //= extent
        digit = (place // volume) % extent
        for s in range(made - 1, -1, -1):
            first = sites[s] * extent
            for n in range(extent - 1, -1, -1):
                shift = n - digit
                sites[s * extent + n] = first + (shift if shift >= 0 else shift + extent)
        made *= extent
    for x in range(re.size):
        re[x] = size * profile[sites[x]]


@compiled
def neuron(
    re: Any, im: Any, sites: Any, size: Any, place: Any, phase: Any, extents: Any, cosines: Any, sines: Any,
    profile: Any,
) -> None:  # fmt: skip
    """re (V,) = the part of one neuron of the field, a wave where there is no profile (0,)."""
    if profile.size:
        bump(re, sites, size, place, extents, profile)
    else:
        wave(re, im, size, place, phase, extents, cosines, sines)


@compiled
def neuron_rows(
    phi: Any, a: Any, place: Any, phase: Any, counts: Any, extents: Any, cosines: Any, sines: Any,
    profile: Any,
) -> None:  # fmt: skip
    """phi (n, V) = the sum of the first counts (n,) neurons of each row of a, place, phase (n, N)."""
    volume = phi.shape[1]
    re, im, sites = np.empty(volume), np.empty(volume), np.empty(volume, np.int64)
    for i in range(phi.shape[0]):
        phi[i] = 0.0
        for j in range(counts[i]):
            neuron(re, im, sites, a[i, j], place[i, j], phase[i, j], extents, cosines, sines, profile)
            for x in range(volume):
                phi[i, x] += re[x]


@compiled
def input_rows(out: Any, a: Any, w: Any, b: Any, points: Any, shift: Any, activation: Any, bias: Any) -> None:
    """out (n, P) = bias (n,) + sum_j a_j s(w_j . x + b_j) at points (P, d); a, b (n, N), w (n, N, d).

    shift (P,): what a gauss net takes off its exponent, the logarithm of its norm.
    """
    for i in range(out.shape[0]):
        out[i] = bias[i]
        for j in range(a.shape[1]):
            for p in range(points.shape[0]):
                z = b[i, j]
                for k in range(points.shape[1]):
                    z += w[i, j, k] * points[p, k]
                if activation == ERF:
                    s = math.erf(z)
                elif activation == RELU:
                    s = z if z > 0.0 else 0.0
                else:
                    s = math.exp(z - shift[p])
                out[i, p] += a[i, j] * s


@compiled
def metropolis_rows(
    phi: Any, a: Any, place: Any, phase: Any, new_a: Any, new_place: Any, new_phase: Any, uniform: Any,
    lam: Any, accepted: Any, extents: Any, cosines: Any, sines: Any, profile: Any,
) -> None:  # fmt: skip
    """Offer each neuron in turn its redrawn self, accepted with min(1, exp(-lam d sum f^4)), in place.

    phi (n, V) is summed anew first: no rounding is carried from sweep to sweep.
    """
    volume, n_neurons = phi.shape[1], a.shape[1]
    old, new = np.empty(volume), np.empty(volume)
    im, sites = np.empty(volume), np.empty(volume, np.int64)
    for i in range(phi.shape[0]):
        accepted[i] = 0
        phi[i] = 0.0
        for j in range(n_neurons):
            neuron(old, im, sites, a[i, j], place[i, j], phase[i, j], extents, cosines, sines, profile)
            for x in range(volume):
                phi[i, x] += old[x]
        for j in range(n_neurons):
            neuron(old, im, sites, a[i, j], place[i, j], phase[i, j], extents, cosines, sines, profile)
            neuron(
                new, im, sites, new_a[i, j], new_place[i, j], new_phase[i, j], extents, cosines, sines,
                profile,
            )  # fmt: skip
            change = 0.0
            for x in range(volume):
                f = phi[i, x]
                new[x] = f - old[x] + new[x]
                g = new[x] * new[x]
                change += g * g - f * f * f * f
            if math.log(uniform[i, j]) < -lam * change:
                accepted[i] += 1
                a[i, j], place[i, j], phase[i, j] = new_a[i, j], new_place[i, j], new_phase[i, j]
                for x in range(volume):
                    phi[i, x] = new[x]
