"""The reverse chain of points and its exact weights: laws of d = 1 or 2 real variables.

In the notation of diffsq.sampling.reverse_chain, down to level 1,

    reverse    R(x_n|x_{n+1}) = N(x_{n+1} + Delta_n s(x_{n+1}), c_n),   c_n (d, d) the residual on noised data
    start      p(x_N) = N(0, Sigma + sigma_N^2)

Points come in fixed blocks of 8192, random numbers keyed (seed, stream, block, level): point i is the same
whatever the number asked for.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.protocol import ActionFunction, Noise, PointScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.sampling.reverse_chain import Law, ReverseChain, finite, rise
from diffsq.sampling.streams import POINT_BLOCK, noise_of
from lattice.arrays import real_array
from lattice.errors import InputError
from lattice.progress import Progress, Silent

RETRAIN = "; train longer or add levels"


def check_levels(levels: Tensor) -> Tensor:
    """levels (N+1,) as float64. Raises `InputError` unless 0 = sigma_0 < sigma_1 < ... < sigma_N, N >= 2."""
    levels = torch.from_numpy(real_array(levels, "levels"))
    if levels.ndim != 1 or len(levels) < 3 or levels[0] != 0 or not (levels.diff() > 0).all():
        raise InputError("levels must be 0 = sigma_0 < sigma_1 < ... < sigma_N with N >= 2")
    return levels


class Gaussian(Law):
    """N(0, covariance (d, d)), float64. Raises `InputError` for a covariance that is not positive."""

    def __init__(self, covariance: Tensor) -> None:
        self.root, info = torch.linalg.cholesky_ex(covariance)
        if int(info) or not torch.isfinite(self.root).all():
            raise InputError("a covariance of the sampler is not positive definite: the model is damaged")

    def draw(self, noise: Tensor) -> Tensor:
        x: Tensor = noise @ self.root.T
        return x

    def log_density(self, x: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(self.root, x.T, upper=False)
        constant = self.root.diagonal().log().sum() + 0.5 * x.shape[1] * math.log(2 * math.pi)
        found: Tensor = -0.5 * (white**2).sum(0) - constant
        return found


@dataclass(frozen=True)
class Shifted(Law):
    """Means (n, d) and the law of the residual about them."""

    mean: Tensor
    residual: Law

    def draw(self, noise: Tensor) -> Tensor:
        return self.mean + self.residual.draw(noise)

    def log_density(self, x: Tensor) -> Tensor:
        return self.residual.log_density(x - self.mean)

    def propose(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        move, log_r = self.residual.propose(noise)  # the residual as drawn, not as left after rounding
        return self.mean + move, log_r


def start_law(model: PointScore, sigma: Tensor) -> Gaussian:
    """N(0, Sigma + sigma^2), the law in which paths start."""
    return Gaussian(model.covariance + sigma**2 * torch.eye(model.dim, dtype=torch.float64))


@dataclass(frozen=True)
class PointKernel:
    """levels (N+1,) and the covariances c_n of the N-1 steps from sigma_{n+1} to sigma_n, n = 1...N-1."""

    levels: Tensor
    covariance: Tensor


class PointPath(ReverseChain):
    """Forward and reverse chains of one model of points (n, d)."""

    last = 1

    def __init__(self, model: PointScore, kernel: PointKernel) -> None:
        self.model, self.kernel, self.levels = model, kernel, kernel.levels

    def start(self, level: int = -1) -> Gaussian:
        """N(0, Sigma + sigma^2)."""
        return start_law(self.model, self.levels[level])

    def reverse(self, x: Tensor, n: int, frame: Symmetry = IDENTITY) -> Shifted:
        """R(x_n | x_{n+1} = x)."""
        return Shifted(_mean(self.model, self.levels, x, n), Gaussian(self.kernel.covariance[n - 1]))


def _mean(model: PointScore, levels: Tensor, x: Tensor, n: int) -> Tensor:
    """Mean of R(x_n | x_{n+1} = x)."""
    delta = levels[n + 1] ** 2 - levels[n] ** 2
    return x + delta * model.score(x, levels[n + 1 : n + 2], IDENTITY)


def in_blocks(points: Tensor, seed: int, stream: str) -> Iterator[tuple[Tensor, Noise]]:
    """Points (n, d) by blocks of 8192, float64, and the noise of each."""
    for block, x in enumerate(torch.split(points.double(), POINT_BLOCK)):
        yield x, _cut(noise_of(seed, stream, block, (POINT_BLOCK, points.shape[1])), len(x))


def _cut(noise: Noise, n: int) -> Noise:
    return lambda step: noise(step)[:n]


@torch.no_grad()
def calibrated(
    model: PointScore, levels: Tensor, points: Tensor, seed: int, name: str = "", wider: float = 0.0
) -> PointKernel:
    """Measure c_n on data points (n, d) noised upwards through the levels.

    name: of the kernel; every one has noise of its own. wider: relative, for weighted paths: a proposal that
    is too narrow has an unbounded weight.
    """
    levels = check_levels(levels)
    total = torch.zeros(len(levels) - 2, model.dim, model.dim, dtype=torch.float64)
    for x, noise in in_blocks(points, seed, f"points/calibrate/{name}"):
        for n, low, high in rise(levels, x + levels[1] * noise(0), noise, range(1, len(levels) - 1)):
            left = low - _mean(model, levels, high, n)
            total[n - 1] += left.T @ left / len(points)
    return PointKernel(levels, (1 + wider) * total)


def sample_paths(
    path: PointPath, n: int, seed: int, action: ActionFunction, progress: Progress | None = None,
    start: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Points x_1 of number start ... n - 1 at the lowest level above zero, (n - start, d), and their exact
    log-weights (n - start,) for e^{-action}.

    Raises `InputError` for non-finite weights.
    """
    progress, parts, shape = progress or Silent(), [], (POINT_BLOCK, path.model.dim)
    blocks, top = range(start // POINT_BLOCK, -(-n // POINT_BLOCK)), len(path.levels) - 1
    progress.start(len(blocks) * POINT_BLOCK, "paths")
    for block in blocks:
        begin, steps = (noise_of(seed, s, block, shape) for s in ("points/path/start", "points/path"))
        x, log_w = path.sample(action, lambda k: begin(0) if k == top else steps(k))  # noqa: B023
        parts.append((x, finite(log_w, "path weights", RETRAIN)))
        progress.update(POINT_BLOCK)
    progress.close()
    own = slice(start % POINT_BLOCK, n - start // POINT_BLOCK * POINT_BLOCK)
    return torch.cat([x for x, _ in parts])[own], torch.cat([w for _, w in parts])[own]


def forward_weights(path: PointPath, points: Tensor, seed: int, action: ActionFunction) -> Tensor:
    """Log-weights (n,) of the paths that noise data points (n, d): see
    `diffsq.exactness.weights.forward_ess`.

    Raises `InputError` for non-finite weights.
    """
    blocks = in_blocks(points, seed, "points/forward")
    log_w = torch.cat([path.weigh(x, action, noise)[0] for x, noise in blocks])
    return finite(log_w, "path weights", RETRAIN)
