"""The closed-form part of the denoiser: Wiener filter plus a regression on bounded odd functions of it.

For x = phi + sigma eps the best linear denoiser is W x per momentum mode, W = G/(G + sigma^2), with posterior
variance C = W sigma^2. What it misses is fitted, per momentum class and noise level, by least squares:

    D(k) = W x + sqrt(C) sum_j a_j(k, sigma) f_j(k),     f_j odd, bounded functions of the normalised y = W x.

The regression target needs no clean denoising signal alone. By Tweedie's formula and the target-score
identity (De Bortoli et al. 2402.08667) both (phi - x)/sigma^2 and -dS/dphi average, given x, to the score;
their difference z = (phi - x)/sigma^2 + dS/dphi averages to zero and is used as a control variate: for a
free field it removes the noise of the target altogether, at kappa_c it removes 50-99.9 % of its variance,
mode by mode.
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from diffsq.models.blocks import Fields, block_size, drawn, slices, zero_modes
from diffsq.models.momentum import Momenta
from diffsq.models.protocol import Noise
from diffsq.models.site import SitePosterior
from diffsq.models.zero_mode import ZeroModeDenoiser
from lattice.actions.protocol import Action

VERSION = 2  # of what fits make of given data, tables of sites and zero mode too: raise it with any change
SATURATION = 3.0  # features are flat beyond this many standard deviations of y: thin tails cost forward ESS
RIDGE = 1e-5
CHUNK = 1024, 2**18  # fields, and sites, of a block at most
N_SMOOTH_K = 6  # polynomials in ln(1 + k^2): free coefficients of every k would fit the noise of the data
SMOOTH_SIGMA = 0.35  # noise levels closer than this in ln sigma share their data in a fit
ROUNDING = 1e-10  # a feature with less than this fraction of its own mean power in a class is absent there


def neighbour_mean(u: Tensor) -> Tensor:
    """Average of a site (weight 1/2) and its four neighbours (1/8 each)."""
    ring = u.roll(1, -1) + u.roll(-1, -1) + u.roll(1, -2) + u.roll(-1, -2)
    return 0.5 * u + 0.125 * ring


def bounded(u: Tensor, scale: float) -> Tensor:
    """scale * tanh(u/scale): the identity for |u| << scale.

    >>> bounded(torch.tensor([0.01, 100.0]), 3.0)
    tensor([0.0100, 3.0000])
    """
    return scale * torch.tanh(u / scale)


def local_features(u: Tensor) -> Tensor:
    """Odd bounded functions of the normalised field u, local and modulated by its zero mode.

    (n, L0, L1) -> (n, n_feature, L0, L1).
    """
    v = bounded(u, SATURATION)
    m = bounded(u.mean((-1, -2), keepdim=True), SATURATION)
    s = neighbour_mean(neighbour_mean(v))
    v2, m2 = v * v, m * m
    alone = [v, v * v2, v * v2 * v2]
    with_zero_mode = [v * m2, v * m2 * m2, v * v2 * m2, m * v2]
    with_neighbours = [s * v2, s * s * v, s * s * s, v * neighbour_mean(neighbour_mean(v2))]
    return torch.stack([*alone, *with_zero_mode, *with_neighbours, neighbour_mean(v * v2)], -3)


class RegressionBase(nn.Module):
    """Denoiser W x + sqrt(C) sum_j a_j f_j, its coefficients on a grid of noise levels.

    `coefficients` (n_sigma, n_class, n_feature); `explained` (n_sigma, n_class): the part of the Wiener
    posterior variance C, as a fraction, that the regression explains; `beta` (n_sigma, n_class): weight of
    the control variate sqrt(C) z in a variance-reduced training target. Tables are
    interpolated in ln sigma, and zero until `fit`: the bare Wiener filter.
    """

    n_feature = 16

    def __init__(self, momenta: Momenta, n_sigma: int) -> None:
        super().__init__()
        self.momenta = momenta
        self.zero_mode = ZeroModeDenoiser()
        self.site = SitePosterior(n_sigma)
        n_class = momenta.n_class
        self.g = nn.Buffer(torch.zeros(n_class, dtype=torch.float64))
        self.log_sigma = nn.Buffer(torch.zeros(n_sigma, dtype=torch.float64))
        self.coefficients = nn.Buffer(torch.zeros(n_sigma, n_class, self.n_feature, dtype=torch.float64))
        self.explained = nn.Buffer(torch.zeros(n_sigma, n_class, dtype=torch.float64))
        self.beta = nn.Buffer(torch.zeros(n_sigma, n_class, dtype=torch.float64))

    def wiener(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Filter W and posterior variance C per class: sigma (n,) -> (n, n_class) each."""
        w = self.g / (self.g + sigma[:, None] ** 2)
        return w, w * sigma[:, None] ** 2

    def at(self, table: Tensor, sigma: Tensor) -> Tensor:
        """Table (n_sigma, ...) interpolated linearly in ln sigma, constant beyond both ends: (n, ...)."""
        position = sigma.log().clamp(self.log_sigma[0], self.log_sigma[-1])
        right = torch.searchsorted(self.log_sigma, position).clamp(1, len(self.log_sigma) - 1)
        left = right - 1
        t = (position - self.log_sigma[left]) / (self.log_sigma[right] - self.log_sigma[left])
        t = t.reshape(-1, *[1] * (table.dim() - 1))
        return torch.lerp(table[left], table[right], t)

    def normalised(self, xk: Tensor, sigma: Tensor) -> Tensor:
        """u = W x / std(W x) in position space, float32: (n, *half) -> (n, *shape)."""
        w, _ = self.wiener(sigma)
        scale = (self.momenta.multiplicity * w * self.g).sum(-1, keepdim=True) / self.momenta.volume
        return self.momenta.fields(xk * self.momenta.expand(w / scale.sqrt())).float()

    def features(self, xk: Tensor, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """All features in momentum space, complex64: (n, n_feature, *half). The last acts on k = 0 only.

        Also the log-variance of the site posterior, (n, *shape) float64.
        """
        p = self.momenta
        w, c = self.wiener(sigma)
        z = xk[..., 0, 0].real
        shift = (self.zero_mode(z, sigma) - w[:, 0] * z) / c[:, 0].sqrt()
        site, log_variance = self.site(p.fields(xk), p.fields(p.expand(w) * xk), sigma, self.position(sigma))
        f = p.modes(torch.cat([local_features(u), site], 1))
        own = torch.zeros_like(f[:, :1])
        own[..., 0, 0] = shift[:, None]
        return torch.cat([f, own], 1), log_variance.double()

    def forward(self, xk: Tensor, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Correction sum_j a_j f_j in units of sqrt(C), momentum space: -> (n, *half) complex128.

        Also the log-variance of the site posterior.
        """
        f, log_variance = self.features(xk, u, sigma)
        a = self.momenta.expand(self.at(self.coefficients, sigma).transpose(1, 2).float())
        return (a * f).sum(1).to(xk.dtype), log_variance

    def position(self, sigma: Tensor) -> Tensor:
        """Place of sigma (n,) among the nodes, 0 to n_sigma - 1, linear in ln sigma, clamped."""
        low, high = self.log_sigma[0], self.log_sigma[-1]
        return ((sigma.log() - low) / (high - low)).clamp(0, 1) * (len(self.log_sigma) - 1)

    def set_action(self, action: Action, field_max: float) -> None:
        """Tables of the site posterior of a phi^4 action, fields beyond `field_max` are not resolved; without
        them, for another action, its features are zero."""
        if (form := action.phi4) is None:
            return
        sigma = self.log_sigma.exp()
        _, c = self.wiener(sigma)
        spread = (self.momenta.multiplicity * c).sum(1) / self.momenta.volume
        self.site.fit(form.kappa, form.lam, sigma, spread, field_max)

    def set_gaussian(self, g: Tensor, sigma_min: float, sigma_max: float) -> None:
        """Set G(k) per class and the geometric noise levels; the base is then the bare Wiener filter."""
        self.g.copy_(g)
        ends = (math.log(sigma_min), math.log(sigma_max))
        self.log_sigma.copy_(torch.linspace(*ends, len(self.log_sigma), dtype=torch.float64))

    def fit(
        self, phi: Fields, grad: Callable[[Tensor], Tensor], noise: Noise,
        done: Callable[[], None] = lambda: None, chunk: int | None = None,
    ) -> None:  # fmt: skip
        """Least squares at each noise level, the control variate as one more regressor.

        phi (n, *shape) training fields; grad(phi) = dS/dphi; noise(node) (n_fit, *shape) standard normal.
        Level i uses fields i*n_fit, ... cyclically, so that all of the ensemble is seen; `done` is called
        after each. Sums run over blocks of `chunk` fields, a number that the lattice sets.
        """
        chunk = chunk or block_size(self.momenta.shape, *CHUNK)
        self.zero_mode.fit(zero_modes(phi, chunk))
        matrices, sides = [], []
        for node, log_sigma in enumerate(self.log_sigma):
            eps = drawn(noise, node)
            n, sums = len(eps), None
            for part in slices(n, chunk):
                fields = phi[(torch.arange(part.start, part.stop) + node * n) % len(phi)]
                more = self._sums(fields, grad(fields), eps[part], log_sigma.exp())
                sums = more if sums is None else (sums[0] + more[0], sums[1] + more[1])
            assert sums is not None
            matrices.append(sums[0] / n)
            sides.append(sums[1] / n)
            done()
        a, b = torch.stack(matrices), torch.stack(sides)
        for node in range(len(self.log_sigma)):
            away = (self.log_sigma - self.log_sigma[node]).abs()
            # never one-sided, which would bias the couplings that the score knows at the smallest sigma
            width = min(SMOOTH_SIGMA, float(torch.minimum(away[0], away[-1])) + 1e-3)
            weight = (1 - away / width).clamp_min(0)
            weight = weight / weight.sum()
            near_a, near_b = (torch.einsum("s,s...->...", weight, sums) for sums in (a, b))
            self._solve(node, near_a, near_b, a[node], b[node])

    def target(self, phik: Tensor, gradk: Tensor, xk: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What the correction has to predict, (phi - W x)/sqrt(C), and its control variate sqrt(C) z.

        All in momentum space, (n, *half). Given x, the control variate has mean zero.
        """
        w, c = (self.momenta.expand(q) for q in self.wiener(sigma))
        z = (phik - xk) / rearrange(sigma, "n -> n 1 1") ** 2 + gradk
        return (phik - w * xk) / c.sqrt(), z * c.sqrt()

    def _sums(self, phi: Tensor, grad: Tensor, eps: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Normal matrix and right-hand side per class, summed over the chunk; regressors (features, z)."""
        p = self.momenta
        s = sigma[None]
        xk = p.modes(phi + sigma * eps)
        target, z = self.target(p.modes(phi), p.modes(grad), xk, s)
        own, _ = self.features(xk, self.normalised(xk, s), s)
        # double: features are alike, and what a free field leaves of target - z must be nothing
        f = torch.cat([own.to(z.dtype), z[:, None]], 1)
        # complex modes as real samples, twice as many
        x, t = (
            rearrange(torch.view_as_real(q), "n i k0 k1 re -> (k0 k1) i (n re)") for q in (f, target[:, None])
        )

        def by_class(q: Tensor) -> Tensor:
            half = rearrange(q, "(k0 k1) i j -> i j k0 k1", k1=p.index.shape[-1])
            return rearrange(p.class_mean(half), "i j k -> k i j")

        return by_class(x @ x.mT), by_class(x @ t.mT)[..., 0]

    def _solve(self, node: int, a: Tensor, b: Tensor, a_here: Tensor, b_here: Tensor) -> None:
        """Coefficients of a node: of k = 0 on its own, of all other modes as polynomials in ln(1 + k^2).

        The weight of a mode in the joint fit is its weight in the path KL, W(k).
        """
        p = self.momenta
        w, _ = self.wiener(self.log_sigma[node].exp()[None])
        t = p.chebyshev(N_SMOOTH_K)[:, 1:]
        power = p.multiplicity[1:] * w[0, 1:]
        big_a = torch.einsum("k,pk,qk,kij->piqj", power, t, t, a[1:])
        big_b = torch.einsum("k,pk,ki->pi", power, t, b[1:])
        n = big_b.numel()
        solution = torch.empty_like(b)
        # the control variate's coefficient as its deviation from 1, its value for a free field: exact there
        joint = least_squares(big_a.reshape(n, n), (big_b - big_a[:, :, 0, -1]).flatten())
        joint = joint.reshape(big_b.shape)
        joint[0, -1] += 1
        solution[1:] = torch.einsum("pk,pi->ki", t, joint)
        solution[0] = least_squares(a[0], b[0] - a[0, :, -1])
        solution[0, -1] += 1
        coefficients = solution[:, :-1]
        fitted = torch.einsum("ki,kij,kj->k", coefficients, a_here[:, :-1, :-1], coefficients)
        self.coefficients[node] = coefficients
        self.beta[node] = solution[:, -1]
        self.explained[node] = 2 * (coefficients * b_here[:, :-1]).sum(1) - fitted


def least_squares(a: Tensor, b: Tensor) -> Tensor:
    """Solution of a x = b, (n, n) and (n,), the regressors scaled to unit power, with a small ridge.

    A feature that vanishes by symmetry (a neighbour mean at k = (pi, pi)) is only rounding, different on
    every machine: it must get no coefficient, not a huge one.
    """
    power = a.diagonal()
    present = power > ROUNDING * power.max()
    scale = torch.where(present, power, math.inf).sqrt()
    ridge = RIDGE * torch.eye(len(a), dtype=a.dtype, device=a.device)
    solution: Tensor = torch.linalg.solve(a / scale[:, None] / scale + ridge, b / scale) / scale
    return solution
