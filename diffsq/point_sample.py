r"""Sampling of learned points, and paths with exact weights.

All samplers start from N(0, Sigma + sigma_N^2) at the highest level and end at sigma_1, the lowest above
zero; from there the sample is x_0 = D(x_1, sigma_1), a mean over the data and so inside their convex hull
(made sure of by clamping to their bounding box), too narrow by a variance of about sigma_1^2.

    euler, pc, heun    the steps of diffsq.sampler in x and sigma^2
    flow               probability flow in u = xi/sqrt(A) and tau = ln(v_min + sigma^2),
                       du/dtau = -1/2 (v_min + sigma^2)/A [sqrt(A) U^T s + u],     Runge-Kutta of order 4:
                       exact for Gaussian data, smooth at both ends; xi, A, U, v as in diffsq.points
    path               R(x_n|x_{n+1}) = N(x_{n+1} + rho_n (D - x_{n+1}), c_n),  rho_n = Delta_n/sigma_{n+1}^2,
                       Delta_n = sigma_{n+1}^2 - sigma_n^2, c_n (d, d) the residual on noised data

A path has the weight log w = ln pi(x_1) + sum_n ln F - ln p(x_N) - sum_n ln R with the forward
F(x_{n+1}|x_n) = N(x_n, Delta_n): E_R[w] = int pi for any density pi at level 1, any D, c and levels.

Points are drawn in fixed blocks of 8192, random numbers keyed (seed, stream, block, level): sample i is the
same whatever the number asked for or the chunk, and starts in the same place whatever the levels.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from diffsq import sampler
from diffsq.kernel import Noise
from diffsq.score import IDENTITY, Symmetry
from lattice.errors import InputError
from lattice.progress import Progress, Silent
from lattice.rng import normals

BLOCK = 8192
METHODS = (*sampler.STEPS, "flow", "path")
WIDER = 0.005  # of c_n, relative: a proposal too narrow has an unbounded weight

LogDensity = Callable[[Tensor], Tensor]
"""ln pi(x) of x (n, d): (n,) float64."""


class PointScore(Protocol):
    """What a sampler of points needs: see diffsq.points.PointModel."""

    dim: int

    @property
    def covariance(self) -> Tensor:
        """Data covariance (d, d)."""

    @property
    def box(self) -> Tensor:
        """Smallest and largest coordinates of the data (2, d)."""

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0|x] (n, d)."""

    def score(self, x: Tensor, sigma: Tensor, frame: Symmetry = ..., /) -> Tensor:
        """grad ln p_sigma(x) (n, d)."""


def check_levels(levels: Tensor) -> Tensor:
    """levels (N+1,) as float64. Raises `InputError` unless 0 = sigma_0 < sigma_1 < ... < sigma_N, N >= 2."""
    levels = torch.as_tensor(levels, dtype=torch.float64)
    if levels.ndim != 1 or len(levels) < 3 or levels[0] != 0 or not (levels.diff() > 0).all():
        raise InputError("levels must be 0 = sigma_0 < sigma_1 < ... < sigma_N with N >= 2")
    return levels


def noise_of(seed: int, stream: str, block: int, dim: int) -> Noise:
    """noise(step) -> (BLOCK, dim) standard normal, a function of (seed, stream, block, step)."""

    def draw(step: int) -> Tensor:
        eps = normals(seed, stream, np.array([block]), step, BLOCK * dim)
        return torch.from_numpy(eps).reshape(BLOCK, dim)

    return draw


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


