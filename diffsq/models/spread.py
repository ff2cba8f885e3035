r"""Where the posterior is wide and where narrow: a linear map of residuals, inverse and determinant exact.

The variance C(k) of the posterior of x = phi + sigma eps is that of an average x. Given x, a site between two
likely values keeps more of it, and a site in a deep minimum less. `Spread` makes a residual z of the average
law, diagonal in momentum space, into one of that site by site,

    M z = T_odd T_even e^{q/2} z,      (T_even z)_i = z_i + sum_d a_{d,i} z_{i+d} on even sites i, z_i on odd,

with q = ln of a site's variance over the mean of all sites, and couplings a to the four neighbours. T_even
and T_odd are unit triangular: det M = e^{sum q/2}, and the inverse is three local operations. The zero mode
has a law of its own (diffsq.sampling.zero_mode_step): M acts between the modes k != 0 alone, P M P with
P = 1 - u u^T, u = V^{-1/2}. There, by Schur's complement,

    det = det M (u . M^{-1} u),     (P M P)^{-1} y = M^{-1}(y + c u),   c such that its mean vanishes.

Of |a| <= `MAX_COUPLING` u . M^{-1} u is positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.momentum import Momenta
from diffsq.models.symmetry import IDENTITY, Symmetry

MAX_COUPLING = 0.1
MAX_LOG = 2.0  # |q| of a site, before the mean is taken from it
SHIFTS = ((1, -1), (-1, -1), (1, -2), (-1, -2))  # of the neighbours, as of `Tensor.roll`
SITES = (-1, -2)


def share_of(momenta: Momenta, part: Tensor, whole: Tensor) -> Tensor:
    """The share that a variance per class (n, n_class) has of another one, over the modes k != 0: (n,)."""
    weight = momenta.multiplicity * (momenta.khat2 > 0)
    return (weight * part).sum(-1) / (weight * whole).sum(-1)


@dataclass(frozen=True)
class Spread:
    """q = log_ratio (n, *shape), and couplings a (n, 4, *shape) or None, both as seen in `frame`; extents are
    even where there are couplings."""

    log_ratio: Tensor
    couplings: Tensor | None = None
    frame: Symmetry = IDENTITY

    @classmethod
    def of(cls, log_ratio: Tensor, couplings: Tensor | None = None, frame: Symmetry = IDENTITY) -> Spread:
        """Of any log_ratio: within +-`MAX_LOG`, and the mean of e^q over the sites made 1; |a| < 0.1."""
        q = log_ratio.double().clamp(-MAX_LOG, MAX_LOG)
        q = q - q.exp().mean(SITES, keepdim=True).log()
        if couplings is not None:
            couplings = MAX_COUPLING * torch.tanh(couplings.double() / MAX_COUPLING)
        return cls(q, couplings, frame)

    def of_step(self, share: Tensor) -> Spread:
        """In steps whose residual has this share () or (n,) of its variance from the posterior, the rest from
        the bridge: ln(1 - share + share e^q), share a."""
        share = share.reshape(-1, 1, 1)
        q = torch.log1p(share * torch.expm1(self.log_ratio))
        a = None if self.couplings is None else share[:, None] * self.couplings
        return Spread(q, a, self.frame)

    def spread(self, z: Tensor) -> Tensor:
        """P M P z + u u^T z of fields z (n, *shape)."""
        z = self.frame(z)
        mean = z.mean(SITES, keepdim=True)
        y = (z - mean) * torch.exp(self.log_ratio / 2)
        if self.couplings is not None:
            for even in (True, False):
                y = y + self._from_neighbours(y, even)
        return self.frame.inverse(y - y.mean(SITES, keepdim=True) + mean)

    def gather(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `spread`, and ln of its determinant (n,): y (n, *shape)."""
        y = self.frame(y)
        mean = y.mean(SITES, keepdim=True)
        own, unit = self._inverse(y - mean), self._inverse(torch.ones_like(y))
        part = unit.mean(SITES, keepdim=True)
        z = own - own.mean(SITES, keepdim=True) / part * unit
        log_det = self.log_ratio.sum(SITES) / 2 + part.log().flatten()
        return self.frame.inverse(z + mean), log_det

    def _inverse(self, y: Tensor) -> Tensor:
        """M^{-1} y."""
        if self.couplings is not None:
            for even in (False, True):
                y = y - self._from_neighbours(y, even)
        return y * torch.exp(-self.log_ratio / 2)

    def _from_neighbours(self, y: Tensor, even: bool) -> Tensor:
        """sum_d a_d y of the neighbour on sites of one parity, zero on the others."""
        assert self.couplings is not None
        rows, columns = (torch.arange(n, device=y.device) for n in y.shape[-2:])
        here = ((rows[:, None] + columns) % 2 == 0) == even
        moved = torch.stack([y.roll(*shift) for shift in SHIFTS], 1)
        return here * (self.couplings * moved).sum(1)
