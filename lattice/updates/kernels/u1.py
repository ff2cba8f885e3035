"""Compiled loops of U(1) links on a torus: molecular dynamics, heat bath, winding moves.

Links of a chain are flat: a_0 of all V sites in C order, then a_1. `nb` (V, 4) is the table of
`layout.neighbour_table`: x + 0, x - 0, x + 1, x - 1. Molecular dynamics has the chains of a block innermost,
so that one stream of instructions moves them all; no operation mixes two chains.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lattice.rng import compiled, cos_sin, inlined, random_bits, uniform_at, unit
from lattice.updates.kernels.layout import load, store

PI, PERIOD, OVER_PI = math.pi, 2.0 * math.pi, 1.0 / math.pi
PI_TOP = 201 / 64  # k times it is exact, so that x - k pi loses nothing
PI_REST = math.pi - PI_TOP + 1.2246467991473532e-16
WHOLE = 1.5 * 2.0**52  # added and taken off: rounds to whole numbers
S3, S5, S7, S9, S11, S13, S15, S17, S19, S21 = ((-1) ** (n // 2) / math.factorial(n) for n in range(3, 22, 2))
FLAT = 0.5  # below, e^{k cos} is drawn by accepting uniform angles


@inlined
def sine(x: Any) -> Any:
    """sin x of |x| < 10^6 by its series, which vectorises and is the same on every machine."""
    k = (x * OVER_PI + WHOLE) - WHOLE
    r = (x - k * PI_TOP) - k * PI_REST
    half = 0.5 * k
    odd = half - ((half + WHOLE) - WHOLE)
    z = r * r
    s = ((S21 * z + S19) * z + S17) * z + S15
    s = (((s * z + S13) * z + S11) * z + S9) * z + S7
    s = ((s * z + S5) * z + S3) * z + 1.0
    return (1.0 - 4.0 * abs(odd)) * (s * r)


@inlined
def wrap(x: Any) -> Any:
    """x in (-pi, pi]."""
    w = x - PERIOD * np.ceil((x - PI) / PERIOD)
    w = w + PERIOD if w <= -PI else w
    return min(w, PI)


@compiled
def _slope_row(slope: Any, a0: Any, up: Any, right: Any, a1: Any, beta: Any) -> None:
    for j in range(slope.size):
        slope[j] = beta * sine(a0[j] + up[j] - right[j] - a1[j])


@compiled
def _kick_row(p: Any, plus: Any, minus: Any, kick: Any) -> None:
    for j in range(p.size):
        p[j] -= kick * (plus[j] - minus[j])


@compiled
def _energy_row(h: Any, a0: Any, up: Any, right: Any, a1: Any, p0: Any, p1: Any, beta: Any) -> None:
    for j in range(h.size):
        s = sine(0.5 * (a0[j] + up[j] - right[j] - a1[j]))
        h[j] += 0.5 * (p0[j] * p0[j] + p1[j] * p1[j]) - beta * (1.0 - 2.0 * s * s)


@compiled
def _energy(h: Any, a: Any, p: Any, nb: Any, beta: Any) -> None:
    """h (block,) = p^2/2 + S of links and momenta (2V, block)."""
    v = nb.shape[0]
    h[:] = 0.0
    for x in range(v):
        _energy_row(h, a[x], a[v + nb[x, 0]], a[nb[x, 2]], a[v + x], p[x], p[v + x], beta)


@compiled
def _kick(p: Any, a: Any, slope: Any, nb: Any, beta: Any, kick: Any) -> None:
    """p -= kick dS/da, of links and momenta (2V, block); slope (V, block) is room to work."""
    v = nb.shape[0]
    for x in range(v):
        _slope_row(slope[x], a[x], a[v + nb[x, 0]], a[nb[x, 2]], a[v + x], beta)
    for x in range(v):
        _kick_row(p[x], slope[x], slope[nb[x, 3]], kick)
        _kick_row(p[v + x], slope[nb[x, 1]], slope[x], kick)


@compiled
def _drift(a: Any, p: Any, drift: Any) -> None:
    for row in range(a.shape[0]):
        for j in range(a.shape[1]):
            a[row, j] += drift * p[row, j]


@compiled
def hmc_block(
    phi: Any, out: Any, dh: Any, accepted: Any, chains: Any, start: Any, stop: Any, nb: Any, beta: Any,
    kicks: Any, drifts: Any, seed: Any, momentum_stream: Any, accept_stream: Any, trajectory: Any,
) -> None:  # fmt: skip
    """One trajectory of chains start .. stop of phi (n, 2V) into out (n, 2V), wrapped, dh (n,), accepted
    (n,). Angles move freely in between."""
    n_links, block = phi.shape[1], stop - start
    now, p = np.empty((n_links, block)), np.empty((n_links, block))
    slope, h0, h1 = np.empty((n_links // 2, block)), np.empty(block), np.empty(block)
    load(phi, now, p, chains, start, block, seed, momentum_stream, trajectory)
    _energy(h0, now, p, nb, beta)
    for k in range(drifts.size):
        _kick(p, now, slope, nb, beta, kicks[k])
        _drift(now, p, drifts[k])
    _kick(p, now, slope, nb, beta, kicks[-1])
    _energy(h1, now, p, nb, beta)
    store(phi, out, now, dh, accepted, h0, h1, chains, start, seed, accept_stream, trajectory)
    for c in range(start, stop):
        for x in range(n_links):
            out[c, x] = wrap(out[c, x])


@compiled
def von_mises(k: Any, seed: Any, stream: Any, chain: Any, trajectory: Any, used: Any) -> Any:
    """(angle of density e^{k cos angle}, k >= 0; counters used before and with it), exact for any k.

    Best and Fisher, Appl. Stat. 28 (1979) 152: a wrapped Cauchy law, accepted with c e^{1-c}; where k is
    small uniform angles, accepted with e^{k(cos - 1)}. A counter gives a point on the circle, whose side is
    the sign of the angle, and the number of the accept step.
    """
    r = 1.0
    if k >= FLAT:
        tau = 1.0 + math.sqrt(1.0 + 4.0 * k * k)
        rho = (tau - math.sqrt(2.0 * tau)) / (2.0 * k)
        r = (1.0 + rho * rho) / (2.0 * rho)
    while True:
        n0, n1 = random_bits(seed, stream, chain, trajectory, used)
        used += np.uint64(1)
        z, side = cos_sin(n0)
        u = unit(n1)
        if k < FLAT:
            f = z
            kept = u < math.exp(k * (z - 1.0))
        else:
            f = (1.0 + r * z) / (r + z)
            c = k * (r - f)
            kept = c * (2.0 - c) > u or math.log(c / u) + 1.0 - c >= 0.0
        if kept:
            angle = math.acos(min(1.0, max(-1.0, f)))
            return (-angle if side < 0.0 else angle), used


@inlined
def staples(a: Any, nb: Any, mu: Any, x: Any) -> Any:
    """(forward, backward) of the link mu at x: its plaquettes are forward + a and backward - a."""
    v = nb.shape[0]
    if mu == 0:
        y = nb[x, 3]
        return a[v + nb[x, 0]] - a[nb[x, 2]] - a[v + x], a[y] + a[v + nb[y, 0]] - a[v + y]
    y = nb[x, 1]
    return a[y] - a[nb[y, 2]] - a[v + y], a[x] + a[v + nb[x, 0]] - a[nb[x, 2]]


@compiled
def heat_bath_range(
    links: Any, attempts: Any, nb: Any, beta: Any, n_sweeps: Any, seed: Any, stream: Any, chains: Any,
    trajectory: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """Sweeps over all links of chains start .. stop of links (n, 2V), in place, attempts (n,) a link."""
    v = nb.shape[0]
    for c in range(start, stop):
        a, used = links[c], np.uint64(0)
        for _ in range(n_sweeps):
            for mu in range(2):
                for x in range(v):
                    forward, backward = staples(a, nb, mu, x)
                    k, centre = 2.0 * beta * math.cos(0.5 * (forward + backward)), 0.5 * (backward - forward)
                    if k < 0.0:
                        k, centre = -k, centre + PI
                    angle, used = von_mises(k, seed, stream, chains[c], trajectory, used)
                    a[mu * v + x] = wrap(centre + angle)
        attempts[c] = np.float64(used) / (2 * v * n_sweeps)


@compiled
def _add_instanton(a: Any, rows: Any, columns: Any, sign: Any, site: Any) -> None:
    """a (2V,) plus sign times links whose plaquettes are all 2 pi/V: a_1 = 2 pi x_0/V, and in the last row
    a_0 = -2 pi x_1/columns, coordinates counted from `site`. Every angle is wrapped."""
    v = rows * columns
    w, from0, from1 = sign * PERIOD / v, site // columns, site % columns
    for x in range(v):
        x0, x1 = (x // columns - from0) % rows, (x % columns - from1) % columns
        if x0 == rows - 1:
            a[x] = wrap(a[x] - w * rows * x1)
        a[v + x] = wrap(a[v + x] + w * x0)


@compiled
def winding_range(
    links: Any, ds: Any, accepted: Any, nb: Any, columns: Any, beta: Any, seed: Any, stream: Any, chains: Any,
    trajectory: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """Winding moves of chains start .. stop of links (n, 2V), in place: ds, accepted (n, n_moves)."""
    v = nb.shape[0]
    cos_w, sin_w = math.cos(PERIOD / v), math.sin(PERIOD / v)
    for c in range(start, stop):
        a, total_cos, total_sin = links[c], 0.0, 0.0
        for x in range(v):
            a[x], a[v + x] = wrap(a[x]), wrap(a[v + x])
        for x in range(v):
            theta = a[x] + a[v + nb[x, 0]] - a[nb[x, 2]] - a[v + x]
            total_cos += math.cos(theta)
            total_sin += math.sin(theta)
        for m in range(ds.shape[1]):
            first = np.uint64(3 * m)
            u = uniform_at(seed, stream, chains[c], trajectory, first)
            sign = 1.0 if u < 0.5 else -1.0
            site = min(
                np.int64(v * uniform_at(seed, stream, chains[c], trajectory, first + np.uint64(1))), v - 1
            )
            new_cos = cos_w * total_cos - sign * sin_w * total_sin
            ds[c, m] = beta * (total_cos - new_cos)
            u = uniform_at(seed, stream, chains[c], trajectory, first + np.uint64(2))
            accepted[c, m] = u < math.exp(-ds[c, m])
            if accepted[c, m]:
                total_cos, total_sin = new_cos, cos_w * total_sin + sign * sin_w * total_cos
                _add_instanton(a, v // columns, columns, sign, site)
