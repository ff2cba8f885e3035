"""The law of the magnetisation in one reverse step: one Gaussian, or two, one per sign of M.

One Gaussian has the variance c_n(0) of any mode. The components of two have bridge + rho^2 v(z) C(0)/<v>: the
posterior variances given each sign in the one-mode table, a function of the noisy zero mode z, that of the
likely sign scaled by what the model leaves open over what the table does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.zero_mode import ZeroModeDenoiser, ZeroModePosterior, log_gauss

DEFENSIVE = 1.05  # variance of the unlikely component, relative
N_NODES, REACH = 801, 6.0  # of the quadrature over the noisy zero mode


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
    posterior: ZeroModePosterior, d0: Tensor, rho: Tensor, bridge: Tensor, scale: Tensor
) -> tuple[Tensor, ZeroModeLaw]:
    """How far the likely one of two components is from rho (D - x), and the law about it.

    d0 (n,) the zero mode of the denoiser; rho, bridge: fraction of the way to D, and variance of the bridge,
    of the step; scale: of the posterior variance of the likely component, C(0) of the model over that of the
    table. The likely component has mean d1, (1 - q) d1 + q (minor mean) = d0.
    """
    q = posterior.q
    major = (d0 - q * posterior.minor_mean) / (1 - q)
    minor = DEFENSIVE * (bridge + rho**2 * posterior.minor_variance)
    variance = bridge + rho**2 * scale * posterior.major_variance
    return rho * (major - d0), ZeroModeLaw(q, variance, rho * (posterior.minor_mean - major), minor)


def table_variance(zero_mode: ZeroModeDenoiser, sigma: Tensor) -> Tensor:
    """Mean posterior variance of the zero mode in its one-mode table, over noisy z: sigma (n,) -> (n,).

    By quadrature over `N_NODES` values of z, `REACH` noise widths beyond the table.
    """
    found, centre = [], zero_mode.centre
    for one in sigma:
        top = centre.abs().max() + REACH * torch.sqrt(one**2 + zero_mode.width2)
        z = top * torch.linspace(-1, 1, N_NODES, dtype=centre.dtype, device=centre.device)
        exponent = zero_mode.log_p - (z[:, None] - centre) ** 2 / (2 * (zero_mode.width2 + one**2))
        weight = torch.softmax(torch.logsumexp(exponent, 1), 0)
        found.append((weight * zero_mode.posterior(z, one.expand(N_NODES)).variance).sum())
    return torch.stack(found)
