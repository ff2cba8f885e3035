"""The noising processes of Song et al. 2011.13456,  dx = -1/2 k(t) x dt + g(t) dw,  0 <= t <= 1.

With f = exp(-1/2 int_0^t k) both read  x(t) = f(t) [x(0) + sigma(t) eps]:

    variance-expanding   k = 0, f = 1, sigma = sigma_min (sigma_max/sigma_min)^t, g^2 = d sigma^2/dt
    variance-preserving  k = g^2 = beta_min + (beta_max - beta_min) t, sigma^2 = e^{int k} - 1 = 1/f^2 - 1

so they are one process in the variable x/f, seen at other times. A path-space weight is a ratio of densities
of the same path and does not change under the rescaling (Jacobians of log F, log R and log p(x_N) cancel):
samplers here work in x/f for both, and a process is its noise levels. Cumulants along the forward process:
kappa_n(t) = f^n [kappa_n(0) + delta_{n2} sigma(t)^2].
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lattice.errors import InputError

BETA_RATIO = 200.0  # beta_max/beta_min, as 0.1 and 20 in Song et al., appendix C


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

    def speed(self, t: Tensor) -> Tensor:
        """d sigma/dt."""
        return self.sigma(t) * math.log(self.sigma_max / self.sigma_min)

    def levels(self, n_levels: int) -> Tensor:
        """0 = sigma_0 < sigma_1 = sigma_min < ... < sigma_N = sigma_max, geometric above 0: (n_levels + 1,).

        >>> VESDE(0.1, 10.0).levels(3).tolist()
        [0.0, 0.1, 1.0, 10.0]
        """
        return _from_zero(self.sigma(torch.linspace(0, 1, n_levels, dtype=torch.float64)))

    def signal(self, t: Tensor) -> Tensor:
        """f(t) = 1."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class VPSDE:
    """Variance-preserving SDE whose noise-to-signal ratio ends at `sigma_max`, first level at `sigma_min`.

    beta is linear in t, beta_max = 200 beta_min; levels are uniform in t. Raises `InputError` unless
    0 < sigma_min < sigma_max < infinity.

    >>> sde = VPSDE(0.1, 10.0)
    >>> t = torch.tensor(1.0, dtype=torch.float64)
    >>> round(float(sde.signal(t) ** 2 * (1 + sde.sigma(t) ** 2)), 12)      # unit variance is preserved
    1.0
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        VESDE(self.sigma_min, self.sigma_max)  # the same conditions

    @property
    def beta_min(self) -> float:
        """beta(0)."""
        return math.log1p(self.sigma_max**2) / (0.5 * (BETA_RATIO + 1))

    def beta(self, t: Tensor) -> Tensor:
        """k(t) = g(t)^2."""
        return self.beta_min * (1 + (BETA_RATIO - 1) * t)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * (t + 0.5 * (BETA_RATIO - 1) * t**2)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio: standard deviation of the noise in x/f."""
        return torch.expm1(self._integral(t)).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of `sigma`."""
        half, y = 0.5 * (BETA_RATIO - 1), torch.log1p(sigma**2) / self.beta_min
        return 2 * y / (1 + torch.sqrt(1 + 4 * half * y))

    def signal(self, t: Tensor) -> Tensor:
        """f(t) = exp(-1/2 int_0^t beta)."""
        return torch.exp(-0.5 * self._integral(t))

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sqrt(beta(t))."""
        return self.beta(t).sqrt()

    def speed(self, t: Tensor) -> Tensor:
        """d sigma/dt."""
        sigma = self.sigma(t)
        return 0.5 * self.beta(t) * (1 + sigma**2) / sigma

    def levels(self, n_levels: int) -> Tensor:
        """0 = sigma_0 < sigma_1 = sigma_min < ... < sigma_N = sigma_max, uniform in t: (n_levels + 1,)."""
        first = float(self.time(torch.tensor(self.sigma_min, dtype=torch.float64)))
        return _from_zero(self.sigma(torch.linspace(first, 1, n_levels, dtype=torch.float64)))


SDES: dict[str, type[VESDE] | type[VPSDE]] = {"ve": VESDE, "vp": VPSDE}


def _from_zero(sigma: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.float64), sigma])
