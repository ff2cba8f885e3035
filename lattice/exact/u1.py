r"""Two-dimensional U(1) on a torus of V plaquettes, S = -beta sum_p cos theta_p, in closed form.

With c_nu = int dphi/2pi e^{beta cos phi} cos nu phi, phi in (-pi, pi], for integers I_n(beta), plaquettes are
independent but for their sum, a multiple of 2 pi (Migdal 1975; Wiese, Nucl. Phys. B318 (1989) 153):

    Z = sum_n c_n^V                                Z(theta) = <e^{i theta Q}> Z = sum_n c_{n + theta/2pi}^V
    P(Q) = int dnu e^{-2 pi i nu Q} c_nu^V / Z     W(A) = sum_n c_n^{V-A} c_{n+1}^A / Z, contractible loops

Q = sum_p theta_p/2pi, each theta_p in (-pi, pi]. Of nu that is no integer c_nu = sum_n I_n sinc(nu - n): its
transform has no support beyond pi. All in units of e^beta a plaquette, so that nothing overflows.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy.special import ive

from lattice.actions.u1 import BETAS
from lattice.arrays import Floats, Integers
from lattice.errors import InputError

SMALL = 1e-17  # of the largest term of a sum
FEWEST = 4  # plaquettes: c_nu falls off like 1/nu where beta is small
WIDEST = 10.0  # of a charge, in units of sqrt(V/12): its standard deviation where beta is nothing
FAR = 4096.0  # |nu| at most, or 16 sqrt(beta)
SMOOTH = 64.0  # beta, beyond which nothing of e^{beta cos phi} reaches pi: e^{-2 beta} is none
WAVES = 16.0  # |nu| that are integrated where something does
ROWS = 4096  # of nu at a time


class ChargeLaw(NamedTuple):
    """P(Q): charges (n,), in order, and their probabilities (n,)."""

    charge: Integers
    probability: Floats

    def moment(self, power: int) -> float:
        """<Q^power>.

        >>> round(charge_law(4.0, 16 * 16).moment(2), 6)
        1.933879
        """
        return float(self.probability @ self.charge.astype(np.float64) ** power)


def check_torus(beta: float, volume: int) -> None:
    """`InputError` unless beta lies between 1e-6 and 1e6 and there are at least four plaquettes."""
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta must be > 0 and finite, got {beta}")
    if not BETAS[0] <= beta <= BETAS[1]:
        raise InputError(f"beta must be between {BETAS[0]:g} and {BETAS[1]:g}, got {beta:g}")
    if volume < FEWEST or volume % 1:
        raise InputError(f"a torus has at least {FEWEST} plaquettes, a whole number, got {volume}")


def coefficients(beta: float, nu: Floats) -> Floats:
    """e^{-beta} c_nu of any real nu (n,), to 1e-16 of c_0."""
    return np.asarray(ive(0, beta) * (1 - _missing(beta, nu)))


def _missing(beta: float, nu: Floats) -> Floats:
    """1 - c_nu/c_0 (n,), to 1e-15 of it where it is small: c^V of large V knows of no more."""
    nu = np.asarray(nu, dtype=np.float64)
    parts = [nu[first : first + ROWS] for first in range(0, len(nu), ROWS)] or [nu]
    return np.concatenate([_missing_of(beta, part) for part in parts])


def _missing_of(beta: float, nu: Floats) -> Floats:
    """By the integral of e^{beta (cos phi - 1)} (1 - cos nu phi), or for many waves in what reaches pi by
    the sum of integer orders."""
    most = float(np.abs(nu).max(initial=0.0))
    if beta <= SMOOTH and most > WAVES:
        top = int(8 * math.sqrt(beta) + 16 + min(beta, SMOOTH))
        n = np.arange(-top, top + 1)
        return np.asarray(1 - np.sinc(nu[:, None] - n) @ (ive(n, beta) / ive(0, beta)))
    if beta <= SMOOTH:
        phi, weight = _gauss()
    else:
        # the trapezoidal rule of step h has c_{nu + 2 pi m/h} besides, of 1e-17 or less
        h = 2 * math.pi / (most + 9.5 * math.sqrt(beta) + 16)
        edge = 2 * math.asin(math.sqrt(20 / beta))  # beta (1 - cos phi) = 40
        phi = np.asarray(h * np.arange(math.ceil(edge / h) + 1), dtype=np.float64)
        weight = np.where(phi > 0, 1.0, 0.5)
    density = weight * np.exp(-2 * beta * np.sin(phi / 2) ** 2)
    return np.asarray(2 * np.sin(nu[:, None] * phi / 2) ** 2 @ (density / density.sum()))


@functools.lru_cache(maxsize=1)
def _gauss() -> tuple[Floats, Floats]:
    """Nodes and weights of Gauss and Legendre on (0, pi)."""
    x, weight = np.polynomial.legendre.leggauss(128)
    return math.pi * (1 + x) / 2, weight


def _shares(beta: float, nu: Floats, volume: int) -> Floats:
    """(c_nu/c_0)^V (n,)."""
    lost = _missing(beta, nu)
    with np.errstate(under="ignore"):
        near = np.exp(volume * np.log1p(-np.minimum(lost, 0.5)))
    return np.where(lost < 0.5, near, _powers(1 - lost, volume))


def _orders(beta: float, volume: int, shift: float = 0.0) -> Floats:
    """n + shift beyond which c^V is nothing."""
    reach = 2.0
    while reach < max(FAR, 16 * math.sqrt(beta)):
        reach *= 1.5
        edge = np.abs(coefficients(beta, np.linspace(reach, 1.2 * reach, 64))).max()
        if volume * math.log(max(edge, 1e-300) / ive(0, beta)) < math.log(SMALL):
            break
    return np.arange(-math.ceil(reach), math.ceil(reach) + 1, dtype=np.float64) + shift


def _powers(c: Floats, power: int) -> Floats:
    """c^power of positive and negative c, of the order of one."""
    with np.errstate(under="ignore"):
        return np.asarray(np.sign(c) ** (power % 2) * np.abs(c) ** power, dtype=np.float64)


def ln_z(beta: float, volume: int) -> float:
    """ln of int prod dU e^{-S}, Haar measure normalised to one.

    >>> round(ln_z(2.0, 64) / 64, 9)
    0.823993541
    """
    check_torus(beta, volume)
    c = ive(np.arange(0, len(_orders(beta, volume))), beta)
    r = c / c[0]
    return volume * (beta + math.log(c[0])) + math.log(1 + 2 * float(_powers(r[1:], volume).sum()))


def wilson_loop(beta: float, volume: int, area: int) -> float:
    """<cos of the sum of link angles> around a contractible area.

    >>> [round(wilson_loop(7.0, 256, area), 6) for area in (1, 4, 9)]
    [0.925532, 0.73378, 0.498338]
    """
    check_torus(beta, volume)
    if not 0 <= area <= volume:
        raise InputError(f"the area of a loop is 0 to {volume} plaquettes, got {area}")
    n = np.arange(-len(_orders(beta, volume)) - area, len(_orders(beta, volume)) + 1)
    r, after = (ive(np.abs(q), beta) / ive(0, beta) for q in (n, n + 1))
    z = float(_powers(r, volume).sum())
    return float((_powers(r, volume - area) * _powers(after, area)).sum()) / z


def z_of_theta(beta: float, volume: int, theta: float) -> float:
    """Z(theta)/Z(0) = <e^{i theta Q}>.

    >>> round(z_of_theta(4.0, 64, 2 * math.pi), 12)
    1.0
    """
    check_torus(beta, volume)
    own, none = (
        _shares(beta, _orders(beta, volume, shift), volume).sum()
        for shift in (theta / (2 * math.pi) % 1.0, 0.0)
    )
    return float(own / none)


@functools.lru_cache(maxsize=64)
def charge_law(beta: float, volume: int) -> ChargeLaw:
    """P(Q) of all charges of probability above 1e-14.

    >>> law = charge_law(7.0, 16 * 16)
    >>> law.probability[law.charge >= 0][:3].round(6).tolist()
    [0.397711, 0.241951, 0.054499]
    """
    check_torus(beta, volume)
    # the sum has no support beyond pi V: steps of 1/(V + 1) are exact, those of 1/n but for charges n apart
    parts = min(volume + 1, 2 * math.ceil(WIDEST * math.sqrt(volume / 12)) + 64)
    k = np.arange(math.ceil(float(_orders(beta, volume)[-1]) * parts) + 1)  # nu = +-k/parts
    c = _shares(beta, k / parts, volume)
    c[1:] *= 2
    # cos(2 pi Q k/parts) is the same for k + parts: the sum is a discrete transform of `parts` numbers
    folded = np.bincount(k % parts, np.where(np.abs(c) > SMALL, c, 0.0), parts)
    charge = np.arange(-(parts // 2), parts // 2 + 1)
    p = np.fft.fft(folded).real[charge % parts]
    p = np.maximum(p / p.sum(), 0)
    kept = (p > 1e-14) & (2 * np.abs(charge) < volume)
    return ChargeLaw(charge[kept], p[kept] / p[kept].sum())


LOOPS = ((1, 2), (1, 3), (2, 2), (2, 3), (3, 3))  # that are measured, beside the plaquette


def fitting(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The loops of `LOOPS` that lie on this torus, in one direction or the other, and leave something of it
    outside: a loop around all of it is 1.

    >>> fitting((2, 8)), fitting((2, 2))
    ([(1, 2), (1, 3), (2, 2), (2, 3)], [(1, 2)])
    """
    volume = math.prod(shape)
    return [(a, b) for a, b in LOOPS if a <= min(shape) and b <= max(shape) and a * b < volume]


