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

from lattice.arrays import Floats, Integers
from lattice.errors import InputError

SMALL = 1e-17  # of the largest term of a sum
FEWEST = 4  # plaquettes: c_nu falls off like 1/nu where beta is small
WIDEST = 10.0  # of a charge, in units of sqrt(V/12): its standard deviation where beta is nothing
FAR = 4096.0  # |nu| at most


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
    """`InputError` unless beta > 0 is finite and there are at least four plaquettes."""
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta must be > 0 and finite, got {beta}")
    if volume < FEWEST or volume % 1:
        raise InputError(f"a torus has at least {FEWEST} plaquettes, a whole number, got {volume}")


def coefficients(beta: float, nu: Floats) -> Floats:
    """e^{-beta} c_nu of any real nu (n,), to 1e-16 of c_0."""
    top = int(8 * math.sqrt(beta) + 16 + min(beta, 64))
    n = np.arange(-top, top + 1)
    values: Floats = np.asarray(ive(n, beta), dtype=np.float64)
    return np.asarray(np.sinc(np.asarray(nu, dtype=np.float64)[:, None] - n) @ values)


def _orders(beta: float, volume: int, shift: float = 0.0) -> Floats:
    """n + shift beyond which c^V is nothing."""
    reach = 2.0
    while reach < FAR:
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
        _powers(coefficients(beta, _orders(beta, volume, shift)) / ive(0, beta), volume).sum()
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
    top = float(_orders(beta, volume)[-1])
    nu = np.arange(-math.ceil(top * parts), math.ceil(top * parts) + 1) / parts
    c = _powers(coefficients(beta, nu) / ive(0, beta), volume)
    nu, c = nu[np.abs(c) > SMALL], c[np.abs(c) > SMALL]
    charge = np.arange(-(parts // 2), parts // 2 + 1)
    p = np.cos(2 * math.pi * np.outer(charge, nu)) @ c
    p = np.maximum(p / p.sum(), 0)
    kept = (p > 1e-14) & (2 * np.abs(charge) < volume)
    return ChargeLaw(charge[kept], p[kept] / p[kept].sum())


LOOPS = ((1, 2), (1, 3), (2, 2), (2, 3), (3, 3))  # that are measured, beside the plaquette


def fitting(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The loops of `LOOPS` that lie on this torus, in one direction or the other.

    >>> fitting((2, 8))
    [(1, 2), (1, 3), (2, 2), (2, 3)]
    """
    return [(a, b) for a, b in LOOPS if a <= min(shape) and b <= max(shape)]


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
    q2 = charge_law(beta, volume).moment(2)
    return found | {"charge": 0.0, "charge2": q2, "chi_top": q2 / volume}


def known(beta: float, shape: tuple[int, ...]) -> dict[str, float]:
    """Exact values of a torus by the names of `lattice.observables.measure`.

    >>> round(known(7.0, (16, 16))["wilson_3x3"], 6)
    0.498338
    """
    return dict(_known(beta, shape))
