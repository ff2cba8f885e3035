"""The law of the magnetisation in one reverse step: one Gaussian, or two, one per sign of M."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.zero_mode import ZeroModePosterior, log_gauss

DEFENSIVE = 1.05  # variance of the unlikely component, relative


@dataclass
class ZeroModeLaw:
    """Residual of the zero mode about the step's mean, (1 - q) N(0, variance) + q N(shift, minor)."""

    q: Tensor
    variance: Tensor
    shift: Tensor
    minor: Tensor

    def draw(self, white: Tensor) -> Tensor:
        """A residual from a standard normal number, part of which is spent on the choice of component."""
        u = torch.special.ndtr(-white.abs()) * 2  # uniform, and independent of the sign of `white`
        unlikely = u < self.q
        rest = torch.where(unlikely, u / self.q.clamp_min(1e-300), (u - self.q) / (1 - self.q))
        z = -torch.special.ndtri((0.5 * rest).clamp_min(1e-300)) * white.sign()
        z = torch.where(self.q > 0, z, white)
        return torch.where(unlikely, self.shift + self.minor.sqrt() * z, self.variance.sqrt() * z)

    def log_density(self, z: Tensor) -> Tensor:
        """Logarithm of the density at z: (n,) -> (n,)."""
        main = torch.log1p(-self.q) + log_gauss(z, self.variance)
        return torch.logaddexp(main, self.q.log() + log_gauss(z - self.shift, self.minor))


def zero_mode_law(
    posterior: ZeroModePosterior, d0: Tensor, rho: Tensor, bridge: Tensor, two_peaks: bool
) -> tuple[Tensor, ZeroModeLaw]:
    """How far the likely component is from rho (D - x), and the law about it with the posterior's variance.

    d0 (n,) the zero mode of the denoiser; rho, bridge: fraction of the way to D, and variance of the bridge,
    of the step. With `two_peaks` the likely component has mean d1, (1 - q) d1 + q (minor mean) = d0.
    """
    if not two_peaks:
        zero = torch.zeros_like(d0)
        return zero, ZeroModeLaw(zero, posterior.variance, zero, torch.ones_like(d0))
    q = posterior.q
    major = (d0 - q * posterior.minor_mean) / (1 - q)
    minor = DEFENSIVE * (bridge + rho**2 * posterior.minor_variance)
    law = ZeroModeLaw(q, posterior.major_variance, rho * (posterior.minor_mean - major), minor)
    return rho * (major - d0), law


def fit_variance(z: Tensor, law: ZeroModeLaw, bridge: Tensor) -> tuple[float, float, Tensor]:
    """Likelihood fit of variance c (1 + slope (v - <v>)) to residuals z (n,), v the variance of `law`.

    slope = a (1 - bridge/c)/<v>: a = 1 if all of the posterior part of the variance follows v. Returns a,
    <v> and c.
    """
    v, mean = law.variance, law.variance.mean()
    best = (-math.inf, 0.0, mean)
    for a in torch.linspace(0, 1, 11, dtype=torch.float64).tolist():
        c = (z**2).mean() if not bool((law.q > 0).any()) else ((1 - law.q) * z**2).mean()
        for _ in range(4):  # expectation-maximisation: c from the samples that belong to the likely component
            share = (1 - bridge / c).clamp(0, 0.999)
            spread = 1 + a * share * (v / mean - 1)
            trial = ZeroModeLaw(law.q, c * spread, law.shift, law.minor)
            ours = torch.exp(torch.log1p(-law.q) + log_gauss(z, trial.variance) - trial.log_density(z))
            c = (ours * z**2 / spread).sum() / ours.sum()
        trial = ZeroModeLaw(law.q, c * spread, law.shift, law.minor)
        best = max(best, (float(trial.log_density(z).mean()), a, c))
    return best[1], float(mean), best[2]
