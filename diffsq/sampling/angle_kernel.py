r"""The reverse chain of links on the circle, between charges as well as within them, with exact weights.

A path is the links at the end and the increments on the way, which are real numbers: forward and reverse are
then laws of the same things, and no sum over windings is needed. With Delta_n = sigma_{n+1}^2 - sigma_n^2 and
the score s of diffsq.models.torus

    forward   a_{n+1} = a_n + d,     d ~ N(0, Delta_n)
    reverse   a_n = a_{n+1} - d,     -d ~ N(Delta_n s(a_{n+1}), Delta_n c_n(k))
    start     uniform on all links
    weight    log w = -S(a_0) + sum_n [log N(d; 0, Delta_n) - log R(d)],       <w> = Z  (Haar measure)

c_n(k), a straight line in ln(1 + k^2), is of the transverse modes of links; gauge directions and holonomies,
of which nothing is known, have c = 1. It is measured on noisy training links once (`calibrate`) and part of
the law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.gauge import curl_of
from diffsq.models.protocol import ActionFunction, Noise, Watch, unseen
from diffsq.models.torus import Rescaling, TorusScore
from diffsq.process.torus import levels
from lattice.actions.u1 import circulation
from lattice.arrays import wrapped

VERSION = 1  # of the law R: raise it with any change
N_LEVELS = 100
LEAST = 0.05  # of c


@dataclass
class AnglePath:
    """The chains of a score at `beta` through levels (N + 1,); variance (N, n_class) is c_n(k)."""

    score: TorusScore
    levels: Tensor
    variance: Tensor
    beta: float
    rescaling: Rescaling = "propagator"

    @classmethod
    def of(
        cls, score: TorusScore, n_levels: int = N_LEVELS, beta: float | None = None,
        rescaling: Rescaling = "propagator",
    ) -> AnglePath:  # fmt: skip
        """With c = 1."""
        at = levels(score.span[0], n_levels, score.span[1])
        ones = torch.ones(n_levels, score.momenta.n_class, dtype=torch.float64)
        return cls(score, at, ones, score.beta if beta is None else beta, rescaling)

    def calibrate(self, links: Tensor, noise: Noise) -> AnglePath:
        """The same with c_n(k) of links (n, 2, L0, L1) drawn from e^{-S}; noise(step) like them."""
        p, rows = self.score.momenta, []
        open_ = p.khat2 > 1e-9
        waves, weight = p.chebyshev(2).T, (p.multiplicity * open_).sqrt()[:, None]
        for n in range(len(self.levels) - 1):
            low = links + self.levels[n] * noise(2 * n)
            d = self._delta(n).sqrt() * noise(2 * n + 1)
            high = wrapped(low + d)
            rest = p.modes(circulation(-d - self._step(high, n)))
            power = p.class_mean((rest.abs() ** 2).mean(0)) / p.khat2.clamp_min(1e-9) / self._delta(n)
            # a straight line in ln(1 + k^2): free numbers of every k would cost more than they explain
            fit = torch.linalg.lstsq(waves * weight, power[:, None] * weight).solution
            rows.append(torch.where(open_, (waves @ fit)[:, 0], 1.0).clamp_min(LEAST))
        return AnglePath(self.score, self.levels, torch.stack(rows), self.beta, self.rescaling)

    def _delta(self, n: int) -> Tensor:
        return self.levels[n + 1] ** 2 - self.levels[n] ** 2

    def _step(self, high: Tensor, n: int) -> Tensor:
        """The mean of a_n - a_{n+1}."""
        sigma = self.levels[n + 1].expand(len(high))
        return self._delta(n) * self.score.score(high, sigma, self.beta, self.rescaling)

    def _drawn(self, noise: Tensor, n: int) -> Tensor:
        """Increments about their mean from white noise (n, 2, L0, L1)."""
        p = self.score.momenta
        more = (self.variance[n].sqrt() - 1) / p.khat2.clamp_min(1e-9)
        transverse = p.fields(p.modes(circulation(noise)) * p.expand(more))
        return self._delta(n).sqrt() * (noise + curl_of(transverse))

    def _log_reverse(self, rest: Tensor, n: int) -> Tensor:
        """ln of the density of increments less their mean (n, 2, L0, L1): (n,)."""
        p, delta, c = self.score.momenta, self._delta(n), self.variance[n]
        flux = p.modes(circulation(rest)).abs() ** 2
        own = p.total(flux * p.expand((1 / c - 1) / p.khat2.clamp_min(1e-9)))
        square = (rest**2).flatten(1).sum(1) + own
        open_ = p.khat2 > 1e-9  # there is no flux at k = 0
        log_det = (p.multiplicity * c.log())[open_].sum()
        size = rest[0].numel() * torch.log(2 * math.pi * delta) + log_det
        return -0.5 * (square / delta + size)

    def _log_forward(self, d: Tensor, n: int) -> Tensor:
        delta = self._delta(n)
        size = d[0].numel() * torch.log(2 * math.pi * delta)
        return -0.5 * ((d**2).flatten(1).sum(1) / delta + size)

    @torch.no_grad()
    def sample(
        self, action: ActionFunction, start: Tensor, noise: Noise, watch: Watch = unseen
    ) -> tuple[Tensor, Tensor]:
        """Links (n, 2, L0, L1) in (-pi, pi] and ln w (n,), from uniform links and noise(n) of each step."""
        a, log_w = start, torch.zeros(len(start), dtype=torch.float64)
        watch(len(self.levels) - 1, a)
        for n in reversed(range(len(self.levels) - 1)):
            rest = self._drawn(noise(n), n)
            d = self._step(a, n) + rest
            log_w += self._log_forward(d, n) - self._log_reverse(rest, n)
            a = wrapped(a + d)
            watch(n, a)
        return a, log_w - action(a)

    @torch.no_grad()
    def weigh(self, links: Tensor, action: ActionFunction, noise: Noise) -> Tensor:
        """ln w (n,) of given links and noise(n) upwards: over links drawn from e^{-S}, <1/w> = 1/Z."""
        a, log_w = links, -action(links)
        for n in range(len(self.levels) - 1):
            d = self._delta(n).sqrt() * noise(n)
            high = wrapped(a + d)
            log_w = log_w + self._log_forward(d, n) - self._log_reverse(-d - self._step(high, n), n)
            a = high
        return log_w
