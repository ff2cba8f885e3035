r"""Dyson Brownian motion: Langevin dynamics of symmetric matrices, and of their eigenvalues with repulsion.

    dX = -gamma X dt + sqrt(2 gamma) dB,   B symmetric, of variance v dt on the diagonal and v dt/2 off it,

has the eigenvalues (Dyson, J. Math. Phys. 3 (1962) 1191; beta = 1)

    dx_i = -gamma x_i dt + gamma v sum_(j != i) dt/(x_i - x_j) + sqrt(2 gamma v) dW_i,

and the equilibrium exp[-tr X^2/(2v)]: a semicircle of radius sqrt(2 n v), n = 2 Wigner's surmise with
<S> = sqrt(pi v). What mini-batches do to the weights of a network near its optimum is the first equation
(2407.16427, 2411.13512). Matrices move exactly, for any step. Eigenvalues move by the implicit Euler method:
the new ones minimise a strictly convex function, so they never cross, whatever the step. Its error is of
order dt ln(1/dt): in it stands the mean of 1/(x_i - x_j)^2, which diverges logarithmically.
"""

from __future__ import annotations

import math

import numpy as np

from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import normals

NEWTON = 60
PRECISE = 1e-11  # of an eigenvalue, in units of the largest or of the distance that they keep


def white_matrices(seed: int, stream: str, index: Integers, step: int, n: int) -> Floats:
    """Symmetric (len(index), n, n), variance 1 on the diagonal and 1/2 off it."""
    a = normals(seed, stream, index, step, n * n).reshape(-1, n, n)
    found: Floats = (a + a.transpose(0, 2, 1)) / 2
    found[:, range(n), range(n)] = a[:, range(n), range(n)]
    return found


def matrix_step(
    x: Floats, v: float, gamma_dt: float, *, seed: int, chains: Integers, step: int
) -> Floats:  # fmt: skip
    """x (m, n, n) symmetric after gamma dt, exactly: e^(-gamma dt) x + sqrt[v (1 - e^(-2 gamma dt))] G.

    Raises `InputError` for matrices that are not square and symmetric, and for v or gamma dt not above zero.
    """
    x = np.asarray(x, dtype=np.float64)
    _check(v, gamma_dt)
    if x.ndim != 3 or x.shape[1] != x.shape[2] or not np.array_equal(x, x.transpose(0, 2, 1)):
        raise InputError(f"x must be symmetric matrices (m, n, n), got {list(x.shape)}")
    noise = white_matrices(seed, "dyson/matrix", chains, step, x.shape[1])
    found: Floats = math.exp(-gamma_dt) * x + math.sqrt(-v * math.expm1(-2 * gamma_dt)) * noise
    return found


def eigenvalue_step(
    x: Floats, v: float, gamma_dt: float, *, seed: int, chains: Integers, step: int
) -> Floats:
    """Eigenvalues x (m, n), each row rising, after one implicit step of gamma dt; they stay in order.

    Raises `InputError` for rows that do not rise, and for v or gamma dt not above zero.
    """
    x = np.asarray(x, dtype=np.float64)
    _check(v, gamma_dt)
    if x.ndim != 2 or not (np.diff(x, axis=1) > 0).all():
        raise InputError(f"x must be rows of eigenvalues (m, n), each rising, got {list(x.shape)}")
    noise = normals(seed, "dyson/eigenvalues", chains, step, x.shape[1])
    return _implicit(x + math.sqrt(2 * v * gamma_dt) * noise, x, v * gamma_dt, gamma_dt)


def _implicit(target: Floats, start: Floats, push: float, pull: float) -> Floats:
    """x, rising, with (1 + pull) x_i - push sum_(j != i) 1/(x_i - x_j) = target_i: Newton's method from
    `start`, in steps that never let two meet."""
    x, n = start.copy(), start.shape[1]
    own, going = np.arange(n), np.arange(len(x))
    scale = np.abs(target).max(1) + math.sqrt(push)
    for _ in range(NEWTON):
        now = x[going]
        apart = now[:, :, None] - now[:, None]
        apart[:, own, own] = np.inf
        force = (1 + pull) * now - push * (1 / apart).sum(2) - target[going]
        hessian = -push / apart**2
        hessian[:, own, own] = (1 + pull) - hessian.sum(2)
        move = -np.linalg.solve(hessian, force[..., None])[..., 0]
        closing = -np.diff(move, axis=1) / np.diff(now, axis=1)  # a gap closes where this is 1
        most = np.maximum(closing.max(1, initial=0.0), 0.0)
        part = np.minimum(1.0, 0.9 / np.maximum(most, 1e-300))
        x[going] = now + part[:, None] * move
        going = going[np.abs(move).max(1) > PRECISE * scale[going]]
        if not len(going):
            return x
    raise InputError(
        f"eigenvalues of {len(going)} rows did not settle in {NEWTON} steps; take a smaller gamma dt"
    )


def _check(v: float, gamma_dt: float) -> None:
    if not (v > 0 and gamma_dt > 0 and math.isfinite(v) and math.isfinite(gamma_dt)):
        raise InputError(f"v and gamma dt must be positive, got {v} and {gamma_dt}")
