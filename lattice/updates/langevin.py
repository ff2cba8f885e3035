"""Stochastic quantization: Langevin dynamics in a fifth time tau (Parisi, Wu, Sci. Sin. 24 (1981) 483),

    dphi = -dS/dphi dtau + sqrt(2) dW,

by Euler-Maruyama, phi' = phi - h dS/dphi + sqrt(2 h) eta (Ito, order 1).  That samples S + (h/4) sum_x
[2 d^2S/dphi_x^2 - (dS/dphi_x)^2] + O(h^2) in place of S (Batrouni et al., PRD 32 (1985) 2736), a bias which
`lattice.simulation.stochastic_quantization` removes; with lam > 0 fields beyond phi^2 ~ 1/(2 lam h) run away
at any h, which small steps make rare.  With an accept step (MALA: Roberts, Tweedie, Bernoulli 2 (1996) 341)
it is exact at any h. MALA is HMC of one leapfrog step of size sqrt(2 h), its momenta the noise: the logarithm
of the proposal ratio is the change of p^2/2, so that -dH is the logarithm of the acceptance ratio.

Random numbers: (seed, "langevin/noise", chain, trajectory), at position step * V + site, and (seed,
"langevin/accept", chain, trajectory), at position step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import normals, stream_id, uniforms
from lattice.updates.batch import check_batch
from lattice.updates.kernels import langevin as langevin_kernels
from lattice.updates.kernels import layout

NOISE, ACCEPT = "langevin/noise", "langevin/accept"


@dataclass(frozen=True)
class LangevinInfo:
    """accepted (n, n_steps) bool; dH (n, n_steps) = -ln(acceptance ratio).  All True and None without one."""

    dH: Floats | None  # noqa: N815 - the field's name
    accepted: NDArray[np.bool_]


def langevin_update(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, step: float,
    n_steps: int = 1, metropolis: bool = False, n_threads: int | None = None, block: int | None = None,
    compiled: bool = True,
) -> tuple[Floats, LangevinInfo]:  # fmt: skip
    """`n_steps` steps of size `step` in tau: phi (n, *components, *shape) -> (phi', info); the input is left
    alone.

    With `metropolis` each step is accepted or rejected, and one whose energy is not finite is rejected.
    Every number depends on (seed, chain, trajectory) only, never on the batch, the block or the threads; an
    action other than phi^4, and any with compiled=False, is moved in plain tensors: the same up to rounding.
    Raises `InputError` for bad shapes, dtypes, counters or steps, and, without the accept step, where a
    field runs away (it names the first such chain and its step, counted from 0).

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> phi, info = langevin_update(ScalarPhi4(0.27, 0.022), np.zeros((2, 4, 4)), seed=1, chains=np.arange(2),
    ...                             trajectory=0, step=0.05, n_steps=10, metropolis=True)
    >>> phi.shape, info.dH.shape, bool(info.accepted.mean() > 0.5)
    ((2, 4, 4), (2, 10), True)
    """
    phi, keys = check_batch(action, phi, seed, chains, trajectory)
    n, shape = len(phi), phi.shape[1:]
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"Langevin step must be a positive number, got {step}")
    if not (n_steps >= 1 and n_steps * math.prod(shape) < 2**32):
        raise InputError(f"n_steps must be >= 1 and n_steps * V < 2^32, got {n_steps} on {tuple(shape)}")
    form = action.phi4 if compiled else None
    if form is None:
        noise = normals(seed, NOISE, chains, trajectory, n_steps * math.prod(shape))
        noise, u = noise.reshape(n, n_steps, *shape), uniforms(seed, ACCEPT, chains, trajectory, n_steps)
        new, info, runaway = _by_tensors(action, torch.from_numpy(phi), noise, u, step, metropolis)
        _refuse_runaways(runaway, keys, step, trajectory)
        return new.numpy(), info
    flat = phi.reshape(n, -1)
    out, runaway = np.empty_like(flat), np.full(n, -1, dtype=np.int64)
    dh, accepted = np.empty((n, n_steps if metropolis else 0)), np.ones((n, n_steps), dtype=np.bool_)

    def run(start: int, stop: int) -> None:
        langevin_kernels.langevin_block(
            flat, out, dh, accepted, runaway, keys, start, stop, shape[-1],
            layout.neighbour_table(shape[:-1]), form.kappa, form.lam, float(step), n_steps, metropolis,
            np.uint64(seed), np.uint64(stream_id(NOISE)), np.uint64(stream_id(ACCEPT)), np.uint64(trajectory),
        )  # fmt: skip

    layout.in_blocks(run, n, block or (32 if phi[0].size <= 2048 else 16), n_threads)
    _refuse_runaways(runaway, keys, step, trajectory)
    return out.reshape(phi.shape), LangevinInfo(dh if metropolis else None, accepted)


def _by_tensors(
    action: Action, phi: Tensor, noise: Floats, u: Floats, step: float, metropolis: bool
) -> tuple[Tensor, LangevinInfo, Integers]:
    """The same steps in plain tensors: noise (n, n_steps, *fields), u (n, n_steps); and the runaways (n,).

    The acceptance is written as the ratio of proposal densities, where the kernel computes dH of a leapfrog
    step: their equality is tested.
    """
    n, n_steps = u.shape
    dh, accepted = np.empty((n, n_steps)), np.ones((n, n_steps), dtype=np.bool_)
    runaway = np.full(n, -1, dtype=np.int64)
    for k in range(n_steps):
        eta = torch.from_numpy(noise[:, k])
        new = phi - step * action.grad(phi) + math.sqrt(2.0 * step) * eta
        if metropolis:
            back = phi - new + step * action.grad(new)  # sqrt(2 h) times the noise of the reverse move
            ratio = (back * back / (4.0 * step) - 0.5 * eta * eta).flatten(1).sum(1)
            dh[:, k] = (action.action(new) - action.action(phi) + ratio).numpy()
            with np.errstate(over="ignore"):
                accepted[:, k] = np.isfinite(dh[:, k]) & (u[:, k] < np.exp(-dh[:, k]))
            keep = torch.from_numpy(accepted[:, k].copy())
            phi = torch.where(keep.reshape(n, *[1] * (phi.dim() - 1)), new, phi)
        else:
            phi = new
            lost = ~torch.isfinite(phi).flatten(1).all(1).numpy()
            runaway[lost & (runaway < 0)] = k
    return phi, LangevinInfo(dh if metropolis else None, accepted), runaway


def _refuse_runaways(first: Integers, keys: NDArray[np.uint64], step: float, traj: int) -> None:
    lost = np.flatnonzero(first >= 0)
    if lost.size:
        c = lost[0]
        raise InputError(
            f"Langevin ran away in {lost.size} of {len(first)} chains: chain {keys[c]} is not finite after "
            f"step {first[c]} of trajectory {traj}; use a step below {step:g}, or metropolis=True"
        )
