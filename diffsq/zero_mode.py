"""The zero mode z = sqrt(V) M alone: its denoiser, and its reverse step, where one Gaussian is not enough.

Between the two peaks of P(M) the sign of the clean zero mode is undecided and its posterior bimodal: a
Gaussian step gives the less likely side a vanishing probability, and equilibrium paths that took it an
unbounded weight. With q the probability of the less likely sign in the one-mode model, the residual
about the mean of the step is

    (1 - q) N(0, v) + q N(shift, v'),

the means of both components such that (without local modulation of the variance) the whole has the mean that
the score model predicts.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BEYOND = 1.2  # range of the zero mode's histogram, over the largest |z| seen
TWO_PEAKS = 0.7
EMPTY_BIN = 0.01  # counts: the zero mode may be where no training field was
DEFENSIVE = 1.05  # variance of the unlikely component, relative


class ZeroModeDenoiser(nn.Module):
    """E[z | z + sigma eps] for z = sqrt(V) M alone, from the symmetrised histogram of z in the training
    ensemble.

    Bins of width h are smoothed to Gaussians of variance h^2, for which the posterior mean is closed-form.
    """

    centre: Tensor
    log_p: Tensor
    width2: Tensor

    def __init__(self, n_bins: int = 200) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(n_bins, dtype=torch.float64))
        self.register_buffer("log_p", torch.zeros(n_bins, dtype=torch.float64))
        self.register_buffer("width2", torch.ones((), dtype=torch.float64))

    def fit(self, z: Tensor) -> None:
        """Set the histogram from the zero modes z (n,) of the training fields."""
        n_bins = len(self.centre)
        top = BEYOND * float(z.abs().max())
        width = 2 * top / n_bins
        counts = torch.histc(torch.cat([z, -z]).double(), n_bins, -top, top) + EMPTY_BIN
        self.centre.copy_((torch.arange(n_bins, dtype=torch.float64) + 0.5) * width - top)
        self.log_p.copy_(torch.log(counts / counts.sum()))
        self.width2.fill_(width**2)

    def two_peaks(self) -> bool:
        """Whether P(M) is split or flat: <|z|>^2/<z^2> is 0.64 for a Gaussian and 1 for two sharp peaks."""
        p = self.log_p.exp()
        return bool((p * self.centre.abs()).sum() ** 2 > TWO_PEAKS * (p * self.centre**2).sum() * p.sum())

    def _components(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior probabilities and means of the bins (n, n_bins), and the variance inside a bin (n,)."""
        variance = (self.width2 + sigma**2)[:, None]
        offset = z[:, None] - self.centre
        p = torch.softmax(self.log_p - offset**2 / (2 * variance), 1)
        return p, self.centre + self.width2 / variance * offset, self.width2 * sigma**2 / variance[:, 0]

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Noisy z (n,), sigma (n,) -> posterior mean (n,)."""
        p, inside, _ = self._components(z, sigma)
        return (p * inside).sum(1)

    def posterior(self, z: Tensor, sigma: Tensor) -> "ZeroModePosterior":
        """Posterior of the clean zero mode given noisy z (n,), sigma (n,), split by its sign."""
        p, inside, within = self._components(z, sigma)
        positive = (p * (self.centre > 0)).sum(1)
        side = torch.where(positive < 0.5, 1.0, -1.0).to(p.dtype)  # the sign that is less likely
        minor = p * (self.centre * side[:, None] > 0)
        q = minor.sum(1)

        def mean_variance(w: Tensor) -> tuple[Tensor, Tensor]:
            w = w / w.sum(1, keepdim=True).clamp_min(1e-300)
            mean = (w * inside).sum(1)
            return mean, (w * (inside - mean[:, None]) ** 2).sum(1) + within

        return ZeroModePosterior(q, *mean_variance(minor), mean_variance(p - minor)[1], mean_variance(p)[1])


@dataclass
class ZeroModePosterior:
    """The less likely sign of the clean zero mode: probability q, mean and variance; all (n,).

    `major_variance` is the variance given the other sign, `variance` that of the whole posterior.
    """

    q: Tensor
    minor_mean: Tensor
    minor_variance: Tensor
    major_variance: Tensor
    variance: Tensor


def log_gauss(z: Tensor, variance: Tensor) -> Tensor:
    """log N(z; 0, variance)."""
    return -0.5 * (z**2 / variance + torch.log(2 * math.pi * variance))


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
