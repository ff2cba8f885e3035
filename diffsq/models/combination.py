"""A closed-form velocity at one noise level: its sum of features, and the trace of its Jacobian.

The formulas are those of diffsq.models.features. Products with the kernels are sums over modes; the site
posterior needs kernels at distances up to two. On the CPU both sums are compiled loops.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from diffsq.models import feature_kernels
from diffsq.models.features import SATURATION, Features, Filters
from lattice.arrays import Floats, Integers


@dataclass
class Combination:
    """sum_k d/dy(k) and sum of R_j(k) f_j(k): constants made once for a noise level that samples share.

    r (n_term + 1, *half): R_j. The trace is linear in the sums s_p of v^p, p = 0 ... n_power, over sites:
    of_v, of_m (n_power + 1, n_mean + 1) what multiplies s_p m^b and s_p m' m^b; pairs: of powers (p, q) a
    multiplier (*half), weight of the mode included, of conj(v^p) v^q; site: kernels of the site posterior;
    linear: the trace of its -mu;
    pull: 2 kappa in units of its tables. All but pull are differentiable in r.
    """

    filters: Filters
    r: Tensor
    of_v: Tensor
    of_m: Tensor
    pairs: dict[tuple[int, int], Tensor]
    site: list[Tensor]
    linear: Tensor
    pull: float
    plan: "list[Plan]" = field(default_factory=list)

    @classmethod
    def of(cls, filters: Filters, root: Tensor, r: Tensor) -> "Combination":
        """root (*half): sqrt(G + sigma^2); r (n_term + 1, *half); float64. Of one noise level."""
        p, terms = filters.momenta, filters.terms
        b = filters.normal[0, 0, 0].double() * filters.wiener[0, ..., 0].double() * root
        own = p.total(r[: len(terms)] * b) / p.volume
        of_v, of_m = (r.new_zeros(filters.n_power + 1, filters.n_mean + 1) for _ in range(2))
        pairs = dict[tuple[int, int], Tensor]()

        def add(first: int, second: int, multiplier: Tensor) -> None:
            first, second = min(first, second), max(first, second)
            if first:
                pairs[first, second] = pairs.get((first, second), 0) + p.weight * multiplier
            else:  # v^0 has the mode k = 0 only
                of_v[second, 0] += multiplier[0, 0]

        for j, t in enumerate(terms):
            slope = t.v * own[j]
            if t.inner:
                k = filters.tree[0, ..., 0].double()
                product = p.modes(p.fields(r[j] * b) * p.fields(k)).real / math.sqrt(p.volume)
                add(t.v - 1, t.inner, slope * k)
                add(t.v + 1, t.inner, -slope / SATURATION**2 * k)
                add(t.v, t.inner - 1, t.inner * product)
                add(t.v, t.inner + 1, -t.inner / SATURATION**2 * product)
                continue
            of_v[t.v - 1, t.m] += slope
            if t.m:
                of_m[t.v, t.m - 1] += t.m * r[j, 0, 0] * b[0, 0] / p.volume
            if t.v < filters.n_power:
                of_v[t.v + 1, t.m] -= slope / SATURATION**2
            else:
                assert t.m == 0
                add(t.v // 2 + 1, t.v - t.v // 2, -slope / SATURATION**2 * torch.ones_like(b))
        if filters.site is None:
            return cls(filters, r, of_v, of_m, pairs, [], r.new_zeros(()), 0.0)
        linear = -p.total(r[len(terms)] * filters.wiener[0, ..., 0].double() * root)
        site = site_kernels(filters, root, r[len(terms)])
        return cls(filters, r, of_v, of_m, pairs, site, linear, float(filters.site.pull[0]))

    def __call__(self, f: Features) -> tuple[Tensor, Tensor]:
        """sum_j R_j f_j (n, *half), and the trace (n,) float64."""
        sums, powers = f.sums().double(), f.powers().double()
        of_m = f.m_slope * ((sums @ self.of_m) * powers).sum(1)
        trace = ((sums @ self.of_v) * powers).sum(1) + of_m + self.linear
        if f.hats.device.type == "cpu" and not (f.hats.requires_grad or self.r.requires_grad):
            if not self.plan:
                self.plan.append(Plan.of(self, f.m.dtype))
            return self.plan[0](f, powers, trace)
        hats = f.hats.unbind(1)  # once: the gradient of every selection would be as large as all of them
        for (first, second), multiplier in self.pairs.items():
            product = (hats[first - 1].conj() * hats[second - 1]).real
            trace = trace + (multiplier * product).sum((-1, -2))
        if f.slopes is not None:
            trace = trace + self._of_site(f.slopes)
        return f.combine(self.r.to(f.m.dtype)[None]), trace

    def _of_site(self, slopes: Tensor) -> Tensor:
        d1, d2, d3 = slopes.unbind(1)
        own, near_0, near_1, corner, far_0, far_1, back = self.site
        outer = torch.zeros_like(d2)
        for axis, other, near, far in ((-2, -1, near_0, far_0), (-1, -2, near_1, far_1)):
            up, down, high, low = (d.roll(way, axis) for d in (d1, d3) for way in (-1, 1))
            across = d1.roll(-1, other) + d1.roll(1, other)
            outer = outer + (near + self.pull * corner * across) * (high + low)
            outer = outer + self.pull * (far * (up * low + down * high) + back * (up * high + down * low))
        # own times the slopes is cancelled by the trace of mu but for a thousandth: not in float32
        return ((self.pull * d2 * outer).double() + own * d3.double()).sum((-1, -2))


@dataclass
class Plan:
    """The same sums as arrays for compiled loops: of which field, with which weights; see there."""

    which: Integers
    weight: Floats
    which_other: Integers
    weight_other: Floats
    pairs: Integers
    overlap: Floats
    own: float
    site: Floats
    pull: float
    means: Tensor

    @classmethod
    def of(cls, sums: Combination, dtype: torch.dtype) -> "Plan":
        """Of the sums of a noise level."""
        terms, r = sums.filters.terms, sums.r

        def rows(multipliers: list[Tensor]) -> Floats:
            twice = [q.reshape(-1).repeat_interleave(2) for q in multipliers]
            shape = (0, 2 * r[0].numel())
            found: Floats = (torch.stack(twice) if twice else r.new_zeros(shape)).to(dtype).numpy()
            return found

        local = [j for j, t in enumerate(terms) if not t.inner]
        other = [r[j] for j, t in enumerate(terms) if t.inner]
        if sums.filters.site is not None:
            other.append(r[len(terms)])
        return cls(
            np.array([terms[j].v - 1 for j in local]), rows([r[j] for j in local]),
            np.arange(len(other)), rows(other),
            np.array([[p - 1, q - 1] for p, q in sums.pairs], dtype=np.int64).reshape(-1, 2),
            rows(list(sums.pairs.values())), float(sums.site[0]) if sums.site else 0.0,
            np.array([float(q) for q in sums.site[1:]]).astype(np.zeros(0, str(dtype)[6:]).dtype), sums.pull,
            torch.tensor([terms[j].m for j in local]),
        )  # fmt: skip

    def __call__(self, f: Features, powers: Tensor, trace: Tensor) -> tuple[Tensor, Tensor]:
        """sum_j R_j f_j (n, *half), powers (n, n_mean + 1) of m; what is left of the trace to `trace`."""
        hats, others = (torch.view_as_real(q).flatten(2).numpy() for q in (f.hats, f.others))
        c = torch.zeros_like(f.hats[:, 0])
        out, total = torch.view_as_real(c).flatten(1).numpy(), trace.numpy()
        own = powers[:, self.means].to(f.m.dtype).numpy()
        feature_kernels.add_features(hats, self.which, self.weight, own, out)
        feature_kernels.add_features(
            others,
            self.which_other,
            self.weight_other,
            np.ones((len(out), len(self.which_other)), out.dtype),
            out,
        )
        feature_kernels.add_overlaps(hats, self.pairs, self.overlap, total)
        if f.slopes is not None:
            feature_kernels.site_trace(
                f.slopes.numpy(), self.own, self.site, out.dtype.type(self.pull), total
            )
        return c, trace


def site_kernels(filters: Filters, root: Tensor, r: Tensor) -> list[Tensor]:
    """Kernels at the distances that the trace of three iterations needs; mu_3 goes out with r (*half)."""
    p, table = filters.momenta, filters.site
    assert table is not None
    own = table.own[0].double() * root
    field = own + table.pull[0].double() * p.expand(4 - p.khat2) * filters.wiener[0, ..., 0].double() * root

    def at(multiplier: Tensor, *places: tuple[int, int]) -> list[Tensor]:
        kernel = p.fields(multiplier + 0j) / math.sqrt(p.volume)
        return [kernel[i % p.shape[0], j % p.shape[1]] for i, j in places]

    return [*at(r * own, (0, 0), (1, 0), (0, 1)), *at(r * field, (1, 1), (2, 0), (0, 2), (0, 0))]
