r"""Targets of score matching averaged over the posterior: E[phi|x] itself, with a little noise left.

A field phi that x = phi + sigma eps was made from is a draw from the posterior e^{-S - |x-phi|^2/2 sigma^2},
so that the mean of phi and of dS/dphi along a short chain that starts there has the expectation E[.|x], and
a fraction of the variance. Trajectories of half a period of the Gaussian posterior alternate with those of a
quarter: the first turn phi - E[phi|x] into its negative, so that pairs of fields average to E[phi|x] itself
where the theory is free, and nearly where the noise is small; the second forget. Of an even action the sign
is summed over, tanh(x phi/sigma^2) phi: 1 but for large noise, where it costs the pairs what it gains where
two signs are likely. Modes softer than SOFT <phi^2> are no longer Gaussian: they move as if they were as
stiff.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffsq.models.regression import RegressionBase
from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.updates.posterior import HALF, QUARTER, posterior_sign, posterior_trajectory

STEP = 0.4  # of the integrator, where the period is 2 pi
SOFT = 4.0  # largest C(k) in units of <phi^2>


@dataclass(frozen=True)
class PosteriorMeans:
    """Means along chains given x: phi, grad = dS/dphi (n, *shape); last (n, *shape): where they ended;
    acceptance of the trajectories (n,)."""

    phi: Tensor
    grad: Tensor
    last: Tensor
    acceptance: Floats


def posterior_means(
    base: RegressionBase, action: Action, phi: Tensor, x: Tensor, sigma: Tensor, n_traj: int, *, seed: int,
    chains: Integers, first: int = 0,
) -> PosteriorMeans:  # fmt: skip
    """Averages over the start phi (n, *shape) and n_traj fields after it, in pairs if n_traj is odd.

    x (n, *shape), sigma (n,). Random numbers first ... first + n_traj of `chains` (n,).
    Raises `InputError` for n_traj < 0.
    """
    if n_traj < 0:
        raise InputError(f"n_traj must be >= 0, got {n_traj}")
    p = base.momenta
    phi2 = (p.multiplicity * base.g).sum() / p.volume
    covariance = p.expand(base.wiener(sigma)[1].clamp(max=float(SOFT * phi2)))
    total, force, accepted = torch.zeros_like(phi), torch.zeros_like(phi), np.zeros(len(phi))
    for number in range(n_traj + 1):
        if number:
            length = HALF if number % 2 else QUARTER
            steps, trajectory = round(length / STEP), first + number - 1
            phi, info = posterior_trajectory(
                action, phi, x, sigma, covariance, seed=seed, chains=chains, trajectory=trajectory,
                length=length, n_steps=steps,
            )  # fmt: skip
            accepted += info.accepted / n_traj
        seen, weight = phi, torch.ones_like(sigma)
        if action.even:
            phi, weight = posterior_sign(phi, x, sigma, seed=seed, chains=chains, trajectory=first + number)
        weight = weight.reshape(-1, *[1] * (phi.dim() - 1))
        total, force = total + weight * seen, force + weight * action.grad(seen)
    return PosteriorMeans(total / (n_traj + 1), force / (n_traj + 1), phi, accepted)
