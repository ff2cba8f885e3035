r"""Ising and Potts models without Monte Carlo: enumeration, tori, the infinite square lattice, a chain.

    S = -beta (sum_<xy> s_x s_y + H sum_x s_x),   K = beta = 1/T,   periodic, each bond counted once

(an extent of 2 has two bonds between neighbours, as a torus has). Energies e = <E>/N include -H m; C =
beta^2 (<E^2> - <E>^2)/N. Tori at H = 0: Kaufman, Phys. Rev. 76 (1949) 1232, with its derivatives; the law of
the magnetisation by the transfer matrix in blocks of momentum, at imaginary fields. Infinite lattice:
Onsager, Phys. Rev. 65 (1944) 117; Yang, Phys. Rev. 85 (1952) 808.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ellipk

from lattice.arrays import Complexes, Floats
from lattice.errors import InputError

MOST_SPINS = 24  # to enumerate
MOST_WIDTH = 14  # sites of a row of the transfer matrix
MOST_ROW = 12  # of a dense one
MOST_STATES = 2048  # of a row of a Potts model
CRITICAL = 2 / math.log(1 + math.sqrt(2))  # T_c of the square lattice


@dataclass(frozen=True)
class Thermal:
    """ln Z, and per site the energy e and the specific heat c, at one temperature."""

    ln_z: float
    e: float
    c: float


def _temperature(t: float) -> float:
    if not 0 < t < math.inf:
        raise InputError(f"a temperature must be positive and finite, got {t}")
    return 1 / t


def torus(shape: tuple[int, int], t: float) -> Thermal:
    """The L x M torus at H = 0, exactly: e and c by differentiating Kaufman's four products.

    Raises `InputError` for a temperature or an extent that is not positive.
    """
    k, (n, m) = _temperature(t), shape
    if min(n, m) < 2:
        raise InputError(f"a torus has two extents of 2 sites or more, got {list(shape)}")
    terms = [_product(k, n, m, odd, sinh) for odd in (1, 0) for sinh in (False, True)]
    top = max(a for a, _ in terms)
    f: Floats = np.sum([math.exp(a - top) * np.array(values) for a, values in terms], axis=0)
    sites = n * m
    log2 = math.log(2 * math.sinh(2 * k))
    one, two = 2 / math.tanh(2 * k), -4 / math.sinh(2 * k) ** 2
    first = f[1] / f[0] + 0.5 * sites * one
    second = f[2] / f[0] - (f[1] / f[0]) ** 2 + 0.5 * sites * two
    ln_z = -math.log(2) + 0.5 * sites * log2 + top + math.log(f[0])
    return Thermal(float(ln_z), float(-first / sites), float(k * k * second / sites))


def _product(k: float, n: int, m: int, odd: int, sinh: bool) -> tuple[float, tuple[float, float, float]]:
    """One of Kaufman's products over r of 2 cosh or 2 sinh (m gamma/2), gamma of 2 r + odd: a logarithm, and
    the product in its units with two derivatives by K.

    The factor of gamma_0, which changes sign at T_c, is kept apart from the logarithm.
    """
    a = first = second = 0.0
    own = (1.0, 0.0, 0.0)
    for r in range(n):
        g, dg, ddg = _gamma(k, 2 * r + odd, n)
        x, dx, ddx = m * g / 2, m * dg / 2, m * ddg / 2
        if 2 * r + odd == 0:  # in units of e^|x|
            up, down = math.exp(x - abs(x)), math.exp(-x - abs(x))
            value, slope = (up - down, up + down) if sinh else (up + down, up - down)
            own = (value, slope * dx, value * dx**2 + slope * ddx)
            a += abs(x)
            continue
        tanh = math.tanh(x)
        a += x + (math.log1p(-math.exp(-2 * x)) if sinh else math.log1p(math.exp(-2 * x)))
        rate = 1 / tanh if sinh else tanh
        first += rate * dx
        second += rate * ddx + (1 - rate**2) * dx**2
    p, dp, ddp = own
    return a, (p, dp + p * first, ddp + 2 * dp * first + p * (second + first**2))


def _gamma(k: float, index: int, n: int) -> tuple[float, float, float]:
    """gamma with two derivatives by K: cosh gamma = cosh 2K coth 2K - cos(pi index/n); gamma_0 = 2 K +
    ln tanh K."""
    s, c = math.sinh(2 * k), math.cosh(2 * k)
    if index == 0:
        return 2 * k + math.log(math.tanh(k)), 2 + 2 / s, -4 * c / s**2
    cosh = c * c / s - math.cos(math.pi * index / n)
    sinh = math.sqrt((cosh - 1) * (cosh + 1))
    d = 4 * c - 2 * c**3 / s**2  # of cosh 2K coth 2K
    dd = 8 * s - 12 * c**2 / s + 8 * c**4 / s**3
    dg = d / sinh
    return math.acosh(cosh), dg, (dd - cosh * dg**2) / sinh


def magnetisation_law(shape: tuple[int, int], t: float) -> Floats:
    """P(M), M = -N, -N + 2, ..., N, of the L x M torus at H = 0: (N + 1,).

    Tr (T e^(i theta m))^M at N + 1 angles, transformed; T in blocks of momentum along the row of min(shape)
    sites. Raises `InputError` for rows that are too long.
    """
    k, (n, m) = _temperature(t), sorted(shape)
    if not 2 <= n <= MOST_WIDTH:
        raise InputError(f"the transfer matrix is for rows of 2 to {MOST_WIDTH} sites, got {n}")
    blocks, sites = _blocks(n, k), n * m
    angles = 2 * np.pi * np.arange(sites + 1) / (sites + 1)
    found = np.empty(sites + 1, dtype=np.complex128)
    half = (sites + 1) // 2
    for i, theta in enumerate(angles[: half + 1]):
        total = 0.0 + 0.0j
        for block, _, spin in blocks:
            step = block * np.exp(1j * theta * spin)[None]
            total += np.trace(np.linalg.matrix_power(step, m))
        found[i] = total
    for i in range(half + 1, sites + 1):  # Z(-theta) is the conjugate
        found[i] = found[sites + 1 - i].conj()
    law = np.fft.fft(found).real / (sites + 1)  # of the number of spins up
    law = np.maximum(law, 0)
    return np.asarray(law / law.sum())


def correlation(shape: tuple[int, int], t: float, distance: int) -> float:
    """<s_0 s_r> of the L x M torus at H = 0, r sites apart along an axis of length M: from the diagonal of
    T^L, T the transfer matrix of rows of M sites, even and odd under a flip of all spins.

    Raises `InputError` for rows that are too long.
    """
    k, (m, n) = _temperature(t), shape
    if not 2 <= n <= MOST_ROW:
        raise InputError(f"correlations are for rows of 2 to {MOST_ROW} sites, got {n}")
    s = 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)  # one of each pair s, -s
    row, overlap = (s * np.roll(s, 1, axis=1)).sum(1), s @ s.T
    inner = (row[:, None] + row[None]) / 2 - 2 * n
    one, other = np.exp(k * (overlap + inner)), np.exp(k * (-overlap + inner))
    weight, top = np.zeros(len(s)), float((one + other).sum(1).max())  # bounds all eigenvalues
    for part in (one + other, one - other):
        half, rest = (np.linalg.matrix_power(part / top, power) for power in (m // 2, m - m // 2))
        weight += (half * rest.T).sum(1)
    return float((weight * s[:, 0] * s[:, distance % n]).sum() / weight.sum())


def torus_in_field(shape: tuple[int, int], t: float, field: float) -> Thermal:
    """The L x M torus in a field H, e with -H m: eigenvalues of the transfer matrix and their derivatives by
    beta, c a difference of e to 1e-9. Raises `InputError` for rows that are too long."""
    beta, (n, m) = _temperature(t), sorted(shape)
    if not 2 <= n <= MOST_WIDTH:
        raise InputError(f"the transfer matrix is for rows of 2 to {MOST_WIDTH} sites, got {n}")

    def at(b: float) -> tuple[float, float]:
        """ln Z and its derivative by beta."""
        values, slopes = [], []
        for block, rate, up in _blocks(n, b):
            half = field * (2 * up - n) / 2
            tilt = np.exp(b * (half - abs(field) * n / 2))
            step = tilt[:, None] * block * tilt[None]
            moved = tilt[:, None] * rate * tilt[None] + (half[:, None] + half[None] - abs(field) * n) * step
            found, vectors = np.linalg.eigh(step)
            values.append(found)
            slopes.append(np.einsum("ij,ij->j", vectors.conj(), moved @ vectors).real / _nonzero(found))
        lam, slope = np.concatenate(values), np.concatenate(slopes)
        top = float(lam.max())
        weight = (lam / top) ** m
        scale = m * (2 + abs(field)) * n
        return scale * b + m * math.log(top) + math.log(weight.sum()), float(
            scale + m * (weight * slope).sum() / weight.sum()
        )

    return _thermal(at, beta, n * m)


def moments_in_field(shape: tuple[int, int], t: float, field: float) -> tuple[float, float]:
    """u = -<sum_<xy> s_x s_y>/V and m = <s> of the L x M torus in a field H, exactly. Raises `InputError` for
    rows that are too long."""
    beta, (n, m) = _temperature(t), sorted(shape)
    if not 2 <= n <= MOST_WIDTH:
        raise InputError(f"the transfer matrix is for rows of 2 to {MOST_WIDTH} sites, got {n}")
    values, slopes, tilts = [], [], []
    for block, rate, up in _blocks(n, beta):
        half = (2 * up - n) / 2
        tilt = np.exp(beta * (field * half - abs(field) * n / 2))
        step = tilt[:, None] * block * tilt[None]
        found, vectors = np.linalg.eigh(step)
        moves = (tilt[:, None] * rate * tilt[None], (half[:, None] + half[None]) * step)
        bonds, order = (
            np.einsum("ij,ij->j", vectors.conj(), x @ vectors).real / _nonzero(found) for x in moves
        )
        values.append(found)
        slopes.append(bonds)
        tilts.append(order)
    lam, bonds, order = (np.concatenate(x) for x in (values, slopes, tilts))
    weight = (lam / lam.max()) ** m
    weight = weight * m / weight.sum() / (n * m)
    return -2.0 - float((weight * bonds).sum()), float((weight * order).sum())


def _nonzero(values: Floats) -> Floats:
    """Eigenvalues to divide by: what underflows has no weight."""
    return np.where(np.abs(values) > 1e-290, values, 1.0)


def _thermal(at: Callable[[float], tuple[float, float]], beta: float, sites: int) -> Thermal:
    """From ln Z and its exact derivative as functions of beta; c by differences of fourth order."""
    h = 2e-3 * beta
    low, high, lower, higher = (at(beta + x * h)[1] for x in (-1, 1, -2, 2))
    ln_z, first = at(beta)
    second = (8 * (high - low) - (higher - lower)) / (12 * h)
    return Thermal(ln_z, -first / sites, beta**2 * second / sites)


def _blocks(n: int, k: float) -> list[tuple[Complexes, Complexes, Floats]]:
    """The symmetric transfer matrix of a row of n sites, block by block of momentum, scaled by its largest
    element; its derivative by K; and the number of spins up of each orbit."""
    states = np.arange(2**n)
    spins = 1.0 - 2.0 * ((states[:, None] >> np.arange(n)) & 1)
    bits = (states[:, None] >> np.arange(n)) & 1
    turned = [(bits << ((np.arange(n) + shift) % n)).sum(1) for shift in range(n)]
    smallest = np.min(turned, axis=0)
    orbits = np.flatnonzero(smallest == states)
    row = (spins * np.roll(spins, 1, axis=1)).sum(1)
    period = np.array([min(s for s in range(1, n + 1) if turned[s % n][o] == o) for o in orbits])
    made: list[tuple[Complexes, Complexes, Floats]] = []
    for momentum in range(n):
        kept = orbits[(momentum * period) % n == 0]
        sizes = period[(momentum * period) % n == 0]
        block = np.zeros((2, len(kept), len(kept)), dtype=np.complex128)
        for shift in range(n):
            overlap = spins[kept] @ spins[turned[shift][kept]].T
            bonds = overlap - n + (row[kept][:, None] + row[kept][None]) / 2 - n
            weight = np.exp(-2j * np.pi * momentum * shift / n) * np.exp(k * bonds)
            block += np.stack([weight, bonds * weight])
        block *= np.sqrt(sizes[:, None] * sizes[None]) / n
        made.append((block[0], block[1], ((spins[kept] + 1) / 2).sum(1)))
    return made


def magnetisation_moments(law: Floats) -> dict[str, float]:
    """<|m|>, <m^2> and Binder's U = 1 - <m^4>/(3 <m^2>^2) of P(M)."""
    n = len(law) - 1
    m = (2 * np.arange(n + 1) - n) / n
    two, four = float((law * m**2).sum()), float((law * m**4).sum())
    return {"abs_m": float((law * np.abs(m)).sum()), "m2": two, "binder": 1 - four / (3 * two**2)}


