"""The reverse chain of lattice fields: steps with momentum-space variance, exact weights of their paths.

With rho_n = Delta_n / sigma_{n+1}^2 in the notation of diffsq.sampling.reverse_chain

    reverse   R(x_n | x_{n+1}) = N(x_{n+1} + rho_n (D(x_{n+1}) - x_{n+1}),  c_n(k))
              c_n(k) = rho_n sigma_n^2 + rho_n^2 C(k),   the zero mode as in diffsq.sampling.zero_mode_step
    start     p(x_N)           = N(0, G(k) + sigma_N^2)

c_n(k) is diagonal in momentum space: the Brownian bridge, and the mean squared error C(k) of the denoiser at
sigma_{n+1} as the model itself states it. Where it says too how the posterior of x_{n+1} spreads over the
sites (diffsq.models.spread), the modes k != 0 of a residual are those of M z, z of that diagonal law. Nothing
is measured on fields, so R is a function of the model and the levels. The U-Net is evaluated in one lattice
frame per step, drawn once for all paths, forward and reverse: part of the definition of R.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import Momenta
from diffsq.models.spread import Spread, share_of
from diffsq.models.symmetry import Symmetry
from diffsq.models.zero_mode import log_gauss
from diffsq.sampling.reverse_chain import Law, ReverseChain
from diffsq.sampling.zero_mode_step import ZeroModeLaw, table_variance, zero_mode_law
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError

VERSION = 6  # of the law R: raise it with any change, so that no folder mixes samples of two laws


class ReversePath(ReverseChain):
    """Forward and reverse chains of one score model; fields (n, *shape) float64.

    levels (N + 1,) float64; variance (N, n_class) is c_n(k). two_peaks: whether the zero mode has two
    components; zero_scale (N,): C(0) of the model over that of the one-mode table; share (N,): of the
    posterior in the variance of a site.
    """

    def __init__(self, model: LatticeScore, levels: Tensor) -> None:
        self.model, self.momenta, self.levels = model, model.momenta, levels
        posterior, zero_mode = model.posterior_variance(levels[1:]), model.base.zero_mode
        self.rho = (levels[1:] ** 2 - levels[:-1] ** 2) / levels[1:] ** 2
        self.bridge = self.rho * levels[:-1] ** 2
        self.variance = self.bridge[:, None] + self.rho[:, None] ** 2 * posterior
        self.share = share_of(self.momenta, self.rho[:, None] ** 2 * posterior, self.variance)
        self.zero_scale = posterior[:, 0] / table_variance(zero_mode, levels[1:])
        self.two_peaks = zero_mode.two_peaks()

    @property
    def n_levels(self) -> int:
        """N."""
        return len(self.levels) - 1

    def start(self, level: int = -1) -> "ModeGaussian":
        """N(0, G(k) + sigma^2)."""
        return ModeGaussian(self.momenta, self.model.base.g + self.levels[level] ** 2)

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> "ReverseStep":
        """R(x_n | x_{n+1} = x)."""
        sigma, rho = self.levels[n + 1].expand(len(x)), self.rho[n]
        xk = self.momenta.modes(x)
        d, spread = self.model.posterior(xk, sigma, frame)
        mean, zero = xk + rho * (d - xk), None
        if self.two_peaks:
            posterior = self.model.base.zero_mode.posterior(xk[..., 0, 0].real, sigma)
            shift, zero = zero_mode_law(posterior, d[..., 0, 0].real, rho, self.bridge[n], self.zero_scale[n])
            mean[..., 0, 0] += shift
        spread = None if spread is None else spread.of_step(self.share[n])
        return ReverseStep(self.momenta, mean, self.variance[n], zero, spread)


@dataclass(frozen=True)
class ModeGaussian(Law):
    """N(0, variance (n_class,) of each mode)."""

    momenta: Momenta
    variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        return self.momenta.colour(noise, self.variance)

    def log_density(self, x: Tensor) -> Tensor:
        return self.momenta.log_normal(self.momenta.modes(x), self.variance)


@dataclass
class ReverseStep(Law):
    """R( . | x_{n+1}): mean (n, *half), c_n (n_class,), the law of the zero mode where it has one of its own,
    and how the residual spreads over the sites where that is known."""

    momenta: Momenta
    mean: Tensor
    variance: Tensor
    zero: ZeroModeLaw | None
    spread: Spread | None = None

    def draw(self, noise: Tensor) -> Tensor:
        """A field from white noise (n, *shape)."""
        p = self.momenta
        white = p.modes(noise)
        residual = white * p.expand(self.variance).sqrt()
        if self.zero is not None:
            residual[..., 0, 0] = self.zero.draw(white[..., 0, 0].real).to(white.dtype)
        if self.spread is None:
            return p.fields(self.mean + residual)
        return p.fields(self.mean) + self.spread.spread(p.fields(residual))

    def residual(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Modes of z, of which x less the mean was made, N(0, c_n(k)) but for the zero mode, and ln |dx/dz|
        (n,)."""
        p = self.momenta
        z = p.modes(x) - self.mean
        if self.spread is None:
            return z, torch.zeros_like(z[..., 0, 0].real)
        z, log_det = self.spread.gather(p.fields(z))
        return p.modes(z), log_det

    def log_density(self, x: Tensor) -> Tensor:
        """log R(x | x_{n+1}): (n,)."""
        z, log_det = self.residual(x)
        return self.momenta.log_normal(z, self.variance) + self.own(z[..., 0, 0].real) - log_det

    def own(self, z: Tensor) -> Tensor:
        """What the zero mode's own law adds to ln N(z; 0, c_n(0)): residuals z (n,) -> (n,)."""
        if self.zero is None:
            return torch.zeros_like(z)
        return self.zero.log_density(z) - log_gauss(z, self.variance[0])


def path_from(samples: Ensemble, model: LatticeScore, device: torch.device) -> ReversePath:
    """The path that drew `samples`; `model`, on `device`, must be the one that they were made with.

    Raises `InputError` for samples of another method than "path", or of another version of its law.
    """
    made = samples.attrs.get("generated") or {}
    if made.get("sampler") != "path":
        raise InputError(f"samples of method {made.get('sampler')} have no path; `diffsq sample` makes it")
    if made.get("law") != VERSION:
        raise InputError(f"samples of version {made.get('law')} of the path, this is {VERSION}; sample again")
    return ReversePath(model, torch.tensor(made["levels"], dtype=torch.float64, device=device))
