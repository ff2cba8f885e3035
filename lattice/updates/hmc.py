"""Hybrid Monte Carlo, batched over chains (Duane, Kennedy, Pendleton, Roweth, PLB 195 (1987) 216).

H = p^2/2 + S, momenta from the stream (seed, "hmc/momentum", chain, trajectory), the accept step's uniform
from (seed, "hmc/accept", chain, trajectory).  Exact for any step size; a trajectory whose energy is not
finite is rejected.  With an inverse mass A(k) the kinetic term is p A p/2 (`lattice.updates.fourier`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lattice.actions.protocol import Action
from lattice.actions.u1 import U1, as_links, refuse_complex
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import normals, stream_id, uniforms
from lattice.updates.batch import check_batch, check_chains, check_fields
from lattice.updates.fourier import check_inverse_mass, in_real_basis, real_basis
from lattice.updates.integrator import evolve, schedule
from lattice.updates.kernels import fourier as fourier_kernels
from lattice.updates.kernels import hmc as hmc_kernels
from lattice.updates.kernels import layout
from lattice.updates.kernels import u1 as u1_kernels

MOMENTUM, ACCEPT = "hmc/momentum", "hmc/accept"


@dataclass(frozen=True)
class HMCInfo:
    """What one trajectory did: dH (n,) = H' - H in float64, accepted (n,) bool."""

    dH: Floats  # noqa: N815 - the field's name
    accepted: NDArray[np.bool_]

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(n,) False where the trajectory ran off to a non-finite energy (and was rejected)."""
        return np.isfinite(self.dH)


def hmc_trajectory(
    action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int, length: float, n_steps: int,
    integrator: str = "omelyan2", inverse_mass: Floats | None = None, n_threads: int | None = None,
    block: int | None = None,
) -> tuple[Floats, HMCInfo]:  # fmt: skip
    """One trajectory of every chain: phi (n, *components, *shape) -> (phi', info); the input is left alone.

    `chains` (n,) name the random streams and `trajectory` their step, so the same names give the same
    fields, bit for bit, whatever the batch, the block of chains moved together or the number of threads
    (default: every processor of this process).  `inverse_mass` (*shape), in the order of `numpy.fft.fftn`
    and even in every k_mu, accelerates the slow modes (`lattice.updates.fourier`); `length` is then in its
    units. An action other than phi^4 and U(1) is moved by `hmc_trajectory_torch`, where the batch may change
    last bits. Angles end in (-pi, pi]. Raises `InputError` for bad shapes, dtypes, counters, inverse masses
    or integrator settings, and where S is complex.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> phi, info = hmc_trajectory(ScalarPhi4(0.27, 0.022), np.zeros((2, 4, 4)), seed=1, chains=np.arange(2),
    ...                            trajectory=0, length=1.0, n_steps=5)
    >>> phi.shape, bool(np.abs(info.dH).max() < 1)
    ((2, 4, 4), True)
    """
    phi, keys = check_batch(action, phi, seed, chains, trajectory)
    form, links = action.phi4, as_links(action)
    if form is None and (links is None or inverse_mass is not None):
        new, info = hmc_trajectory_torch(
            action, torch.from_numpy(phi), seed=seed, chains=chains, trajectory=trajectory, length=length,
            n_steps=n_steps, integrator=integrator, inverse_mass=inverse_mass,
        )  # fmt: skip
        return new.numpy(), info
    kicks, drifts = schedule(integrator, length, n_steps)
    n, shape = len(phi), phi.shape[1:]
    flat = phi.reshape(n, -1)
    out, dh, accepted = np.empty_like(flat), np.empty(n), np.empty(n, dtype=np.bool_)
    update: Callable[..., None] = hmc_kernels.hmc_block
    couplings: tuple[Any, ...] = ()
    extra: tuple[Any, ...] = ()
    if form is not None:
        couplings = (shape[-1], layout.neighbour_table(shape[:-1]), form.kappa, form.lam)
    elif links is not None:
        update, couplings = u1_kernels.hmc_block, (layout.neighbour_table(shape[1:]), links.beta.real)
    if inverse_mass is not None:
        modes = in_real_basis(check_inverse_mass(inverse_mass, shape))
        update, extra = fourier_kernels.hmc_block_fourier, (modes, modes**-0.5, *real_basis(shape))

    def run(start: int, stop: int) -> None:
        update(
            flat, out, dh, accepted, keys, start, stop, *couplings, kicks, drifts, np.uint64(seed),
            np.uint64(stream_id(MOMENTUM)), np.uint64(stream_id(ACCEPT)), np.uint64(trajectory), *extra,
        )  # fmt: skip

    layout.in_blocks(run, n, block or _block(phi[0].size), n_threads)
    return out.reshape(phi.shape), HMCInfo(dh, accepted)


def hmc_trajectory_torch(
    action: Action, phi: Tensor, *, seed: int, chains: Integers, trajectory: int, length: float, n_steps: int,
    integrator: str = "omelyan2", inverse_mass: Floats | None = None,
) -> tuple[Tensor, HMCInfo]:  # fmt: skip
    """The same update in plain tensors, for any action and device: phi (n, *components, *shape) float64.

    Same random streams, hence equal to the kernel up to rounding.
    """
    if phi.dtype != torch.float64:
        raise InputError(f"phi must be a float64 tensor, got {phi.dtype}")
    n, shape = len(phi), tuple(phi.shape[1:])
    check_fields(action, shape)
    check_chains(seed, chains, trajectory, n)
    if isinstance(action, U1):
        refuse_complex(action)
    momenta = normals(seed, MOMENTUM, chains, trajectory, phi[0].numel())
    p = torch.from_numpy(momenta).to(phi.device).reshape(phi.shape)
    velocity = _identity
    if inverse_mass is not None:
        mass = torch.from_numpy(check_inverse_mass(inverse_mass, action.lattice_of(shape))).to(phi.device)
        p, velocity = _multiply_modes(p, mass**-0.5), lambda p: _multiply_modes(p, mass)
    new, new_p = evolve(
        action.grad, phi, p, length=length, n_steps=n_steps, integrator=integrator, velocity=velocity
    )
    h0, h1 = (
        0.5 * (a * velocity(a)).flatten(1).sum(1) + action.action(f) for f, a in ((phi, p), (new, new_p))
    )
    dh = (h1 - h0).cpu().numpy()
    with np.errstate(over="ignore"):
        accepted = np.isfinite(dh) & (uniforms(seed, ACCEPT, chains, trajectory, 1)[:, 0] < np.exp(-dh))
    keep = torch.from_numpy(accepted).to(phi.device).reshape(n, *[1] * len(shape))
    moved = torch.where(keep, new, phi)
    return (_wrapped(moved, action.period) if action.field == "angle" else moved), HMCInfo(dh, accepted)


def _wrapped(angle: Tensor, period: float | None) -> Tensor:
    """In (-period/2, period/2], by default of 2 pi."""
    p = period or 2 * math.pi
    w = angle - p * ((angle - p / 2) / p).ceil()
    return torch.where(w <= -p / 2, w + p, w).clamp(max=p / 2)


def _block(n_sites: int) -> int:
    """Chains moved together, a choice of speed and never of results: they should stay in cache."""
    return 32 if n_sites <= 2048 else max(4, 2**16 // n_sites)


def _identity(p: Tensor) -> Tensor:
    return p


def _multiply_modes(x: Tensor, weight: Tensor) -> Tensor:
    """F^-1 weight(k) F x: x (n, *components, *shape), weight (*shape) even in k."""
    axes = tuple(range(-weight.dim(), 0))
    product: Tensor = torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * weight, dim=axes).real
    return product