def enumerated(shape: tuple[int, ...], t: float, field: float = 0.0) -> Thermal:
    """Any small periodic lattice in a field H, by all its states. Raises `InputError` for many spins."""
    beta, n = _temperature(t), math.prod(shape)
    if n > MOST_SPINS or min(shape, default=0) < 1:
        raise InputError(f"enumeration is for up to {MOST_SPINS} spins, got {list(shape)}")
    energies = []
    for first in range(0, 2**n, 2**16):
        states = np.arange(first, min(first + 2**16, 2**n))
        s = 1.0 - 2.0 * ((states[:, None] >> np.arange(n)) & 1).reshape(-1, *shape)
        bonds = sum((s * np.roll(s, 1, axis)).reshape(len(s), -1).sum(1) for axis in range(1, s.ndim))
        energies.append(-bonds - field * s.reshape(len(s), -1).sum(1))
    e = np.concatenate(energies)
    low = e.min()
    w = np.exp(-beta * (e - low))
    mean = float((w * e).sum() / w.sum())
    spread = float((w * (e - mean) ** 2).sum() / w.sum())
    return Thermal(float(-beta * low + math.log(w.sum())), mean / n, beta**2 * spread / n)


def hottest(n: int) -> tuple[float, float]:
    """The temperature at which c of the n x n torus is largest, and that c."""
    found = minimize_scalar(
        lambda t: -torus((n, n), t).c, bounds=(2.2, 3.0), method="bounded", options={"xatol": 1e-9}
    )
    return float(found.x), float(-found.fun)


