r"""Hybrid Monte Carlo of the clean field given a noisy one: phi given x = phi + sigma eps.

    S(phi | x) = S(phi) + |x - phi|^2/(2 sigma^2),      E[phi | x] is what a denoiser has to learn.

A clean field that x was made from is itself a draw of exp(-S(phi|x)), so that chains started there are in
equilibrium from the first step, and their averages unbiased however short. In modes the kinetic term is
p C(k) p/2 with C = G sigma^2/(G + sigma^2), the posterior variance of a Gaussian theory of propagator G,
where all modes then have the period 2 pi: a trajectory of length pi turns phi - E[phi|x] into its negative,
one of pi/2 replaces it. Neal, in Handbook of Markov Chain Monte Carlo (2011), section 5.4.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lattice.actions.protocol import Action
from lattice.arrays import Integers
from lattice.errors import InputError
from lattice.rng import normals, uniforms
from lattice.updates.batch import check_chains, check_fields
from lattice.updates.hmc import HMCInfo
from lattice.updates.integrator import evolve

MOMENTUM, ACCEPT, SIGN = "posterior/momentum", "posterior/accept", "posterior/sign"
HALF, QUARTER = math.pi, math.pi / 2


def posterior_trajectory(
    action: Action, phi: Tensor, x: Tensor, sigma: Tensor, covariance: Tensor, *, seed: int, chains: Integers,
    trajectory: int, length: float, n_steps: int, integrator: str = "omelyan2",
) -> tuple[Tensor, HMCInfo]:  # fmt: skip
    """One trajectory of each phi (n, *shape) given x (n, *shape), float64: -> (phi', info).

    sigma (n,); covariance (n, *half) or (1, *half) in the order of `torch.fft.rfftn`, even in every k_mu and
    > 0: any such gives the same law, C the fewest steps. Random numbers from (seed, chain, trajectory), so
    that they are the same whatever the batch. Raises `InputError` for bad shapes, dtypes and counters.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> phi, one = torch.zeros(2, 4, 4, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    >>> posterior_trajectory(ScalarPhi4(0.2, 0.1), phi, phi, one, torch.full((1, 4, 3), 0.3), seed=1,
    ...     chains=np.arange(2), trajectory=0, length=HALF, n_steps=8)[0].shape
    torch.Size([2, 4, 4])
    """
    shape = _checked(action, phi, x, sigma, covariance)
    check_chains(seed, chains, trajectory, len(phi))
    axes, per = tuple(range(-len(shape), 0)), sigma.reshape(-1, *[1] * len(shape)) ** -2

    def in_modes(field: Tensor, weight: Tensor) -> Tensor:
        """F^-1 weight(k) F field."""
        found: Tensor = torch.fft.irfftn(torch.fft.rfftn(field, dim=axes) * weight, s=shape, dim=axes)
        return found

    def velocity(p: Tensor) -> Tensor:
        return in_modes(p, covariance)

    def energy(phi: Tensor, p: Tensor) -> Tensor:
        local = p * velocity(p) + per * (x - phi) ** 2
        return 0.5 * local.flatten(1).sum(1) + action.action(phi)

    white = torch.from_numpy(normals(seed, MOMENTUM, chains, trajectory, phi[0].numel())).to(phi.device)
    p = in_modes(white.reshape(phi.shape), covariance**-0.5)
    new, new_p = evolve(
        lambda f: action.grad(f) + per * (f - x), phi, p, length=length, n_steps=n_steps,
        integrator=integrator, velocity=velocity,
    )  # fmt: skip
    dh = (energy(new, new_p) - energy(phi, p)).cpu().numpy()
    with np.errstate(over="ignore"):
        accepted = np.isfinite(dh) & (uniforms(seed, ACCEPT, chains, trajectory, 1)[:, 0] < np.exp(-dh))
    keep = torch.from_numpy(accepted).to(phi.device).reshape(-1, *[1] * len(shape))
    return torch.where(keep, new, phi), HMCInfo(dh, accepted)


def _checked(action: Action, phi: Tensor, x: Tensor, sigma: Tensor, covariance: Tensor) -> tuple[int, ...]:
    shape = tuple(phi.shape[1:])
    check_fields(action, shape)
    if phi.dtype != torch.float64 or x.dtype != torch.float64 or x.shape != phi.shape or action.components:
        raise InputError(
            f"phi and x must be float64 fields (n, *shape) of one component, got {phi.dtype} "
            f"{list(phi.shape)} and {x.dtype} {list(x.shape)}"
        )
    if sigma.shape != phi.shape[:1] or not bool((sigma > 0).all()):
        raise InputError(f"sigma must be {len(phi)} numbers > 0, one for each field")
    half = (*shape[:-1], shape[-1] // 2 + 1)
    if tuple(covariance.shape) not in ((len(phi), *half), (1, *half)) or not bool((covariance > 0).all()):
        raise InputError(
            f"covariance must be {[1, *half]} or one for each field, > 0, got {list(covariance.shape)}"
        )
    return shape


def posterior_sign(
    phi: Tensor, x: Tensor, sigma: Tensor, *, seed: int, chains: Integers, trajectory: int
) -> tuple[Tensor, Tensor]:
    """The sign of each phi (n, *shape) drawn from its law given |phi| and x, for an even S: (phi', mean sign
    (n,) as seen from phi, tanh(x phi/sigma^2)). Random numbers from (seed, chain, trajectory)."""
    mean = torch.tanh((x * phi).flatten(1).sum(1) / sigma**2)
    u = torch.from_numpy(uniforms(seed, SIGN, chains, trajectory, 1)[:, 0]).to(phi.device)
    sign = torch.where(2 * u - 1 < mean, 1.0, -1.0)
    return phi * sign.reshape(-1, *[1] * (phi.dim() - 1)), mean
