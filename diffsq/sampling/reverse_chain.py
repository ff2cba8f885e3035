"""The weighted reverse chain: its loops, for any laws of the steps. Fields and points supply these.

Levels 0 = sigma_0 < ... < sigma_N, Delta_n = sigma_{n+1}^2 - sigma_n^2:

    forward   F(x_{n+1} | x_n) = N(x_n, Delta_n)
    reverse   R(x_n | x_{n+1})                  about a step from x_{n+1} towards D(x_{n+1})
    start     p(x_N) = N(0, G + sigma_N^2)      G the covariance of the data
    weight    log w = -S(x_l) + sum_n log F - log p(x_N) - sum_n log R,      E_R[w] = int e^{-S},

from level N down to l = `last`, whatever R, p and the levels: l = 0 for fields with their action, l = 1 where
S is a learned energy at sigma_1.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from diffsq.models.protocol import ActionFunction, Frames, Noise, Watch, unseen
from diffsq.models.symmetry import Symmetry, still
from lattice.errors import InputError


def finite(values: Tensor, what: str, advice: str = "") -> Tensor:
    """The values (n, ...). Raises `InputError` when some are NaN or infinite."""
    bad = int((~torch.isfinite(values).reshape(len(values), -1).all(1)).sum())
    if bad:
        raise InputError(f"{bad} of {len(values)} {what} are NaN or infinite{advice}")
    return values


class Law(ABC):
    """A law drawn from white noise, its density known; x and noise (n, ...)."""

    @abstractmethod
    def draw(self, noise: Tensor) -> Tensor:
        """x from white noise."""

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """ln of the density at x: (n,)."""

    def propose(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A draw and ln of the density there."""
        x = self.draw(noise)
        return x, self.log_density(x)


def rise(levels: Tensor, x: Tensor, noise: Noise, steps: range) -> Iterator[tuple[int, Tensor, Tensor]]:
    """n, x_n and x_{n+1} = x_n + sqrt(Delta_n) noise(n) of forward steps, from x at the first."""
    for n in steps:
        high = x + (levels[n + 1] ** 2 - levels[n] ** 2).sqrt() * noise(n)
        yield n, x, high
        x = high


def end_of(steps: Iterator[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Where steps of `ReverseChain.up` or `down` end, and the sum of log F - log R over them."""
    _, x, log_w = next(steps)
    for step in steps:
        x, log_w = step[1], log_w + step[2]
    return x, log_w


class ReverseChain(ABC):
    """Forward and reverse chain through `levels`; see the module's formulas. x float64."""

    last = 0
    levels: Tensor

    @abstractmethod
    def start(self, level: int = -1) -> Law:
        """The law of a Gaussian process at a level: at the last one p(x_N)."""

    @abstractmethod
    def reverse(self, x: Tensor, n: int, frame: Symmetry, /) -> Law:
        """R(x_n | x_{n+1} = x)."""

    def log_forward(self, low: Tensor, high: Tensor, n: int) -> Tensor:
        """log F(x_{n+1} = high | x_n = low): (n,)."""
        delta = self.levels[n + 1] ** 2 - self.levels[n] ** 2
        chi2 = ((high - low) ** 2).flatten(1).sum(1) / delta
        return -0.5 * (chi2 + low[0].numel() * torch.log(2 * math.pi * delta))

    def down(
        self, x: Tensor, noise: Noise, frames: Frames = still, top: int | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """n, x_n and log F - log R of reverse steps from x at level `top` (N) to level `last`."""
        for n in reversed(range(self.last, len(self.levels) - 1 if top is None else top)):
            low, log_r = self.reverse(x, n, frames(n)).propose(noise(n))
            yield n, low, self.log_forward(low, x, n) - log_r
            x = low

    def up(
        self, x: Tensor, noise: Noise, frames: Frames = still, top: int | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """n, x_n and log F - log R of forward steps from x at level `last` to level `top` (N)."""
        steps = range(self.last, len(self.levels) - 1 if top is None else top)
        for n, low, high in rise(self.levels, x, noise, steps):
            log_r = self.reverse(high, n, frames(n)).log_density(low)
            yield n + 1, high, self.log_forward(low, high, n) - log_r

    def noised(self, x: Tensor, noise: Noise) -> Tensor:
        """Data x at level `last`, with noise(0)."""
        return x + self.levels[self.last] * noise(0) if self.last else x

    @torch.no_grad()
    def sample(
        self, action: ActionFunction, noise: Noise, frames: Frames = still, watch: Watch = unseen
    ) -> tuple[Tensor, Tensor]:
        """Draw x (n, ...) at level `last` with exact log-weights (n,), the start from noise(N)."""
        top, start = len(self.levels) - 1, self.start()
        first, log_p = start.propose(noise(top))
        log_w = -log_p
        watch(top, first)
        for n, x, increment in self.down(first, noise, frames):
            log_w += increment
            watch(n, x)
        return x, log_w - action(x)

    @torch.no_grad()
    def weigh(
        self, x: Tensor, action: ActionFunction, noise: Noise, frames: Frames = still
    ) -> tuple[Tensor, Tensor]:
        """Forward weights: noise given data x (n, ...) up to sigma_N and weigh the path backwards.

        Returns log w (n,) and the increments log F - log R of each step (n, N - last), from which the same
        difference for the Gaussian process is subtracted. For x drawn from e^{-S}/Z, E[1/w] = 1/Z.
        """
        first = self.noised(x, noise)
        log_w, known, steps = -action(first), self.start(self.last).log_density(first), []
        for n, high, increment in self.up(first, noise, frames):
            log_w, here = log_w + increment, self.start(n).log_density(high)
            steps.append(increment + known - here)
            known = here
        return log_w - known, torch.stack(steps, 1)
