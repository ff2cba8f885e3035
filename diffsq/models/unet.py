"""Periodic score U-Net for two-dimensional lattices, odd under phi -> -phi by construction.

Every convolution wraps around the lattice and has no bias, every nonlinearity is odd, and the conditioning
(noise level, squared magnetisation: both even) only rescales channels. The output is bounded by `bound` per
site. With a head for the spread of the posterior there are fields even under phi -> -phi too: products of
two odd channels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class PeriodicConv(nn.Module):
    """3x3 convolution on the torus, no bias: (n, c_in, L0, L1) -> (n, c_out, L0, L1)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.pad(h, (1, 1, 1, 1), mode="circular"))
        return out


class Block(nn.Module):
    """Residual block h + conv(tanh(gain * conv(h))), the gain per channel set by the condition vector."""

    def __init__(self, c_in: int, c_out: int, n_condition: int) -> None:
        super().__init__()
        self.first = PeriodicConv(c_in, c_out)
        self.second = PeriodicConv(c_out, c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()
        self.gain = nn.Linear(n_condition, 2 * c_out)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inner, outer = (1 + self.gain(condition))[..., None, None].chunk(2, 1)
        g = torch.tanh(inner * self.first(h))
        out: Tensor = self.skip(h) + outer * self.second(g)
        return out


N_SPREAD, N_PRODUCTS = 5, 16  # fields of the spread: log-variance, four couplings; channels they come from
SMALL = 1e-6


class SpreadHead(nn.Module):
    """Even fields, products of odd ones: of the network's input (n, c_in, L0, L1) and of its last features
    (n, width, L0, L1), as they are, in units of their own rms -> (n, N_SPREAD, L0, L1), zero at first."""

    def __init__(self, c_in: int, width: int, n_condition: int) -> None:
        super().__init__()
        self.pairs = nn.Conv2d(c_in + width, 2 * N_PRODUCTS, 1, bias=False)
        self.gain = nn.Linear(n_condition, N_PRODUCTS)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)
        self.last = nn.Conv2d(N_PRODUCTS, N_SPREAD, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, given: Tensor, h: Tensor, condition: Tensor) -> Tensor:
        rms = (h * h).mean((1, 2, 3), keepdim=True).sqrt() + SMALL
        a, b = torch.tanh(self.pairs(torch.cat([given, h / rms], 1))).chunk(2, 1)
        out: Tensor = self.last(a * b * (1 + self.gain(condition))[..., None, None])
        return out


class UNet(nn.Module):
    """Encoder-decoder on L, L/2, L/4, ... with skip connections and a head of its own for the zero mode.

    forward(h, condition): h (n, c_in, L0, L1), condition (n, n_condition) -> (n, L0, L1). Both extents must
    be divisible by 2**(n_levels - 1). The zero-mode head reads the coarsest features; its output is spread
    over the lattice with the weight of one normalised mode, V^(-1/2) per site. `spread`: whether there is a
    head for the spread of the posterior, see `evaluate`.
    """

    def __init__(
        self, c_in: int, n_condition: int, channels: int, n_levels: int, bound: float = 3.0,
        spread: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.c_in = c_in
        widths = [channels * min(2**level, 4) for level in range(n_levels)]
        self.channels, self.n_levels, self.bound = channels, n_levels, bound
        self.embed = nn.Sequential(nn.Linear(n_condition, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
        self.stem = PeriodicConv(c_in, widths[0])
        self.down = nn.ModuleList(
            Block(widths[max(level - 1, 0)], widths[level], 64) for level in range(n_levels)
        )
        self.up = nn.ModuleList(
            Block(widths[level + 1] + widths[level], widths[level], 64)
            for level in reversed(range(n_levels - 1))
        )
        self.head = PeriodicConv(widths[0], 1)
        self.zero_mode = nn.Linear(widths[-1], 1, bias=False)
        self.zero_mode_gain = nn.Linear(64, 1)
        self.spread = SpreadHead(c_in, widths[0], 64) if spread else None
        for last in (self.head.conv, self.zero_mode):
            nn.init.zeros_(last.weight)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Input channels (n, c_in, L0, L1) and condition (n, n_condition) -> (n, L0, L1)."""
        return self.evaluate(h, condition)[0]

    def evaluate(self, h: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and the fields of the spread (n, N_SPREAD, L0, L1), None without its head."""
        c = self.embed(condition)
        volume = h.shape[-1] * h.shape[-2]
        given, h = h, self.stem(h)
        skips = []
        for level, block in enumerate(self.down):
            if level:
                h = functional.avg_pool2d(h, 2)
            h = block(h, c)
            skips.append(h)
        pooled = torch.tanh(h.mean((2, 3)))
        zero_mode = self.zero_mode(pooled) * (1 + self.zero_mode_gain(c))
        skips.pop()
        for block in self.up:
            h = block(torch.cat([functional.interpolate(h, scale_factor=2.0), skips.pop()], 1), c)
        local = self.head(torch.tanh(h))[:, 0]
        out: Tensor = self.bound * torch.tanh((local + zero_mode[..., None] * volume**-0.5) / self.bound)
        return out, None if self.spread is None else self.spread(given, h.detach(), c.detach())


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw fresh weights by PyTorch's default law for convolutions and linear maps; heads and gains that
    start at zero stay there."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if module.weight.abs().max() > 0:
                bound = 1 / math.sqrt(fan_in)
                fresh = torch.rand(module.weight.shape, generator=generator) * 2 * bound - bound
                module.weight.data.copy_(fresh)
            if module.bias is not None and module.bias.abs().max() > 0:
                fresh = torch.rand(module.bias.shape, generator=generator) * 2 - 1
                module.bias.data.copy_(fresh / math.sqrt(fan_in))
