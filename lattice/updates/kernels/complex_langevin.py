"""Compiled loop behind `complex_langevin`: one chain after the other, each with its own adaptive step.

Drifts of three forms: K = -(a1 z + a3 z^3) + hop * (sum over the 2d neighbours), K = -beta sin z, and that of
links, minus the sum over their plaquettes of +-(beta sin theta_p - a1 cos theta_p).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.rng import compiled
from lattice.updates.kernels.langevin import fill_noise

CHUNK = 256  # normal numbers made at a time (at least one substep's)
FINE, RUNAWAY = -1, 0
POWERS, SINE, LINKS = 0, 1, 2  # forms of the drift


@compiled
def _drift(k: Any, z: Any, rows: Any, a1: Any, a3: Any, hop: Any, beta: Any, form: Any) -> Any:
    """k (V,) = K(z); returns the largest |K| of the sites (NaN where a site's is)."""
    if form == LINKS:
        _drift_of_links(k, z, rows, a1, beta)
    largest = 0.0
    for x in range(z.size):
        if form == SINE:
            k[x] = -beta * np.sin(z[x])
        elif form == POWERS:
            total = 0.0j
            for mu in range(rows.shape[1]):
                total += z[rows[x, mu]]
            k[x] = hop * total - (a1 + a3 * (z[x] * z[x])) * z[x]
        size = k[x].real * k[x].real + k[x].imag * k[x].imag
        if not size <= largest:
            largest = size
    return np.sqrt(largest)


@compiled
def _drift_of_links(k: Any, z: Any, rows: Any, a1: Any, beta: Any) -> None:
    """The same of links z (2 V,) around plaquettes rows (V, 4): the first two of a row forwards, the others
    back."""
    k[:] = 0.0j
    for p in range(rows.shape[0]):
        a, b, c, d = rows[p, 0], rows[p, 1], rows[p, 2], rows[p, 3]
        angle = z[a] + z[b] - z[c] - z[d]
        sin, cos = np.sin(angle.real), np.cos(angle.real)
        sinh, cosh = np.sinh(angle.imag), np.cosh(angle.imag)
        slope = beta * complex(sin * cosh, cos * sinh) - a1 * complex(cos * cosh, -sin * sinh)
        k[a] -= slope
        k[b] -= slope
        k[c] += slope
        k[d] += slope


@compiled
def complex_block(
    z: Any, out: Any, largest: Any, counts: Any, runaway: Any, chains: Any, start: Any, stop: Any, rows: Any,
    a1: Any, a3: Any, hop: Any, beta: Any, form: Any, tau: Any, step: Any, scale: Any, escape: Any,
    limit: Any, most: Any, real_noise: Any, imaginary_noise: Any, heun: Any, seed: Any, real_stream: Any,
    imaginary_stream: Any, trajectory: Any,
) -> None:  # fmt: skip
    """Langevin time tau of chains start .. stop of z (n, V) into out (n, V).

    rows: the neighbours of each site, of LINKS the links of each plaquette.
    largest (n,) gets the largest |K|, counts (n, 3) the substeps, the shrunken ones and the escapes, runaway
    (n,) the substep after which a site was not finite or beyond `limit`, or which was number `most`, or -1.
    """
    n_sites = z.shape[1]
    per_chunk = max(1, CHUNK // n_sites)
    re, im = np.empty(per_chunk * n_sites), np.zeros(per_chunk * n_sites)
    k0, k1 = np.empty(n_sites, np.complex128), np.empty(n_sites, np.complex128)
    w, trial = np.empty(n_sites, np.complex128), np.empty(n_sites, np.complex128)
    for c in range(start, stop):
        now = out[c]
        now[:] = z[c]
        t, n, have, filled, outside, done = 0.0, 0, 0, 0, False, False
        while not done:
            size = _drift(k0, now, rows, a1, a3, hop, beta, form)
            if size > largest[c]:
                largest[c] = size
            if size > escape and not outside:
                counts[c, 2] += 1
            outside = size > escape
            eps, left = step, tau - t
            if size > scale:
                eps = step * (scale / size)
            if eps >= left * (1.0 - 1e-9):
                eps, done = left, True
            elif eps < step:
                counts[c, 1] += 1
            if have == filled:
                filled = min(per_chunk, int(left / step) + 1)
                first = np.uint64(n) * np.uint64(n_sites)
                fill_noise(re[: filled * n_sites], seed, real_stream, chains[c], trajectory, first)
                if imaginary_noise > 0.0:
                    fill_noise(im[: filled * n_sites], seed, imaginary_stream, chains[c], trajectory, first)
                have = 0
            root = np.sqrt(eps)
            for x in range(n_sites):
                j = have * n_sites + x
                w[x] = root * complex(real_noise * re[j], imaginary_noise * im[j])
                trial[x] = now[x] + eps * k0[x] + w[x]
            have += 1
            if heun:
                _drift(k1, trial, rows, a1, a3, hop, beta, form)
                for x in range(n_sites):
                    now[x] = now[x] + 0.5 * eps * (k0[x] + k1[x]) + w[x]
            else:
                now[:] = trial
            bad = False
            for x in range(n_sites):
                if not (abs(now[x].real) < limit and abs(now[x].imag) < limit):
                    bad = True
            if bad or n >= most:
                runaway[c] = n
                break
            t += eps
            n += 1
        counts[c, 0] = n
