r"""Heat-kernel noise on angles: links that diffuse on the circle, a_sigma = a + sigma xi, wrapped.

The law of a noisy angle is the wrapped normal one, the heat kernel of the circle,

    p(a) = sum_n N(a + 2 pi n; 0, sigma^2) = (1/2 pi) [1 + 2 sum_n e^{-n^2 sigma^2/2} cos n a],

and noise on every link multiplies a loop of P distinct links by e^{-P sigma^2/2}, whatever the law of the
links: what the cumulants beyond the second are for scalar fields, the test of the forward process. At
`SIGMA_MAX` a plaquette is 4e-6 of what it was and the law uniform on all links for all purposes; the weights
of paths do not ask for it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsq.process.sde import VESDE
from lattice.arrays import wrapped
from lattice.errors import InputError

SIGMA_MAX = 2.5
N_IMAGES = 6  # e^{-(12 pi)^2/2/6.25}, nothing


def log_heat_kernel(angle: Tensor, sigma: float) -> Tensor:
    """ln of the wrapped normal density at angles (...), sigma > 0 (`InputError`).

    >>> float(log_heat_kernel(torch.zeros(1).double(), 20.0).exp() * 2 * math.pi)
    1.0
    """
    if not sigma > 0:
        raise InputError(f"heat-kernel noise has sigma > 0, got {sigma}")
    if sigma < SIGMA_MAX:
        images = wrapped(angle)[..., None] + 2 * math.pi * torch.arange(
            -N_IMAGES, N_IMAGES + 1, dtype=angle.dtype
        )
        each = -0.5 * (images / sigma) ** 2
        return torch.logsumexp(each, -1) - math.log(sigma) - 0.5 * math.log(2 * math.pi)
    orders = torch.arange(1, 5, dtype=angle.dtype)
    waves = (angle[..., None] * orders).cos() @ torch.exp(-0.5 * (orders * sigma) ** 2)
    return torch.log1p(2 * waves) - math.log(2 * math.pi)


def loop_factor(sigma: float, n_links: int) -> float:
    """What noise on every link leaves of a loop of so many distinct links.

    >>> round(loop_factor(1.0, 4), 6)
    0.135335
    """
    return math.exp(-0.5 * n_links * sigma**2)


def noisy(links: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """Links (n, 2, L0, L1) after the process, in (-pi, pi], from white noise like them."""
    return wrapped(links + sigma * noise)


def levels(sigma_min: float, n_levels: int, sigma_max: float = SIGMA_MAX) -> Tensor:
    """0 = sigma_0 < sigma_min < ... < sigma_max, geometric above 0: (n_levels + 1,) float64."""
    if not 0 < sigma_min < sigma_max or n_levels < 2:
        raise InputError(
            f"levels on the circle rise from sigma_min to {sigma_max:g}, 2 at least; got {sigma_min:g}, "
            f"{n_levels} levels"
        )
    return VESDE(sigma_min, sigma_max).levels(n_levels)
