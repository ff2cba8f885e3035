"""The score model: D(x, sigma) = W x + sqrt(C) [regression base + periodic U-Net], score = (D - x)/sigma^2.

Wiener filter and regression are closed-form (base.py); the U-Net is a residual on them, in units of the
Wiener posterior standard deviation sqrt(C), so that an untrained network is the regression and a Gaussian
theory is exact before any training. Everything is odd under phi -> -phi; lattice symmetries that the U-Net
lacks (odd translations, reflections, exchange of axes) are restored by evaluating it on a transformed copy,
see `Symmetry`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from diffsq.models.features import bounded
from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.models.spread import Spread
from diffsq.models.symmetry import IDENTITY, Symmetry, shared
from diffsq.models.unet import UNet
from lattice.errors import InputError

VERSION = 6  # of the function D for given weights: raise it with any change
N_CHANNEL, N_CONDITION = 4, 8  # inputs of the U-Net
N_SITE = 2  # and those from the posterior of a site, where the action is known


class LatticeScore(nn.Module):
    """Preconditioned score network for one lattice shape and one coupling point.

    `unet` = None leaves the closed-form base. `sector`: a second base, of the fluctuations of one sign of M
    alone, for the probability flow; None where P(M) has no sharp peaks. `gain` (n_sigma, n_class) is the
    further fraction of the Wiener
    posterior variance that the U-Net explains, measured on training data after the fit. `about` says what a
    trained model was trained on (its model.json).
    """

    def __init__(self, base: RegressionBase, unet: UNet | None, sector: RegressionBase | None = None) -> None:
        super().__init__()
        self.base = base
        self.unet = unet
        self.sector = sector
        self.gain = nn.Buffer(torch.zeros_like(base.explained))
        self.about: dict[str, Any] = {}

    @classmethod
    def unfitted(
        cls, shape: Sequence[int], n_sigma: int, channels: int = 0, n_levels: int = 1, sector: int = 0,
        network: int = 0, site: int = 0, covariance: int = 0,
    ) -> "LatticeScore":  # fmt: skip
        """Empty tables for a lattice, those of a sector if sector = 1, a U-Net with fresh weights unless
        channels = 0, a network with a closed trace of `network` channels, zero, unless that is 0.

        site = 1: the U-Net sees the posterior of each site; covariance = 1: it says how that of x spreads.
        """
        if covariance and any(extent % 2 for extent in shape):
            raise InputError(f"couplings of even and odd sites need even extents, got {list(shape)}")
        unet = fresh_unet(channels, n_levels, site, covariance) if channels else None
        momenta = Momenta(tuple(shape))
        own = RegressionBase(momenta, n_sigma, sector=True) if sector else None
        return cls(RegressionBase(momenta, n_sigma, network=network), unet, own)

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of `unfitted`."""
        network: dict[str, int] = {}
        if (unet := self.unet) is not None:
            network = {"channels": unet.channels, "n_levels": unet.n_levels}
            options = {"site": unet.c_in > N_CHANNEL, "covariance": unet.spread is not None}
            network |= {name: 1 for name, there in options.items() if there}
        sector = {"sector": 1} if self.sector is not None else {}
        closed = {"network": self.base.network.channels} if self.base.network is not None else {}
        return {"shape": list(self.shape), "n_sigma": len(self.base.log_sigma), **network, **sector, **closed}

    @property
    def momenta(self) -> Momenta:
        """The lattice's momentum classes."""
        return self.base.momenta

    @property
    def sigma_data(self) -> Tensor:
        """Standard deviation of the field at a site, sqrt(<phi^2>)."""
        return ((self.momenta.multiplicity * self.base.g).sum() / self.momenta.volume).sqrt()

    @property
    def log_range(self) -> float:
        """ln(sigma_max^2/sigma_min^2), the length of the path in the variable of the path KL."""
        return 2 * float(self.base.log_sigma[-1] - self.base.log_sigma[0])

    @property
    def learns_spread(self) -> bool:
        """Whether the U-Net says how the posterior spreads over the sites."""
        return self.unet is not None and self.unet.spread is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """The lattice."""
        return self.momenta.shape

    def condition(self, u: Tensor, sigma: Tensor) -> Tensor:
        """Even conditioning vector of the U-Net: noise level and squared magnetisation: (n, N_CONDITION)."""
        low, high = self.base.log_sigma[0], self.base.log_sigma[-1]
        t = (2 * (sigma.log() - low) / (high - low) - 1).float()
        m2 = bounded(u.mean((-1, -2)) ** 2, 3.0)
        angles = [math.pi * n * t / 2 for n in (1, 2)]
        waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
        return torch.stack([t, *waves, m2, m2 * t, m2 * m2 / 3], -1)

    def network(
        self, x: Tensor, u: Tensor, base: Tensor, sigma: Tensor, symmetry: Symmetry
    ) -> tuple[Tensor, Spread | None]:
        """U-Net output in position space, units of sqrt(C), float32 (n, *shape), and the spread it adds to
        that of the sites."""
        assert self.unet is not None
        scaled = x / rearrange(torch.sqrt(self.sigma_data**2 + sigma**2), "n -> n 1 1")
        mean = bounded(u.mean((-1, -2), keepdim=True), 3.0).expand_as(u)
        inputs = [scaled.float(), u, mean, self.momenta.fields(base).float()]
        site, one = None, sigma[:1] if sigma.stride(0) == 0 else sigma  # without waiting for a device
        if self.base.site.known and (self.unet.c_in > N_CHANNEL or self.unet.spread is not None):
            site = self.base.site_posterior(self.momenta.modes(x), one)
        if self.unet.c_in > N_CHANNEL:
            assert site is not None
            ratio = site[1] / site[1].mean((-1, -2), keepdim=True).clamp_min(1e-300)
            inputs += [site[0].float(), bounded(ratio.float()) * u]  # odd, as all that a network sees
        out, fields = self.unet.evaluate(symmetry(torch.stack(inputs, 1)), self.condition(u, sigma))
        if fields is None:
            return symmetry.inverse(out), None
        own = 0.0 if site is None else symmetry(self.log_variance(site[1], one))
        return symmetry.inverse(out), Spread.of(own + fields[:, 0], fields[:, 1:], symmetry)

    def denoise(self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> Tensor:
        """D(x, sigma) in momentum space: xk (n, *half) complex128 modes of x, sigma (n,) -> like xk."""
        return self._denoise(xk, sigma, frame)[0]

    def posterior(
        self, xk: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY
    ) -> tuple[Tensor, Spread | None]:
        """D(x, sigma), as `denoise`, and how the posterior of x spreads over the sites: as the U-Net says, or
        the action alone; None where neither does."""
        d, spread = self._denoise(xk, sigma, frame)
        return d, self.closed_spread(xk, sigma) if spread is None else spread

    def closed_spread(self, xk: Tensor, sigma: Tensor) -> Spread | None:
        """That of the sites, by the action alone; None where it is not known."""
        if not self.base.site.known or self.momenta.volume == 1:
            return None
        one = shared(sigma)
        return Spread.of(self.log_variance(self.base.site_posterior(xk, one)[1], one))

    def log_variance(self, site: Tensor, sigma: Tensor) -> Tensor:
        """ln of the posterior variance of each site over its mean, from the variances `site` (n, *shape) that
        the sites have where their neighbours are held: what the modes k != 0 have beyond them on average is
        collective, and the same for all."""
        c = self.posterior_variance(sigma)[:, 1:]
        whole = ((self.momenta.multiplicity[1:] * c).sum(1) / (self.momenta.volume - 1))[:, None, None]
        mean = site.mean((-1, -2), keepdim=True)
        return torch.log1p((site - mean) / torch.maximum(mean, whole))

    def _denoise(self, xk: Tensor, sigma: Tensor, frame: Symmetry) -> tuple[Tensor, Spread | None]:
        one = shared(sigma)
        w, c = (self.momenta.expand(q) for q in self.base.wiener(one))
        correction, spread = self.base(xk, one), None
        if self.unet is not None:
            u = self.base.normalised(xk, one)
            local, spread = self.network(self.momenta.fields(xk), u, correction, sigma, frame)
            correction = correction + self.momenta.modes(local.double())
        found: Tensor = w * xk + c.sqrt() * correction
        return found, spread

    def score(self, x: Tensor, sigma: Tensor, frame: Symmetry = IDENTITY) -> Tensor:
        """grad log p_sigma(x), position space: (n, *shape), (n,) -> (n, *shape)."""
        d = self.denoise(self.momenta.modes(x), sigma, frame)
        return (self.momenta.fields(d) - x) / rearrange(sigma, "n -> n 1 1") ** 2

    def posterior_variance(self, sigma: Tensor) -> Tensor:
        """Mean squared error of the denoiser per momentum class: (n,) -> (n, n_class)."""
        _, c = self.base.wiener(sigma)
        explained = self.base.at(self.base.explained + self.gain, sigma)
        return c * (1 - explained).clamp_min(1e-3)


def fresh_unet(channels: int, n_levels: int, site: int = 0, covariance: int = 0) -> UNet:
    """The U-Net of a score model."""
    return UNet(N_CHANNEL + N_SITE * site, N_CONDITION, channels, n_levels, spread=bool(covariance))
