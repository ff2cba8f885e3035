"""The exact score of the two-peak law, for telling the error of a sampler from that of a model."""

import math

import numpy as np
import torch
from torch import Tensor

from lattice.arrays import Floats
from lattice.errors import InputError


class TwoPeakScore:
    """Exact denoiser and score of the two-peak law; points x (n, 1), sigma (n,) or (1,), float64.

    Raises `InputError` unless mu0 is finite and sigma0 > 0.
    """

    dim = 1

    def __init__(self, mu0: float = 1.0, sigma0: float = 0.25) -> None:
        if not (math.isfinite(mu0) and 0 < sigma0 < math.inf):
            raise InputError(f"two-peak law: need a finite mu0 and sigma0 > 0, got {mu0} and {sigma0}")
        self.mu0, self.sigma0 = mu0, sigma0
        self.covariance = torch.tensor([[mu0**2 + sigma0**2]], dtype=torch.float64)
        self.box = torch.tensor([[-math.inf], [math.inf]], dtype=torch.float64)

    def _parts(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s2 = (self.sigma0**2 + sigma**2)[:, None]
        return sigma[:, None] ** 2, s2, torch.tanh(self.mu0 * x / s2)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """<x_0>_x."""
        var, s2, t = self._parts(x, sigma)
        return (self.sigma0**2 * x + var * self.mu0 * t) / s2

    def score(self, x: Tensor, sigma: Tensor, frame: object = None) -> Tensor:
        """d ln p_sigma/dx, at sigma = 0 too."""
        _, s2, t = self._parts(x, sigma)
        return (self.mu0 * t - x) / s2

    def posterior_variance(self, x: Tensor, sigma: Tensor) -> Tensor:
        """C(x) = Var(x_0|x)."""
        var, s2, t = self._parts(x, sigma)
        return self.sigma0**2 * var / s2 + (var * self.mu0 / s2) ** 2 * (1 - t**2)

    def energy(self, x: Tensor, sigma: Tensor) -> Tensor:
        """-ln p_sigma(x): (n,)."""
        s2 = (self.sigma0**2 + sigma**2)[:, None]
        a = self.mu0 * x / s2
        log_cosh = a.abs() + torch.log1p(torch.exp(-2 * a.abs())) - math.log(2.0)
        out = (x**2 + self.mu0**2) / (2 * s2) - log_cosh + 0.5 * torch.log(2 * math.pi * s2)
        return out[:, 0]

    @property
    def cumulants(self) -> Floats:
        """kappa_1..kappa_8 (8,)."""
        mu, odd = self.mu0, 0.0
        even = (mu**2 + self.sigma0**2, -2 * mu**4, 16 * mu**6, -272 * mu**8)
        return np.array([v for k in even for v in (odd, k)])