@torch.no_grad()
def sample_points(
    model: PointScore,
    levels: Tensor,
    n: int,
    seed: int,
    method: str,
    progress: Progress | None = None,
    *,
    kernel: "PointKernel | None" = None,
    blocks: range | None = None,
    watch: Callable[[int, Tensor], None] = lambda level, x: None,
    clamped: list[int] | None = None,
) -> Tensor:
    """n points (n, d) float64 through levels (N+1,), 0 = sigma_0 < ... < sigma_N (VESDE/VPSDE.levels).

    kernel: of method "path", for these levels. blocks: only these blocks of 8192 (a part of the same
    samples, for another process). watch(level, x) sees every block at every level above zero, then x_0 at
    level 0. clamped collects how many of each block were brought back into the data's box. Raises
    `InputError` for an unknown method, bad levels, a missing kernel or non-finite samples.

    >>> from diffsq.points import PointModel
    >>> levels = torch.tensor([0.0, 0.1, 1.0, 10.0])
    >>> x = sample_points(PointModel(1, "score", 8, 2), levels, 100, 1, "flow")     # untrained: N(0, 1)
    >>> tuple(x.shape), abs(float(x.std()) - 1) < 0.2
    ((100, 1), True)
    """
    levels, draw = check_levels(levels), _drawer(model, method, kernel)
    if kernel is not None and not torch.equal(kernel.levels, levels):
        raise InputError("the kernel was measured at other levels; calibrate it at these")
    progress, parts = progress or Silent(), []
    chosen = range(-(-n // BLOCK)) if blocks is None else blocks
    progress.start(len(chosen) * BLOCK, "points")
    for block in chosen:
        noise = noise_of(seed, "points/sample", block, model.dim)
        eps = noise_of(seed, "points/start", block, model.dim)(0)
        x = draw(start_law(model, levels[-1]).draw(eps), levels, noise, watch)
        mean = model.denoise(x, levels[1:2])
        x = mean.clamp(model.box[0], model.box[1])
        if clamped is not None:
            clamped.append(int((mean != x).any(1).sum()))
        if not torch.isfinite(x).all():
            raise InputError(f"samples of block {block} are NaN or infinite; train longer or add levels")
        watch(0, x)
        parts.append(x[: n - block * BLOCK])
        progress.update(BLOCK)
    progress.close()
    return torch.cat(parts)


Draw = Callable[[Tensor, Tensor, Noise, Callable[[int, Tensor], None]], Tensor]


def _still(level: int) -> Symmetry:
    return IDENTITY


def _drawer(model: PointScore, method: str, kernel: "PointKernel | None") -> Draw:
    """draw(x, levels, noise, watch) from the start at levels[-1] to levels[1]."""
    if method == "flow":
        return partial(_flow, model)
    if method == "path":
        if kernel is None:
            raise InputError('method "path" needs a kernel: calibrate one on the training points')
        return partial(_plain_path, model, kernel)
    if method not in sampler.STEPS:
        raise InputError(f"unknown sampling method {method!r}; choose one of {', '.join(METHODS)}")
    step = sampler.STEPS[method]

    def draw(x: Tensor, levels: Tensor, noise: Noise, watch: Callable[[int, Tensor], None]) -> Tensor:
        return sampler.run(step, model, x, levels[1:], noise, _still, lambda n, y: watch(n + 1, y))

    return draw


def _flow(
    model: PointScore, x: Tensor, levels: Tensor, noise: Noise, watch: Callable[[int, Tensor], None]
) -> Tensor:
    variance, axes = torch.linalg.eigh(model.covariance)
    bottom = variance[0]

    def root_of(tau: Tensor) -> Tensor:
        root: Tensor = torch.sqrt(variance - bottom + tau.exp())
        return root

    def slope(u: Tensor, tau: Tensor) -> Tensor:
        root, sigma = root_of(tau), torch.sqrt((tau.exp() - bottom).clamp_min(0))[None]
        s = model.score(u * root @ axes.T, sigma, IDENTITY)
        change: Tensor = -0.5 * tau.exp() / root**2 * (root * (s @ axes) + u)
        return change

    grid = torch.log(bottom + levels[1:] ** 2)
    u = x @ axes / root_of(grid[-1])
    watch(len(levels) - 1, x)
    for n in reversed(range(len(grid) - 1)):
        tau, h = grid[n + 1], grid[n] - grid[n + 1]
        k1 = slope(u, tau)
        k2 = slope(u + 0.5 * h * k1, tau + 0.5 * h)
        k3 = slope(u + 0.5 * h * k2, tau + 0.5 * h)
        u = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(u + h * k3, grid[n]))
        watch(n + 1, u * root_of(grid[n]) @ axes.T)
    x = u * root_of(grid[0]) @ axes.T
    return x


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
def calibrated(model: PointScore, levels: Tensor, points: Tensor, seed: int) -> PointKernel:
    """Measure c_n on data points (n, d) noised upwards through the levels; 0.5 % wider than measured."""
    levels = check_levels(levels)
    total = torch.zeros(len(levels) - 2, model.dim, model.dim, dtype=torch.float64)
    for block in range(-(-len(points) // BLOCK)):
        x = points[block * BLOCK : (block + 1) * BLOCK].double()
        noise = noise_of(seed, "points/calibrate", block, model.dim)
        x = x + levels[1] * noise(0)[: len(x)]
        for step in range(1, len(levels) - 1):
            high = x + (levels[step + 1] ** 2 - levels[step] ** 2).sqrt() * noise(step)[: len(x)]
            left = x - _mean(model, levels, high, step)
            total[step - 1] += left.T @ left / len(points)
            x = high
    return PointKernel(levels, (1 + WIDER) * total)


def _plain_path(
    model: PointScore,
    kernel: PointKernel,
    x: Tensor,
    levels: Tensor,
    noise: Noise,
    watch: Callable[[int, Tensor], None],
) -> Tensor:
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
    progress.start(-(-n // BLOCK) * BLOCK, "paths")
    for x, log_w in _paths(model, kernel, n, seed):
        log_w = log_w + log_density(x)
        bad = int((~torch.isfinite(log_w)).sum())
        if bad:
            raise InputError(f"{bad} path weights are NaN or infinite; train longer or add levels")
        parts.append((x, log_w))
        progress.update(BLOCK)
    progress.close()
    return torch.cat([x for x, _ in parts])[:n], torch.cat([w for _, w in parts])[:n]


def _paths(model: PointScore, kernel: PointKernel, n: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    levels, dim = kernel.levels, model.dim
    start = start_law(model, levels[-1])
    for block in range(-(-n // BLOCK)):
        noise = noise_of(seed, "points/path", block, dim)
        x = noise_of(seed, "points/path/start", block, dim)(0)
        x = start.draw(x)
        log_w = -start.log_density(x)
        for step in reversed(range(1, len(levels) - 1)):
            law = kernel.law(step)
            move = law.draw(noise(step))
            low = _mean(model, levels, x, step) + move
            delta = levels[step + 1] ** 2 - levels[step] ** 2
            forward = -0.5 * (((low - x) ** 2).sum(1) / delta + dim * math.log(2 * math.pi * float(delta)))
            log_w += forward - law.log_density(move)
            x = low
        yield x, log_w
