"""Noise-denoise Metropolis on blocks of sites: exact on any lattice, with an acceptance that knows no volume.

The lattice is tiled by windows of the model's own shape, at a random offset. In each, a block B in the middle
is proposed anew given all other sites O, which stay as they are: windows share no site, so all blocks move at
once, each accepted on its own. Given phi_O the target is pi(phi_B | phi_O) prod_n F(x_{n+1}^B | x_n^B).

    forward   x_n = x_{n-1} + noise on the whole window, n = 1 ... s, from x_0 = phi; x^O is kept
    reverse   R_B(x_n^B | x_{n+1}, phi_O) = N(x^B + rho (D' - x^B), rho sigma_n^2 + rho^2 K)
              with  D' = D_B - K P_BO (phi_O - D_O),  K = P_BB^-1,  P = 1/C(k)
    accept    min(1, e^{l' - l}),  l = -S(phi) + sum_{n<s} (log F - log R_B)

D is the denoiser of the window taken as periodic, C(k) its posterior variance at sigma_{n+1}. D' and K are
mean and covariance of phi_B under the Gaussian posterior N(D, C) conditioned on the clean outside, so x_n^B
is a Brownian bridge between x_{n+1}^B and that. For a Gaussian theory R_B is the exact reverse of the block's
conditional process (P is the action's matrix plus 1/sigma^2: it is local, the window's seam does not matter)
and every proposal is accepted. For any other D and C the move is exact all the same: R_B depends on x^B, and
on what the move does not change. The wrap-around of a window on a larger lattice is wrong physics at its edge
only, and costs efficiency only. The change of S is that of the periodic window, as no block touches the
window's edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Unpack

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from diffsq.exactness.moves import Keys, Moved, State, in_groups, metropolis, where
from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import ActionFunction, Frames, Noise
from diffsq.models.symmetry import Symmetry
from diffsq.sampling.streams import noise_of
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import uniforms


@dataclass(frozen=True)
class BlockStep:
    """One reverse step: noise widths, P (*half), K and the Cholesky factor of rho sigma_n^2 + rho^2 K."""

    high: Tensor
    delta: Tensor
    rho: Tensor
    precision: Tensor
    covariance: Tensor
    factor: Tensor


class BlockPath:
    """Forward and reverse chains of a block in the middle of a window; see the module's formulas.

    levels (s + 1,) from 0, the chain's depth is s. Raises `InputError` for a block that is larger than the
    model's window.
    """

    def __init__(self, model: LatticeScore, levels: Tensor, block: tuple[int, ...]) -> None:
        window = model.shape
        if len(block) != len(window) or any(not 1 <= b <= w for b, w in zip(block, window, strict=True)):
            raise InputError(
                f"block must be extents from 1 to those of the model's lattice {list(window)}, "
                f"got {list(block)}"
            )
        self.model, self.momenta, self.block = model, model.momenta, tuple(block)
        middle = tuple(slice((w - b) // 2, (w - b) // 2 + b) for w, b in zip(window, block, strict=True))
        self.mask = torch.zeros(window, dtype=torch.bool, device=levels.device)
        self.mask[middle] = True
        self.sites = self.mask.flatten().nonzero()[:, 0]
        self.steps = [self._step(low, high) for low, high in pairwise(levels)]

    @property
    def n_sites(self) -> int:
        """Sites of the block."""
        return len(self.sites)

    def _step(self, low: Tensor, high: Tensor) -> BlockStep:
        c = self.model.posterior_variance(high[None])[0].clone()
        c[0] = self.model.base.wiener(high[None])[1][0, 0]  # not the law of z in an undecided lattice
        precision = self.momenta.expand(1 / c)
        one = torch.eye(self.momenta.volume, dtype=c.dtype, device=c.device)[self.sites]
        one = one.reshape(-1, *self.model.shape)
        inner = self.inside(self.momenta.fields(precision * self.momenta.modes(one)))
        covariance = torch.linalg.inv(0.5 * (inner + inner.T))
        covariance = 0.5 * (covariance + covariance.T)
        rho = 1 - low**2 / high**2
        noise = rho * low**2 * torch.eye(self.n_sites, dtype=c.dtype, device=c.device)
        factor = torch.linalg.cholesky(noise + rho**2 * covariance)
        return BlockStep(high, high**2 - low**2, rho, precision, covariance, factor)

    def inside(self, x: Tensor) -> Tensor:
        """The block's values: (n, *window) -> (n, n_sites)."""
        return x.flatten(1)[:, self.sites]

    def replaced(self, x: Tensor, values: Tensor) -> Tensor:
        """x with the block's values replaced: (n, *window), (n, n_sites) -> (n, *window)."""
        return x.flatten(1).index_copy(1, self.sites, values).reshape(x.shape)

    def reverse(self, x: Tensor, phi: Tensor, step: int, frame: Symmetry) -> Tensor:
        """Mean (n, n_sites) of R_B(x_n^B | x_{n+1} = x, phi_O), n = `step`; phi_B does not matter."""
        at, p = self.steps[step], self.momenta
        dk = self.model.denoise(p.modes(x), at.high.expand(len(x)), frame)
        d, value = p.fields(dk), self.inside(x)
        missed = torch.where(self.mask, 0.0, phi - d)
        pull = self.inside(p.fields(at.precision * p.modes(missed)))
        informed = self.inside(d) - pull @ at.covariance
        return value + at.rho * (informed - value)

    def draw(self, mean: Tensor, noise: Tensor, step: int) -> Tensor:
        """Values (n, n_sites) from R_B, from white noise (n, n_sites)."""
        return mean + noise @ self.steps[step].factor.T

    def log_reverse(self, low: Tensor, mean: Tensor, step: int) -> Tensor:
        """log R_B of the block's values low (n, n_sites): (n,)."""
        factor = self.steps[step].factor
        white = torch.linalg.solve_triangular(factor, (low - mean).T, upper=False)
        log_det = 2 * factor.diagonal().log().sum()
        out: Tensor = -0.5 * ((white**2).sum(0) + log_det + self.n_sites * math.log(2 * math.pi))
        return out

    def log_forward(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """log F of the block's values, both (n, n_sites): (n,)."""
        delta = self.steps[step].delta
        chi2 = ((high - low) ** 2).sum(1) / delta
        out: Tensor = -0.5 * (chi2 + self.n_sites * torch.log(2 * math.pi * delta))
        return out

    @torch.no_grad()
    def propose(
        self, phi: Tensor, action: ActionFunction, up: Noise, down: Noise, frames: Frames
    ) -> tuple[Tensor, Tensor]:
        """Windows with new blocks (n, *window), and their log acceptance ratios l' - l (n,).

        up(n) (n, *window) and down(n) (n, n_sites) are standard normal.
        """
        trail = [phi]
        for n, at in enumerate(self.steps):
            trail.append(trail[n] + at.delta.sqrt() * up(n))
        ratio, new = action(phi), trail[-1]
        for n in reversed(range(len(self.steps))):
            high, low = self.inside(trail[n + 1]), self.inside(trail[n])
            mean = self.reverse(trail[n + 1], phi, n, frames(n))
            ratio = ratio - self.log_forward(low, high, n) + self.log_reverse(low, mean, n)
            mean = self.reverse(new, phi, n, frames(n))
            low = self.draw(mean, down(n), n)
            ratio = ratio + self.log_forward(low, self.inside(new), n) - self.log_reverse(low, mean, n)
            new = self.replaced(trail[n], low)
        return new, ratio - action(new)


@dataclass(frozen=True)
class Tiling:
    """Disjoint windows that cover a periodic lattice, or `InputError` where it is no multiple of them."""

    shape: tuple[int, ...]
    window: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or any(n % w for n, w in zip(self.shape, self.window)):
            raise InputError(
                f"lattice extents must be multiples of the model's own {list(self.window)} for block moves, "
                f"got {list(self.shape)}"
            )

    @property
    def n_windows(self) -> int:
        """Windows in the lattice."""
        return math.prod(self.shape) // math.prod(self.window)

    def check_block(self, block: tuple[int, ...]) -> None:
        """`InputError` for a block beyond its window, or at the edge of one smaller than the lattice.

        >>> Tiling((8, 4), (4, 4)).check_block((2, 4))
        """
        for b, w, n in zip(block, self.window, self.shape):
            if b > w or (b > w - 2 and n > w):
                raise InputError(
                    f"block {list(block)} must fit into the window {list(self.window)}, with a rim of one "
                    "site where the lattice is larger"
                )

    def index(self, offset: Integers) -> Integers:
        """Site numbers of the windows shifted by offset (n, 2): (n, n_windows, *window)."""
        x, y = (
            rearrange(np.add.outer(start, np.arange(extent)) % extent, "n (window i) -> n window i", i=w)
            for start, extent, w in zip(offset.T, self.shape, self.window)
        )
        sites = rearrange(x, "n row i -> n row 1 i 1") * self.shape[1] + rearrange(
            y, "n col j -> n 1 col 1 j"
        )
        return rearrange(sites, "n row col i j -> n (row col) i j")


def block_moves(
    path: BlockPath, tiling: Tiling, action: ActionFunction, frames: Frames, state: State,
    **keys: Unpack[Keys],
) -> Moved:  # fmt: skip
    """One proposal for the block of every window: state of any lattice that `tiling` covers; paths are lost.

    Info: log_ratio (n, n_windows). Raises `InputError` for a ratio that is not finite, or an unfit block.
    """
    tiling.check_block(path.block)
    seed, chains, step = keys["seed"], keys["chains"], keys["step"]
    n_windows, depth, (i, j) = tiling.n_windows, len(path.steps), tiling.window
    offset = (uniforms(seed, "chain/block/offset", chains, step, 2) * tiling.window).astype(np.int64)
    sites = rearrange(tiling.index(offset), "n window i j -> n (window i j)")
    flat = state.phi.reshape(len(chains), -1)
    windows = rearrange(np.take_along_axis(flat, sites, 1), "n (window i j) -> (n window) i j", i=i, j=j)
    names = np.add.outer(chains * n_windows, np.arange(n_windows)).ravel()

    def propose(phi: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        def noise(name: str, shape: tuple[int, ...]) -> Noise:
            draw = noise_of(seed, f"chain/block/{name}", index.cpu().numpy(), shape, phi.device)
            return lambda level: draw(step * depth + level)

        return path.propose(phi, action, noise("up", tiling.window), noise("down", (path.n_sites,)), frames)

    proposal, ratio = in_groups(propose, path.mask.device, windows, names)
    accepted, info = metropolis("block", ratio.reshape(-1, n_windows), keys)
    chosen = where(accepted.ravel(), proposal, windows).reshape(flat.shape)
    moved: Floats = np.empty_like(flat)
    np.put_along_axis(moved, sites, chosen, 1)
    return State.of(moved.reshape(state.phi.shape)), info
