r"""The reverse chain of lifted flux: Gaussian steps in momentum space, sector by sector, with exact weights.

As diffsq.sampling.reverse_chain, for the noise sigma curl(xi) of links: variance sigma^2 k^2 in a mode,
nothing in the zero mode, which is the charge of the lift and stays. With r = Delta_n/sigma_{n+1}^2

    forward   F_{n+1} | F_n ~ N(F_n, Delta_n k^2)
    reverse   F_n | F_{n+1} ~ N(F + r (D(F) - F),  r sigma_n^2 k^2 + r^2 C(k)),    F = F_{n+1}
    start     N(0, s + sigma_N^2 k^2), Q from its own law

D and C of diffsq.models.gauge; densities are over the modes k != 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsq.models.gauge import GaugeScore
from diffsq.models.momentum import Momenta
from diffsq.models.protocol import Frames, Noise
from diffsq.models.symmetry import Symmetry, still
from diffsq.process.sde import VESDE
from diffsq.sampling.reverse_chain import Law, ReverseChain

VERSION = 1  # of the law R: raise it with any change
N_LEVELS = 40


@dataclass(frozen=True)
class FluxGaussian(Law):
    """N(mean, variance) of the modes k != 0: mean (n, *half) or (), variance (*half); the zero mode is `zero`
    (n,), or that of the mean."""

    momenta: Momenta
    mean: Tensor
    variance: Tensor
    zero: Tensor | None = None

    def draw(self, noise: Tensor) -> Tensor:
        """A flux from white noise (n, L0, L1)."""
        p = self.momenta
        x = self.mean + p.modes(noise) * self.variance.sqrt()
        x[..., 0, 0] = self.mean[..., 0, 0] if self.zero is None else self.zero
        return p.fields(x)

    def log_density(self, x: Tensor) -> Tensor:
        p = self.momenta
        square = (p.modes(x) - self.mean).abs() ** 2 / self.variance
        square[..., 0, 0] = 0
        logs = self.variance.log()
        logs[0, 0] = 0
        return -0.5 * (p.total(square + logs) + (p.volume - 1) * math.log(2 * math.pi))


@dataclass
class GaugePath(ReverseChain):
    """Chains of a score through levels (N + 1,) float64, 0 first; `zero` (n,): sum of F/sqrt(V) = 2 pi
    Q/sqrt(V) of the chains that are to be started."""

    score: GaugeScore
    levels: Tensor
    zero: Tensor | None = None

    @classmethod
    def of(cls, score: GaugeScore, n_levels: int = N_LEVELS) -> GaugePath:
        """The chain of n_levels levels, geometric above 0."""
        return cls(score, VESDE(*score.span).levels(n_levels))

    def of_charges(self, charge: Tensor) -> GaugePath:
        """The same for chains of the charges Q (n,)."""
        return replace(self, zero=2 * math.pi * charge / math.sqrt(self.score.momenta.volume))

    @property
    def _k2(self) -> Tensor:
        p = self.score.momenta
        return p.expand(p.khat2)

    def start(self, level: int = -1) -> Law:
        """N(0, s + sigma^2 k^2) in the sectors of `zero`."""
        variance = self.score.s + float(self.levels[level]) ** 2 * self._k2
        none = torch.zeros((), dtype=torch.complex128).expand_as(variance)
        return FluxGaussian(self.score.momenta, none, variance, self.zero)

    def reverse(self, x: Tensor, n: int, frame: Symmetry, /) -> Law:
        """R(F_n | F_{n+1} = x)."""
        p, sigma, low = self.score.momenta, float(self.levels[n + 1]), float(self.levels[n])
        level, r = self.score.level(sigma), 1 - (low / sigma) ** 2
        fk = p.modes(x)
        variance = (r * low**2 + r**2 * level.wiener * sigma**2) * self._k2
        variance[0, 0] = 1.0  # of no mode
        return FluxGaussian(p, fk + r * (level.mean(fk) - fk), variance)

    def log_forward(self, low: Tensor, high: Tensor, n: int) -> Tensor:
        p = self.score.momenta
        variance = float(self.levels[n + 1] ** 2 - self.levels[n] ** 2) * self._k2
        variance[0, 0] = 1.0
        return FluxGaussian(p, p.modes(low), variance).log_density(high)

    def up(
        self, x: Tensor, noise: Noise, frames: Frames = still, top: int | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        p, root = self.score.momenta, self._k2.sqrt()
        return super().up(x, lambda n: p.fields(p.modes(noise(n)) * root), frames, top)