def creutz(larger: float, smaller: float, mixed: float) -> float:
    """chi(R, R) = -ln W(R, R) W(R-1, R-1)/W(R, R-1)^2, nan where that is no number (Creutz, PRL 45 (1980)
    313)."""
    ratio = larger * smaller / mixed**2 if mixed else math.nan
    return -math.log(ratio) if ratio > 0 else math.nan


@functools.lru_cache(maxsize=64)
def _known(beta: float, shape: tuple[int, ...]) -> dict[str, float]:
    volume = math.prod(shape)
    loop = {(a, b): wilson_loop(beta, volume, a * b) for a, b in ((1, 1), *fitting(shape))}
    found = {"plaquette": loop[1, 1], "action_density": -beta * loop[1, 1]}
    found |= {f"wilson_{a}x{b}": w for (a, b), w in loop.items() if (a, b) != (1, 1)}
    for r in (2, 3):
        if (r, r) in loop:
            found[f"creutz_{r}x{r}"] = creutz(loop[r, r], loop[r - 1, r - 1], loop[r - 1, r])
    for axis, extent in enumerate(shape):
        # two lines d apart bound d rows of plaquettes
        strips = [wilson_loop(beta, volume, d * extent) for d in range(volume // extent)]
        found |= {f"polyakov_{axis}": 0.0, f"polyakov2_{axis}": math.fsum(strips) / len(strips)}
        found[f"polyakov_sq_{axis}"] = 0.0
    q2 = charge_law(beta, volume).moment(2)
    return found | {"charge": 0.0, "charge2": q2, "chi_top": q2 / volume}


def known(beta: float, shape: tuple[int, ...]) -> dict[str, float]:
    """Exact values of a torus by the names of `lattice.observables.measure`.

    >>> round(known(7.0, (16, 16))["wilson_3x3"], 6)
    0.498338
    """
    return dict(_known(beta, shape))
