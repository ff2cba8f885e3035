r"""Networks of inputs, exactly: kernels, the cumulants of one point, of four points, and of their number.

z = w . x/sqrt d + b is normal with covariance S_xy = sigma_hidden^2 + x . y/d, so that

    erf     K = (2/pi) arcsin[2 S_xy/((1 + 2 S_xx)(1 + 2 S_yy))^(1/2)]       (Williams, NIPS 9 (1997) 295)
    relu    K = (S_xx S_yy)^(1/2) [sin t + (pi - t) cos t]/(2 pi),  cos t = S_xy/(S_xx S_yy)^(1/2)
                                                                        (Cho, Saul, NIPS 22 (2009) 342)
    gauss   K = exp(-(S_xx + S_yy - 2 S_xy)/2) = exp(-|x - y|^2/2d)

plus sigma_b^2. A sum of N independent neurons has kappa_2n = c_2n/N^(n-1), c_2n the cumulant of a s(z). For
erf, s(z) is the mean of the sign of z plus a normal number of variance 1/2, and the mean of four signs is one
integral (Plackett, Biometrika 41 (1954) 351) over the correlations t R_ij of the four, 0 < t < 1:

    <s_1 s_2 s_3 s_4> = sum_(i<j) int dt R_ij 2/(pi (1 - t^2 R_ij^2)^(1/2)) (2/pi) arcsin R_kl|ij(t).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.special import erf

from lattice.actions.networks import ErfNet, GaussNet, InputNet, Network, ReluNet
from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.statistics.cumulants import cumulants_from_moments, moments_from_cumulants

HIGHEST = 16  # moments; those that the variance of kappa_8 asks for


def points_of(points: ArrayLike) -> Floats:
    """Inputs (n, d), or `InputError`."""
    x = real_array(points, "points")
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise InputError(f"points must be finite (n, d), got shape {x.shape}")
    return x


def as_inputs(law: Network) -> InputNet:
    """The law as a net of inputs, or `InputError`."""
    if not isinstance(law, InputNet):
        raise InputError(f"a net of inputs is needed, not {type(law).__name__}")
    return law


def preactivations(law: InputNet, x: ArrayLike, y: ArrayLike) -> Floats:
    """S_xy = sigma_hidden^2 + x . y/d, (n, m) of points (n, d) and (m, d)."""
    a, b = points_of(x), points_of(y)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"points must have as many inputs each, got {a.shape[1]} and {b.shape[1]}")
    return np.asarray(law.sigma_hidden**2 + a @ b.T / a.shape[1])


def kernel(law: InputNet, x: ArrayLike, y: ArrayLike) -> Floats:
    """<f(x) f(y)> (n, m), at every width, with the output bias.

    >>> float(kernel(GaussNet(5, sigma_b=1.0), [[0.0, 0.0]], [[0.0, 0.0]])[0, 0])    # also of two inputs
    2.0
    """
    law, a, b = as_inputs(law), points_of(x), points_of(y)
    one, two = (law.sigma_hidden**2 + (p**2).mean(1) for p in (a, b))
    return _kernel(law, one[:, None], two[None], preactivations(law, a, b)) + law.sigma_b**2


def _kernel(law: InputNet, one: Floats, two: Floats, both: Floats) -> Floats:
    """Of one neuron, from S_xx, S_yy and S_xy."""
    if isinstance(law, GaussNet):
        return np.asarray(np.exp(-(one + two - 2 * both) / 2))
    if isinstance(law, ErfNet):
        return np.asarray(2 / np.pi * np.arcsin(2 * both / np.sqrt((1 + 2 * one) * (1 + 2 * two))))
    _relu(law)
    scale = np.sqrt(one * two)
    cosine = np.clip(np.divide(both, scale, out=np.zeros_like(scale), where=scale > 0), -1, 1)
    angle = np.arccos(cosine)
    return np.asarray(scale * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi))


def _relu(law: InputNet) -> ReluNet:
    if not isinstance(law, ReluNet):
        raise InputError(f"closed forms are of erf_net, relu_net and gauss_net, not {type(law).__name__}")
    return law


def neuron_moments(law: InputNet, variance: float, highest: int = 8) -> Floats:
    """<(z s)^m>, m = 2, 4, ..., highest, of one neuron at S_xx = `variance`: (highest/2,).

    z is its output weight without a common factor (`Network.own_moment`).
    """
    if not 0 <= variance < math.inf:
        raise InputError(f"the variance of a pre-activation must be finite and >= 0, got {variance:g}")
    return np.array([law.own_moment(m) * _activation(law, variance, m) for m in range(2, highest + 1, 2)])


def _activation(law: InputNet, variance: float, m: int) -> float:
    """<s^m>, m even."""
    if isinstance(law, GaussNet):
        return math.exp((m * m / 2 - m) * variance)
    if isinstance(law, ErfNet):
        width = math.sqrt(variance)
        weight = math.sqrt(2 / math.pi)
        value = quad(
            lambda t: weight * math.exp(-t * t / 2) * float(erf(width * t)) ** m,
            0, 12, epsabs=1e-14, epsrel=1e-13, limit=200,
        )  # fmt: skip
        return float(value[0])
    _relu(law)
    return 0.5 * math.prod(range(1, m, 2)) * variance ** (m // 2)


def with_odd(even: Floats) -> Floats:
    """Moments or cumulants 1, 2, ..., 2n from the even ones (n,): the odd ones are 0."""
    found = np.zeros(2 * len(even))
    found[1::2] = even
    return found


def sum_cumulants(
    law: Network, moments: Floats, neurons: float, poisson: bool = False, bias2: float = 0.0
) -> Floats:
    """Even cumulants (n,) of a sum of neurons from the even moments (n,) of one, as it stands in the sum.

    A fixed number of neurons adds their cumulants, a Poisson number their moments; a common factor of the
    output weights multiplies the moments of the sum, and a normal bias adds to kappa_2.
    """
    one = with_odd(moments)
    found = neurons * (one if poisson else cumulants_from_moments(one))
    if not law.independent:
        sums = moments_from_cumulants(found)
        factors = [law.factor_moment(m) for m in range(1, len(sums) + 1)]
        found = cumulants_from_moments(sums * np.array(factors))
    found[1] += bias2
    return np.asarray(found[1::2])


def neuron_cumulants(law: InputNet, point: ArrayLike) -> dict[int, float]:
    """c_2, c_4, c_6, c_8 of f at a point (d,), by order, without the output bias: kappa_2n = c_2n/N^(n-1).

    Raises `InputError` for correlated weights, which have no such law.

    >>> round(neuron_cumulants(ErfNet(1), [1.0])[4], 10)
    0.3997964146
    """
    check_independent(as_inputs(law))
    x = points_of(real_array(point, "point")[None])
    moments = neuron_moments(law, float(law.sigma_hidden**2 + (x**2).mean()))
    found = cumulants_from_moments(with_odd(moments))[1::2]
    return {2 * n + 2: float(value) for n, value in enumerate(found)}


def check_independent(law: Network) -> None:
    """`InputError` for weights with a common factor."""
    if not law.independent:
        raise InputError(
            "action.output 'correlated' has no 1/N law: its kappa_4 stays at N = infinity; see reference(...)"
        )


def field_cumulants(law: InputNet, point: ArrayLike, highest: int = 8) -> dict[int, float]:
    """kappa_2, kappa_4, ..., kappa_highest of f at a point (d,), at this width, for every law of weights."""
    law, x = as_inputs(law), points_of(real_array(point, "point")[None])
    variance = float(law.sigma_hidden**2 + (x**2).mean())
    scale = float(law.width) ** -np.arange(1, highest // 2 + 1)
    moments = neuron_moments(law, variance, highest) * scale
    found = sum_cumulants(law, moments, law.width, bias2=law.sigma_b**2)
    return {2 * n + 2: float(value) for n, value in enumerate(found)}


def joint_cumulant(law: InputNet, points: ArrayLike) -> float:
    """N kappa_4(x_1, ..., x_4) of an erf or gauss net at four points (4, d), to 1e-12.

    Raises `InputError` for a relu net, correlated weights, or another number of points.

    >>> round(joint_cumulant(ErfNet(1), [[1.0], [1.0], [-1.0], [-1.0]]), 10)
    0.6969895744
    """
    check_independent(as_inputs(law))
    x = points_of(points)
    if len(x) != 4:
        raise InputError(f"kappa_4 is of four points (4, d), got shape {x.shape}")
    s = preactivations(law, x, x)
    if isinstance(law, GaussNet):
        four = math.exp(float(s.sum()) / 2 - float(np.trace(s)))
    elif isinstance(law, ErfNet):
        four = _four_signs(s + np.eye(4) / 2)
    else:
        raise InputError(f"kappa_4 of four points is known for erf_net and gauss_net, not {law.kind}")
    k = _kernel(law, np.diag(s)[:, None], np.diag(s)[None], s)
    pairs = k[0, 1] * k[2, 3] + k[0, 2] * k[1, 3] + k[0, 3] * k[1, 2]
    return float(law.moment(4) * four - pairs)


def _four_signs(covariance: Floats) -> float:
    """The mean of the product of the signs of four normal numbers."""
    width = np.sqrt(np.diag(covariance))
    r = covariance / np.outer(width, width)
    pairs = list(itertools.combinations(range(4), 2))
    rest = [[k for k in range(4) if k not in pair] for pair in pairs]

    def slope(t: float) -> float:
        """The derivative along t r + (1 - t) 1, from independence (Plackett, Biometrika 41 (1954) 351)."""
        c = t * r + (1 - t) * np.eye(4)
        total = 0.0
        for (i, j), (k, m) in zip(pairs, rest, strict=True):
            det = 1 - c[i, j] ** 2

            def given(a: int, b: int, i: int = i, j: int = j, det: float = det) -> float:
                crossed = c[a, i] * c[b, j] + c[a, j] * c[b, i]
                return float(c[a, b] - (c[a, i] * c[b, i] + c[a, j] * c[b, j] - c[i, j] * crossed) / det)

            partial = given(k, m) / math.sqrt(given(k, k) * given(m, m))
            total += r[i, j] * math.asin(max(-1.0, min(1.0, partial))) / math.sqrt(det)
        return 4 / math.pi**2 * total

    return float(quad(slope, 0, 1, epsabs=1e-13, epsrel=1e-12, limit=200)[0])


def one_over_width(n: int) -> int:
    """The power of N in kappa_2n of independent neurons, 1 - n. Raises `InputError` for n < 1."""
    if n < 1:
        raise InputError(f"kappa_2n is of n >= 1, got {n}")
    return 1 - n
