r"""A network whose Jacobian has a closed-form trace: per site, with one stencil, between circulant filters.

From x(k) to u_i = F_i x, filters F_i known at each noise level, then site by site

    z = tanh(A u),      s = sum over neighbours of z,      Q = the same of z^2,
    o = tanh(B_1 z + B_2 s) (b + C_1 z^2 + C_2 Q),         c(k) += sum_j R_j(k) o_j(k),

A and R polynomials in ln sigma: A u are filters learned between the F_i, R those between 1, the mean of the
neighbours and the covariance C of the Wiener posterior. Odd in x, and like the action under every symmetry
of the lattice. With M_ji(d) the kernel of R_j F_i at distance d in normal coordinates y (see `features`),
N(d) = M(d) A^T, t the tanh of o and g its other factor, the trace sum_k dc(k)/dy(k) is

    sum_x sum_j (1 - t^2) g [(B_1 N(0)) z' + (B_2 N(1)) sum z']
              + t [(C_1 N(0)) 2 z z' + (C_2 N(1)) sum 2 z z'],

sums over the neighbours, products of matrices element by element, z' = 1 - z^2: as cheap as the network.
One of the filters is that of the field h = x/sigma^2 + 2 kappa sum_nb W x that a site feels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffsq.models.momentum import Momenta, chebyshev

N_FILTER, N_OUT, N_SIGMA = 6, 3, 4  # filters F_i, filters between which R_j is learned, powers of ln sigma
SOFTEST = 8.0, 4.0  # of C(k) in units of its mean, going in and out
FIRST, LATER, OTHER = 0.35, 0.3, 0.25  # fresh weights: of A, its dependence on sigma, of neighbours


class SiteNetwork(nn.Module):
    """Weights of `channels` fields z and o. Fresh ones have R = 0: the network is nothing until trained.

    first (channels, N_FILTER, N_SIGMA): A; own, around (2, channels, channels): B_1, C_1 and B_2, C_2; bias
    (channels,): b; last (channels, N_OUT, N_SIGMA): R.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Parameter(torch.zeros(channels, N_FILTER, N_SIGMA))
        self.own, self.around = (nn.Parameter(torch.zeros(2, channels, channels)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.last = nn.Parameter(torch.zeros(channels, N_OUT, N_SIGMA))

    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights."""
        with torch.no_grad():
            for weight in (self.first, self.own, self.around):
                weight.copy_(torch.randn(weight.shape, generator=generator))
            self.first.mul_(FIRST)
            self.first[:, :, 1:].mul_(LATER)
            for weight, size in ((self.own, 1.0), (self.around, OTHER)):
                weight.mul_(size * self.channels**-0.5)
                weight[1].mul_(0.5)


class SiteTerm:
    """The network at one noise level, or one for each sample: what of it knows no weights.

    g (n_class,), sigma (m,), m = 1 or n; coupling (): 2 kappa; span: ln of the lowest and highest sigma;
    dtype: that it is evaluated in.
    """

    def __init__(
        self, network: SiteNetwork, momenta: Momenta, g: Tensor, sigma: Tensor, coupling: Tensor,
        span: Tensor, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.network, self.momenta, self.dtype = network, momenta, dtype
        self.complex = torch.complex64 if dtype == torch.float32 else torch.complex128
        s2 = sigma[:, None] ** 2
        w, total = g / (g + s2), g + s2
        k2, share = momenta.khat2, momenta.multiplicity / momenta.volume

        def unit(f: Tensor) -> Tensor:
            """Of unit variance at a site."""
            return f / (share * f**2 * total).sum(-1, keepdim=True).sqrt()

        c = w * s2
        soft = c / (share * c).sum(-1, keepdim=True)
        around = 1 - k2 / 4  # mean of the four neighbours
        own = torch.ones_like(w) / ((share * g).sum() + s2).sqrt()
        field = 1 / s2 + 4 * coupling * around * w
        into = [w, field, w * around, w * soft.clamp(max=SOFTEST[0]), w / (1 + 2 * k2)]
        out = [torch.ones_like(w), around.expand_as(w), soft.clamp(max=SOFTEST[1])]
        self.into = momenta.expand(torch.stack([*(unit(f) for f in into), own], 1))  # (m, N_FILTER, *half)
        self.out = momenta.expand(torch.stack(out, 1))
        place = (2 * (sigma.log() - span[0]) / (span[1] - span[0]) - 1).clamp(-1, 1)
        self.powers = chebyshev(place, N_SIGMA).T  # (m, N_SIGMA)
        self._made: tuple[Tensor, Tensor, list[Tensor]] | None = None

    def __call__(self, xk: Tensor) -> Tensor:
        """c(k) of noisy modes xk (n, *half), in units of sqrt(C)."""
        z, t, g, _ = self._layers(xk, self._first())
        return self._spread(t * g, self._last())

    def with_trace(self, xk: Tensor, rate: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """rate(k) c(k) (n, *half) and the trace of its derivative by y = x/root, (n,) float64; rate, root
        (*half). Of one noise level."""
        net = self.network
        made = self._made or self._constants(rate, root)
        if not net.first.requires_grad:
            self._made = made
        first, last, (n0, *near) = made
        z, t, g, q = self._layers(xk, first)
        slope, twice = 1 - q, 2 * z * (1 - q)
        inner = mixed(net.own[0] * n0, slope)
        outer = mixed(net.own[1] * n0, twice)
        for axis, n1 in zip((-2, -1), near, strict=True):
            inner = inner + mixed(net.around[0] * n1, beside(slope, axis))
            outer = outer + mixed(net.around[1] * n1, beside(twice, axis))
        local = (1 - t * t) * g * inner + t * outer
        return self._spread(t * g, last), local.sum(1).double().sum((-1, -2))

    def _constants(self, rate: Tensor, root: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """A, R times the rate, and kernels: what knows no field, kept once the weights are trained, as a term
        has one rate and root."""
        first, last = self._first(), self._last() * rate
        return first, last, self._kernels(last[0], self.into[0] * root, first[0])

    def _first(self) -> Tensor:
        """A (m, channels, N_FILTER)."""
        return torch.einsum("cfp,mp->mcf", self.network.first.to(self.dtype), self.powers.to(self.dtype))

    def _last(self) -> Tensor:
        """R (m, channels, *half), float64."""
        return torch.einsum("cop,mp,mokl->mckl", self.network.last.double(), self.powers, self.out)

    def _layers(self, xk: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z, t, g, z^2, (n, channels, *shape) each."""
        net, p = self.network, self.momenta
        u = p.fields(self.into.to(self.dtype) * xk.to(self.complex)[:, None])
        pre = torch.einsum("cf,nfxy->ncxy", first[0], u) if len(first) == 1 else None
        z = torch.tanh(torch.einsum("ncf,nfxy->ncxy", first, u) if pre is None else pre)
        q = z * z
        t = torch.tanh(mixed(net.own[0], z) + mixed(net.around[0], beside(z, -2) + beside(z, -1)))
        even = mixed(net.own[1], q) + mixed(net.around[1], beside(q, -2) + beside(q, -1))
        return z, t, even + net.bias.to(self.dtype)[:, None, None], q

    def _spread(self, o: Tensor, last: Tensor) -> Tensor:
        """sum_j R_j o_j in momentum space."""
        return (last.to(self.dtype) * self.momenta.modes(o)).sum(1)

    def _kernels(self, last: Tensor, into: Tensor, first: Tensor) -> list[Tensor]:
        """N_jc at a site and at its neighbours along either axis."""
        p = self.momenta
        kernel = p.fields(last[:, None] * into + 0j) / math.sqrt(p.volume)  # (channels, N_FILTER, *shape)
        places = (0, 0), (1 % p.shape[0], 0), (0, 1 % p.shape[1])
        return [kernel[..., i, j].to(first.dtype) @ first.T for i, j in places]


def mixed(weight: Tensor, field: Tensor) -> Tensor:
    """weight (j, c) field (n, c, *shape) -> (n, j, *shape), in the precision of the field."""
    return torch.einsum("jc,ncxy->njxy", weight.to(field.dtype), field)


def beside(field: Tensor, axis: int) -> Tensor:
    """Sum over the two neighbours along an axis."""
    return field.roll(1, axis) + field.roll(-1, axis)
