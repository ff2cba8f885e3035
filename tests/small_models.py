"""Score models of small lattices, equilibrium fields and noise for tests of paths and samplers."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from diffsq.models.lattice import LatticeScore, fresh_unet
from diffsq.models.momentum import Momenta, propagator
from diffsq.models.protocol import Noise
from diffsq.models.regression import RegressionBase
from diffsq.models.spread import Spread
from diffsq.models.symmetry import IDENTITY, Symmetry
from lattice.actions.phi4 import ScalarPhi4
from lattice.exact.scalar import free_propagator
from lattice.rng import normals
from lattice.updates.cluster import wolff_update
from lattice.updates.hmc import hmc_trajectory

Shape = tuple[int, ...]


class Scaled(LatticeScore):
    """A score that is wrong by a constant factor."""

    factor = 1.1

    def score(self, x: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> Tensor:
        return self.factor * super().score(x, sigma, frame)


class Shrunk(LatticeScore):
    """A denoiser 20 % too small, which knows its own mean squared error."""

    def denoise(self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> Tensor:
        return 0.8 * super().denoise(xk, sigma, frame)

    def posterior(
        self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY
    ) -> tuple[Tensor, Spread | None]:
        d, spread = super().posterior(xk, sigma, frame)
        return 0.8 * d, spread

    def posterior_variance(self, sigma: Tensor) -> Tensor:
        c = super().posterior_variance(sigma)
        return c + 0.2**2 * (self.base.g - c)  # <|D_k|^2> = G - C of a posterior mean


def noise_of(stream: str, n: int, shape: Shape, seed: int = 1) -> Noise:
    """noise(step) -> (n, *shape), a function of the arguments alone."""

    def draw(step: int) -> Tensor:
        eps = normals(seed, stream, np.arange(n), step, int(np.prod(shape)))
        return torch.from_numpy(eps).reshape(n, *shape)

    return draw


def still(step: int) -> Symmetry:
    """Every step in the frame of the lattice itself."""
    return IDENTITY


def geometric(n: int, low: float, high: float) -> Tensor:
    """0 and n geometric levels up to `high`."""
    rest = (
        torch.logspace(np.log10(low), np.log10(high), n, dtype=torch.float64)
        if n > 1
        else torch.tensor([high])
    )
    return torch.cat([torch.zeros(1, dtype=torch.float64), rest.double()])


def free_model(shape: Shape, kappa: float, sigma_max: float = 8.0) -> LatticeScore:
    """The exact score of the free field."""
    momenta = Momenta(shape)
    g = torch.from_numpy(free_propagator(kappa, shape))[..., : shape[-1] // 2 + 1]
    base = RegressionBase(momenta, 8)
    base.set_gaussian(momenta.class_mean(g), 0.05, sigma_max)
    return LatticeScore(base, None)


@lru_cache(maxsize=8)
def equilibrium(action: ScalarPhi4, shape: Shape, n: int, seed: int = 5, sweeps: int = 20) -> Tensor:
    """n independent fields: as many chains, each after `sweeps` HMC trajectories and cluster updates."""
    chains = np.arange(n)
    phi = normals(seed, "test/start", chains, 0, int(np.prod(shape))).reshape(n, *shape)
    for t in range(sweeps):
        phi, _ = hmc_trajectory(action, phi, seed=seed, chains=chains, trajectory=t, length=2.0, n_steps=8)
        phi, _ = wolff_update(action, phi, seed=seed, chains=chains, trajectory=t)
    sign = np.where(
        normals(seed, "test/sign", chains, 0, 1)[:, :1] > 0, 1.0, -1.0
    )  # a cluster update keeps it too
    return torch.from_numpy(phi * sign.reshape(n, *[1] * len(shape)))


_FITTED: dict[tuple[object, ...], RegressionBase] = {}


def phi4_model(
    action: ScalarPhi4, phi: Tensor, channels: int = 0, n_sigma: int = 20, covariance: int = 0
) -> LatticeScore:
    """The regression base fitted to `phi`; with `channels` an untrained U-Net beside it, which with
    `covariance` sees the posterior of the sites and says how that of x spreads.

    A fit takes seconds, and many tests ask for the same one: it is made once, and each gets a copy.
    """
    shape = tuple(phi.shape[1:])
    key = (action, n_sigma, shape, sha256(phi.numpy().tobytes()).digest())
    if key not in _FITTED:
        momenta = Momenta(shape)
        base = _FITTED[key] = RegressionBase(momenta, n_sigma)
        g = propagator(momenta, phi)
        base.set_gaussian(g, 0.2, 2 * float(g.max()) ** 0.5)
        base.set_action(action, 1.2 * float(phi.abs().max()))
        base.fit(phi, action.grad, noise_of("test/fit", len(phi), shape))
    unet = fresh_unet(channels, 2, covariance, covariance) if channels else None
    return LatticeScore(deepcopy(_FITTED[key]), unet).eval()


def spoil(model: LatticeScore, size: float, seed: int = 2) -> LatticeScore:
    """Random weights of standard deviation `size` in the U-Net's heads: a bad, sizable score error."""
    assert model.unet is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.unet.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
        for head in (model.unet.head.conv, model.unet.zero_mode):
            head.weight.copy_(size * torch.randn(head.weight.shape, generator=generator))
    return model


def levels_of(model: LatticeScore, n: int) -> Tensor:
    """n levels over the model's noise range."""
    return geometric(n, float(model.base.log_sigma[0].exp()), float(model.base.log_sigma[-1].exp()))
