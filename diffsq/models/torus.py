r"""A learned score of noisy U(1) links on the circle, that knows no lifts: a network of plaquettes and loops.

The law of noisy links is a function of their plaquettes, so that the score is the curl of a plaquette field,
a_mu -> sum of +- u(p) over the two plaquettes of a link, whatever u: gauge invariant, blind to holonomies.
Charge conjugation and reflections turn the sign of every theta_p and of u, rotations move them: u is odd in
theta and made of kernels that are the same in all eight orientations. With psi(theta) the mean of the lifts
of a plaquette of variance v = s + 4 sigma^2,

    sigma^2 u = sum_j K_j * f_j + network,    f = -psi/v (1 and 1/(s + sigma^2 k^2)), sin theta, sin 2 theta,
                                              sin of the loops 2 x 2 (four of them averaged) and 3 x 3

K_j polynomials in ln(1 + k^2) and ln sigma, the network two layers of 3 x 3 kernels, odd times even fields.
It is trained by denoising score matching at one beta. At another, u is taken times

    "propagator"  the change of the Gaussian law, (b/b_0) (1 + b_0 sigma^2 k^2)/(1 + b sigma^2 k^2)
    "published"   beta/beta_0 (Zhu et al. 2410.19602), which is right at sigma = 0 alone.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffsq.models.gauge import curl_of
from diffsq.models.momentum import Momenta, chebyshev
from diffsq.models.plaquette_law import N_IMAGES
from diffsq.process.torus import SIGMA_MAX
from lattice.actions.u1 import circulation
from lattice.arrays import wrapped
from lattice.errors import InputError

VERSION = 1  # of the function for given weights: raise it with any change
N_FEATURES, N_K, N_SIGMA = 6, 4, 8
N_EVEN = 5
Rescaling = Literal["propagator", "published"]


class Isotropic(nn.Module):
    """A 3 x 3 periodic convolution whose kernel is the same in all eight orientations, without a bias."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, c_out, c_in))  # centre, edges, corners

    def forward(self, x: Tensor) -> Tensor:
        edges = x.roll(1, -1) + x.roll(-1, -1)
        up = x.roll(1, -2) + x.roll(-1, -2)
        corners = edges.roll(1, -2) + edges.roll(-1, -2)
        rings = torch.stack([x, edges + up, corners], 1)
        return torch.einsum("roi,nrixy->noxy", self.weight, rings)


class TorusNetwork(nn.Module):
    """Odd and even plaquette fields to an odd one: (n, c, L0, L1); t (n,) is the noise in [-1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        even, odd = N_EVEN + 1, N_FEATURES
        self.linear = nn.Parameter(torch.zeros(N_FEATURES, N_K, N_SIGMA))
        self.gate1, self.odd1 = Isotropic(even, channels), Isotropic(odd, channels)
        self.gate2, self.odd2 = Isotropic(2 * channels, channels), Isotropic(channels, channels)
        self.bias1, self.bias2 = (nn.Parameter(torch.zeros(N_SIGMA, channels)) for _ in range(2))
        self.out = Isotropic(channels, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """He's law for all but the last layer and the linear part, which stay zero."""
        for layer in (self.gate1, self.odd1, self.gate2, self.odd2):
            size = math.sqrt(1 / (9 * layer.weight.shape[2]))
            layer.weight.data.copy_(size * torch.randn(layer.weight.shape, generator=generator))
        for bias in (self.bias1, self.bias2):
            bias.data[0] = 1.0

    def forward(self, odd: Tensor, even: Tensor, t: Tensor) -> Tensor:
        """The network's part alone, without the linear one."""
        waves = chebyshev(t, N_SIGMA).T.to(odd.dtype)
        even = torch.cat([even, t.to(odd.dtype)[:, None, None, None].expand_as(even[:, :1])], 1)
        first = nn.functional.silu(self.gate1(even) + (waves @ self.bias1)[..., None, None])
        h = self.odd1(odd) * first
        gate = nn.functional.silu(
            self.gate2(torch.cat([first, h * h], 1)) + (waves @ self.bias2)[..., None, None]
        )
        found: Tensor = self.out(self.odd2(h) * gate + h)[:, 0]
        return found