def infinite_energy(t: float) -> float:
    """e of the infinite square lattice (Onsager)."""
    k = _temperature(t)
    kappa = 2 * math.sinh(2 * k) / math.cosh(2 * k) ** 2
    whole = 2 / math.pi * (2 * math.tanh(2 * k) ** 2 - 1) * ellipk(kappa**2) if kappa < 1 else 0.0
    return float(-(1 + whole) / math.tanh(2 * k))


def infinite_magnetisation(t: float) -> float:
    """m of the infinite square lattice (Yang): (1 - sinh(2K)^-4)^(1/8), 0 from T_c on."""
    s = math.sinh(2 * _temperature(t))
    return (1 - s**-4) ** 0.125 if s > 1 else 0.0


def chain_in_field(t: float, field: float) -> Thermal:
    """The infinite chain in a field, per site: ln of the larger eigenvalue of the transfer matrix,
    lambda = e^beta (cosh beta H + s), s^2 = sinh^2(beta H) + e^(-4 beta); c a difference of e to 1e-9."""
    beta = _temperature(t)

    def at(b: float) -> tuple[float, float]:
        """ln lambda and its derivative by beta."""
        up, down, bond = math.sinh(b * field), math.cosh(b * field), math.exp(-4 * b)
        s = math.sqrt(up**2 + bond)
        slope = field * up + (field * up * down - 2 * bond) / s
        return b + math.log(down + s), 1 + slope / (down + s)

    return _thermal(at, beta, 1)


