"""Bounded functions of filtered fields, and the trace of their Jacobian in closed form.

With one normal coordinate per momentum, x(k) = sqrt(G + sigma^2) y(k), u = W x in units of its standard
deviation, v = 3 tanh(u/3), m = 3 tanh(mean(u)/3), K the covariance C of the Wiener posterior as a circulant
filter, K(0) no more than at all other k, the features f_j are

    v^a m^b      v^a (K*v^c)      mu_3 - mu of the site posterior      zero mode

v^2 (K*v^3) is the tree diagram of second order of E[phi|x] in the quartic coupling; for any local potential U
the tree is U''(v) (K*U'(v)), of which further powers are taken.

For a velocity c(k) = sum_j R_j(k) f_j(k) the trace sum_k dc(k)/dy(k) needs no products with the Jacobian.
B the filter from y to u, M_j(d) the kernel of R_j B in position space, v' = dv/du:

    v^a            M_j(0) sum_x a v^(a-1) v'
    v^a (K*v^c)    M_j(0) sum_x a v^(a-1) v' (K*v^c) + sum_x v^a [(M_j K) * (c v^(c-1) v')]

M_j K the product of the kernels at each distance. The site posterior is a composition of pointwise functions
and sums over neighbours, so that kernels at distances up to two are enough; m is one more filter, on k = 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.models.momentum import Momenta
from diffsq.models.site import SiteTable

SATURATION = 3.0  # features are flat beyond this many standard deviations of u: thin tails cost forward ESS


@dataclass(frozen=True)
class Term:
    """The feature v^v m^m, or the tree v^v (K*v^inner) where inner > 0."""

    v: int
    m: int = 0
    inner: int = 0


ODD = (
    Term(1), Term(3), Term(5), Term(1, 2), Term(1, 4), Term(3, 2), Term(2, 1),
    Term(2, inner=1), Term(2, inner=3), Term(4, inner=1), Term(4, inner=3),
)  # fmt: skip
SECTOR = (
    Term(1), Term(2), Term(3), Term(4), Term(1, 1), Term(2, 1), Term(1, 2),
    Term(1, inner=1), Term(1, inner=2), Term(2, inner=1), Term(2, inner=2),
)  # fmt: skip
"""Terms of an odd denoiser, and of one for the fluctuations of one sector, which has no symmetry."""


def bounded(u: Tensor, scale: float = SATURATION) -> Tensor:
    """scale * tanh(u/scale): the identity for |u| << scale.

    >>> bounded(torch.tensor([0.01, 100.0]))
    tensor([0.0100, 3.0000])
    """
    return scale * torch.tanh(u / scale)


def times(f: Tensor, weight: Tensor) -> Tensor:
    """Complex f (n, *half) times real weight (m, *half, 2), every number twice; complex arithmetic would take
    twice as long."""
    return torch.view_as_complex(torch.view_as_real(f) * weight)


def twice(weight: Tensor) -> Tensor:
    """The weight (m, *half) for `times`."""
    return weight[..., None].expand(*weight.shape, 2).contiguous()


@dataclass
class Filters:
    """What turns noisy fields into features at one noise level, or one for each sample, m = 1 or n.

    wiener, tree: multipliers (m, *half, 2), every number twice, from x(k) to W x and of K; normal (m, 1, 1):
    from W x to u; site: tables of its posterior, None without; centre: mean of the field, 0 if no sector.
    """

    momenta: Momenta
    terms: tuple[Term, ...]
    wiener: Tensor
    tree: Tensor
    normal: Tensor
    site: SiteTable | None
    centre: float

    @property
    def n_mean(self) -> int:
        """Powers of m that the terms need."""
        return max(t.m for t in self.terms)

    @property
    def n_power(self) -> int:
        """Powers of v that the terms and their traces need."""
        return max(max(t.v, t.inner) + (t.inner > 0) for t in self.terms)


class Features:
    """The features of noisy fields xk (n, *half), complex.

    v (n, n_power, *shape) are v, v^2, ...; hats (n, n_power, *half) these in momentum space; others
    (n, n_tree + 1, *half) the trees and mu_3 - mu of the site posterior, slopes (n, 3, *shape) dm/dy of its
    iterations, None without one. The difference is taken before the transform: of much larger numbers, it
    would keep the transform's rounding, which is no part of the trace.
    """

    def __init__(self, filters: Filters, xk: Tensor) -> None:
        self.filters, p = filters, filters.momenta
        mu = p.fields(times(xk, filters.wiener))
        u = mu * filters.normal
        self.m = bounded(u.mean((-1, -2)))
        self.m_slope = 1 - (self.m / SATURATION) ** 2
        self.v = powers_of(bounded(u), filters.n_power)
        self.hats = p.modes(self.v)
        trees = [t for t in filters.terms if t.inner]
        inner = list(dict.fromkeys(t.inner for t in trees))
        own, powers = self.hats.unbind(1), self.v.unbind(1)  # once, for the gradient's sake
        hats = torch.stack([own[c - 1] for c in inner], 1)
        filtered = p.fields(times(hats, filters.tree[:, None])).unbind(1)
        smooth = dict(zip(inner, filtered, strict=True))
        pairs = [(powers[t.v - 1], smooth[t.inner]) for t in trees]
        self.slopes: Tensor | None = None
        if filters.site is None:
            self.others = p.modes(products_of(pairs))
            return
        x, centre = p.fields(xk), filters.centre
        if centre:
            x, mu = x + centre, mu + centre
        others, self.slopes = filters.site.iterate(x, mu, products_of(pairs, 1))
        self.others = p.modes(others)

    def sums(self) -> Tensor:
        """sum_x v^p, p = 0 ... n_power: (n, n_power + 1)."""
        p = self.filters.momenta
        found = self.hats[:, :, 0, 0].real * math.sqrt(p.volume)
        return torch.cat([torch.full_like(found[:, :1], p.volume), found], 1)

    def powers(self) -> Tensor:
        """m^b, b = 0 ... n_mean: (n, n_mean + 1)."""
        return self.m[:, None] ** torch.arange(self.filters.n_mean + 1, device=self.m.device)

    def stack(self) -> Tensor:
        """All features but that of the zero mode, (n, n_term + 1, *half)."""
        powers, trees = self.powers()[:, :, None, None], iter(self.others.unbind(1))
        hats = self.hats.unbind(1)
        found = [next(trees) if t.inner else powers[:, t.m] * hats[t.v - 1] for t in self.filters.terms]
        return torch.stack([*found, next(trees, torch.zeros_like(found[0]))], 1)

    def combine(self, a: Tensor) -> Tensor:
        """sum_j a_j f_j, a (m, n_term + 1, *half) -> (n, *half)."""
        return (a * self.stack()).sum(1)


def powers_of(v: Tensor, n: int) -> Tensor:
    """v, v^2, ..., v^n: (n_field, *shape) -> (n_field, n, *shape)."""
    if v.requires_grad:
        found = [v]
        while len(found) < n:
            found.append(found[-1] * v)
        return torch.stack(found, 1)
    room = v.new_empty(len(v), n, *v.shape[1:])
    room[:, 0] = v
    for i in range(1, n):
        torch.mul(room[:, i - 1], v, out=room[:, i])
    return room


def products_of(pairs: list[tuple[Tensor, Tensor]], more: int = 0) -> Tensor:
    """The products (n, *shape) of pairs, stacked to (n, n_pair + more, *shape); `more` are left empty, none
    where gradients are wanted."""
    one = pairs[0][1]
    if one.requires_grad:
        return torch.stack([a * b for a, b in pairs], 1)
    room = one.new_empty(len(one), len(pairs) + more, *one.shape[1:])
    for i, (a, b) in enumerate(pairs):
        torch.mul(a, b, out=room[:, i])
    return room
