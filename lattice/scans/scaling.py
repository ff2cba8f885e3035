"""Finite-size scaling: Binder crossings with errors, and what they say about the critical coupling.

The curve U_L(kappa) of each lattice size is a weighted polynomial fit of order 1 to 3. Two curves cross at
kappa_x with the common value U_x; both errors and their correlation follow from the covariances of the two
fits by linear propagation: with d = f_1 - f_2 and its slope d',

    delta kappa_x = -(delta f_1 - delta f_2)/d',    delta U_x = (f_1' delta f_2 - f_2' delta f_1)/d'.

The crossings of (L, 2L) approach the critical coupling as kappa_x = kappa_c + a L^-(1/nu + omega) (K. Binder,
Z. Phys. B 43 (1981) 119), the common values as U_x = U* + b L^-omega. Curves of different L are independent
(every point of a scan has its own random numbers); crossings that share a curve are not, and are extrapolated
with their full covariance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from lattice.arrays import Floats, real_array
from lattice.errors import InputError

MAX_ORDER = 3
MIN_POINTS = 3
POOR = 0.01  # p-value of a fit below which the outermost point is left out
ACCEPTABLE = 0.1  # p-value of the lowest order that is believed; the next order is then used
# Two-dimensional Ising class: nu = 1; the leading correction to the moments of M is their regular part,
# L^(-gamma/nu) = L^(-7/4) (J. Salas, A. D. Sokal, J. Stat. Phys. 98 (2000) 551). That is asymptotic: at the
# sizes of a scan the corrections fall off more slowly, so omega is a range and not a number.
INVERSE_NU, OMEGA = 1.0, (1.0, 1.75)


@dataclass(frozen=True)
class CurveFit:
    """A polynomial in x = (kappa - centre)/scale for one lattice size, coefficients from order 0 up."""

    length: int
    centre: float
    scale: float
    coefficients: Floats
    covariance: Floats
    chi2: float
    dof: int
    kappas: tuple[float, float]  # the range of the points that were fitted
    n_dropped: int = 0

    @property
    def order(self) -> int:
        return len(self.coefficients) - 1

    @property
    def p_value(self) -> float:
        """Probability of a larger chi2; 1 when there is no degree of freedom left to test the fit."""
        return float(chdtrc(self.dof, self.chi2)) if self.dof > 0 else 1.0

    def basis(self, kappa: npt.ArrayLike) -> Floats:
        """Powers of x at kappa (n,) -> (n, order + 1): the gradient of the fit in its coefficients."""
        x = (np.atleast_1d(real_array(kappa, "kappa")) - self.centre) / self.scale
        return np.vander(x, len(self.coefficients), increasing=True)

    def value(self, kappa: npt.ArrayLike) -> Floats:
        """The fitted curve at kappa (n,)."""
        return np.asarray(self.basis(kappa) @ self.coefficients)

    def error(self, kappa: npt.ArrayLike) -> Floats:
        """One standard deviation of the fitted curve at kappa (n,)."""
        rows = self.basis(kappa)
        return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", rows, self.covariance, rows)))

    def slope(self, kappa: float) -> float:
        """d/d kappa of the fitted curve."""
        x, n = (kappa - self.centre) / self.scale, np.arange(1, len(self.coefficients))
        return float(np.sum(n * self.coefficients[1:] * x ** (n - 1)) / self.scale)


@dataclass(frozen=True)
class Crossing:
    """Where two curves meet. `gradients` maps L to d(kappa_x, U_x)/d(coefficients of that curve)."""

    lengths: tuple[int, int]
    kappa: float
    kappa_error: float
    value: float
    value_error: float
    correlation: float
    gradients: Mapping[int, Floats]


def fit_curve(
    length: int, kappa: npt.ArrayLike, value: npt.ArrayLike, error: npt.ArrayLike, *,
    centre: float | None = None, scale: float | None = None, near: float | None = None,
) -> CurveFit:  # fmt: skip
    """Weighted polynomial fit of a curve; kappa, value, error (n,), independent points, n >= 3.

    The order (1 to 3) is one above the lowest whose chi2 is acceptable (p >= 0.1): what a term that chi2 does
    not yet see would shift is then inside the error, and intervals cover (tested). When even order 3 is poor
    (p < 0.01), the points farthest from `near` (default: the middle) are left out, one by one, until it is
    not; if that leaves fewer than 5, all are kept. Errors are propagated as given, never rescaled by chi2.

    Raises InputError for fewer than 3 different kappas, and for errors that are not positive.

    >>> fit = fit_curve(8, [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0], [0.1] * 4)
    >>> fit.order, round(float(fit.value(0.25)[0]), 10), fit.dof
    (2, 2.5, 1)
    """
    x, y, e = (real_array(a, what) for a, what in ((kappa, "kappa"), (value, "value"), (error, "error")))
    if not x.shape == y.shape == e.shape or x.ndim != 1:
        raise InputError(f"L = {length}: kappa, value and error must be of one length")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(e).all() and (e > 0).all()):
        raise InputError(f"L = {length}: a fit needs finite values with positive errors")
    n_kappas = len(np.unique(x))
    if n_kappas < MIN_POINTS:
        raise InputError(f"L = {length}: a fit needs {MIN_POINTS} different kappas, there are {n_kappas}")
    centre = float((x.min() + x.max()) / 2) if centre is None else centre
    scale = float(np.ptp(x) / 2) if scale is None else scale

    def fitted(keep: npt.NDArray[np.bool_]) -> CurveFit:
        """The lowest order that is enough, and one more."""
        highest = min(MAX_ORDER, len(np.unique(x[keep])) - 1)
        fits = [
            _polynomial(length, x[keep], y[keep], e[keep], centre, scale, n) for n in range(1, highest + 1)
        ]
        enough = next((n for n, fit in enumerate(fits[:-1]) if fit.p_value >= ACCEPTABLE), len(fits) - 2)
        return replace(fits[enough + 1], n_dropped=int(np.sum(~keep)))

    keep = np.ones(len(x), dtype=np.bool_)
    every = fit = fitted(keep)
    while fit.p_value < POOR:
        keep[np.argmax(np.where(keep, np.abs(x - (centre if near is None else near)), -1.0))] = False
        if len(np.unique(x[keep])) < MAX_ORDER + 2:
            return every  # nothing is gained by points too few to test a fit
        fit = fitted(keep)
    return fit


def _polynomial(
    length: int, x: Floats, y: Floats, e: Floats, centre: float, scale: float, order: int
) -> CurveFit:
    design = np.vander((x - centre) / scale, order + 1, increasing=True) / e[:, None]
    q, r = np.linalg.qr(design)
    inverse = np.linalg.inv(r)
    coefficients = inverse @ (q.T @ (y / e))
    chi2, dof = float(np.sum((design @ coefficients - y / e) ** 2)), len(x) - order - 1
    ends = (float(x.min()), float(x.max()))
    return CurveFit(length, centre, scale, coefficients, inverse @ inverse.T, chi2, dof, ends)


def crossing(a: CurveFit, b: CurveFit) -> Crossing:
    """The crossing of two curves inside the range that both were fitted in.

    Raises InputError when they do not cross there, or more than once.
    """
    if (a.centre, a.scale) != (b.centre, b.scale):
        raise InputError("two curves can be crossed only in a common variable: same centre and scale")
    ends = max(a.kappas[0], b.kappas[0]), min(a.kappas[1], b.kappas[1])
    n = max(a.order, b.order) + 1
    difference = np.pad(a.coefficients, (0, n - a.order - 1)) - np.pad(b.coefficients, (0, n - b.order - 1))
    kappa = _only_root(difference, a, ends, f"L = {a.length} and {b.length} cross")
    slopes = a.slope(kappa), b.slope(kappa)
    d = slopes[0] - slopes[1]
    rows = a.basis(kappa)[0], b.basis(kappa)[0]
    gradients = {
        a.length: np.stack([-rows[0] / d, -slopes[1] * rows[0] / d]),
        b.length: np.stack([rows[1] / d, slopes[0] * rows[1] / d]),
    }
    covariance = sum(gradients[fit.length] @ fit.covariance @ gradients[fit.length].T for fit in (a, b))
    errors = np.sqrt(np.diag(np.asarray(covariance)))
    return Crossing(
        (a.length, b.length), kappa, float(errors[0]), float(a.value(kappa)[0]), float(errors[1]),
        float(np.asarray(covariance)[0, 1] / (errors[0] * errors[1])), gradients,
    )  # fmt: skip


def level(fit: CurveFit, value: float) -> tuple[float, float]:
    """(kappa, error) where a curve takes a given value, inside the range it was fitted in.

    Raises InputError when it does not, or more than once.
    """
    above = fit.coefficients - value * np.eye(1, fit.order + 1)[0]
    kappa = _only_root(above, fit, fit.kappas, f"L = {fit.length} is {value:g}")
    return kappa, float(fit.error(kappa)[0]) / abs(fit.slope(kappa))


def _only_root(coefficients: Floats, fit: CurveFit, ends: tuple[float, float], words: str) -> float:
    """The one kappa between the ends where a polynomial in the variable of `fit` vanishes, or InputError."""
    difference = np.polynomial.Polynomial(coefficients)
    slope = difference.deriv()
    inside = []
    for z in difference.trim().roots():
        if abs(z.imag) > 1e-6 * max(1.0, abs(z.real)):
            continue
        x = float(z.real)
        for _ in range(4):  # Newton: eigenvalues lose digits where the highest coefficient is nearly zero
            x -= float(difference(x) / slope(x)) if slope(x) != 0 else 0.0
        kappa = fit.centre + fit.scale * x
        inside += [kappa] if ends[0] <= kappa <= ends[1] else []
    if len(inside) != 1:
        often = f"{len(inside)} times" if inside else "nowhere"
        raise InputError(f"{words} {often} between kappa = {ends[0]:.6g} and {ends[1]:.6g}")
    return inside[0]


def extrapolate(
    lengths: Sequence[int], values: npt.ArrayLike, covariance: npt.ArrayLike, power: float
) -> dict[str, float | int]:
    """Generalised least squares of y(L) = limit + amplitude L^-power; values (n,), covariance (n, n).

    `power` is an assumption, not a result. Returns {"limit", "error", "amplitude", "power", "chi2", "dof",
    "p_value"}. Raises InputError for fewer than two sizes.

    >>> fit = extrapolate([8, 16], [1.5, 1.25], [[0.01, 0.0], [0.0, 0.01]], power=1.0)
    >>> round(fit["limit"], 10), round(fit["amplitude"], 10)
    (1.0, 4.0)
    """
    if len(lengths) < 2:
        raise InputError(f"an extrapolation in L needs two sizes, there are {len(lengths)}")
    y, inverse = _values(values, len(lengths)), np.linalg.inv(_square(covariance, len(lengths)))
    design = np.array([[1.0, float(length) ** -power] for length in lengths])
    errors = np.linalg.inv(design.T @ inverse @ design)
    limit, amplitude = errors @ (design.T @ inverse @ y)
    rest = y - design @ np.array([limit, amplitude])
    chi2, dof = float(rest @ inverse @ rest), len(y) - 2
    return {"limit": float(limit), "error": math.sqrt(float(errors[0, 0])), "amplitude": float(amplitude),
            "power": power, "chi2": chi2, "dof": dof,
            "p_value": float(chdtrc(dof, chi2)) if dof else 1.0}  # fmt: skip


def effective_exponent(values: npt.ArrayLike, covariance: npt.ArrayLike) -> tuple[float, float]:
    """(p, error) of y = limit + amplitude L^-p through three values (3,) at L, 2L, 4L: the logarithm to base
    2 of the ratio of their two differences.

    Raises InputError when the differences are not of one sign: no power law passes through such values.

    >>> p, _ = effective_exponent([1.25, 1.0625, 1.015625], [[1e-6, 0, 0], [0, 1e-6, 0], [0, 0, 1e-6]])
    >>> round(p, 10)
    2.0
    """
    first, second = np.diff(_values(values, 3))
    if not first * second > 0:
        raise InputError("the differences between successive sizes are not of one sign")
    gradient = np.array([-1 / first, 1 / first + 1 / second, -1 / second]) / math.log(2)
    error = math.sqrt(float(gradient @ _square(covariance, 3) @ gradient))
    return math.log2(first / second), error


def _values(given: npt.ArrayLike, n: int) -> Floats:
    values = real_array(given, "values")
    if values.shape != (n,):
        raise InputError(f"values of {n} sizes have shape ({n},), got {values.shape}")
    return values


def _square(given: npt.ArrayLike, n: int) -> Floats:
    covariance = real_array(given, "covariance")
    if covariance.shape != (n, n):
        raise InputError(f"the covariance of {n} values has shape ({n}, {n}), got {covariance.shape}")
    return covariance


def crossing_covariance(crossings: Sequence[Crossing], fits: Mapping[int, CurveFit], column: int) -> Floats:
    """Covariance (n, n) of kappa_x (column 0) or U_x (column 1); crossings share curves."""
    n = len(crossings)
    covariance = np.zeros((n, n))
    for i, j in itertools.product(range(n), repeat=2):
        for length in set(crossings[i].lengths) & set(crossings[j].lengths):
            left, right = (crossings[k].gradients[length][column] for k in (i, j))
            covariance[i, j] += left @ fits[length].covariance @ right
    return covariance
