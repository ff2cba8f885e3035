"""The zero mode z = sqrt(V) M alone: its denoiser, and its reverse step, where one Gaussian is not enough.

Between the two peaks of P(M) the sign of the clean zero mode is undecided and its posterior bimodal: a
Gaussian step gives the less likely side a vanishing probability, and equilibrium paths that took it an
unbounded weight. With q the probability of the less likely sign in the one-mode model, the residual
about the mean of the step is

    (1 - q) N(0, v) + q N(shift, v'),

the means of both components such that the whole has the mean that the score model predicts.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TWO_PEAKS = 0.7
BETWEEN = 0.5  # the peaks: |M| below this share of <|M|>
BEYOND = 1.2  # range of the zero mode's table, over the largest |z| seen
NEWTON = 50
EMPTY_BIN = 0.01  # counts: the zero mode may be where no training field was
N_POWERS = 8  # polynomials of ln P(z), of z^2 or of z: P(M) is e^{-V U(M)}, U smooth, its tails unseen


class ZeroModeDenoiser(nn.Module):
    """E[z | z + sigma eps] for z = sqrt(V) M alone, from the law of z in the training ensemble.

    `symmetric`: of z and -z. ln P is the polynomial of largest likelihood; its values in bins of width h are
    taken as Gaussians of variance h^2, for which the posterior mean is closed-form.
    """

    def __init__(self, n_bins: int = 200, symmetric: bool = True) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.centre = nn.Buffer(torch.zeros(n_bins, dtype=torch.float64))
        self.log_p = nn.Buffer(torch.zeros(n_bins, dtype=torch.float64))
        self.width2 = nn.Buffer(torch.ones((), dtype=torch.float64))

    def fit(self, z: Tensor) -> None:
        """Set the table from the zero modes z (n,) of the training fields."""
        n_bins = len(self.centre)
        top = BEYOND * float(z.abs().max())
        width = 2 * top / n_bins
        counts = torch.histc(z.double(), n_bins, -top, top)
        if self.symmetric:
            counts = (counts + counts.flip(0)) / 2
        self.centre.copy_((torch.arange(n_bins, dtype=torch.float64) + 0.5) * width - top)
        p = most_likely(counts.cpu(), 2 if self.symmetric else 1) + EMPTY_BIN / float(counts.sum())
        self.log_p.copy_((p / p.sum()).log())
        self.width2.fill_(width**2)

    def two_peaks(self) -> bool:
        """Whether P(M) is split or flat: <|z|>^2/<z^2> is 0.64 for a Gaussian and 1 for two sharp peaks."""
        p = self.log_p.exp()
        return bool((p * self.centre.abs()).sum() ** 2 > TWO_PEAKS * (p * self.centre**2).sum() * p.sum())

    def between(self) -> float:
        """Probability that |M| is far below its mean, between the two peaks if there are two: as the smooth
        law says, without what no bin is emptier than."""
        p, z = self.log_p.exp(), self.centre.abs()
        p = (p - p.min()) / (p - p.min()).sum()
        return float(p[z < BETWEEN * (p * z).sum()].sum())

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

    def mean_and_slope(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior mean and its derivative d/dz, the posterior variance over sigma^2: (n,) each."""
        p, inside, within = self._components(z, sigma)
        mean = (p * inside).sum(1)
        variance = (p * (inside - mean[:, None]) ** 2).sum(1) + within
        return mean, variance / sigma**2

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


def most_likely(counts: Tensor, step: int) -> Tensor:
    """The law p (n_bins,) with ln p a polynomial in the bins of largest likelihood, by Newton's method.

    counts (n_bins,); of the N_POWERS lowest multiples of `step` as powers. The likelihood is concave.
    """
    n_bins = len(counts)
    at = (torch.arange(n_bins, dtype=torch.float64) + 0.5) * 2 / n_bins - 1
    t = torch.stack([torch.cos(step * j * torch.arccos(at)) for j in range(1, N_POWERS + 1)])  # Chebyshev's
    seen = counts / counts.sum()
    a = t.new_zeros(N_POWERS)

    def law(a: Tensor) -> tuple[Tensor, float]:
        log_p = torch.log_softmax(a @ t, 0)
        return log_p.exp(), float(seen @ log_p)

    p, likelihood = law(a)
    for _ in range(NEWTON):
        away = t - (t @ p)[:, None]
        slope = t @ (seen - p)
        ridge = 1e-12 * torch.eye(N_POWERS, dtype=t.dtype)
        move, part = torch.linalg.solve((away * p) @ away.T + ridge, slope), 1.0
        while not (found := law(a + part * move))[1] >= likelihood and part > 1e-3:
            part /= 2
        if not found[1] >= likelihood:
            break
        a, (p, likelihood) = a + part * move, found
    return p


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
