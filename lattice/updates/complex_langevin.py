r"""Complex Langevin: the stochastic process of a complex action in the complex plane of each variable,

    dz = K dt + sqrt(2 N_R) dW_R + i sqrt(2 N_I) dW_I,    K = -S'(z),    N_R = 1 + N_I,   N_I >= 0

(Parisi, Phys. Lett. B 131 (1983) 393; Klauder, Phys. Rev. A 29 (1984) 2036; with imaginary noise: Aarts,
Seiler, Stamatescu 0912.3360).  Averages of holomorphic functions of z are those of the weight exp(-S) on
the real axis, if the law of z falls off fast enough: whether it does is judged by
`lattice.certificates.complex_langevin`.

Every update moves each chain by exactly the Langevin time tau, so that stored fields are equally spaced and
averages need no weights.  The substeps are adaptive, chain by chain (Aarts, James, Seiler, Stamatescu
0912.0617): eps = step * min(1, drift_scale/max_x |K_x|), the last one cut to end on tau; drift_scale = None
is a fixed step.  Two schemes:

    euler   z' = z + eps K(z) + w                                        averages wrong by O(eps)
    heun    z' = z + eps/2 [K(z) + K(z + eps K(z) + w)] + w              by O(eps^2) (additive noise)

Re z of an action with a `period` is brought back into [-period/2, period/2) at the end of an update, and
links of two-dimensional U(1) into the gauge nearest to real ones (`lattice.updates.gauge_cooling`), of which
neither the drift nor any loop knows.

Random numbers: (seed, "complex_langevin/real" or "/imaginary", chain, trajectory) at position
substep * V + site; V counts the links where z has components.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lattice.actions.protocol import Action, says_itself
from lattice.actions.u1 import U1
from lattice.arrays import Complexes, Floats, Integers, complex_array
from lattice.errors import InputError
from lattice.rng import normals, stream_id
from lattice.updates.batch import check_chains
from lattice.updates.gauge_cooling import has_orbits, in_its_gauge
from lattice.updates.kernels import complex_langevin as kernels
from lattice.updates.kernels import layout

REAL, IMAGINARY = "complex_langevin/real", "complex_langevin/imaginary"
ESCAPE = 1e3  # an excursion with |K| above this many drift scales is an escape
LIMIT = 1e8  # |x| or |y| beyond which a chain counts as lost
STUCK = 1e3  # and links whose substeps are shorter than the step by this, over a whole trajectory
Scheme = Literal["heun", "euler"]


class Runaway(InputError):
    """A chain left the range of numbers; the line names it, the trajectory and the substep."""


@dataclass(frozen=True)
class ComplexInfo:
    """Per chain, each (n,): the largest |K| of any site and substep, the numbers of substeps, of those made
    shorter by the drift, and of escapes (upward crossings of |K| = escape)."""

    drift: Floats
    substeps: Integers
    shrunken: Integers
    escapes: Integers


@dataclass(frozen=True)
class _Run:
    """What one update needs besides the fields, checked."""

    keys: NDArray[np.uint64]
    seed: int
    trajectory: int
    tau: float
    step: float
    scale: float
    escape: float
    most: int
    noise: tuple[float, float]
    heun: bool


def complex_langevin_update(
    action: Action, z: Complexes, *, seed: int, chains: Integers, trajectory: int, tau: float, step: float,
    drift_scale: float | None = None, imaginary_noise: float = 0.0, scheme: Scheme = "heun",
    escape: float | None = None, n_threads: int | None = None, compiled: bool = True,
) -> tuple[Complexes, ComplexInfo]:  # fmt: skip
    """Langevin time `tau` of every chain: z (n, *shape) complex128 -> (z', info); the input is left alone.

    A one-variable model has z (n,), links of U(1) have z (n, 2, L0, L1). `escape` is the |K| above which an
    excursion counts as an escape, by default `ESCAPE` drift scales (none are counted with a fixed step).
    Every number depends on (seed, chain, trajectory) only, never on the batch or the threads. An action
    without a compiled drift of its own, and any with compiled=False, is moved in plain tensors: the same up
    to rounding. Raises `InputError` for bad shapes, dtypes, counters, steps or noise, and where a chain runs
    away: a site that is not finite or beyond 1e8, or links that are stuck where the drift is large; the line
    names the first such chain, the trajectory and the substep, counted from 0.

    >>> from lattice.actions.one_variable import ComplexQuartic
    >>> z, info = complex_langevin_update(ComplexQuartic(1 + 1j, 1.0), np.zeros(3, complex), seed=1,
    ...                                   chains=np.arange(3), trajectory=0, tau=1.0, step=0.1)
    >>> z.shape, info.substeps.tolist(), info.escapes.tolist()
    ((3,), [10, 10, 10], [0, 0, 0])
    """
    z, given = complex_array(z, "z"), getattr(z, "dtype", None)
    if given != np.complex128 or z.ndim < 1:
        raise InputError(f"complex fields must be complex128 (n, *shape), got {given} {z.shape}")
    run = _check(z, seed, chains, trajectory, tau, step, drift_scale, imaginary_noise, scheme, escape)
    if has_orbits(action):
        run = replace(run, most=math.ceil(STUCK * tau / step))
    drift = _compiled_drift(action, z.shape[1:]) if compiled else None
    if drift is None:
        new, info = _by_tensors(action, torch.from_numpy(z), run)
        return new.numpy(), info
    n = len(z)
    flat = np.ascontiguousarray(z).reshape(n, -1)
    out, largest = np.empty_like(flat), np.zeros(n)
    counts, runaway = np.zeros((n, 3), dtype=np.int64), np.full(n, -1, dtype=np.int64)

    def part(start: int, stop: int) -> None:
        kernels.complex_block(
            flat, out, largest, counts, runaway, run.keys, start, stop, *drift, run.tau, run.step, run.scale,
            run.escape, LIMIT, run.most, *run.noise, run.heun, np.uint64(seed), np.uint64(stream_id(REAL)),
            np.uint64(stream_id(IMAGINARY)), np.uint64(trajectory),
        )  # fmt: skip

    layout.in_blocks(part, n, max(1, -(-n // (4 * layout.available_threads(n_threads)))), n_threads)
    _refuse_runaways(runaway, run)
    return wrapped(action, in_its_gauge(action, out.reshape(z.shape))), _info(largest, counts)


def _compiled_drift(action: Action, shape: tuple[int, ...]) -> tuple[Any, Any, Any, Any, Any, int] | None:
    """(rows, a1, a3, hop, beta, form) of the kernel's drift of fields (n, *shape), or None."""
    if isinstance(action, U1) and says_itself(action, "kind"):
        theta_term = 1j * action.theta / (2 * math.pi)
        return _plaquettes(shape[1:]), theta_term, 0.0, 0.0, complex(action.beta), kernels.LINKS
    form = action.derivative if says_itself(action, "derivative") else None
    if form is None:
        return None
    rows = layout.neighbour_table(shape) if form.hop and shape else np.empty((1, 0), dtype=np.uint64)
    kind = kernels.SINE if form.sine != 0 else kernels.POWERS
    return rows, complex(form.linear), form.cubic, form.hop, complex(form.sine), kind


@functools.lru_cache(maxsize=32)
def _plaquettes(shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """The flat numbers of the links of `circulation`, (V, 4): the first two forwards, the others back."""
    a0, a1 = np.arange(2 * math.prod(shape), dtype=np.uint64).reshape(2, *shape)
    links = (a0, np.roll(a1, -1, -2), np.roll(a0, -1, -1), a1)
    return np.ascontiguousarray(np.stack([link.ravel() for link in links], axis=1))


def _by_tensors(action: Action, z: Tensor, run: _Run) -> tuple[Tensor, ComplexInfo]:
    """The loop of the kernel, all chains at once: z (n, *shape)."""
    n, volume = len(z), math.prod(z.shape[1:])
    noise, per_site = _Noise(run, tuple(z.shape)), (n, *[1] * (z.dim() - 1))
    t, largest = np.zeros(n), np.zeros(n)
    counts, outside, active = np.zeros((n, 3), dtype=np.int64), np.zeros(n, bool), np.ones(n, bool)
    runaway, k = np.full(n, -1, dtype=np.int64), 0
    while active.any():
        drift = -action.grad(z)
        size = drift.abs().reshape(n, max(1, volume)).amax(dim=1).numpy()
        largest = np.where(active, np.fmax(largest, size), largest)
        counts[:, 2] += active & (size > run.escape) & ~outside
        outside = np.where(active, size > run.escape, outside)
        with np.errstate(divide="ignore", invalid="ignore"):
            eps = np.where(size > run.scale, run.step * (run.scale / size), run.step)
        last = eps >= (run.tau - t) * (1.0 - 1e-9)
        counts[:, 1] += active & ~last & (eps < run.step)
        eps = np.where(active, np.where(last, run.tau - t, eps), 0.0)
        h = torch.from_numpy(eps).reshape(per_site)
        w = h.sqrt() * noise(k)
        new = z + h * drift + w
        if run.heun:
            new = z + 0.5 * h * (drift - action.grad(new)) + w
        z = torch.where(torch.from_numpy(active).reshape(per_site), new, z)
        counts[:, 0] += active
        flat = torch.view_as_real(z).reshape(n, -1)
        lost = active & (~(flat.abs() < LIMIT).all(dim=1).numpy() | (k >= run.most))
        runaway[lost] = k
        active, t, k = active & ~last & ~lost, t + eps, k + 1
    _refuse_runaways(runaway, run)
    return torch.from_numpy(wrapped(action, in_its_gauge(action, z.numpy()))), _info(largest, counts)


def _info(largest: Floats, counts: Integers) -> ComplexInfo:
    return ComplexInfo(largest, counts[:, 0], counts[:, 1], counts[:, 2])


class _Noise:
    """w(k): the noise of substep k with its widths, complex (n, *shape)."""

    def __init__(self, run: _Run, shape: tuple[int, ...]) -> None:
        self.run, self.shape, self.have = run, shape, 0
        self.volume = math.prod(shape[1:])

    def __call__(self, k: int) -> Tensor:
        while k >= self.have:
            self.have = max(2 * self.have, math.ceil(self.run.tau / self.run.step) + 1)
            size = self.have * self.volume
            run, chains = self.run, self.run.keys.astype(np.int64)
            self.re, self.im = (
                width * normals(run.seed, name, chains, run.trajectory, size)
                for width, name in zip(run.noise, (REAL, IMAGINARY), strict=True)
            )
        part = slice(k * self.volume, (k + 1) * self.volume)
        return torch.from_numpy(self.re[:, part] + 1j * self.im[:, part]).reshape(self.shape)


def wrapped(action: Action, z: Complexes) -> Complexes:
    """z with Re z in [-period/2, period/2) where the action has a period."""
    if action.period is None:
        return z
    half = 0.5 * action.period
    x = np.remainder(z.real + half, action.period) - half
    return np.asarray(x + 1j * z.imag)


def largest_drift(action: Action, z: Complexes) -> Floats:
    """max_x |S'(z)_x| of each field z (n, *shape) -> (n,)."""
    size: Floats = np.abs(action.grad(torch.from_numpy(z)).numpy())
    return np.asarray(size.reshape(len(z), -1).max(axis=1))


def _check(
    z: Complexes, seed: int, chains: Integers, trajectory: int, tau: float, step: float,
    scale: float | None, imaginary_noise: float, scheme: str, escape: float | None,
) -> _Run:  # fmt: skip
    keys = check_chains(seed, chains, trajectory, len(z))
    for name, value in (("tau", tau), ("step", step), ("drift_scale", 1.0 if scale is None else scale)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} of complex Langevin must be a positive number, got {value}")
    if not (math.isfinite(imaginary_noise) and imaginary_noise >= 0):
        raise InputError(f"imaginary_noise must be a number >= 0, got {imaginary_noise}")
    if scheme not in ("heun", "euler"):
        raise InputError(f"scheme must be 'heun' or 'euler', got {scheme!r}")
    limit = escape if escape is not None else math.inf if scale is None else ESCAPE * scale
    return _Run(
        keys=keys, seed=seed, trajectory=trajectory, tau=float(tau), step=float(step),
        scale=math.inf if scale is None else float(scale), escape=float(limit), most=2**31,
        noise=(math.sqrt(2.0 * (1.0 + imaginary_noise)), math.sqrt(2.0 * imaginary_noise)),
        heun=scheme == "heun",
    )  # fmt: skip


def _refuse_runaways(first: Integers, run: _Run) -> None:
    lost = np.flatnonzero(first >= 0)
    if lost.size:
        c = lost[0]
        what = f"not finite or beyond {LIMIT:g}" if first[c] < run.most else "stuck at a large drift"
        raise Runaway(
            f"complex Langevin ran away in {lost.size} of {len(first)} chains: chain {run.keys[c]} is {what} "
            f"after substep {first[c]} of trajectory {run.trajectory}; "
            f"use a step below {run.step:g}" + (", or an adaptive one" if math.isinf(run.scale) else "")
        )
