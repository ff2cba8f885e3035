r"""Learned score and energy of points: laws of d = 1 or 2 real variables, symmetric under x -> -x.

Noised points x = x_0 + sigma eps have the score grad ln p_sigma(x) = (D(x, sigma) - x)/sigma^2. With the data
covariance Sigma = U diag(v) U^T, xi = U^T x, A = v + sigma^2, u = xi/sqrt(A):

    score     s = U [ -xi/A + (rho(sigma)/sqrt(A)) f(u, sigma) ],        f odd in u: f = g(u) - g(-u)
    energy    E = 1/2 sum xi^2/A + rho(sigma) g(u, sigma) + c(sigma),    g even in u, s = -grad E

so Gaussian data are exact before any training (f = g = 0 at the start), the symmetry is exact and the energy
model is conservative by construction. rho(sigma) is the size of what is left, |sqrt(A) (U^T s + xi/A)|,
measured on the data and smooth in ln sigma: networks work at order one at every noise level. c(sigma)
normalises E to -ln p_sigma for Gaussian data; what is missing for others is left to g. Network float32, all
else float64.

Noise is that of the variance-expanding process; the variance-preserving one is the same process in x/f at
other noise levels (diffsq.process.sde), so one model serves both.
"""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

VERSION = 1  # of the function D for given weights: raise it with any change
N_WAVES = 2  # Fourier modes of ln sigma
N_CONDITION = 1 + 2 * N_WAVES
N_LAST = 8  # Chebyshev polynomials of the last layer
N_RHO = 7  # coefficients of ln rho, a polynomial in ln sigma


