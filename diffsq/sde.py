"""The variance-expanding diffusion  dx = g(t) dw,  x(t) = x(0) + sigma(t) eps,  0 <= t <= 1.

sigma(t) = sigma_min (sigma_max/sigma_min)^t, the geometric schedule of Song et al. 2011.13456, and
g^2 = d sigma^2/dt.
Cumulants of the field along the forward process: kappa_n(t) = kappa_n(0) + delta_{n2} sigma(t)^2.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lattice.errors import InputError


@dataclass(frozen=True)
class VESDE:
    """Variance-expanding SDE between `sigma_min` and `sigma_max` (field units, kappa-lambda convention).

    Raises `InputError` unless 0 < sigma_min < sigma_max < infinity.

    >>> sde = VESDE(0.1, 10.0)
    >>> float(sde.sigma(torch.tensor(0.5)))
    1.0
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(
                f"need 0 < sigma_min < sigma_max < inf, got sigma_min = {self.sigma_min}, "
                f"sigma_max = {self.sigma_max}"
            )

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the added noise at time t."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of `sigma`."""
        return torch.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(d sigma^2/dt)."""
        return self.sigma(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def levels(self, n_levels: int) -> Tensor:
        """0 = sigma_0 < sigma_1 = sigma_min < ... < sigma_N = sigma_max, geometric above 0: (n_levels + 1,).

        >>> VESDE(0.1, 10.0).levels(3).tolist()
        [0.0, 0.1, 1.0, 10.0]
        """
        t = torch.linspace(0, 1, n_levels, dtype=torch.float64)
        return torch.cat([torch.zeros(1, dtype=torch.float64), self.sigma(t)])
