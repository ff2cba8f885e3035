"""Stochastic quantization: Langevin dynamics in a fifth time tau (Parisi, Wu, Sci. Sin. 24 (1981) 483),

    dphi = -dS/dphi dtau + sqrt(2) dW,

by Euler-Maruyama, phi' = phi - h dS/dphi + sqrt(2 h) eta (Ito, order 1).  That samples S + (h/4) sum_x
[2 d^2S/dphi_x^2 - (dS/dphi_x)^2] + O(h^2) in place of S (Batrouni et al., PRD 32 (1985) 2736), a bias which
`extrapolate_step` removes; with lam > 0 fields beyond phi^2 ~ 1/(2 lam h) run away at any h, which small
steps make rare.  With an accept step (MALA: Roberts, Tweedie, Bernoulli 2 (1996) 341) it is exact at any h.
MALA is HMC of one leapfrog step of size sqrt(2 h), its momenta the noise: the logarithm of the proposal ratio
is the change of p^2/2, so that -dH is the logarithm of the acceptance ratio.

Random numbers: (seed, "langevin/noise", chain, trajectory), at position step * V + site, and (seed,
"langevin/accept", chain, trajectory), at position step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

from lattice import kernels, langevin_kernels
from lattice.action import Action, FreeScalar, ScalarPhi4, check_shape
from lattice.errors import InputError
from lattice.hmc import check_fields
from lattice.notation import format_value
from lattice.rng import check_counters, normals, stream_id, uniforms

NOISE, ACCEPT, START = "langevin/noise", "langevin/accept", "langevin/start"
NAMES = ("phi2", "abs_m", "s", "g0")
MIN_CHAINS, MIN_P_VALUE = 16, 1e-3  # fewer chains give no error worth fitting with
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LangevinInfo:
    """accepted (n, n_steps) bool; dH (n, n_steps) = -ln(acceptance ratio).  All True and None without one."""

    dH: Floats | None  # noqa: N815 - the field's name
    accepted: NDArray[np.bool_]


def langevin_update(
    action: Action,
    phi: Floats,
    *,
    seed: int,
    chains: NDArray[np.int64],
    trajectory: int,
    step: float,
    n_steps: int = 1,
    metropolis: bool = False,
    n_threads: int | None = None,
    block: int | None = None,
) -> tuple[Floats, LangevinInfo]:
    """`n_steps` steps of size `step` in tau: phi (n, *shape) -> (phi', info); the input is left alone.

    With `metropolis` each step is accepted or rejected, and one whose energy is not finite is rejected.
    Every number depends on (seed, chain, trajectory) only, never on the batch, the block or the threads.
    Raises `InputError` for bad shapes, dtypes, counters or steps, and, without the accept step, where a
    field runs away (it names the first such chain and its step, counted from 0).

    >>> phi, info = langevin_update(ScalarPhi4(0.27, 0.022), np.zeros((2, 4, 4)), seed=1, chains=np.arange(2),
    ...                             trajectory=0, step=0.05, n_steps=10, metropolis=True)
    >>> phi.shape, info.dH.shape, bool(info.accepted.mean() > 0.5)
    ((2, 4, 4), (2, 10), True)
    """
    if not isinstance(action, ScalarPhi4 | FreeScalar):
        raise InputError(f"no compiled kernel for {type(action).__name__}; use langevin_update_torch")
    phi = check_fields(phi)
    n, shape = len(phi), phi.shape[1:]
    keys = _check(seed, chains, trajectory, n, shape, step, n_steps)
    threads = kernels.available_threads(n_threads)
    block = min(block or (32 if phi[0].size <= 2048 else 16), -(-n // threads))
    flat = phi.reshape(n, -1)
    out, runaway = np.empty_like(flat), np.full(n, -1, dtype=np.int64)
    dh, accepted = np.empty((n, n_steps if metropolis else 0)), np.ones((n, n_steps), dtype=np.bool_)

    def run(start: int) -> None:
        langevin_kernels.langevin_block(
            flat, out, dh, accepted, runaway, keys, start, min(start + block, n), shape[-1],
            kernels.neighbour_table(shape[:-1]), float(action.kappa), float(action.lam), float(step),
            n_steps, metropolis, np.uint64(seed), np.uint64(stream_id(NOISE)), np.uint64(stream_id(ACCEPT)),
            np.uint64(trajectory),
        )  # fmt: skip

    kernels.run_threaded(run, range(0, n, block), threads)
    _refuse_runaways(runaway, keys, step, trajectory)
    return out.reshape(phi.shape), LangevinInfo(dh if metropolis else None, accepted)


def langevin_update_torch(
    action: Action,
    phi: Tensor,
    *,
    seed: int,
    chains: NDArray[np.int64],
    trajectory: int,
    step: float,
    n_steps: int = 1,
    metropolis: bool = False,
) -> tuple[Tensor, LangevinInfo]:
    """The same update in plain tensors, for any action and device: phi (n, *shape) float64.

    Same random numbers, hence equal to the kernel up to rounding.  The acceptance is written as the ratio
    of proposal densities, where the kernel computes dH of a leapfrog step: their equality is tested.
    """
    n, shape = phi.shape[0], tuple(phi.shape[1:])
    keys = _check(seed, chains, trajectory, n, shape, step, n_steps)
    noise = normals(seed, NOISE, chains, trajectory, n_steps * math.prod(shape)).reshape(n, n_steps, *shape)
    u = uniforms(seed, ACCEPT, chains, trajectory, n_steps)
    dh, accepted = np.empty((n, n_steps)), np.ones((n, n_steps), dtype=np.bool_)
    runaway = np.full(n, -1, dtype=np.int64)
    for k in range(n_steps):
        eta = torch.from_numpy(noise[:, k]).to(phi.device)
        new = phi - step * action.grad(phi) + math.sqrt(2.0 * step) * eta
        if metropolis:
            back = phi - new + step * action.grad(new)  # sqrt(2 h) times the noise of the reverse move
            ratio = (back * back / (4.0 * step) - 0.5 * eta * eta).sum(dim=tuple(range(1, phi.dim())))
            dh[:, k] = (action.action(new) - action.action(phi) + ratio).cpu().numpy()
            with np.errstate(over="ignore"):
                accepted[:, k] = np.isfinite(dh[:, k]) & (u[:, k] < np.exp(-dh[:, k]))
            keep = torch.from_numpy(accepted[:, k].copy()).to(phi.device)
            phi = torch.where(keep.reshape(n, *[1] * len(shape)), new, phi)
        else:
            phi = new
            lost = ~torch.isfinite(phi).reshape(n, -1).all(dim=1).cpu().numpy()
            runaway[lost & (runaway < 0)] = k
    _refuse_runaways(runaway, keys, step, trajectory)
    return phi, LangevinInfo(dh if metropolis else None, accepted)


@dataclass(frozen=True)
class Extrapolation:
    """value(error) at step 0, slopes (order,) of h, h^2, ... with their errors, and how well the fit is.

    trusted is False where p_value < 1e-3, and `reason` then says so ("" otherwise).
    """

    value: float
    error: float
    slopes: tuple[float, ...]
    slope_errors: tuple[float, ...]
    chi2: float
    dof: int
    p_value: float
    trusted: bool
    reason: str


def extrapolate_step(
    steps: Sequence[float] | Floats, values: Sequence[float] | Floats, errors: Sequence[float] | Floats,
    order: int = 1,
) -> Extrapolation:  # fmt: skip
    """Weighted least squares of value + slope_1 h + ... + slope_order h^order to independent points.

    Raises `InputError` for numbers that are not finite, steps that are not positive and distinct, errors
    that are not positive, order < 1, and fewer points than parameters + 1 (nothing would test the fit).

    >>> fit = extrapolate_step([0.1, 0.2, 0.3], [1.1, 1.2, 1.3], [0.01, 0.01, 0.01])
    >>> round(fit.value, 12), round(fit.slopes[0], 12), fit.dof, fit.trusted
    (1.0, 1.0, 1, True)
    """
    h, y, e = (np.asarray(x, dtype=np.float64) for x in (steps, values, errors))
    if order < 1:
        raise InputError(f"order of the extrapolation must be >= 1, got {order}")
    if not (h.ndim == 1 and h.shape == y.shape == e.shape):
        raise InputError(f"steps, values, errors must be 1-d and alike, got {h.shape}, {y.shape}, {e.shape}")
    if len(h) < order + 2:
        raise InputError(f"an extrapolation of order {order} needs at least {order + 2} steps, got {len(h)}")
    for name, x in (("steps", h), ("values", y), ("errors", e)):
        if not np.isfinite(x).all():
            raise InputError(f"{name} of an extrapolation must be finite, got {x.tolist()}")
    if not h.min() > 0 or len(set(h.tolist())) < len(h):
        raise InputError(f"steps of an extrapolation must be positive and distinct, got {h.tolist()}")
    if not e.min() > 0:
        raise InputError(f"errors of an extrapolation must be positive, got {e.tolist()}")
    unit = h.max() ** np.arange(order + 1)  # powers of h/h_max keep the fit well conditioned
    design = np.vander(h / h.max(), order + 1, increasing=True) / e[:, None]
    inverse = np.linalg.pinv(design)
    best = inverse @ (y / e)
    chi2, dof = float(((design @ best - y / e) ** 2).sum()), len(h) - order - 1
    coefficients, deviations = best / unit, np.sqrt((inverse**2).sum(axis=1)) / unit
    p = float(scipy.special.chdtrc(dof, chi2))
    reason = "" if p >= MIN_P_VALUE else (
        f"chi2/dof = {chi2:.1f}/{dof} (p = {p:.1e}): not a polynomial of order {order} in these steps; "
        f"use smaller steps or a higher order"
    )  # fmt: skip
    return Extrapolation(
        float(coefficients[0]), float(deviations[0]), tuple(coefficients[1:].tolist()),
        tuple(deviations[1:].tolist()), chi2, dof, p, not reason, reason,
    )  # fmt: skip


@dataclass(frozen=True)
class StepTable:
    """A run per step size and the limit: name -> (n_sizes,) values and errors, name -> `Extrapolation`."""

    steps: tuple[float, ...]
    values: dict[str, Floats]
    errors: dict[str, Floats]
    limits: dict[str, Extrapolation]

    @property
    def text(self) -> str:
        """Aligned lines: one row per step size, the limit below, then what is not to be trusted."""
        rows = [["step", *self.values]]
        for i, h in enumerate(self.steps):
            numbers = zip(self.values.values(), self.errors.values(), strict=True)
            rows.append([f"{h:g}", *(format_value(v[i], e[i]) for v, e in numbers)])
        rows.append(["0 (fit)", *(format_value(x.value, x.error) for x in self.limits.values())])
        rows.append(["p-value", *(f"{x.p_value:.2g}" for x in self.limits.values())])
        lines = ["  ".join(cell.ljust(16) for cell in row).rstrip() for row in rows]
        return "\n".join(lines + [f"{name}: {x.reason}" for name, x in self.limits.items() if x.reason])


def stochastic_quantization(
    action: Action,
    shape: tuple[int, ...],
    *,
    steps: Sequence[float] = (0.02, 0.04, 0.06, 0.08),
    n_chains: int = 256,
    tau_therm: float = 20.0,
    tau_run: float = 100.0,
    tau_measure: float = 0.5,
    order: int = 1,
    seed: int,
    n_threads: int | None = None,
) -> StepTable:
    """Langevin runs at several step sizes h and equal Langevin time, and their limit h -> 0.

    Each size runs `n_chains` chains of its own random numbers for `tau_therm` (thrown away) and `tau_run`,
    measured every `tau_measure` (times rounded up to whole measurements): phi2 = <phi^2>, abs_m = <|M|>,
    s = <S>/V, g0 = V <M^2>.  Errors are those of independent chain means.  Chains start hot (normal numbers)
    and cold (1 everywhere) in turn; that tau_therm is long enough is for the caller to see to.  Raises
    `InputError` as `langevin_update` and `extrapolate_step` do, for fewer than 16 chains and for times that
    are not positive.
    """
    sizes = tuple(float(h) for h in steps)
    extrapolate_step(sizes, np.zeros(len(sizes)), np.ones(len(sizes)), order)  # refuse early
    check_shape(shape)
    if n_chains < MIN_CHAINS:
        raise InputError(f"n_chains must be >= {MIN_CHAINS} for errors from chain means, got {n_chains}")
    for name, tau in (("tau_therm", tau_therm), ("tau_run", tau_run), ("tau_measure", tau_measure)):
        if not (math.isfinite(tau) and tau > 0):
            raise InputError(f"{name} must be a positive Langevin time, got {tau}")
    means = []
    for i, h in enumerate(sizes):
        chains = np.arange(i * n_chains, (i + 1) * n_chains)  # no noise in common: the points are independent
        phi = normals(seed, START, chains, 0, math.prod(shape)).reshape(n_chains, *shape)
        phi[1::2], total = 1.0, np.zeros((4, n_chains))
        n = max(1, round(tau_measure / h))
        n_therm, n_run = (math.ceil(tau / (n * h) * (1 - 1e-12)) for tau in (tau_therm, tau_run))
        for t in range(n_therm + n_run):
            phi, _ = langevin_update(
                action, phi, seed=seed, chains=chains, trajectory=t, step=h, n_steps=n, n_threads=n_threads
            )
            total += _observables(action, phi) if t >= n_therm else 0.0
        means.append(total / n_run)
    data = np.stack(means, axis=1)  # (4, n_sizes, n_chains)
    value, error = data.mean(axis=2), data.std(axis=2, ddof=1) / math.sqrt(n_chains)
    limits = {k: extrapolate_step(sizes, v, e, order) for k, v, e in zip(NAMES, value, error, strict=True)}
    return StepTable(sizes, dict(zip(NAMES, value)), dict(zip(NAMES, error)), limits)


def _observables(action: Action, phi: Floats) -> Floats:
    flat = phi.reshape(len(phi), -1)
    m, s = flat.mean(axis=1), action.action(torch.from_numpy(phi)).numpy() / flat.shape[1]
    return np.stack([(flat * flat).mean(axis=1), np.abs(m), s, flat.shape[1] * m * m])


def _check(
    seed: int, chains: NDArray[np.int64], trajectory: int, n: int, shape: tuple[int, ...], step: float,
    n_steps: int,
) -> NDArray[np.uint64]:  # fmt: skip
    check_shape(shape)
    keys = check_counters(seed, chains, trajectory)
    if len(keys) != n:
        raise InputError(f"chains must name every field: {n} fields, {len(keys)} chains")
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"Langevin step must be a positive number, got {step}")
    if not (n_steps >= 1 and n_steps * math.prod(shape) < 2**32):
        raise InputError(f"n_steps must be >= 1 and n_steps * V < 2^32, got {n_steps} on {tuple(shape)}")
    return keys


def _refuse_runaways(first: NDArray[np.int64], keys: NDArray[np.uint64], step: float, traj: int) -> None:
    lost = np.flatnonzero(first >= 0)
    if lost.size:
        c = lost[0]
        raise InputError(
            f"Langevin ran away in {lost.size} of {len(first)} chains: chain {keys[c]} is not finite after "
            f"step {first[c]} of trajectory {traj}; use a step below {step:g}, or metropolis=True"
        )
