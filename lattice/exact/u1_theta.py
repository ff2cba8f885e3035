r"""Two-dimensional U(1) on a torus with complex beta and a theta term of the smooth charge, in closed form.

A plaquette has the weight w(phi) = exp(beta cos phi + i t sin phi), t = theta/2pi, that is
exp((a e^{i phi} + b e^{-i phi})/2) with a = beta + t, b = beta - t: its Fourier coefficients are those of the
generating function of Bessel functions,

    c_n = int dphi/2pi w(phi) e^{-i n phi} = (a/b)^{n/2} I_n(sqrt(ab)),

found here by the discrete transform of w, which has no branches and converges exponentially. Plaquettes are
independent but for their sum, a multiple of 2 pi (Migdal 1975), delta(sum) = sum_n e^{-i n sum}/2pi:

    Z = sum_n c_n^V        <e^{+i sum_A theta_p}> = sum_n c_n^{V-A} c_{n-1}^A / Z      (e^{-i ...}: c_{n+1})

Q_s = sum_p sin theta_p/2pi, no whole number. At t = 0 and beta > 0 this is `lattice.exact.u1`. The
theta term of the geometric charge is another theory: Z(theta)/Z = `lattice.exact.u1.z_of_theta`.
"""

from __future__ import annotations

import cmath
import math
from typing import NamedTuple

import numpy as np

from lattice.actions.protocol import complex_coupling, real_coupling
from lattice.arrays import Complexes
from lattice.errors import InputError

FEWEST = 4  # plaquettes of a torus
LARGEST = 1e5  # |beta| + |theta|/2pi
VANISHES = 1e-10  # of sum |c_n^V|: Z is lost to rounding


class SmoothTheta(NamedTuple):
    """Averages: cosine <cos theta_p>, sine <sin theta_p>, charge <Q_s>, charge2 <Q_s^2>, and
    susceptibility (<Q_s^2> - <Q_s>^2)/V = -d^2 ln Z/dtheta^2/V."""

    cosine: complex
    sine: complex
    charge: complex
    charge2: complex
    susceptibility: complex


def coefficients(beta: complex, theta: float) -> Complexes:
    """e^{-|Re beta|} c_n for n = -m ... m (2m + 1,), to 1e-16 of the largest; beyond m they are less.

    >>> c = coefficients(2.0, 0.0)
    >>> float((c[len(c) // 2 + 1] / c[len(c) // 2]).real.round(6))                            # I_1/I_0
    0.697775
    """
    beta, t = _checked(beta, theta)
    size = abs(beta) + abs(t)
    top = int(size + 8 * math.sqrt(size) + 32)
    n = 1 << (2 * top).bit_length()
    phi = 2 * math.pi * np.arange(n) / n
    w = np.exp(beta * np.cos(phi) + 1j * t * np.sin(phi) - abs(beta.real))
    return np.asarray(np.fft.fft(w)[np.arange(-top, top + 1)] / n, dtype=np.complex128)


def ln_z(beta: complex, theta: float, volume: int) -> complex:
    """ln of int prod dU e^{-S}, Haar measure normalised to one; imaginary part in (-pi, pi].

    Raises `InputError` for fewer than 4 plaquettes, couplings that are not finite or very large, and where Z
    vanishes to rounding.

    >>> round(ln_z(2.0, 0.0, 64).real / 64, 9)
    0.823993541
    """
    c, scale = _scaled(beta, theta, volume)
    found = volume * (abs(complex(beta).real) + cmath.log(scale)) + cmath.log(_z(c, volume))
    return complex(found.real, math.remainder(found.imag, 2 * math.pi))


def wilson_loop(beta: complex, theta: float, volume: int, area: int, sign: int = 1) -> complex:
    """<e^{i sign (sum of link angles)}> around a contractible area, counterclockwise as a plaquette for
    sign 1; the other way round, sign -1, it is another number where there is a theta.

    >>> round(wilson_loop(7.0, 0.0, 256, 4).real, 6)
    0.73378
    >>> [round(wilson_loop(0.5, 0.5, 16, 1, sign).real, 5) for sign in (1, -1)]
    [0.20406, 0.28131]
    """
    if sign not in (1, -1):
        raise InputError(f"a loop has sign 1 or -1, got {sign}")
    if not 0 <= area <= volume:
        raise InputError(f"the area of a loop is 0 to {volume} plaquettes, got {area}")
    c, _ = _scaled(beta, theta, volume)
    return complex((c ** (volume - area) * np.roll(c, sign) ** area).sum() / _z(c, volume))


def averages(beta: complex, theta: float, volume: int) -> SmoothTheta:
    """The averages of plaquettes and of the smooth charge; `InputError` as `ln_z`.

    >>> found = averages(5.0, math.pi, 64)
    >>> round(found.cosine.real, 5), round(found.sine.imag, 5), round(found.charge.imag, 5)
    (0.89917, 0.02943, 0.29979)
    """
    c, _ = _scaled(beta, theta, volume)
    z, up, down = _z(c, volume), np.roll(c, 1), np.roll(c, -1)
    sine, cosine = (up - down) / 2j, (up + down) / 2
    sine2 = (2 * c - np.roll(c, 2) - np.roll(c, -2)) / 4
    one, other = (complex((c ** (volume - 1) * x).sum() / z) for x in (sine, cosine))
    same = complex((c ** (volume - 1) * sine2).sum() / z)
    two = complex((c ** (volume - 2) * sine**2).sum() / z)
    charge = volume * one / (2 * math.pi)
    charge2 = (volume * same + volume * (volume - 1) * two) / (2 * math.pi) ** 2
    return SmoothTheta(other, one, charge, charge2, (charge2 - charge**2) / volume)


def _checked(beta: complex, theta: float) -> tuple[complex, float]:
    beta, t = complex_coupling("beta", beta), real_coupling("theta", theta) / (2 * math.pi)
    if abs(beta) + abs(t) > LARGEST:
        raise InputError(f"exact numbers are known up to |beta| + |theta|/2pi = {LARGEST:g}, got {beta}, {t}")
    return beta, t


def _scaled(beta: complex, theta: float, volume: int) -> tuple[Complexes, complex]:
    """c_n over the largest of them, and that one."""
    if volume < FEWEST or volume % 1:
        raise InputError(f"a torus has at least {FEWEST} plaquettes, a whole number, got {volume}")
    c = coefficients(beta, theta)
    scale = complex(c[np.argmax(np.abs(c))])
    return c / scale, scale


def _z(c: Complexes, volume: int) -> complex:
    terms = c**volume
    z = complex(terms.sum())
    if abs(z) < VANISHES * np.abs(terms).sum():
        raise InputError("the partition function vanishes to working precision: no averages")
    return z