def bethe_temperature(neighbours: int) -> float:
    """T_c of Bethe's approximation, 2/ln(z/(z - 2)). Raises `InputError` for z < 3, without a transition."""
    if neighbours < 3:
        raise InputError(f"Bethe's approximation has a transition from 3 neighbours on, got {neighbours}")
    return 2 / math.log(neighbours / (neighbours - 2))


def potts_temperature(q: int) -> float:
    """T_c of the square lattice Potts model, S = -beta sum delta(s_x, s_y): 1/ln(1 + sqrt q)."""
    if q < 2:
        raise InputError(f"a Potts model has two states or more, got {q}")
    return 1 / math.log(1 + math.sqrt(q))


def potts_torus(shape: tuple[int, int], q: int, t: float) -> Thermal:
    """The L x M torus of the q-state Potts model, S = -beta sum delta(s_x, s_y), by its transfer matrix.

    Z = tr T^M over rows of min(shape) sites, with its first two derivatives. Raises `InputError` for fewer
    than 2 states of a site and more than 2048 of a row.
    """
    beta, (n, m) = _temperature(t), sorted(shape)
    if q < 2 or n < 2 or q**n > MOST_STATES:
        raise InputError(
            f"q >= 2, rows of 2 sites or more, of at most {MOST_STATES} states; {q} states on {n} have {q**n}"
        )
    states = np.stack(np.unravel_index(np.arange(q**n), (q,) * n), 1)
    row = (states == np.roll(states, 1, axis=1)).sum(1)
    bonds = (states[:, None] == states[None]).sum(2) + (row[:, None] + row[None]) / 2

    step = np.exp(beta * (bonds - 2 * n))
    values, vectors = np.linalg.eigh(step)
    tilted, power = (bonds * step) @ vectors, (values / values[-1]) ** np.arange(m + 1)[:, None]
    weight, z = power[m], power[m].sum()
    first = m * (weight * np.einsum("ij,ij->j", vectors, tilted) / _nonzero(values)).sum() / z
    pairs = (vectors.T @ tilted / values[-1]) ** 2
    twice = np.einsum("ij,ij->j", vectors, (bonds**2 * step) @ vectors) / values[-1]
    second = m * (power[m - 1] @ twice + sum(power[k] @ pairs @ power[m - 2 - k] for k in range(m - 1))) / z
    ln_z = m * (2 * n * beta + math.log(values[-1])) + math.log(z)
    return Thermal(ln_z, -float(first) / (n * m), beta**2 * float(second - first**2) / (n * m))
