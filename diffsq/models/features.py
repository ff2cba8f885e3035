"""Bounded functions of filtered fields, and the trace of their Jacobian in closed form.

With one normal coordinate per momentum, x(k) = sqrt(G + sigma^2) y(k), and u = W x in units of its standard
deviation, v = 3 tanh(u/3), m = 3 tanh(mean(u)/3), r_K = K * v^c a circulant filter of a power of v, the
features f_j are

    v^a m^b        v^a r_K        mu_3 - mu, mu_3 - mu_2, mu_2 - mu_1 of the site posterior        zero mode

K is the covariance C of the Wiener posterior, or the square of its kernel: with v^2 (C * v^3) and
v (C^2 * v^2) these are the diagrams of second order of E[phi|x] in the quartic coupling, the tree and the
bubble. For a velocity c(k) = sum_j R_j(k) f_j(k) the trace sum_k dc(k)/dy(k) needs no products with the
Jacobian. B the filter from y to u, M_j(d) the kernel of R_j B in position space, v' = dv/du:

    v^a            M_j(0) sum_x a v^(a-1) v'
    v^a (K*v^c)    M_j(0) sum_x a v^(a-1) v' (K*v^c) + sum_x v^a [(M_j K) * (c v^(c-1) v')]

M_j K the product of the kernels at each distance. The site posterior is a composition of pointwise functions
and sums over neighbours, so that kernels at distances up to two are enough; m is one more filter, on k = 0.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diffsq.models import site_kernel
from diffsq.models.momentum import Momenta
from diffsq.models.site import SiteTable

SATURATION = 3.0  # features are flat beyond this many standard deviations of u: thin tails cost forward ESS
N_SITE = 3


@dataclass(frozen=True)
class Term:
    """The feature v^v m^m, or v^v (K*v^inner) with a kernel."""

    v: int
    m: int = 0
    kernel: Literal["", "posterior", "bubble"] = ""
    inner: int = 0


ODD = (
    Term(1), Term(3), Term(5), Term(1, 2), Term(1, 4), Term(3, 2), Term(2, 1),
    Term(2, 0, "posterior", 3), Term(1, 0, "bubble", 2),
)  # fmt: skip
SECTOR = (
    Term(1), Term(2), Term(3), Term(4), Term(1, 1), Term(2, 1), Term(1, 2),
    Term(1, 0, "posterior", 2), Term(1, 0, "bubble", 2),
)  # fmt: skip
"""Terms of an odd denoiser, and of one for the fluctuations of one sector, which has no symmetry."""


def bounded(u: Tensor, scale: float = SATURATION) -> Tensor:
    """scale * tanh(u/scale): the identity for |u| << scale.

    >>> bounded(torch.tensor([0.01, 100.0]))
    tensor([0.0100, 3.0000])
    """
    return scale * torch.tanh(u / scale)


def times(f: Tensor, weight: Tensor) -> Tensor:
    """Complex f times real weight; complex arithmetic would take twice as long."""
    return torch.view_as_complex(torch.view_as_real(f) * weight[..., None])


@dataclass
class Filters:
    """What turns noisy fields into features at one noise level, or one for each sample, m = 1 or n.

    wiener: multipliers (m, *half) from x(k) to W x; normal (m, 1, 1): from W x to u; kernels: multipliers
    (m, *half) of K; site: tables of its posterior, None without; centre: mean of the field, 0 if no sector.
    """

    momenta: Momenta
    terms: tuple[Term, ...]
    wiener: Tensor
    normal: Tensor
    kernels: dict[str, Tensor]
    site: SiteTable | None
    centre: float


class Features:
    """The features of noisy fields xk (n, *half), complex; in momentum space when they are asked for."""

    def __init__(self, filters: Filters, xk: Tensor) -> None:
        self.filters, self.momenta = filters, filters.momenta
        p, terms = self.momenta, filters.terms
        self.mu = p.fields(times(xk, filters.wiener))
        u = self.mu * filters.normal
        mean = u.mean((-1, -2))
        self.m = bounded(mean)
        self.m_slope = 1 - (self.m / SATURATION) ** 2
        v = bounded(u)
        self.powers = {1: v}
        for power in range(2, max(t.v for t in terms) + 1):
            self.powers[power] = self.powers[power - 1] * v
        self.hats: dict[int, Tensor] = {}
        self.smooth: dict[tuple[str, int], Tensor] = {}
        for t in terms:
            if t.kernel and (t.kernel, t.inner) not in self.smooth:
                filtered = times(self.hat(t.inner), filters.kernels[t.kernel])
                self.smooth[t.kernel, t.inner] = p.fields(filtered)
        self.means, self.slopes = list[Tensor](), list[Tensor]()
        if filters.site is not None:
            x, centre = p.fields(xk), filters.centre
            if centre:
                x, self.mu = x + centre, self.mu + centre
            self.means, self.slopes = filters.site.iterate(x, self.mu)

    def hat(self, power: int) -> Tensor:
        """v^power in momentum space, (n, *half)."""
        if power not in self.hats:
            if power not in self.powers:
                self.powers[power] = self.powers[power - 1] * self.powers[1]
            self.hats[power] = self.momenta.modes(self.powers[power])
        return self.hats[power]

    def sums(self, power: int) -> Tensor:
        """sum_x v^power, (n,)."""
        if power == 0:
            return torch.full_like(self.m, self.momenta.volume)
        if power in self.hats:
            return self.hats[power][..., 0, 0].real * math.sqrt(self.momenta.volume)
        if power in self.powers:
            return self.powers[power].sum((-1, -2))
        return (self.powers[power - power // 2] * self.powers[power // 2]).sum((-1, -2))

    @cached_property
    def composite(self) -> list[Tensor | None]:
        """v^v (K*v^inner) of each term that has a kernel, momentum space."""
        return [
            self.momenta.modes(self.powers[t.v] * self.smooth[t.kernel, t.inner]) if t.kernel else None
            for t in self.filters.terms
        ]

    @cached_property
    def site(self) -> list[Tensor]:
        """mu, mu_1, mu_2, mu_3 in momentum space; none without a site posterior."""
        return [self.momenta.modes(mu) for mu in (self.mu, *self.means)] if self.means else []

    def m_power(self, power: int) -> Tensor:
        """m^power (n, 1, 1)."""
        return (self.m**power)[:, None, None]

    def stack(self) -> Tensor:
        """All features but that of the zero mode, (n, n_term + 3, *half)."""
        found = [
            c if c is not None else self.m_power(t.m) * self.hat(t.v)
            for t, c in zip(self.filters.terms, self.composite, strict=True)
        ]
        absent = torch.zeros_like(found[0])
        mu = self.site or [absent] * 4
        return torch.stack([*found, mu[3] - mu[0], mu[3] - mu[2], mu[2] - mu[1]], 1)

    def combine(self, a: Tensor) -> Tensor:
        """sum_j a_j f_j, a (m, n_term + 3, *half) -> (n, *half)."""
        terms, weights = self.filters.terms, list[tuple[Tensor, Tensor]]()
        of_power: dict[int, Tensor] = {}
        for j, t in enumerate(terms):
            if (c := self.composite[j]) is not None:
                weights.append((c, a[:, j]))
            elif t.v not in of_power:
                of_power[t.v] = a[:, j] * self.m_power(t.m) if t.m else a[:, j].expand(len(self.m), -1, -1)
            else:
                of_power[t.v] = torch.addcmul(of_power[t.v], a[:, j], self.m_power(t.m))
        weights += [(self.hat(power), weight) for power, weight in of_power.items()]
        if self.site:
            s = a[:, len(terms) :]
            own = -s[:, 0], -s[:, 2], s[:, 2] - s[:, 1], s[:, 0] + s[:, 1]
            weights += list(zip(self.site, own, strict=True))
        total = torch.zeros_like(torch.view_as_real(weights[0][0]))
        for f, weight in weights:
            total.addcmul_(torch.view_as_real(f), weight[..., None])
        return torch.view_as_complex(total)


@dataclass
class Trace:
    """sum_k d/dy(k) sum_j R_j(k) f_j(k), its constants made once for a noise level that samples share.

    own (n_term,): M_j(0); from_m (n_term,): R_j(0) B(0)/V; pairs: of powers (p, q) a multiplier (*half),
    weight of the mode included, of conj(v^p) v^q; site: kernels of the site posterior; linear: of its mu.
    """

    terms: tuple[Term, ...]
    own: Tensor
    from_m: Tensor
    pairs: dict[tuple[int, int], Tensor]
    site: list[float]
    linear: float
    pull: float

    @classmethod
    def of(cls, filters: Filters, root: Tensor, r: Tensor) -> "Trace":
        """root (*half): sqrt(G + sigma^2); r (n_term + 3, *half): R_j; float64. Of one noise level."""
        p, terms = filters.momenta, filters.terms
        b = filters.normal[0, 0, 0].double() * filters.wiener[0].double() * root
        kernels = {name: k[0].double() for name, k in filters.kernels.items()}
        own = p.total(r[: len(terms)] * b) / p.volume
        from_m = r[: len(terms), 0, 0] * b[0, 0] / p.volume
        pairs: dict[tuple[int, int], Tensor] = {}

        def add(first: int, second: int, multiplier: Tensor) -> None:
            key = (min(first, second), max(first, second))
            pairs[key] = pairs.get(key, 0) + p.weight * multiplier

        for j, t in enumerate(terms):
            if not t.kernel:
                continue
            k = kernels[t.kernel]
            product = p.modes(p.fields(r[j] * b) * p.fields(k)).real / math.sqrt(p.volume)
            add(t.v - 1, t.inner, t.v * own[j] * k)
            add(t.v + 1, t.inner, -t.v / SATURATION**2 * own[j] * k)
            add(t.v, t.inner - 1, t.inner * product)
            add(t.v, t.inner + 1, -t.inner / SATURATION**2 * product)
        if filters.site is None:
            return cls(terms, own, from_m, pairs, [], 0.0, 0.0)
        linear = -float(p.total(r[len(terms)] * filters.wiener[0].double() * root))
        site = _site_kernels(filters, root, r[len(terms) :])
        return cls(terms, own, from_m, pairs, site, linear, float(filters.site.pull[0]))

    def __call__(self, f: Features) -> Tensor:
        """(n,) float64."""
        total = torch.zeros_like(f.m, dtype=torch.float64)
        for j, t in enumerate(self.terms):
            if t.kernel:
                continue
            slope = t.v * (f.sums(t.v - 1) - f.sums(t.v + 1) / SATURATION**2)
            total = total + self.own[j] * f.m**t.m * slope
            if t.m:
                total = total + self.from_m[j] * f.m_slope * t.m * f.m ** (t.m - 1) * f.sums(t.v)
        for (first, second), multiplier in self.pairs.items():
            total = total + _overlap(f, first, second, multiplier)
        if self.site:
            total = total + self.linear + self._of_site(f.slopes)
        return total

    def _of_site(self, slopes: list[Tensor]) -> Tensor:
        d1, d2, d3 = slopes
        if d1.device.type == "cpu" and not d1.requires_grad:
            out, together = d1.new_empty(len(d1), dtype=torch.float64), torch.stack(slopes)
            site_kernel.trace(together.numpy(), np.array(self.site), self.pull, out.numpy())
            return out
        first, own2, *near2, own3, near3_0, near3_1, corner, far_0, far_1, back = self.site
        pull, inner, outer = self.pull, torch.full_like(d2, own2), torch.zeros_like(d2)
        for axis, other, near, far, out3 in (
            (-2, -1, near2[0], far_0, near3_0), (-1, -2, near2[1], far_1, near3_1),
        ):  # fmt: skip
            up, down, high, low = (d.roll(way, axis) for d in (d1, d3) for way in (-1, 1))
            inner = inner + pull * near * (up + down)
            across = d1.roll(-1, other) + d1.roll(1, other)
            outer = outer + (out3 + pull * corner * across) * (high + low)
            outer = outer + pull * (far * (up * low + down * high) + back * (up * high + down * low))
        density = first * d1 + d2 * (inner + pull * outer) + own3 * d3
        return density.double().sum((-1, -2))


def _overlap(f: Features, first: int, second: int, multiplier: Tensor) -> Tensor:
    """sum_k multiplier Re conj(v^first) v^second: (n,); v^0 has the mode k = 0 only."""
    if first == 0:
        return multiplier[0, 0] * f.sums(second)
    one, other = f.hat(first), f.hat(second)
    product = one.real * other.real + one.imag * other.imag
    return (multiplier.to(product.dtype) * product).sum((-1, -2))


def _site_kernels(filters: Filters, root: Tensor, r: Tensor) -> list[float]:
    """Kernels at the distances that the trace of three iterations needs; mu_i goes out with r_i."""
    p, table = filters.momenta, filters.site
    assert table is not None
    outs = {3: r[0] + r[1], 2: r[2] - r[1], 1: -r[2]}
    own = table.own[0].double() * root
    field = own + table.pull[0].double() * p.expand(4 - p.khat2) * filters.wiener[0].double() * root

    def at(multiplier: Tensor, *places: tuple[int, int]) -> list[float]:
        kernel = p.fields(multiplier + 0j) / math.sqrt(p.volume)
        return [float(kernel[i % p.shape[0], j % p.shape[1]]) for i, j in places]

    here, near = (0, 0), ((1, 0), (0, 1))
    return [
        *at(outs[1] * field, here), *at(outs[2] * own, here), *at(outs[2] * field, *near),
        *at(outs[3] * own, here, *near), *at(outs[3] * field, (1, 1), (2, 0), (0, 2), here),
    ]  # fmt: skip
