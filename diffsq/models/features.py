"""Bounded functions of filtered fields, and the trace of their Jacobian in closed form.

With one normal coordinate per momentum, x(k) = sqrt(G + sigma^2) y(k), and u = W x in units of its standard
deviation, v = 3 tanh(u/3), m = 3 tanh(mean(u)/3), r_K = K * v^c a circulant filter of a power of v, the
features f_j are

    v^a m^b        v^a r_K        mu_3 - mu, mu_3 - mu_2, mu_2 - mu_1 of the site posterior        zero mode

K is the covariance C of the Wiener posterior, or the square of its kernel: with v^2 (C * v^3) and
v (C^2 * v^2) these are the diagrams of second order of E[phi|x] in the quartic coupling, the tree and the
bubble; for a local potential U the tree is U''(v) (C * U'(v)), of which further powers are taken.

For a velocity c(k) = sum_j R_j(k) f_j(k) the trace sum_k dc(k)/dy(k) needs no products with the Jacobian.
B the filter from y to u, M_j(d) the kernel of R_j B in position space, v' = dv/du:

    v^a            M_j(0) sum_x a v^(a-1) v'
    v^a (K*v^c)    M_j(0) sum_x a v^(a-1) v' (K*v^c) + sum_x v^a [(M_j K) * (c v^(c-1) v')]

M_j K the product of the kernels at each distance. The site posterior is a composition of pointwise functions
and sums over neighbours, so that kernels at distances up to two are enough; m is one more filter, on k = 0.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
    Term(2, 0, "posterior", 1), Term(2, 0, "posterior", 3), Term(4, 0, "posterior", 1),
    Term(4, 0, "posterior", 3), Term(1, 0, "bubble", 2),
)  # fmt: skip
SECTOR = (
    Term(1), Term(2), Term(3), Term(4), Term(1, 1), Term(2, 1), Term(1, 2),
    Term(1, 0, "posterior", 1), Term(1, 0, "posterior", 2), Term(2, 0, "posterior", 1),
    Term(2, 0, "posterior", 2), Term(1, 0, "bubble", 2),
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

    @property
    def n_power(self) -> int:
        """Powers of v that the terms and their traces need."""
        return max(max(t.v, t.v + 1 if t.kernel else 0, t.inner + 1 if t.kernel else 0) for t in self.terms)


class Features:
    """The features of noisy fields xk (n, *half), complex.

    v (n, n_power, *shape) are v, v^2, ...; hats (n, n_power, *half) these in momentum space; others
    (n, n_kernel + 3, *half) the terms with a kernel and mu_1, mu_2, mu_3, mu (n, *half) the first guess of
    the site posterior, slopes (n, 3, *shape) dm/dy of its iterations, both None without one.
    """

    def __init__(self, filters: Filters, xk: Tensor) -> None:
        self.filters, p = filters, filters.momenta
        wiener = times(xk, filters.wiener)
        mu = p.fields(wiener)
        u = mu * filters.normal
        self.m = bounded(u.mean((-1, -2)))
        self.m_slope = 1 - (self.m / SATURATION) ** 2
        self.v = powers_of(bounded(u), filters.n_power)
        self.hats = p.modes(self.v)
        parts = [
            self.v[:, t.v - 1] * p.fields(times(self.hats[:, t.inner - 1], filters.kernels[t.kernel]))
            for t in filters.terms
            if t.kernel
        ]
        self.mu: Tensor | None = None
        self.slopes: Tensor | None = None
        if filters.site is not None:
            x, centre = p.fields(xk), filters.centre
            if centre:
                x, mu = x + centre, mu + centre
                wiener[..., 0, 0] += centre * math.sqrt(p.volume)
            self.mu = wiener
            means, self.slopes = filters.site.iterate(x, mu)
            parts += means.unbind(1)
        self.others = p.modes(torch.stack(parts, 1))

    def sums(self) -> Tensor:
        """sum_x v^p, p = 0 ... n_power: (n, n_power + 1)."""
        p = self.filters.momenta
        found = self.hats[:, :, 0, 0].real * math.sqrt(p.volume)
        return torch.cat([torch.full_like(found[:, :1], p.volume), found], 1)

    def scales(self) -> Tensor:
        """m^m of each term: (n, n_term)."""
        return torch.stack([self.m**t.m for t in self.filters.terms], 1)

    def stack(self) -> Tensor:
        """All features but that of the zero mode, (n, n_term + 3, *half)."""
        scales, kernels = self.scales(), iter(self.others.unbind(1))
        found = [
            next(kernels) if t.kernel else scales[:, j, None, None] * self.hats[:, t.v - 1]
            for j, t in enumerate(self.filters.terms)
        ]
        if self.mu is None:
            return torch.stack([*found, *[torch.zeros_like(found[0])] * N_SITE], 1)
        one, two, three = kernels
        return torch.stack([*found, three - self.mu, three - two, two - one], 1)

    def combine(self, a: Tensor) -> Tensor:
        """sum_j a_j f_j, a (m, n_term + 3, *half) -> (n, *half)."""
        return (a * self.stack()).sum(1)


def powers_of(v: Tensor, n: int) -> Tensor:
    """v, v^2, ..., v^n: (n_field, *shape) -> (n_field, n, *shape)."""
    found = [v]
    while len(found) < n:
        found.append(found[-1] * v)
    return torch.stack(found, 1)
