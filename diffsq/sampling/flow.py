r"""Sampling of learned points, and paths with exact weights.

All samplers start from N(0, Sigma + sigma_N^2) at the highest level and end at sigma_1, the lowest above
zero; from there the sample is x_0 = D(x_1, sigma_1), a mean over the data and so inside their convex hull
(made sure of by clamping to their bounding box), too narrow by a variance of about sigma_1^2.

    euler, pc, heun    the steps of diffsq.sampling.steps in x and sigma^2
    flow               probability flow in u = xi/sqrt(A) and tau = ln(v_min + sigma^2),
                       du/dtau = -1/2 (v_min + sigma^2)/A [sqrt(A) U^T s + u],     Runge-Kutta of order 4:
                       exact for Gaussian data, smooth at both ends; xi, A, U, v as in diffsq.models.points
    path               the Gaussian reverse steps of diffsq.sampling.point_path

Points are drawn in fixed blocks of 8192, random numbers keyed (seed, stream, block, level): sample i is the
same whatever the number asked for or the chunk, and starts in the same place whatever the levels.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffsq.models.protocol import Noise, PointScore, Watch, unseen
from diffsq.models.symmetry import still
from diffsq.sampling import steps
from diffsq.sampling.point_path import PointKernel, PointPath, check_levels, start_law
from diffsq.sampling.streams import POINT_BLOCK, noise_of
from lattice.errors import InputError
from lattice.progress import Progress, Silent

METHODS = (*steps.STEPS, "flow", "path")
Draw = Callable[[Tensor, Tensor, Noise, Watch], Tensor]
"""draw(x, levels, noise, watch) from the start at levels[-1] to levels[1]."""


@torch.no_grad()
def sample_points(
    model: PointScore, levels: Tensor, n: int, seed: int, method: str, progress: Progress | None = None,
    *, kernel: PointKernel | None = None, blocks: range | None = None, watch: Watch = unseen,
    clamped: list[Tensor] | None = None, name: str = "",
) -> Tensor:  # fmt: skip
    """n points (n, d) float64 through levels (N+1,), 0 = sigma_0 < ... < sigma_N (VESDE/VPSDE.levels).

    kernel: of method "path", for these levels. blocks: only these blocks of 8192 (a part of the same
    samples, for another process). watch(level, x) sees every whole block at every level above zero, then x_0
    at level 0. clamped collects which points of each block (n,) were brought back into the data's box. name:
    of the sampler, which has random numbers of its own. Raises `InputError` for an unknown method, bad
    levels, a missing kernel or non-finite samples.

    >>> from diffsq.models.points import PointModel
    >>> levels = torch.tensor([0.0, 0.1, 1.0, 10.0])
    >>> x = sample_points(PointModel(1, "score", 8, 2), levels, 100, 1, "flow")     # untrained: N(0, 1)
    >>> tuple(x.shape), abs(float(x.std()) - 1) < 0.2
    ((100, 1), True)
    """
    levels, draw = check_levels(levels), _drawer(model, method, kernel)
    if kernel is not None and not torch.equal(kernel.levels, levels):
        raise InputError("the kernel was measured at other levels; calibrate it at these")
    progress, parts, shape = progress or Silent(), [], (POINT_BLOCK, model.dim)
    chosen = range(-(-n // POINT_BLOCK)) if blocks is None else blocks
    progress.start(len(chosen) * POINT_BLOCK, "points")
    for block in chosen:
        eps = noise_of(seed, f"points/start{name}", block, shape)(0)
        noise = noise_of(seed, f"points/sample{name}", block, shape)
        x = draw(start_law(model, levels[-1]).draw(eps), levels, noise, watch)
        mean, x = _last(model, x, levels)
        if clamped is not None:
            clamped.append((mean != x).any(1)[: n - block * POINT_BLOCK])
        if not torch.isfinite(x).all():
            raise InputError(f"samples of block {block} are NaN or infinite; train longer or add levels")
        watch(0, x)
        parts.append(x[: n - block * POINT_BLOCK])
        progress.update(POINT_BLOCK)
    progress.close()
    return torch.cat(parts)


def flow_points(model: PointScore, x: Tensor, levels: Tensor) -> Tensor:
    """Where the probability flow takes points x (n, d) from levels[-1] to: (n, d), at level 0."""
    return _last(model, _flow(model, x, levels, lambda step: x, unseen), levels)[1]


def _last(model: PointScore, x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """D(x_1), and the same within the data's box."""
    mean = model.denoise(x, levels[1:2])
    return mean, mean.clamp(model.box[0], model.box[1])


def _drawer(model: PointScore, method: str, kernel: PointKernel | None) -> Draw:
    if method == "flow":
        return partial(_flow, model)
    if method == "path":
        if kernel is None:
            raise InputError('method "path" needs a kernel: calibrate one on the training points')
        return partial(_path, PointPath(model, kernel))
    if method not in steps.STEPS:
        raise InputError(f"unknown sampling method {method!r}; choose one of {', '.join(METHODS)}")
    step = steps.STEPS[method]

    def draw(x: Tensor, levels: Tensor, noise: Noise, watch: Watch) -> Tensor:
        return steps.run(step, model, x, levels[1:], noise, still, lambda n, y: watch(n + 1, y))

    return draw


def _path(path: PointPath, start: Tensor, levels: Tensor, noise: Noise, watch: Watch) -> Tensor:
    watch(len(levels) - 1, start)
    for n, x, _ in path.down(start, lambda level: noise(2 * level)):
        watch(n, x)
    return x


def _flow(model: PointScore, x: Tensor, levels: Tensor, noise: Noise, watch: Watch) -> Tensor:
    variance, axes = torch.linalg.eigh(model.covariance)
    bottom = variance[0]

    def root_of(tau: Tensor) -> Tensor:
        root: Tensor = torch.sqrt(variance - bottom + tau.exp())
        return root

    def slope(u: Tensor, tau: Tensor) -> Tensor:
        root, sigma = root_of(tau), torch.sqrt((tau.exp() - bottom).clamp_min(0))[None]
        s = model.score(u * root @ axes.T, sigma)
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
