"""The posterior of one site in the mean field of its neighbours: local, bounded features from the action.

Given x = phi + sigma eps, the field at one site with its neighbours at the values mu has the density

    p(phi) ~ exp[-a phi^2 - lam phi^4 + h phi],    h = x/sigma^2 + 2 kappa sum_nb mu,
    a = 1 - 2 lam + 1/(2 sigma^2) - 1/2 (2 kappa)^2 n_nb v,

v the variance that the neighbours keep (their fluctuation of h, integrated out as Gaussian). Its mean m(h)
and variance are one-dimensional integrals, tabulated; from the Wiener filter mu = W x, m(h) is iterated
towards a fixed point. Where the quartic term is strong (lam = 1/2) this is what the posterior mean looks
like at small sigma, and log Var is its local width, with no free parameter. h is clamped: all is bounded.
"""

import torch
from torch import Tensor, nn

N_POINTS = 1025  # of h in the tables
N_QUADRATURE = 2001
N_ITERATIONS = 3


class SitePosterior(nn.Module):
    """Mean and log-variance of the site posterior, tabulated at `n_sigma` noise levels; zero until `fit`."""

    def __init__(self, n_sigma: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Buffer(torch.zeros(n_sigma, N_POINTS, dtype=torch.float64)) for _ in range(2)
        )
        self.coupling, self.stiffness, self.field_max = (
            nn.Buffer(torch.tensor(value, dtype=torch.float64)) for value in (0.0, 1.0, 0.0)
        )

    def fit(self, kappa: float, lam: float, sigma: Tensor, spread: Tensor, field_max: float) -> None:
        """Fill the tables at sigma (n_sigma,), where neighbours keep the variance `spread` (n_sigma,).

        field_max: |phi| beyond which nothing is resolved.
        """
        self.coupling.fill_(2 * kappa)
        self.stiffness.fill_(max(8 * abs(kappa), 1.0))
        self.field_max.fill_(field_max)
        phi = 2 * field_max * torch.linspace(-1, 1, N_QUADRATURE, dtype=sigma.dtype, device=sigma.device)
        a = 1 - 2 * lam + 0.5 / sigma**2 - 0.5 * (2 * kappa) ** 2 * 4 * spread
        y = self._reach() * torch.linspace(-1, 1, N_POINTS, dtype=sigma.dtype, device=sigma.device)
        for node, (quadratic, scale) in enumerate(zip(a, self._scale(sigma), strict=True)):
            p = torch.softmax(scale * y[:, None] * phi - quadratic * phi**2 - lam * phi**4, 1)
            mean = (p * phi).sum(1)
            self.mean[node] = mean
            self.log_variance[node] = (p * (phi - mean[:, None]) ** 2).sum(1).clamp_min(1e-12).log()

    def _scale(self, sigma: Tensor) -> Tensor:
        """Unit of h. In y = h/scale, a weighted mean of x and the neighbours, m hardly moves with sigma.

        At fixed h it goes like sigma^2, and interpolating it between noise levels would be off by per cents.
        """
        return 1 / sigma**2 + self.stiffness

    def _reach(self) -> Tensor:
        """The largest y of the tables: largest field and four sigma of noise, weighted, at any sigma."""
        return self.field_max + 2 / self.stiffness.sqrt()

    def forward(self, x: Tensor, mu: Tensor, sigma: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy x and first guess mu (n, L0, L1), sigma (n,) or (1,), its position among the nodes.

        Returns the bounded features mu_3 - mu, mu_3 - mu_2, mu_2 - mu_1 of the iteration, (n, 3, L0, L1), and
        the log-variance of each site (n, L0, L1), float32 like all features.
        """
        low = position.long().clamp(0, len(self.mean) - 2)
        part = position - low
        y_step = self._reach() / (0.5 * (N_POINTS - 1))
        scale = (1 / (y_step * self._scale(sigma))).float()[:, None, None]
        mean, log_variance = (
            torch.lerp(table[low], table[low + 1], part[:, None]).float().flatten()
            for table in (self.mean, self.log_variance)
        )
        first_entry = N_POINTS * torch.arange(len(low), device=x.device)[:, None, None]
        own = (x / sigma[:, None, None] ** 2).float() * scale
        pull = self.coupling.float() * scale
        mu = mu.float().clamp(-float(self.field_max), float(self.field_max))
        seen = [mu]
        for _ in range(N_ITERATIONS):
            last = seen[-1]
            near = last.roll(1, -1) + last.roll(-1, -1) + last.roll(1, -2) + last.roll(-1, -2)
            h = torch.addcmul(own, pull, near)  # in table steps; the mean is odd to the last bit
            place = (h.abs() + 0.5 * (N_POINTS - 1)).clamp_(max=N_POINTS - 1)
            left = place.nan_to_num(0.0).long().clamp_(max=N_POINTS - 2)
            rest = place - left  # NaN stays NaN here, for those who look for it
            left = (left + first_entry).flatten()
            seen.append(torch.copysign(look_up(mean, left, rest), h))
        width = look_up(log_variance, left, rest)
        return torch.stack([seen[3] - mu, seen[3] - seen[2], seen[2] - seen[1]], 1), width


def look_up(table: Tensor, left: Tensor, part: Tensor) -> Tensor:
    """Linear interpolation: table (m,), left flat indices, part (n, L0, L1) the fraction of the way on."""
    low, high = table.index_select(0, left), table.index_select(0, left + 1)
    return torch.lerp(low, high, part.flatten()).reshape(part.shape)