class Network(nn.Module):
    """Hidden layers of u (n, d) and ln sigma, SiLU; the last one is linear and starts at zero.

    The last layer's weights depend on t by Chebyshev polynomials, sum_m T_m(t) W_m: amplitudes follow the
    noise level however few the features are, and all W_m follow from the features by least squares. even:
    the first layer is the sum of its values at u and -u, so the output (n, n_out) is even in u.
    """

    def __init__(self, dim: int, n_out: int, width: int, depth: int, even: bool) -> None:
        super().__init__()
        self.even = even
        self.first = nn.Linear(dim, width, bias=False)
        self.condition = nn.Linear(N_CONDITION, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.weight = nn.Parameter(torch.zeros(N_LAST, width + 1, n_out))

    def features(self, u: Tensor, t: Tensor) -> Tensor:
        """The last hidden layer, and a one: (n, width + 1), for u (n, d) and t (n,) or (1,)."""
        angles = [0.5 * math.pi * m * t for m in range(1, N_WAVES + 1)]
        waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
        z, shift = self.first(u), self.condition(torch.stack([t, *waves], -1))
        h = functional.silu(shift + z)
        if self.even:
            h = h + functional.silu(shift - z)
        for layer in self.hidden:
            h = functional.silu(layer(h))
        return torch.cat([h, torch.ones_like(h[:, :1])], 1)

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        """The output (n, n_out)."""
        h, polynomials = self.features(u, t), chebyshev(t)
        if len(t) == 1:
            out: Tensor = h @ (polynomials[0][:, None, None] * self.weight).sum(0)
        else:
            each = h @ rearrange(self.weight, "m h o -> h (m o)")  # one product for all polynomials
            out = (rearrange(each, "n (m o) -> n m o", m=N_LAST) * polynomials[..., None]).sum(1)
        return out


def chebyshev(t: Tensor) -> Tensor:
    """T_0...T_{N_LAST - 1} at t (n,): (n, N_LAST).

    >>> chebyshev(torch.tensor([0.5]))[0, :4].tolist()
    [1.0, 0.5, -0.5, -1.0]
    """
    found = [torch.ones_like(t), t]
    while len(found) < N_LAST:
        found.append(2 * t * found[-1] - found[-2])
    return torch.stack(found, -1)


class PointModel(nn.Module):
    """D(x, sigma), the score and for kind "energy" the energy of one learned law; see the module's formulas.

    Buffers, float64: axes U (d, d), variance v (d,), log_sigma (2,) the range learned, log_rho (N_RHO,)
    coefficients in t = -1...1 across that range, box (2, d) the smallest and largest coordinates of the data.
    `about` says what a trained model was trained on (its model.json).
    """

    def __init__(self, dim: int, kind: str, width: int, depth: int) -> None:
        super().__init__()
        self.dim, self.kind = dim, kind
        self.sizes = {"dim": dim, "kind": kind, "width": width, "depth": depth}
        self.about: dict[str, Any] = {}
        self.axes = nn.Buffer(torch.eye(dim).double())
        self.variance = nn.Buffer(torch.ones(dim).double())
        self.log_sigma = nn.Buffer(torch.tensor([-1.0, 1.0]).double())
        self.log_rho = nn.Buffer(torch.zeros(N_RHO).double())
        self.box = nn.Buffer(torch.tensor([[-math.inf], [math.inf]]).repeat(1, dim).double())
        self.network = Network(dim, 1 if kind == "energy" else dim, width, depth, kind == "energy")

    def set_gaussian(self, covariance: Tensor, sigma_min: float, sigma_max: float) -> None:
        """Data covariance (d, d) and the range of noise levels."""
        variance, axes = torch.linalg.eigh(covariance.double())
        self.variance.copy_(variance)
        self.axes.copy_(axes)
        self.log_sigma.copy_(torch.tensor([math.log(sigma_min), math.log(sigma_max)]))

    def position(self, sigma: Tensor) -> Tensor:
        """t of sigma (n,): -1 at sigma_min, 1 at sigma_max, float64, clamped to [-1, 1]."""
        low, high = self.log_sigma
        t: Tensor = 2 * (sigma.log() - low) / (high - low) - 1
        return t.clamp(-1, 1)

    def rho(self, sigma: Tensor) -> Tensor:
        """rho(sigma) (n,), float64."""
        t = self.position(sigma)
        return torch.exp(sum((c * t**n for n, c in enumerate(self.log_rho)), torch.zeros_like(t)))

    @property
    def covariance(self) -> Tensor:
        """Sigma (d, d)."""
        found: Tensor = self.axes @ torch.diag(self.variance) @ self.axes.T
        return found

    @property
    def sigma_min(self) -> float:
        """The lowest noise level learned."""
        return math.exp(float(self.log_sigma[0]))

    @property
    def sigma_max(self) -> float:
        """The highest noise level learned."""
        return math.exp(float(self.log_sigma[1]))

    def whitened(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """u (n, d) and sqrt(A) (n, d) of points x (n, d) at sigma (n,) or (1,)."""
        root = torch.sqrt(self.variance + sigma[:, None] ** 2)
        return x @ self.axes / root, root

    def residual(self, u: Tensor, sigma: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor | None]:
        """What is left of the score, sqrt(A) (U^T s + xi/A)/rho (n, d), and g (n,) of an energy model.

        u (n, d) in the network's precision. create_graph: keep the graph of the gradient, for training.
        """
        t = self.position(sigma).to(u.dtype)
        if self.kind == "score":
            return self.network(u, t) - self.network(-u, t), None
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            g = self.network(u, t)[:, 0]
            (slope,) = torch.autograd.grad(g.sum(), u, create_graph=create_graph)
        return -slope, g

    def score(self, x: Tensor, sigma: Tensor, frame: object = None) -> Tensor:
        """grad ln p_sigma(x): x (n, d) float64, sigma (n,) or (1,) -> (n, d) float64. `frame` is ignored."""
        u, root = self.whitened(x, sigma)
        left = self.residual(u.to(self.network.weight.dtype), sigma)[0].double()
        return ((self.rho(sigma)[:, None] * left - u) / root) @ self.axes.T

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0|x] = x + sigma^2 score: shapes as `score`."""
        return x + sigma[:, None] ** 2 * self.score(x, sigma)

    def energy(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E(x, sigma) (n,) float64 with score = -grad E; kind "energy" only."""
        assert self.kind == "energy", "a score model has no energy"
        u, root = self.whitened(x, sigma)
        dtype = self.network.weight.dtype
        g = self.network(u.to(dtype), self.position(sigma).to(dtype))[:, 0].double()
        total: Tensor = gaussian_energy(u, root) + self.rho(sigma) * g
        return total


def gaussian_energy(u: Tensor, root: Tensor) -> Tensor:
    """-ln of the density of x whose whitened components are u (n, d), with standard deviations `root`."""
    return 0.5 * (u**2).sum(1) + root.log().sum(1) + 0.5 * u.shape[1] * math.log(2 * math.pi)
