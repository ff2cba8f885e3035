"""Samplers without weights: one `step` from sigma_{n+1} down to sigma_n, which `run` loops over the levels.

In the variable sigma^2 the variance-expanding process is plain Brownian motion (Song et al. 2011.13456, eqs.
6, 13): reverse SDE  dx = s d(sigma^2) + dw,  probability flow  dx = (s/2) d(sigma^2). None of them is exact
at finite N: for exact weights use `diffsq.sampling.lattice_path`. Lattice fields and points
(diffsq.models.points) share the steps.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffsq.models.protocol import Frames, Noise, Scored, Watch, unseen
from diffsq.models.symmetry import Symmetry

Step = Callable[[Scored, Tensor, Tensor, Tensor, Noise, Symmetry], Tensor]
"""step(model, x, sigma_high, sigma_low, noise, frame) -> x at sigma_low; noise(i) gives independent draws."""
SIGNAL_TO_NOISE = 0.16  # corrector step, eps = 2 (r sigma)^2 (Song et al., appendix G)


def _draw(noise: Noise, level: int, i: int) -> Tensor:
    return noise(2 * level + i)


def _score(model: Scored, x: Tensor, sigma: Tensor, frame: Symmetry) -> Tensor:
    return model.score(x, sigma.expand(len(x)), frame)


def euler_maruyama(
    model: Scored, x: Tensor, high: Tensor, low: Tensor, noise: Noise, frame: Symmetry
) -> Tensor:
    """Reverse SDE, first order weak: x + Delta s(x, sigma_high) + sqrt(Delta) eps, Delta = high^2 - low^2."""
    delta = high**2 - low**2
    return x + delta * _score(model, x, high, frame) + delta.sqrt() * noise(0)


def predictor_corrector(
    model: Scored, x: Tensor, high: Tensor, low: Tensor, noise: Noise, frame: Symmetry
) -> Tensor:
    """Euler-Maruyama, then one Langevin step x + eps s + sqrt(2 eps) z at sigma_low (none at zero)."""
    x = euler_maruyama(model, x, high, low, noise, frame)
    if low == 0:
        return x
    eps = 2 * (SIGNAL_TO_NOISE * low) ** 2
    return x + eps * _score(model, x, low, frame) + (2 * eps).sqrt() * noise(1)


def heun(model: Scored, x: Tensor, high: Tensor, low: Tensor, noise: Noise, frame: Symmetry) -> Tensor:
    """Probability-flow ODE, second order in sigma^2; the last step, to sigma = 0, is Euler's."""
    delta = high**2 - low**2
    slope = 0.5 * _score(model, x, high, frame)
    if low == 0:
        return x + delta * slope
    end = 0.5 * _score(model, x + delta * slope, low, frame)
    return x + 0.5 * delta * (slope + end)


STEPS: dict[str, Step] = {"euler": euler_maruyama, "pc": predictor_corrector, "heun": heun}


@torch.no_grad()
def run(
    step: Step, model: Scored, start: Tensor, levels: Tensor, noise: Noise, frames: Frames,
    watch: Watch = unseen,
) -> Tensor:  # fmt: skip
    """Carry fields (n, ...) from their `start` law at levels[-1] down the levels (N+1,) to levels[0].

    noise(2 n + i) is the i-th draw of the step that ends at level n; noise(2 N) is kept for the start.
    """
    n_levels, x = len(levels) - 1, start
    watch(n_levels, x)
    for n in reversed(range(n_levels)):
        x = step(model, x, levels[n + 1], levels[n], partial(_draw, noise, n), frames(n))
        watch(n, x)
    return x
