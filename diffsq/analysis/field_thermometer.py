r"""Temperature and field of Ising configurations in a field, and the line of the largest specific heat.

    u = -<sum_<xy> s_x s_y>/V and m = <s> as functions of (T, H), inverted,

exact on tori with rows of up to ten sites or so (`lattice.exact.ising.moments_in_field`). Not every pair
(u, m) belongs to a temperature and a field: independent spins of magnetisation m have u = -2 m^2, and those
are H/T at T -> infinity.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares, minimize_scalar

from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.ising import moments_in_field, torus_in_field

TOLERANCE = 1e-7  # of u and m in logarithms
FLAT = 1e-4  # smallest singular value of the derivatives by ln T and H, below which a place is not determined
STARTS = ((2.5, 0.5), (3.5, 1.5), (6.0, 3.0), (1.8, 1.0), (3.0, 4.0), (1.5, 0.1))


@dataclass(frozen=True)
class Place:
    """T and H, how far u and m (in logarithms, from those of all spins alike) are from a configuration's, and
    how well they determine T and H."""

    t: float
    h: float
    miss: float
    slope: float = math.inf

    @property
    def found(self) -> bool:
        """Whether there is such a temperature and field, and u and m tell it."""
        return self.miss < TOLERANCE and self.slope > FLAT


def place_of(u: float, m: float, shape: tuple[int, int]) -> Place:
    """The temperature and field of u and m, from several guesses: T from 0.3 to 60, |H| up to 30.

    Spins that are all alike, u = -2 or |m| = 1, have none. Raises `InputError` for values that no spins have.
    """
    if not (-2 <= u <= 2 and -1 <= m <= 1):
        raise InputError(f"spins have -2 <= u <= 2 and |m| <= 1, got {u:g} and {m:g}")
    best = Place(math.nan, math.nan, math.inf)
    if u == -2 or abs(m) == 1:
        return best

    def miss(x: Floats) -> Floats:
        own_u, own_m = moments_in_field(shape, math.exp(x[0]), x[1])
        own = min(max(own_m, -1 + 1e-15), 1 - 1e-15)
        return np.array([
            math.log(max(2 + own_u, 1e-15) / (2 + u)), math.atanh(own) - math.atanh(m),
        ])  # fmt: skip

    bounds = ([math.log(0.3), -30.0], [math.log(60.0), 30.0])
    for t, h in STARTS:
        x0 = [math.log(t), math.copysign(h, m)]
        solved = least_squares(miss, x0, bounds=bounds, xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=80)
        off, slope = float(np.abs(solved.fun).max()), float(np.linalg.svd(solved.jac, compute_uv=False)[-1])
        if off < best.miss:
            best = Place(math.exp(solved.x[0]), float(solved.x[1]), off, slope)
        if best.found:
            break
    return best


@functools.lru_cache(maxsize=256)
def hottest_in_field(shape: tuple[int, int], h: float) -> tuple[float, float]:
    """The temperature at which C of the torus in a field is largest, and that C."""
    found = minimize_scalar(
        lambda t: -torus_in_field(shape, t, h).c, bounds=(1.0, 4.0 + 2 * abs(h)), method="bounded",
        options={"xatol": 1e-5},
    )  # fmt: skip
    return float(found.x), float(-found.fun)
