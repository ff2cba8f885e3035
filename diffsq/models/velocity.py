"""The velocity of a closed-form score in normal coordinates, with the trace of its Jacobian."""

import torch
from torch import Tensor

from diffsq.models.combination import Combination
from diffsq.models.features import Features, times, twice
from diffsq.models.regression import RegressionBase


class Velocity:
    """rate(k) c(k) of a base at one noise level sigma (), for any samples, rate (n_class,).

    y (n, *half) are the normal coordinates, x(k) = sqrt(G + sigma^2) y(k); features are made in `dtype`.
    """

    def __init__(
        self, base: RegressionBase, sigma: Tensor, rate: Tensor, dtype: torch.dtype = torch.float32
    ) -> None:
        p, self.base, self.sigma = base.momenta, base, sigma[None]
        self.complex = torch.complex64 if dtype == torch.float32 else torch.complex128
        root = p.expand((base.g + sigma**2).sqrt())
        self.root, self.root_zero = twice(root[None].to(dtype)), root[0, 0]
        r = p.expand((rate[:, None] * base.at(base.coefficients, self.sigma)[0]).T)
        self.filters = base.filters(self.sigma, dtype)
        self.sums = Combination.of(base.filters(self.sigma, torch.float64), root, r[:-1])
        self.wiener, variance = (q[0, 0] for q in base.wiener(self.sigma))
        self.zero = r[-1, 0, 0] / variance.sqrt()
        self.term, self.rate, self.scale = base.term(self.sigma, dtype), p.expand(rate), root

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """rate c at y (n, *half) complex128, in the precision of the features, and sum_k d/dy(k) of it, (n,)
        float64."""
        xk = times(y.to(self.complex), self.root)
        c, trace = self.sums(Features(self.filters, xk))
        z = self.root_zero * y[..., 0, 0].real
        mean, slope = self.base.zero_mode.mean_and_slope(z, self.sigma)
        c[..., 0, 0] += self.zero * (mean - self.wiener * z)
        trace = trace + self.zero * self.root_zero * (slope - self.wiener)
        if self.term is None:
            return c, trace
        more, slopes = self.term.with_trace(xk, self.rate, self.scale)
        return c + more, trace + slopes
