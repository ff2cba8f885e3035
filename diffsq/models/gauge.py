r"""The score of noisy U(1) links in closed form, from the lifted flux of their plaquettes.

Heat-kernel noise sigma on every link adds sigma curl(xi) to the lifted flux F (diffsq.models.plaquette_law):
variance sigma^2 k^2 in the mode k, k^2 the lattice's, and nothing in the zero mode 2 pi Q/sqrt(V), so that
the charge of the lift is kept. Given F the plaquettes were independent before, of variance s. With

    W = s/(s + sigma^2 k^2),  C = W sigma^2 k^2,  v = mean of C,  mu = W F   (zero mode: F)
    delta(m) = mean of w(F) e^{-a F^2 + m F/v} - m,   a = (1/v - 1/s)/2

mu is the posterior mean of the Gaussian theory and delta what the law w of a plaquette changes at its site,
its neighbours at mu. Two iterations of it, T the kernel of C/v without the site itself, give

    D = mu + (C/v) * delta(mu + T * delta(mu)).

Nothing is fitted: the score is (D - F)/(sigma^2 k^2), on links its curl, for every beta. In units of the
variance the Gaussian part of the score at beta is that at beta_0 times

    (beta/beta_0) (1 + beta_0 sigma^2 k^2)/(1 + beta sigma^2 k^2),

beta/beta_0 at sigma = 0 alone. Posterior of sites in the field of the others: Opper and Winther, Phys. Rev.
E 64 (2001) 056131 (one step of their adaptive TAP equations).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from diffsq.models.momentum import Momenta
from diffsq.models.plaquette_law import PlaquetteLaw
from lattice.actions.u1 import circulation

VERSION = 1  # of the function of harmonics and charges: raise it with any change
N_CELLS = 768  # of the table of delta, on either side
LOWEST = 0.12  # sigma_min: what the noise adds to a plaquette, in units of its standard deviation
HIGHEST = 8.0  # sigma_max: the same of the longest wave
EMPTY = 1e-300


@dataclass
class FluxLevel:
    """All that the posterior mean needs at one noise level, for fields (n, L0, L1).

    wiener, kernel (*half): W and C/v; others (*half): T; cubics (2 N_CELLS, 4) of delta from -reach on, in
    units of a cell of width `cell`; root (*half): sqrt(s + sigma^2 k^2).
    """

    momenta: Momenta
    wiener: Tensor
    kernel: Tensor
    others: Tensor
    root: Tensor
    cubics: Tensor
    reach: float
    cell: float

    def delta(self, m: Tensor) -> tuple[Tensor, Tensor]:
        """delta and its derivative at fields m (n, L0, L1); beyond the table the last cubics go on."""
        place = (m + self.reach) / self.cell
        i = place.long().clamp_(0, len(self.cubics) - 1)
        t = place.sub_(i)
        c0, c1, c2, c3 = self.cubics.index_select(0, i.flatten()).reshape(*m.shape, 4).unbind(-1)
        value = torch.addcmul(c0, t, torch.addcmul(c1, t, torch.addcmul(c2, t, c3)))
        slope = torch.addcmul(c1, t, torch.addcmul(2 * c2, t, c3, value=3))
        return value, slope / self.cell

    def filtered(self, x: Tensor, multiplier: Tensor) -> Tensor:
        """x (n, L0, L1) times a multiplier (*half) in momentum space."""
        return self.momenta.fields(self.momenta.modes(x) * multiplier)

    def shifts(self, fk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """delta of the second iteration, its derivative, and that of the first, of modes fk (n, *half)."""
        mu = self.momenta.fields(fk * self.wiener)
        first, slope = self.delta(mu)
        second, steep = self.delta(mu + self.filtered(first, self.others))
        return second, steep, slope

    def mean(self, fk: Tensor) -> Tensor:
        """D of modes fk, in momentum space."""
        return fk * self.wiener + self.kernel * self.momenta.modes(self.shifts(fk)[0])


class GaugeScore(nn.Module):
    """Score and posterior mean of noisy links (n, 2, L0, L1) of a plaquette action.

    harmonics (n,): b_n of S = -sum_n b_n cos n theta_p. charges (m,), log_charge (m,): ln P(Q) of the lifts
    that sectors are drawn from, by default that of these harmonics.
    """

    def __init__(
        self, shape: tuple[int, ...], harmonics: Tensor, charges: tuple[Tensor, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.momenta, self.shape = Momenta(shape), tuple(shape)
        self.harmonics = nn.Buffer(harmonics.double())
        self.law = PlaquetteLaw(self.harmonics.detach().cpu())
        q, log_p = charges or self.law.charges(self.momenta.volume)
        self.charges, self.log_charge = nn.Buffer(q.double()), nn.Buffer(log_p.double())
        self.about: dict[str, Any] = {}
        self._levels: dict[float, FluxLevel] = {}

    @property
    def sizes(self) -> dict[str, Any]:
        """What rebuilds it, besides its tensors."""
        return {"shape": list(self.shape), "n_harmonics": len(self.harmonics), "n_charges": len(self.charges)}

    @property
    def s(self) -> float:
        """Variance of a lifted plaquette."""
        return float(self.law.variance)

    @property
    def span(self) -> tuple[float, float]:
        """sigma_min and sigma_max: below a plaquette hardly feels the noise, above the longest wave is noise
        alone."""
        k2 = self.momenta.khat2[self.momenta.khat2 > 1e-9]
        return LOWEST * math.sqrt(self.s / float(k2.max())), HIGHEST * math.sqrt(self.s / float(k2.min()))

    def drawn_charges(self, u: Tensor) -> Tensor:
        """Charges Q (n,) from uniform numbers u (n,)."""
        cdf = self.log_charge.exp().cumsum(0)
        return self.charges[torch.searchsorted(cdf, u * cdf[-1]).clamp_max(len(cdf) - 1)]

    def level(self, sigma: float) -> FluxLevel:
        """What the noise level sigma > 0 needs; kept."""
        if sigma not in self._levels:
            if len(self._levels) > 256:
                self._levels.clear()
            self._levels[sigma] = self._level(sigma)
        return self._levels[sigma]

    def _level(self, sigma: float) -> FluxLevel:
        p, s, device = self.momenta, self.s, self.harmonics.device
        noisy = s + sigma**2 * p.khat2
        w = s / noisy
        c = w * sigma**2 * p.khat2
        v = float((p.multiplicity * c).sum()) / p.volume
        kernel = p.fields(p.expand(c / v) + 0j) / math.sqrt(p.volume)
        kernel[0, 0] = 0  # sum of all modes over V: 1 at the site itself
        others = p.modes(kernel).real * math.sqrt(p.volume)
        half = np.linspace(0, float(self.law.grid[0][-1]), N_CELLS + 1)
        rise = self._rise(torch.from_numpy(half), v).numpy()
        m, odd = (np.concatenate([-x[:0:-1], x]) for x in (half, rise))
        cell = float(m[1] - m[0])
        taylor = CubicSpline(m, odd).c[::-1].T * cell ** np.arange(4)
        cubics = torch.from_numpy(np.ascontiguousarray(taylor)).to(device)
        return FluxLevel(
            p, p.expand(w), p.expand(c / v), others, p.expand(noisy.sqrt()), cubics, -float(m[0]), cell
        )  # fmt: skip

    def _rise(self, m: Tensor, v: float) -> Tensor:
        """delta(m) (n,) by quadrature, m >= 0."""
        flux, weight = self.law.grid
        tilt = weight.clamp_min(EMPTY).log() - 0.5 * (1 / v - 1 / self.s) * flux**2
        means = [torch.softmax(tilt + part[:, None] / v * flux, 1) @ flux for part in torch.split(m, 256)]
        rise = torch.cat(means) - m
        return torch.where(m == 0, 0.0, rise)

    def posterior_mean(self, flux: Tensor, sigma: float) -> Tensor:
        """D = E[F_0|F] of lifted flux (n, L0, L1) at sigma > 0."""
        p = self.momenta
        return p.fields(self.level(sigma).mean(p.modes(flux)))

    def flux_score(self, flux: Tensor, sigma: float) -> Tensor:
        """(D - F)/(sigma^2 k^2), the gradient of ln p of the lifted flux within its sector: like flux."""
        p, k2 = self.momenta, self.momenta.expand(self.momenta.khat2)
        fk = p.modes(flux)
        inverse = torch.where(k2 > 1e-9, 1 / (sigma**2 * k2).clamp_min(EMPTY), 0.0)
        return p.fields((self.level(sigma).mean(fk) - fk) * inverse)

    def score(self, links: Tensor, sigma: float, lift: Tensor) -> Tensor:
        """grad ln p of noisy links (n, 2, L0, L1), real numbers not wrapped, whose lifted flux is
        circulation + 2 pi lift, lift (n, L0, L1) whole: gauge invariant, and without holonomies."""
        return curl_of(self.flux_score(circulation(links) + 2 * math.pi * lift, sigma))


def curl_of(u: Tensor) -> Tensor:
    """The adjoint of `circulation`: plaquette fields u (n, L0, L1) to links (n, 2, L0, L1).

    >>> bool(curl_of(torch.ones(1, 4, 4)).abs().max() == 0)
    True
    """
    return torch.stack([u - u.roll(1, -1), u.roll(1, -2) - u], -3)
