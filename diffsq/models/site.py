"""The posterior of one site in the mean field of its neighbours: local, bounded features from the action.

Given x = phi + sigma eps, the field at one site with its neighbours at the values mu has the density

    p(phi) ~ exp[-a phi^2 - lam phi^4 + h phi],    h = x/sigma^2 + 2 kappa sum_nb mu,
    a = 1 - 2 lam + 1/(2 sigma^2) - 1/2 (2 kappa)^2 n_nb v,

v the variance that the neighbours keep (their fluctuation of h, integrated out as Gaussian). Its mean m(h) is
a one-dimensional integral and dm/dh its variance: both are tabulated, and cubic between the points. From the
Wiener filter mu = W x, m(h) is iterated towards a fixed point. Where the quartic term is strong (lam = 1/2)
this is what the posterior mean looks like at small sigma, with no free parameter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffsq.models import feature_kernels

N_CELLS = 256  # of h > 0 in the tables
N_QUADRATURE = 2001
N_ITERATIONS = 3


class SitePosterior(nn.Module):
    """Mean of the site posterior, tabulated at `n_sigma` noise levels; zero until `fit`.

    table (n_sigma, N_CELLS + 1, 4): coefficients of the cubics in each cell, as a function of y = h/scale,
    y >= 0; beyond, in the last one, m is constant.
    """

    def __init__(self, n_sigma: int) -> None:
        super().__init__()
        self.table = nn.Buffer(torch.zeros(n_sigma, N_CELLS + 1, 4, dtype=torch.float64))
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
        y = self.reach * torch.linspace(0, 1, N_CELLS + 1, dtype=sigma.dtype, device=sigma.device)
        step = self.reach / N_CELLS
        for node, (quadratic, scale) in enumerate(zip(a, self.scale(sigma), strict=True)):
            p = torch.softmax(scale * y[:, None] * phi - quadratic * phi**2 - lam * phi**4, 1)
            mean = (p * phi).sum(1)
            slope = scale * step * (p * (phi - mean[:, None]) ** 2).sum(1)  # per cell
            rise, left, right = mean.diff(), slope[:-1], slope[1:]
            cubic = (mean[:-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise)
            self.table[node, :-1] = torch.stack(cubic, -1)
            self.table[node, -1, 0] = mean[-1]

    @property
    def known(self) -> bool:
        """Whether there are tables."""
        return float(self.field_max) > 0

    def scale(self, sigma: Tensor) -> Tensor:
        """Unit of h. In y = h/scale, a weighted mean of x and the neighbours, m hardly moves with sigma.

        At fixed h it goes like sigma^2, and interpolating it between noise levels would be off by per cents.
        """
        return 1 / sigma**2 + self.stiffness

    @property
    def reach(self) -> Tensor:
        """The largest y of the tables: largest field and four sigma of noise, weighted, at any sigma."""
        return (self.field_max + 2 / self.stiffness.sqrt()).clamp_min(1e-300)


@dataclass
class SiteTable:
    """The tables at one noise level, or one for each sample: cubics (m, N_CELLS + 1, 4), m = 1 or n.

    own, pull (m,): y = own x + pull sum_nb mu; cell: 1/(width of a cell).
    """

    cubics: Tensor
    own: Tensor
    pull: Tensor
    cell: float

    def look_up(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """m and dm/dy at y (n, L0, L1). NaN stays NaN."""
        place = (y.abs() * self.cell).clamp_(max=N_CELLS)
        left = place.long().clamp_(0, N_CELLS)
        t = place - left
        if len(self.cubics) > 1:
            left = left + (N_CELLS + 1) * torch.arange(len(y), device=y.device)[:, None, None]
        found = self.cubics.flatten(0, 1).index_select(0, left.flatten()).reshape(*y.shape, 4)
        c0, c1, c2, c3 = found.unbind(-1)
        value = torch.addcmul(c0, t, torch.addcmul(c1, t, torch.addcmul(c2, t, c3)))
        slope = torch.addcmul(c1, t, torch.addcmul(2 * c2, t, c3, value=3)) * self.cell
        return torch.copysign(value, y), slope

    def iterate(self, x: Tensor, mu: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mu_3 - mu behind the fields `before`, (n, k + 1, L0, L1), and dm/dy of all iterations,
        (n, 3, L0, L1).

        x, first guess mu (n, L0, L1). before (n, k + 1, L0, L1) with room for one more, but none,
        (n, k, L0, L1), where gradients are wanted.
        """
        given = mu.requires_grad or x.requires_grad
        if before is None:
            before = x.new_empty(len(x), 0 if given else 1, *x.shape[1:])
        if x.device.type == "cpu" and len(self.cubics) == 1 and not given:
            return self._compiled(x, mu, before)
        own, pull = (q[:, None, None] for q in (self.own, self.pull))
        first, last, slopes = own * x, mu, list[Tensor]()
        for _ in range(N_ITERATIONS):
            last, slope = self.look_up(torch.addcmul(first, pull, neighbours(last)))
            slopes.append(slope)
        k = before.shape[1] - (0 if given else 1)
        return torch.cat([before[:, :k], (last - mu)[:, None]], 1), torch.stack(slopes, 1)

    def _compiled(self, x: Tensor, mu: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
        slopes = x.new_empty(len(x), N_ITERATIONS, *x.shape[1:])
        arrays = [q.contiguous().numpy() for q in (x, mu, self.cubics[0].T)]
        real = arrays[0].dtype.type  # of one type with the arrays, or the loops are of another
        numbers = [real(q) for q in (self.own.item(), self.pull.item(), self.cell)]
        feature_kernels.iterate(*arrays, *numbers, room.numpy(), slopes.numpy())
        return room, slopes


def neighbours(u: Tensor) -> Tensor:
    """Sum over the four neighbours."""
    return u.roll(1, -1) + u.roll(-1, -1) + u.roll(1, -2) + u.roll(-1, -2)
