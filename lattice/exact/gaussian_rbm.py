r"""What a Gaussian restricted Boltzmann machine learns, how fast, and what its Gibbs sampler costs: exactly.

    E(phi, h) = (mu^2/2) phi^2 + h^2/(2 s^2) - phi^T W h,     so that phi ~ exp(-phi^T K phi/2),
    K = mu^2 - s^2 W W^T

(Park, Aarts, Lucini 2309.15002: a free scalar field; maximum likelihood is probabilistic principal
components, Tipping and Bishop, J. R. Stat. Soc. B 61 (1999) 611). The target has second moments C,
kappa_a = 1/eig(C); gradient ascent of the likelihood is dW/dt = s^2 (C - K^-1) W. Aligned with C, each
y = s^2 xi^2 of a singular value xi of W has

    dy/dt = 2 s^2 y [1/kappa - 1/(mu^2 - y)],        y* = mu^2 - kappa,

an instability of the infrared modes, kappa < mu^2, that is the faster the smaller kappa. All rates are of y,
a factor of 2 above those of xi; arrays of kappa are of any shape, elementwise.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from lattice.arrays import Floats, Integers
from lattice.errors import InputError


def chain_kernel(n: int, mass: float) -> Floats:
    """kappa_p = m^2 + 2 - 2 cos p of the free field on n sites in one dimension, rising: (n,)."""
    return np.sort(mass**2 + 2 - 2 * np.cos(2 * np.pi * np.arange(n) / n))


def lattice_kernel(shape: tuple[int, ...], kappa: float) -> Floats:
    """K(p) = 2 - 4 kappa sum_i cos p_i of the free field in the kappa-lambda convention, rising: (V,).

    Raises `InputError` where it is not positive, |kappa| >= 1/(2d).
    """
    angles = np.meshgrid(*(2 * np.pi * np.arange(extent) / extent for extent in shape), indexing="ij")
    found = 2 - 4 * kappa * np.sum([np.cos(a) for a in angles], axis=0)
    return positive(np.sort(found.ravel()), "K(p) of the free field")


def positive(kappa: Floats, name: str = "kappa") -> Floats:
    """kappa as it is, float64. Raises `InputError` unless all are positive; infinite ones, of modes without
    variance, are allowed."""
    kappa = np.asarray(kappa, dtype=np.float64)
    if not (kappa > 0).all():
        worst = int(np.argmin(np.where(np.isnan(kappa), -np.inf, kappa)))
        raise InputError(f"{name} must be positive; mode {worst} has {kappa.flat[worst]:g}")
    return kappa


def _modes(kappa: Floats, n_hidden: int) -> Floats:
    kappa = positive(kappa)
    if kappa.ndim != 1 or n_hidden < 0:
        raise InputError(
            f"kappa must be a row of modes and n_hidden 0 or more, got {kappa.shape} and {n_hidden}"
        )
    return kappa


def _require_mass(mu2: float) -> None:
    if not 0 < mu2 < math.inf:
        raise InputError(f"mu^2 must be positive, got {mu2:g}")


def learned(kappa: Floats, mu2: float, n_hidden: int) -> Floats:
    """Eigenvalues lambda of the learned K in the order of kappa (n,): kappa for the n_hidden smallest that
    are below mu^2, mu^2 for all others, cut by the mass or by the number of hidden nodes."""
    kappa = _modes(kappa, n_hidden)
    _require_mass(mu2)
    order = np.argsort(kappa, kind="stable")
    found = np.full_like(kappa, mu2)
    kept = order[:n_hidden]
    found[kept] = np.minimum(kappa[kept], mu2)
    return found


def best_mass(kappa: Floats, n_hidden: int) -> float:
    """mu^2 of maximum likelihood: the harmonic mean of the kappa that n_hidden nodes leave out.

    Raises `InputError` where nothing is left out, every mu^2 above the largest kappa being as good, or modes
    without variance alone.
    """
    kappa = np.sort(_modes(kappa, n_hidden))
    if n_hidden >= len(kappa):
        raise InputError(
            f"{n_hidden} hidden nodes represent all {len(kappa)} modes: any mu^2 >= {kappa[-1]:g} is as good"
        )
    if np.isinf(kappa[n_hidden:]).all():
        raise InputError("only modes without variance, kappa = inf, are left out: a larger mu^2 is better")
    return float(1 / (1 / kappa[n_hidden:]).mean())


def divergence(kappa: Floats, lam: Floats) -> float:
    """KL(target|machine) per configuration, in nats: sum of [lambda/kappa - 1 - ln(lambda/kappa)]/2."""
    ratio = np.asarray(lam) / positive(kappa)
    return float(0.5 * (ratio - 1 - np.log(ratio)).sum())


def log_likelihood(kappa: Floats, lam: Floats) -> float:
    """Mean ln p of the data per configuration; modes without variance, kappa = inf, count too."""
    lam = np.asarray(lam)
    return float(0.5 * (np.log(lam / (2 * math.pi)) - lam / positive(kappa)).sum())


def growth_rate(kappa: Floats, mu2: float, s: float = 1.0) -> Floats:
    """Of y while it is small: 2 s^2 (1/kappa - 1/mu^2), negative where the mass cuts the mode."""
    return 2 * s**2 * (1 / positive(kappa) - 1 / mu2)


def relaxation_rate(kappa: Floats, mu2: float, s: float = 1.0) -> Floats:
    """Of y towards its end: 2 s^2 (mu^2 - kappa)/kappa^2 to y* of a learned mode, 2 s^2 (1/mu^2 - 1/kappa) to
    0 of one that the mass cuts."""
    kappa = positive(kappa)
    learned = 2 * s**2 * (mu2 - np.minimum(kappa, mu2)) / np.minimum(kappa, mu2) ** 2
    return np.where(kappa < mu2, learned, -growth_rate(kappa, mu2, s))


def time_between(y0: float, y: float, kappa: float, mu2: float, s: float = 1.0) -> float:
    """Time from y0 to y of one mode, kappa < mu^2, both on the same side of y* and below mu^2; negative where
    y was earlier.

    t = kappa/(2 s^2 y*) [mu^2 ln(y/y0) - kappa ln((y* - y)/(y* - y0))]. Raises `InputError` otherwise.
    """
    star = mu2 - kappa
    inside = 0 < kappa < mu2 and 0 < y0 < mu2 and 0 < y < mu2
    if not (inside and (star - y) * (star - y0) > 0):
        raise InputError(
            f"y0 = {y0:g} and y = {y:g} must be in (0, mu^2), on one side of y* = mu^2 - kappa = {star:g} > 0"
        )
    side = 1.0 if y0 < star else -1.0
    ends = (math.log(end / abs(star - end)) for end in (y0, y))
    first, last = (_clock(v, side, kappa, star, s) for v in ends)
    return last - first


def _clock(v: float, side: float, kappa: float, star: float, s: float) -> float:
    """Time as a function of v = ln(y/|y* - y|), which keeps all digits; side: 1 below y*, -1 above."""
    return kappa / (2 * s**2) * (kappa * v / star - math.log1p(side * math.exp(-v)))


def trajectory(t: Floats, y0: float, kappa: float, mu2: float, s: float = 1.0) -> Floats:
    """y (n,) at the times t >= 0 of one mode, kappa < mu^2, by inversion of `time_between`.

    Raises `InputError` unless 0 < kappa < mu^2 and 0 < y0 < mu^2, where K is positive.
    """
    star = mu2 - kappa
    times = np.atleast_1d(np.asarray(t, dtype=np.float64))
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise InputError("times must be finite and not negative")
    if not (0 < kappa < mu2 and 0 < y0 < mu2):
        raise InputError(f"need 0 < kappa, y0 < mu^2, got kappa {kappa:g}, y0 {y0:g}, mu^2 {mu2:g}")
    if y0 == star:
        return np.full(times.shape, y0)
    side, v0, found = (1.0 if y0 < star else -1.0), math.log(y0 / abs(star - y0)), []
    begin = _clock(v0, side, kappa, star, s)
    slack = 1 + star / kappa * abs(math.log1p(side * math.exp(-v0)))  # what the logarithm can add
    for time in times:
        high = v0 + 2 * s**2 * star / kappa**2 * float(time) + slack
        miss = lambda v, end=begin + float(time): _clock(v, side, kappa, star, s) - end  # noqa: E731
        found.append(brentq(miss, v0, high, xtol=1e-14) if time > 0 else v0)
    y: Floats = star / (1 + side * np.exp(-np.array(found)))
    return y


def cd_factor(y: Floats, mu2: float, k: int) -> Floats:
    """What contrastive divergence of k steps leaves of a mode's exact gradient: 1 - (y/mu^2)^(2k).

    D -> D - R^k D R^k, D = C - K^-1, R = s^2 W W^T/mu^2: same fixed points.
    """
    return 1 - (np.asarray(y) / mu2) ** (2 * k)


def largest_step(
    kappa: Floats, mu2: float, s: float = 1.0, k: int | None = None, n_hidden: int | None = None
) -> tuple[float, int]:
    """The learning rate above which W <- W + alpha s^2 (C - K^-1) W leaves its fixed point, and the mode that
    sets it.

    Along y of a learned mode alpha < kappa^2/(s^2 y*), over 1 - (y*/mu^2)^(2k) for CD of k steps. A rotation
    of a learned mode a into b, which mass or n_hidden leave out, decays with s^2 (1/kappa_a - 1/kappa_b),
    with CD too: alpha < 2 over that. Raises `InputError` where mu^2 cuts every mode: nothing is learned.
    """
    kappa = _modes(kappa, 0 if n_hidden is None else n_hidden)
    _require_mass(mu2)
    kept = _kept(kappa, mu2, n_hidden)
    star = mu2 - kappa[kept]
    if k is not None and k < 1:
        raise InputError(f"contrastive divergence has at least one step, got k = {k}")
    factor = 1.0 if k is None else cd_factor(star, mu2, k)
    limit = kappa[kept] ** 2 / (s**2 * star * factor)
    mode = int(np.argmin(limit))
    most, which = float(limit[mode]), int(kept[mode])
    left, other = _left_out(kappa, kept)
    turn = 1 / float(kappa[kept].min()) - 1 / left if left else 0.0
    return (2 / (s**2 * turn), other) if turn > 0 and 2 / (s**2 * turn) < most else (most, which)


def reachable_step(
    kappa: float, mu2: float, s: float = 1.0, k: int | None = None, momentum: float = 0.0,
    chains: bool = False,
) -> tuple[float, bool]:  # fmt: skip
    """The largest rate at which one mode stays below mu^2 on its way from any y below y*, and whether the way
    is what limits it: xi <- xi + v, v <- b v + alpha s^2 g xi, y = s^2 xi^2.

    g = (1/kappa - 1/(mu^2 - y)) (1 - (y/mu^2)^(2k)) of contrastive divergence of k steps, without the second
    factor for k = None; of persistent `chains`, k sweeps a step, the second 1/(mu^2 - y) lags behind:
    q <- r^2 q + (1 + r)/mu^2, r = y/mu^2. Contrastive divergence slows down near y* and not on the way: where
    kappa is far below mu^2 steps that are stable at the end jump over mu^2 before it, and K is not positive;
    momentum and lag make it worse. Never above (1 + b) times `largest_step`.
    """
    most = (1 + momentum) * largest_step(np.array([kappa]), mu2, s, None if chains else k)[0]
    way = (kappa, mu2, k, momentum, chains)
    if _arrives(s * s * most * (1 - 1e-3), *way):
        return most, False
    low, high = 0.0, most
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _arrives(s * s * middle, *way) else (low, middle)
    return low, True


def _arrives(
    rate: float, kappa: float, mu2: float, k: int | None, momentum: float, chains: bool, n: int = 300
) -> bool:
    """Whether modes from everywhere below y* stay below mu^2, in units of s = 1."""
    y = (mu2 - kappa) * np.geomspace(1e-6, 1, n)
    xi, v, q = np.sqrt(y), np.zeros(n), 1 / (mu2 - y)
    for _ in range(math.ceil(200 / (1 - momentum))):
        if chains:
            r = y / mu2
            for _ in range(k or 1):
                q = r**2 * q + (1 + r) / mu2
            g = 1 / kappa - q
        else:
            g = (1 / kappa - 1 / (mu2 - y)) * (1.0 if k is None else cd_factor(y, mu2, k))
        v = momentum * v + rate * g * xi
        xi = xi + v
        y = xi**2
        if not (y < mu2).all():
            return False
    return True


def mass_step(kappa: Floats, mu2: float, n_hidden: int, s: float = 1.0) -> float:
    """The largest rate at which n_hidden modes and the mass, learned together, stay at their end.

    2 over the largest eigenvalue of the curvature of the likelihood there, in xi of each learned mode and
    mu^2: 2 s^2 y*/kappa^2 of a mode, (1/2)[sum over learned 1/kappa^2 + (n - n_hidden)/mu^4] of the mass,
    s sqrt(y*)/kappa^2 between them.
    """
    kept = np.sort(_modes(kappa, n_hidden))[:n_hidden]
    kept = kept[kept < mu2]
    y = mu2 - kept
    curvature = np.diag(np.append(2 * s**2 * y / kept**2, 0.5 * (kept**-2.0).sum()))
    curvature[-1, -1] += 0.5 * (len(kappa) - len(kept)) / mu2**2
    curvature[-1, :-1] = curvature[:-1, -1] = s * np.sqrt(y) / kept**2
    return float(2 / np.linalg.eigvalsh(curvature)[-1])


def largest_natural_step(
    kappa: Floats, mu2: float, s: float = 1.0, n_hidden: int | None = None
) -> tuple[float, int]:
    """The same of W <- W + alpha s^2 C^-1 (C - K^-1) C^-1 W: alpha < 1/(s^2 y*), and for the rotation of a
    learned mode a into b, left out, 2 mu^2/[s^2 kappa_b (kappa_b - kappa_a)]. Raises as `largest_step`."""
    kappa = _modes(kappa, 0 if n_hidden is None else n_hidden)
    _require_mass(mu2)
    kept = _kept(kappa, mu2, n_hidden)
    first = int(kept[np.argmin(kappa[kept])])
    most, (left, other) = 1 / (s**2 * float(mu2 - kappa[first])), _left_out(kappa, kept)
    turn = left * (left - float(kappa[first])) / (2 * mu2)
    return (1 / (s**2 * turn), other) if turn > 0 and 1 / (s**2 * turn) < most else (most, first)


def _left_out(kappa: Floats, kept: Integers) -> tuple[float, int]:
    """The largest kappa that is not learned, and which; 0 where all are."""
    left = np.delete(kappa, kept)
    if not len(left):
        return 0.0, -1
    return float(left.max()), int(np.setdiff1d(np.arange(len(kappa)), kept)[np.argmax(left)])


def _kept(kappa: Floats, mu2: float, n_hidden: int | None) -> Integers:
    """The modes that are learned, as places in kappa."""
    order = np.argsort(kappa, kind="stable")[:n_hidden]
    kept: Integers = order[kappa[order] < mu2]
    if not len(kept):
        raise InputError(
            f"mu^2 = {mu2:g} is below every kappa, from {kappa.min():g} on, or there is no hidden node: the "
            "machine learns nothing"
        )
    return kept


def gibbs_rho(lam: Floats, mu2: float) -> Floats:
    """Autocorrelation of a mode of phi after one sweep of block Gibbs: 1 - lambda/mu^2."""
    return 1 - np.asarray(lam) / mu2


def gibbs_tau_int(lam: Floats, mu2: float) -> Floats:
    """tau_int = 1/2 + sum_t rho(t) of a mode of phi in sweeps: mu^2/lambda - 1/2. Critical, z = 2."""
    return mu2 / np.asarray(lam) - 0.5


def action_density(kappa: Floats, lam: Floats) -> float:
    """<S>/V of the target's action in the machine's fields, sum kappa/lambda over 2V; 1/2 if all learned."""
    return float(0.5 * (positive(kappa) / np.asarray(lam)).mean())


def phi2(lam: Floats) -> float:
    """<phi^2> at a site: sum 1/lambda over V."""
    return float((1 / positive(lam, "lambda")).mean())