class TorusScore(nn.Module):
    """Score of noisy links (n, 2, L0, L1) on the circle; `beta` and `spread` s_V of what it was trained on.

    variance (n_sigma, n_class): of a transverse link mode about the mean of a reverse step, as a fraction of
    that of the noise, measured after training; 1 before.
    """

    def __init__(
        self, shape: tuple[int, ...], channels: int, beta: float, spread: float, sigma_min: float
    ) -> None:
        super().__init__()
        self.momenta, self.shape = Momenta(shape), tuple(shape)
        self.network = TorusNetwork(channels)
        self.known = nn.Buffer(torch.tensor([beta, spread, sigma_min], dtype=torch.float64))
        self.about: dict[str, Any] = {}

    @property
    def sizes(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "channels": self.network.channels}

    @property
    def beta(self) -> float:
        return float(self.known[0])

    @property
    def span(self) -> tuple[float, float]:
        """sigma_min and sigma_max that it knows."""
        return float(self.known[2]), SIGMA_MAX

    def place(self, sigma: Tensor) -> Tensor:
        """ln sigma (n,) in [-1, 1] between both ends."""
        low, high = (math.log(end) for end in self.span)
        return (2 * (sigma.log() - low) / (high - low) - 1).clamp(-1, 1)

    def plaquette_field(self, theta: Tensor, sigma: Tensor) -> Tensor:
        """sigma^2 u (n, L0, L1) float32 of plaquettes theta (n, L0, L1), whatever their lifts, at sigma
        (n,)."""
        p, v = self.momenta, (self.known[1] + 4 * sigma**2)[:, None, None]
        psi = lift_mean(wrapped(theta), v)
        coulomb = 1 / (self.known[1] + sigma[:, None] ** 2 * p.khat2)
        loop2, loop3 = around(theta)
        s2 = sigma[:, None, None] ** 2
        local = [-psi * s2 / v, theta.sin(), (2 * theta).sin(), loop2, loop3]
        wide = -p.fields(p.modes(psi) * p.expand(coulomb)) * s2
        odd = torch.stack([wide, *local], 1).float()
        even = torch.stack([theta.cos(), (2 * theta).cos(), psi**2 / v, wide**2, local[0] ** 2], 1).float()
        t = self.place(sigma)
        network = self.network(odd, even, t)
        kernels = torch.einsum(
            "jab,ak,nb->njk", self.network.linear, p.chebyshev(N_K).float(), chebyshev(t, N_SIGMA).T.float()
        )
        linear = (p.modes(odd) * p.expand(kernels)).sum(1)
        size = (s2 / v).float()[:, 0, 0]  # of the score: it vanishes with sigma, and e^{-v/2} beyond
        base = self.base(odd, sigma)
        found: Tensor = base + (p.fields(linear) + network) * size[:, None, None]
        return found

    def base(self, odd: Tensor, sigma: Tensor) -> Tensor:
        """What is known before training: Coulomb's at small noise, one plaquette alone at large."""
        share = torch.sigmoid(4 * (self.known[1] + 4 * sigma**2 - 2.5)).float()[:, None, None]
        return odd[:, 0] * (1 - share) + odd[:, 1] * share

    def score(
        self, links: Tensor, sigma: Tensor, beta: float | None = None, rescaling: Rescaling = "propagator"
    ) -> Tensor:
        """grad ln p (n, 2, L0, L1) float64 of links at sigma (n,), at another beta by `rescaling`."""
        u = self.plaquette_field(circulation(links), sigma).double()
        if beta is not None and beta != self.beta:
            u = self.rescaled(u, sigma, beta, rescaling)
        return curl_of(u) / (sigma**2)[:, None, None, None]

    def rescaled(self, u: Tensor, sigma: Tensor, beta: float, rescaling: Rescaling) -> Tensor:
        """u of beta_0 as that of beta."""
        ratio, p = beta / self.beta, self.momenta
        if rescaling == "published":
            return ratio * u
        if rescaling != "propagator":
            raise InputError(f"rescaling is propagator or published, got {rescaling!r}")
        noise = sigma[:, None] ** 2 * p.khat2
        factor = ratio * (1 + self.beta * noise) / (1 + beta * noise)
        return p.fields(p.modes(u) * p.expand(factor))


def lift_mean(theta: Tensor, v: Tensor) -> Tensor:
    """E[theta + 2 pi n] of a normal law of variance v, wrapped angles theta (...), v like them."""
    images = theta[..., None] + 2 * math.pi * torch.arange(-N_IMAGES, N_IMAGES + 1, dtype=theta.dtype)
    return (torch.softmax(-0.5 * images**2 / v[..., None], -1) * images).sum(-1)


def around(theta: Tensor) -> tuple[Tensor, Tensor]:
    """sin of the four loops 2 x 2 around a plaquette, averaged, and of the loop 3 x 3: (n, L0, L1) each."""
    row = theta + theta.roll(-1, -1)
    square = (row + row.roll(-1, -2)).sin()
    square = square + square.roll(1, -1)
    rows = theta + theta.roll(1, -1) + theta.roll(-1, -1)
    return (square + square.roll(1, -2)) / 4, (rows + rows.roll(1, -2) + rows.roll(-1, -2)).sin()
