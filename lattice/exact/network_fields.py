r"""Lattice fields of random networks, exactly: propagator, one site, the zero mode, kappa_4(0, 0, r, r).

In units of the neuron as it stands in the sum, <a^2> = 1 and even moments only:

    CosNet    site  m_2n = <a^2n> C(2n, n) (G0/2N)^n;  zero mode  p0 m_2n,  p0 = 1/(V G0 K(0))
              N kappa_4(0,0,r,r) = <a^4> (G0^2 + G0 G_2r/2) - G0^2 - 2 G_r^2
    LocalNet  site  m_2n = <a^2n> rho^-n V^-1 sum_c g(c)^2n;  zero mode  <a^2n> (rho V^2 K(0))^-n
              rho kappa_4(0,0,r,r) = <a^4> sum_c g(c)^2 g(r-c)^2  (- (G0^2 + 2 G_r^2)/V, N fixed)

A sum of N neurons adds their cumulants, a Poisson number of them adds their moments. As r grows the first
tends to <a^4> - 1 in units of G0^2: neurons at all sites at once violate cluster decomposition at 1/N; the
Poisson net obeys it; a fixed number of neurons breaks it by its own 1/N.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lattice.actions.networks import FreeNet, LocalNet, Network, lattice_inputs
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.network_kernel import (
    HIGHEST,
    as_inputs,
    field_cumulants,
    joint_cumulant,
    kernel,
    sum_cumulants,
    with_odd,
)
from lattice.exact.scalar import free_propagator
from lattice.statistics.cumulants import moments_from_cumulants

ORDERS = (2, 4, 6, 8)


def propagator(law: Network, shape: tuple[int, ...]) -> Floats:
    """G(k) = sum_r <f(0) f(r)> e^(-ikr), (*shape) in the order of `numpy.fft.fftn`: at every width.

    Raises `InputError` for a free net with K(p) <= 0 somewhere, and for what is no network.
    """
    if isinstance(law, FreeNet):
        return np.asarray(free_propagator(law.kappa, shape, law.mass), dtype=np.float64)
    return np.asarray(np.fft.fftn(correlations(law, shape)).real)


def correlations(law: Network, shape: tuple[int, ...]) -> Floats:
    """G_r = <f(0) f(r)>, (*shape)."""
    if isinstance(law, FreeNet):
        return np.asarray(np.fft.ifftn(propagator(law, shape)).real)
    x = lattice_inputs(shape)
    return kernel(as_inputs(law), x[:1], x).reshape(shape)


def profile(law: LocalNet, shape: tuple[int, ...]) -> Floats:
    """g(x), (*shape), of neurons of a local net: the Fourier transform of K^(-1/2)."""
    return np.asarray(np.fft.ifftn(np.sqrt(propagator(law, shape))).real)


def _ways(n: int) -> float:
    """<(2 cos^2 b)^n> = C(2n, n)/2^n over uniform b."""
    return math.comb(2 * n, n) / float(2**n)


def _moments(law: FreeNet, shape: tuple[int, ...], highest: int, zero_mode: bool) -> Floats:
    """Even moments of one neuron as it stands in the sum, at a site or in the zero mode V^-1 sum_x f."""
    g, v, halves = propagator(law, shape), math.prod(shape), range(1, highest // 2 + 1)
    own = np.array([law.own_moment(2 * n) for n in halves])
    power = np.array(halves)
    if isinstance(law, LocalNet):
        if zero_mode:
            return np.asarray(own * (g.flat[0] / (law.rho * v * v)) ** power)
        here = profile(law, shape)
        return np.asarray(own * np.array([(here ** (2 * n)).mean() for n in halves]) / law.rho**power)
    site = float(g.mean())
    weight = float(g.flat[0]) / (v * site) if zero_mode else 1.0
    ways = np.array([_ways(n) for n in halves])
    return np.asarray(own * ways * weight * (site / law.neurons(shape)) ** power)


def site_cumulants(law: Network, shape: tuple[int, ...], highest: int = 8) -> dict[int, float]:
    """kappa_2, ..., kappa_highest of f at any site, by order."""
    if isinstance(law, FreeNet):
        return _of_sum(law, shape, highest, False)
    return field_cumulants(as_inputs(law), lattice_inputs(shape)[0], highest)


def zero_mode_cumulants(law: Network, shape: tuple[int, ...], highest: int = 8) -> dict[int, float]:
    """kappa_2, ..., kappa_highest of M = V^-1 sum_x f, by order; of nets of inputs kappa_2 alone is known."""
    if isinstance(law, FreeNet):
        return _of_sum(law, shape, highest, True)
    return {2: float(correlations(law, shape).mean())}


def _of_sum(law: FreeNet, shape: tuple[int, ...], highest: int, zero_mode: bool) -> dict[int, float]:
    poisson = isinstance(law, LocalNet) and law.poisson
    moments = _moments(law, shape, highest, zero_mode)
    found = sum_cumulants(law, moments, law.neurons(shape), poisson)
    return {2 * n + 2: float(value) for n, value in enumerate(found)}


def four_point(law: Network, shape: tuple[int, ...]) -> Floats:
    """kappa_4(0, 0, r, r) for all r, (*shape), at this width.

    Raises `InputError` for relu nets, whose four points are not known, and for nets of inputs with correlated
    weights.
    """
    if isinstance(law, FreeNet):
        return _free_four_point(law, shape)
    net, x = as_inputs(law), lattice_inputs(shape)
    joint = [joint_cumulant(net, np.stack([x[0], x[0], y, y])) for y in x]
    return np.array(joint).reshape(shape) / net.width


def _free_four_point(law: FreeNet, shape: tuple[int, ...]) -> Floats:
    g, n = correlations(law, shape), law.neurons(shape)
    square, own = g.flat[0] ** 2 + 2 * g**2, law.own_moment(4)
    if isinstance(law, LocalNet):
        here = np.fft.fftn(profile(law, shape) ** 2)
        found = own * np.fft.ifftn(np.abs(here) ** 2).real / law.rho
        if not law.poisson:
            found = found - square / n
    else:
        twice = g[np.ix_(*(2 * np.arange(extent) % extent for extent in shape))]
        found = (own * (g.flat[0] ** 2 + g.flat[0] * twice / 2) - square) / n
    factor = law.factor_moment(4)
    return np.asarray(factor * (found + square) - square)


def reference(law: Network, shape: tuple[int, ...]) -> dict[str, Any]:
    """What is known of the lattice field: "site" and "zero_mode" cumulants by order, and "propagator" G(k).

    >>> from lattice.actions.networks import CosNet
    >>> found = reference(CosNet(4, 0.2, "signs"), (8, 8))
    >>> round(found["site"][4] / found["site"][2] ** 2, 12)     # -3/2N
    -0.375
    """
    return {
        "site": site_cumulants(law, shape),
        "zero_mode": zero_mode_cumulants(law, shape),
        "propagator": propagator(law, shape),
    }


def cumulant_variance(moments: Floats, n: int) -> float:
    """M var of the sample kappa_2n, from even moments only, of M independent values, M large.

    moments: <x^2>, <x^4>, ..., at least to <x^4n>. From kappa_n = n! [t^n] ln sum_j m_j t^j/j! follows
    d kappa_n/d m_j = C(n, j) r_(n-j), sum_k r_k t^k/k! being the inverse of that series.
    """
    order = 2 * n
    if n < 1 or len(moments) < order:
        raise InputError(f"the variance of kappa_{order} asks for moments to order {2 * order}")
    m = np.concatenate([[1.0], with_odd(np.asarray(moments, dtype=np.float64))])
    inverse = np.zeros(order + 1)
    inverse[0] = 1.0
    for k in range(1, order + 1):
        inverse[k] = -sum(math.comb(k, j) * m[j] * inverse[k - j] for j in range(1, k + 1))
    even = range(2, order + 1, 2)
    slope = np.array([math.comb(order, j) * inverse[order - j] for j in even])
    spread = np.array([[m[i + j] - m[i] * m[j] for j in even] for i in even])
    return float(slope @ spread @ slope)


def networks_needed(
    law: Network, n: int, *, shape: tuple[int, ...] | None = None, point: ArrayLike | None = None,
    sigmas: float = 3.0,
) -> float:  # fmt: skip
    """How many networks show kappa_2n, n <= 4, at one site or point at `sigmas` of its error; inf where it
    vanishes.

    From the exact moments to order 4n. With fewer of them samples of heavy-tailed nets do not even show their
    own error: the mean is carried by networks that are not among them.

    >>> from lattice.actions.networks import CosNet
    >>> networks_needed(CosNet(4, 0.2, "signs"), 2, shape=(8, 8)) < 1e4
    True
    """
    if not 1 <= n <= HIGHEST // 4:
        raise InputError(f"kappa_2n is known for n = 1 to {HIGHEST // 4} here, got {n}")
    if (shape is None) == (point is None):
        raise InputError("say where: either shape, any site of that lattice, or point")
    if shape is not None:
        found = site_cumulants(law, shape, 4 * n)
    else:
        assert point is not None
        found = field_cumulants(as_inputs(law), point, 4 * n)
    even = np.array(list(found.values()))
    variance = cumulant_variance(moments_from_cumulants(with_odd(even))[1::2], n)
    size = abs(found[2 * n])
    if size < 1e-12 * found[2] ** n:
        return math.inf
    return sigmas**2 * variance / size**2
