r"""Temperatures of Ising configurations on an n x n torus, read off exact curves.

    T_E: e(T) = <E>/V inverted (Kaufman);    T_m: <|m|>(T) inverted (transfer matrix);

each exact for configurations of one temperature, so that two which differ say that there is none. An error dx
becomes dx/|dx/dT|, with de/dT = c. <|m|> is tabulated against e, both of them singular in the same way at
T_c: Chebyshev points, to 5e-5 on 10 x 10. `Curve` is the same for a measured curve, as of Potts spins.

Far correlation: G = <s_0 s_(n/2)> along a row; c1 = -e/2 - G is what neighbours have and far spins have not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import BarycentricInterpolator, PchipInterpolator
from scipy.optimize import brentq
from scipy.special import gammaln

from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.exact.ising import correlation, magnetisation_law, magnetisation_moments, torus

COLDEST, HOTTEST = 0.3, 1e5  # of the inversion of e: beyond, e is that of 0 or infinity to 1e-4 and better
MOST_ROW = 12  # sites of a row
POINTS = 16  # intervals of the table
NAMES = ("e", "abs_m", "m2", "c1")


@dataclass(frozen=True)
class Reading:
    """A temperature and its error; 0 where colder, infinite where hotter than any, with infinite error."""

    t: float
    error: float


COLDER, HOTTER = Reading(0.0, math.inf), Reading(math.inf, math.inf)


@dataclass(frozen=True)
class Curve:
    """A measured thermometer: temperatures t (n,), rising, values (n,), monotone, errors (n,) or none.

    Raises `InputError` for fewer than three points and for values that are not monotone.
    """

    t: Floats
    values: Floats
    errors: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        t, values = real_array(self.t, "t"), real_array(self.values, "values")
        if t.ndim != 1 or t.shape != values.shape or len(t) < 3 or not (np.diff(t) > 0).all():
            raise InputError(
                f"a curve has three points or more at rising T, got {t.shape} and {values.shape}"
            )
        if len(self.errors) not in (0, len(t)):
            raise InputError(f"{len(t)} values have as many errors or none, got {len(self.errors)}")
        steps = np.diff(values)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InputError(
                "the values of a thermometer must rise or fall throughout; leave out what does not"
            )

    def read(self, value: float, error: float = 0.0) -> Reading:
        """T of a value, by a monotone cubic; 0 or infinite beyond the ends of the curve."""
        sign = 1.0 if self.values[-1] > self.values[0] else -1.0
        if math.isnan(value):
            raise InputError("no temperature is read off NaN")
        if sign * value < sign * self.values[0]:
            return COLDER
        if sign * value > sign * self.values[-1]:
            return HOTTER
        curve = PchipInterpolator(self.t, self.values)
        ends = [sign * (float(curve(x)) - value) for x in self.t[[0, -1]]]
        if ends[0] >= 0 or ends[1] <= 0:  # an end, to rounding
            t = float(self.t[0] if ends[0] >= 0 else self.t[-1])
        else:
            t = float(brentq(lambda x: float(curve(x)) - value, self.t[0], self.t[-1], xtol=1e-13))
        own = float(np.interp(t, self.t, self.errors)) if len(self.errors) else 0.0
        return Reading(t, _over(math.hypot(error, own), abs(float(curve(t, 1)))))


def _over(error: float, slope: float) -> float:
    return error / slope if slope > 0 else math.inf if error > 0 else 0.0


def read_energy(e: float, error: float, shape: tuple[int, int]) -> Reading:
    """T_E of energy per site e: e <= -2 is 0, e >= 0 infinite (colder and hotter than any temperature)."""
    if math.isnan(e):
        raise InputError("no temperature is read off NaN")
    if e <= torus(shape, COLDEST).e:
        return COLDER
    if e >= torus(shape, HOTTEST).e:
        return HOTTER
    t = _temperature_of(e, shape)
    return Reading(t, _over(error, torus(shape, t).c))


def _temperature_of(e: float, shape: tuple[int, int]) -> float:
    return float(brentq(lambda t: torus(shape, t).e - e, COLDEST, HOTTEST, xtol=1e-13, rtol=1e-14))


def read_magnetisation(abs_m: float, error: float, shape: tuple[int, int]) -> Reading:
    """T_m of <|m|>; 0 for 1 and more, infinite below that of independent spins. The first call of a shape
    makes its table (10 x 10: 8 seconds)."""
    if math.isnan(abs_m):
        raise InputError("no temperature is read off NaN")
    curve = _table(_square(shape))[0]
    cold, hot = (float(curve(torus(shape, t).e)) for t in (COLDEST, HOTTEST))
    if abs_m >= cold:
        return COLDER
    if abs_m <= hot:
        return HOTTER
    e = float(brentq(lambda x: float(curve(x)) - abs_m, torus(shape, COLDEST).e, torus(shape, HOTTEST).e))
    t, h = _temperature_of(e, shape), 1e-4
    inside = min(max(e, -2 + h), -h)
    slope = abs(float(curve(inside + h) - curve(inside - h))) / (2 * h)
    return Reading(t, _over(error, slope * torus(shape, t).c))


def _square(shape: tuple[int, int]) -> int:
    n = shape[0]
    if len(shape) != 2 or shape[1] != n or not 3 <= n <= MOST_ROW:
        raise InputError(
            f"exact |m| and c1 are for square tori of 3 to {MOST_ROW} sites a side, got {list(shape)}"
        )
    return n


@functools.lru_cache(maxsize=8)
def _table(n: int) -> tuple[BarycentricInterpolator, ...]:
    """<|m|>, <m^2> and G of the n x n torus as functions of e in [-2, 0]."""
    e = -1 + np.cos(np.pi * np.arange(POINTS + 1) / POINTS)
    e[0], e[-1] = 0.0, -2.0
    rows = [_free(n), *(_moments(n, _temperature_of(float(x), (n, n))) for x in e[1:-1]), (1.0, 1.0, 1.0)]
    return tuple(BarycentricInterpolator(e, np.array(column)) for column in zip(*rows))


def _moments(n: int, t: float) -> tuple[float, float, float]:
    found = magnetisation_moments(magnetisation_law((n, n), t))
    return found["abs_m"], found["m2"], far_correlation(n, t)


def _free(n: int) -> tuple[float, float, float]:
    """Of independent spins."""
    sites = n * n
    k = np.arange(sites + 1)
    law = np.exp(gammaln(sites + 1) - gammaln(k + 1) - gammaln(sites - k + 1) - sites * math.log(2))
    return float((law * np.abs(2 * k - sites)).sum() / sites), 1 / sites, 0.0


def far_correlation(n: int, t: float) -> float:
    """G = <s_0 s_(n//2)> along a row of the n x n torus at H = 0, exactly.

    Raises `InputError` for rows of more than 12 sites and temperatures that are none.
    """
    return correlation((_square((n, n)), n), t, n // 2)


def exact_values(t: float, shape: tuple[int, int]) -> dict[str, float]:
    """e, <|m|>, <m^2> and c1 of the n x n torus at one temperature, exactly; 0 and infinity are allowed."""
    n = _square(shape)
    if t == 0:
        return dict(zip(NAMES, (-2.0, 1.0, 1.0, 0.0)))
    if t == math.inf:
        abs_m, m2, far = _free(n)
        return dict(zip(NAMES, (0.0, abs_m, m2, far)))
    e, (abs_m, m2, far) = torus(shape, t).e, _moments(n, t)
    return {"e": e, "abs_m": abs_m, "m2": m2, "c1": -e / 2 - far}


def mixture(temperatures: Iterable[float], shape: tuple[int, int]) -> dict[str, float]:
    """e, abs_m, m2 and c1 of equal shares of these temperatures, 0 and infinity allowed, and the temperatures
    t_e and t_m that they read as: what a machine without fault ends in, whatever T_c is.

    e is exact, the others are from the table. Raises `InputError` for temperatures that are none.
    """
    t = real_array(list(temperatures), "temperatures")
    if not len(t) or not (t >= 0).all():
        raise InputError("a mixture has temperatures of 0 or more")
    table = _table(_square(shape))
    e = np.array([-2.0 if x == 0 else 0.0 if x == math.inf else torus(shape, max(x, 0.1)).e for x in t])
    abs_m, m2, far = (np.asarray(curve(e)) for curve in table)
    found = dict(zip(NAMES, (float(x.mean()) for x in (e, abs_m, m2, -e / 2 - far))))
    found["t_e"] = read_energy(found["e"], 0.0, shape).t
    found["t_m"] = read_magnetisation(found["abs_m"], 0.0, shape).t
    return found
