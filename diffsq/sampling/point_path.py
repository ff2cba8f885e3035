r"""Paths of points through noise levels, and their exact weights: laws of d = 1 or 2 real variables.

    start      p(x_N) = N(0, Sigma + sigma_N^2)
    reverse    R(x_n|x_{n+1}) = N(x_{n+1} + rho_n (D - x_{n+1}), c_n),  rho_n = Delta_n/sigma_{n+1}^2,
               Delta_n = sigma_{n+1}^2 - sigma_n^2, c_n (d, d) the residual on noised data
    forward    F(x_{n+1}|x_n) = N(x_n, Delta_n)

Down to level 1 a path has the weight log w = ln pi(x_1) + sum_n ln F - ln p(x_N) - sum_n ln R with
E_R[w] = int pi for any density pi at level 1, any D, c and levels. On noised data it gives the forward ESS.

Points come in fixed blocks of 8192, random numbers keyed (seed, stream, block, level): point i is the same
whatever the number asked for.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.protocol import Noise, PointScore
from diffsq.models.symmetry import IDENTITY
from diffsq.sampling.streams import POINT_BLOCK, point_noise
from lattice.errors import InputError
from lattice.progress import Progress, Silent

LogDensity = Callable[[Tensor], Tensor]
"""ln pi(x) of x (n, d): (n,) float64."""


def check_levels(levels: Tensor) -> Tensor:
    """levels (N+1,) as float64. Raises `InputError` unless 0 = sigma_0 < sigma_1 < ... < sigma_N, N >= 2."""
    levels = torch.as_tensor(levels, dtype=torch.float64)
    if levels.ndim != 1 or len(levels) < 3 or levels[0] != 0 or not (levels.diff() > 0).all():
        raise InputError("levels must be 0 = sigma_0 < sigma_1 < ... < sigma_N with N >= 2")
    return levels


class Gaussian:
    """N(0, covariance (d, d)), float64. Raises `InputError` for a covariance that is not positive."""

    def __init__(self, covariance: Tensor) -> None:
        root, info = torch.linalg.cholesky_ex(covariance)
        if int(info) or not torch.isfinite(root).all():
            raise InputError("a covariance of the sampler is not positive definite: the model is damaged")
        self.root: Tensor = root

    def draw(self, white: Tensor) -> Tensor:
        """From white noise (n, d)."""
        return white @ self.root.T

    def log_density(self, x: Tensor) -> Tensor:
        """ln of the density at x (n, d): (n,)."""
        white = torch.linalg.solve_triangular(self.root, x.T, upper=False)
        constant = self.root.diagonal().log().sum() + 0.5 * x.shape[1] * math.log(2 * math.pi)
        found: Tensor = -0.5 * (white**2).sum(0) - constant
        return found


def start_law(model: PointScore, sigma: Tensor) -> Gaussian:
    """N(0, Sigma + sigma^2), the law in which paths start."""
    return Gaussian(model.covariance + sigma**2 * torch.eye(model.dim, dtype=torch.float64))


@dataclass(frozen=True)
class PointKernel:
    """levels (N+1,) and the covariances c_n of the N-1 steps from sigma_{n+1} to sigma_n, n = 1...N-1."""

    levels: Tensor
    covariance: Tensor

    def law(self, step: int) -> Gaussian:
        """N(0, c_n) of the step that ends at level `step` >= 1."""
        return Gaussian(self.covariance[step - 1])


def _mean(model: PointScore, levels: Tensor, x: Tensor, step: int) -> Tensor:
    """Mean of R(x_n | x_{n+1} = x), n = `step`."""
    delta = levels[step + 1] ** 2 - levels[step] ** 2
    return x + delta * model.score(x, levels[step + 1 : step + 2], IDENTITY)


@torch.no_grad()
def calibrated(
    model: PointScore, levels: Tensor, points: Tensor, seed: int, wider: float = 0.0
) -> PointKernel:
    """Measure c_n on data points (n, d) noised upwards through the levels.

    wider: relative, for weighted paths: a proposal that is too narrow has an unbounded weight.
    """
    levels = check_levels(levels)
    total = torch.zeros(len(levels) - 2, model.dim, model.dim, dtype=torch.float64)
    for block in range(-(-len(points) // POINT_BLOCK)):
        x = points[block * POINT_BLOCK : (block + 1) * POINT_BLOCK].double()
        noise = point_noise(seed, "points/calibrate", block, model.dim)
        x = x + levels[1] * noise(0)[: len(x)]
        for step in range(1, len(levels) - 1):
            high = x + (levels[step + 1] ** 2 - levels[step] ** 2).sqrt() * noise(step)[: len(x)]
            left = x - _mean(model, levels, high, step)
            total[step - 1] += left.T @ left / len(points)
            x = high
    return PointKernel(levels, (1 + wider) * total)


def draw_path(
    model: PointScore,
    kernel: PointKernel,
    x: Tensor,
    levels: Tensor,
    noise: Noise,
    watch: Callable[[int, Tensor], None],
) -> Tensor:
    """Points x (n, d) at levels[-1] down to levels[1] by the kernel."""
    watch(len(levels) - 1, x)
    for step in reversed(range(1, len(levels) - 1)):
        x = _mean(model, levels, x, step) + kernel.law(step).draw(noise(2 * step))
        watch(step, x)
    return x


@torch.no_grad()
def sample_paths(
    model: PointScore,
    kernel: PointKernel,
    n: int,
    seed: int,
    log_density: LogDensity,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """n points x_1 (n, d) at the lowest level above zero, and their exact log-weights (n,) for `log_density`.

    Raises `InputError` for non-finite weights.
    """
    progress, parts = progress or Silent(), []
    progress.start(-(-n // POINT_BLOCK) * POINT_BLOCK, "paths")
    for x, log_w in _paths(model, kernel, n, seed):
        parts.append((x, _finite(log_w + log_density(x))))
        progress.update(POINT_BLOCK)
    progress.close()
    return torch.cat([x for x, _ in parts])[:n], torch.cat([w for _, w in parts])[:n]


def _paths(model: PointScore, kernel: PointKernel, n: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    levels, dim = kernel.levels, model.dim
    start = start_law(model, levels[-1])
    for block in range(-(-n // POINT_BLOCK)):
        noise = point_noise(seed, "points/path", block, dim)
        x = point_noise(seed, "points/path/start", block, dim)(0)
        x = start.draw(x)
        log_w = -start.log_density(x)
        for step in reversed(range(1, len(levels) - 1)):
            law = kernel.law(step)
            move = law.draw(noise(step))
            low = _mean(model, levels, x, step) + move
            log_w += log_forward(levels, step, low, x) - law.log_density(move)
            x = low
        yield x, log_w


@torch.no_grad()
def forward_weights(
    model: PointScore, kernel: PointKernel, points: Tensor, seed: int, log_density: LogDensity
) -> Tensor:
    """Log-weights (n,) of the paths that noise data points (n, d): see
    `diffsq.exactness.weights.forward_ess`.

    Raises `InputError` for non-finite weights.
    """
    levels, found = kernel.levels, []
    for block in range(-(-len(points) // POINT_BLOCK)):
        x = points[block * POINT_BLOCK : (block + 1) * POINT_BLOCK].double()
        noise = point_noise(seed, "points/forward", block, model.dim)
        x = x + levels[1] * noise(0)[: len(x)]
        log_w = log_density(x)
        for step in range(1, len(levels) - 1):
            high = x + (levels[step + 1] ** 2 - levels[step] ** 2).sqrt() * noise(step)[: len(x)]
            law, mean = kernel.law(step), _mean(model, levels, high, step)
            log_w = log_w + log_forward(levels, step, x, high) - law.log_density(x - mean)
            x = high
        found.append(log_w - start_law(model, levels[-1]).log_density(x))
    return _finite(torch.cat(found))


def log_forward(levels: Tensor, step: int, low: Tensor, high: Tensor) -> Tensor:
    """ln F(x_{n+1} = high|x_n = low), n = `step`: (n,)."""
    delta = levels[step + 1] ** 2 - levels[step] ** 2
    found: Tensor = -0.5 * ((low - high) ** 2).sum(1) / delta
    return found - 0.5 * low.shape[1] * math.log(2 * math.pi * float(delta))


def _finite(log_w: Tensor) -> Tensor:
    bad = int((~torch.isfinite(log_w)).sum())
    if bad:
        raise InputError(f"{bad} path weights are NaN or infinite; train longer or add levels")
    return log_w
