r"""The restricted Boltzmann machine of binary or Potts spins, any number of machines at once.

    E(v, h) = -v W h - b v - c h,    p(v) = e^(-F(v))/Z,    F(v) = -b v - sum_j ln z(x_j),   x = v W + c

spin: v and h of +-1, z = 2 cosh x, <h> = tanh x; bit: v and h of {0, 1}, v = (1 + s)/2, z = 1 + e^x,
<h> = 1/(1 + e^-x); potts: v a group of q units a site, one of them 1, given h a softmax, and h of {0, 1}.
`scale` multiplies W alone, as in tempering: at scale 0 the nodes are independent. Smolensky, in Parallel
Distributed Processing 1 (1986); Hinton, Neural Comput. 14 (2002) 1771. Draws are functions of the uniform
numbers they are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from lattice.errors import InputError, shown

UNITS = ("spin", "bit", "potts")
MOST_NODES = 20  # binary nodes of a side that is enumerated
PART = 2**13  # states at a time
Scale = float | Tensor


@dataclass
class BinaryRBM:
    """w (*batch, n_units, n_hidden), b (*batch, n_units) and c (*batch, n_hidden) or None; n_units is the
    number of sites, times q of units "potts". All methods work in the type of w."""

    w: Tensor
    b: Tensor | None = None
    c: Tensor | None = None
    units: str = "spin"
    q: int = 2

    @classmethod
    def initial(
        cls, n_sites: int, n_hidden: int, width: float, noise: Tensor, units: str = "spin",
        biases: bool = True, q: int = 2,
    ) -> BinaryRBM:  # fmt: skip
        """Weights `width` times noise (*batch, n_units, n_hidden), float64; biases 0, or none.

        Raises `InputError` for sizes, widths and units that are none.
        """
        if units not in UNITS:
            raise InputError(f"no units {shown(units)} of a machine; there are {', '.join(UNITS)}")
        if n_sites < 1 or n_hidden < 1 or q < 2 or (units != "potts" and q != 2):
            got = f"{n_sites}, {n_hidden} and {q}"
            raise InputError(f"need a site, a hidden node and two states (more for potts only), got {got}")
        if not 0 <= width < math.inf:
            raise InputError(f"the width of the weights must be 0 or more and finite, got {width:g}")
        n_units = n_sites * q if units == "potts" else n_sites
        if tuple(noise.shape[-2:]) != (n_units, n_hidden):
            raise InputError(f"noise for weights {[n_units, n_hidden]} has shape {list(noise.shape)}")
        w = width * noise.double()
        b, c = (torch.zeros_like(w[..., 0]), torch.zeros_like(w[..., 0, :])) if biases else (None, None)
        return cls(w, b, c, units, q)

    @property
    def n_sites(self) -> int:
        n = self.w.shape[-2]
        return n // self.q if self.units == "potts" else n

    def to(self, dtype: torch.dtype) -> BinaryRBM:
        """The same machine in another type of numbers; tensors are copies."""
        return self._mapped(lambda x: x.detach().clone().to(dtype))

    def one(self, index: int) -> BinaryRBM:
        """Machine `index` of the first direction of the batch."""
        return self._mapped(lambda x: x[index])

    def _mapped(self, f: Callable[[Tensor], Tensor]) -> BinaryRBM:
        b, c = (None if x is None else f(x) for x in (self.b, self.c))
        return replace(self, w=f(self.w), b=b, c=c)

    def encode(self, spins: Any) -> Tensor:
        """Units (..., n_units) of spins (..., n_sites): +-1, of potts 0 ... q - 1.

        Raises `InputError` for other numbers and another number of sites.
        """
        given = torch.as_tensor(spins)
        if given.ndim < 1 or given.shape[-1] != self.n_sites:
            raise InputError(f"spins of {self.n_sites} sites (..., {self.n_sites}), got {list(given.shape)}")
        if self.units == "potts":
            whole = given.long()
            if bool((whole != given).any()) or (
                whole.numel() and not 0 <= whole.min() <= whole.max() < self.q
            ):
                raise InputError(f"Potts spins are whole numbers from 0 to {self.q - 1}")
            return one_hot(whole, self.q).flatten(-2).to(self.w.dtype)
        if bool((given.abs() != 1).any()):
            raise InputError("spins are +1 or -1, and there are others (give (2 v - 1) of bits)")
        found = given.to(self.w.dtype)
        return found if self.units == "spin" else (1 + found) / 2

    def decode(self, v: Tensor) -> Tensor:
        """Spins (..., n_sites) of units: +-1, of potts 0 ... q - 1; int8."""
        if self.units == "potts":
            return _by_site(v, self.q).argmax(-1).to(torch.int8)
        return torch.where(v > (0 if self.units == "spin" else 0.5), 1, -1).to(torch.int8)

    def hidden_field(self, v: Tensor, scale: Scale = 1.0) -> Tensor:
        """x = scale v W + c (*batch, m, n_hidden)."""
        return _added(products(v, self.w), self.c, scale)

    def visible_field(self, h: Tensor, scale: Scale = 1.0) -> Tensor:
        """scale W h + b (*batch, m, n_units)."""
        return _added(products(h, self.w.mT), self.b, scale)

    def log_states(self, x: Tensor) -> Tensor:
        """ln of the sum over the states of hidden nodes of e^(x h), node by node."""
        return _log_two(x, self.units == "spin")

    def mean_hidden(self, v: Tensor, scale: Scale = 1.0) -> Tensor:
        """<h> (*batch, m, n_hidden) given v (*batch, m, n_units); v may be expectation values."""
        x = self.hidden_field(v, scale)
        return _mean(x, self.units == "spin")

    def mean_visible(self, h: Tensor, scale: Scale = 1.0) -> Tensor:
        """<v> (*batch, m, n_units) given h (*batch, m, n_hidden)."""
        y = self.visible_field(h, scale)
        if self.units == "potts":
            return torch.softmax(_by_site(y, self.q), -1).flatten(-2)
        return _mean(y, self.units == "spin")

    def draw_hidden(self, mean: Tensor, uniforms: Tensor) -> Tensor:
        """h of these <h>, a uniform number each."""
        return _drawn(mean, uniforms, self.units == "spin")

    def draw_visible(self, mean: Tensor, uniforms: Tensor) -> Tensor:
        """v of these <v> (*batch, m, n_units), uniforms (*batch, m, n_sites)."""
        if self.units != "potts":
            return _drawn(mean, uniforms, self.units == "spin")
        below = _by_site(mean, self.q).cumsum(-1)[..., :-1] <= uniforms[..., None].to(mean.dtype)
        return one_hot(below.sum(-1), self.q).flatten(-2).to(mean.dtype)

    def hidden(self, v: Tensor, uniforms: Tensor, scale: Scale = 1.0) -> Tensor:
        """h (*batch, m, n_hidden) given v, uniforms as h."""
        return self.draw_hidden(self.mean_hidden(v, scale), uniforms)

    def visible(self, h: Tensor, uniforms: Tensor, scale: Scale = 1.0) -> Tensor:
        """v (*batch, m, n_units) given h, uniforms (*batch, m, n_sites)."""
        return self.draw_visible(self.mean_visible(h, scale), uniforms)

    def gibbs(self, v: Tensor, for_hidden: Tensor, for_visible: Tensor, scale: Scale = 1.0) -> Tensor:
        """One sweep of block Gibbs, all hidden then all visible nodes: (*batch, m, n_units)."""
        return self.visible(self.hidden(v, for_hidden, scale), for_visible, scale)

    def free_energy(self, v: Tensor, scale: Scale = 1.0) -> Tensor:
        """F (*batch, m) of v (*batch, m, n_units): p(v) = e^-F/Z."""
        found = -self.log_states(self.hidden_field(v, scale)).sum(-1)
        return found if self.b is None else found - (v @ self.b[..., None])[..., 0]

    def ln_z(self, scale: Scale = 1.0) -> Tensor:
        """ln Z (*batch) by all states of the side that has fewer; float64.

        Raises `InputError` for more than 2^20 states of both.
        """
        exact = self.to(torch.float64)
        of_visible = self.n_sites * math.log2(self.q)
        n_hidden = self.w.shape[-1]
        if min(of_visible, n_hidden) > MOST_NODES:
            raise InputError(
                f"ln Z is for up to 2^{MOST_NODES} states of a side, of {self.n_sites} sites and "
                f"{n_hidden} hidden nodes both have more; take diffsq.exactness.annealed"
            )
        parts = []
        if n_hidden <= of_visible:
            for h in all_states(n_hidden, 2):
                h = h.double() * 2 - 1 if self.units == "spin" else h.double()
                own = 0.0 if exact.c is None else (h @ exact.c[..., None])[..., 0]
                parts.append(torch.logsumexp(exact.log_visible(exact.visible_field(h, scale)) + own, -1))
        else:
            for states in all_states(self.n_sites, self.q):
                v = exact.encode(states if self.units == "potts" else 2 * states - 1)
                parts.append(torch.logsumexp(-exact.free_energy(v, scale), -1))
        return torch.logsumexp(torch.stack(parts, -1), -1)

    def log_visible(self, y: Tensor) -> Tensor:
        """ln of the sum over all v of e^(y v) (*batch, m), y (*batch, m, n_units)."""
        if self.units == "potts":
            return torch.logsumexp(_by_site(y, self.q), -1).sum(-1)
        return _log_two(y, self.units == "spin").sum(-1)

    def log_likelihood(self, v: Tensor, ln_z: Tensor) -> Tensor:
        """ln p (*batch, m) of v (*batch, m, n_units), ln_z (*batch)."""
        return -self.free_energy(v) - ln_z[..., None]

    def require_finite(self, when: str = "") -> None:
        """Raise `InputError` unless every weight and bias is a number."""
        if not all(bool(torch.isfinite(x).all()) for x in (self.w, self.b, self.c) if x is not None):
            raise InputError(f"weights are NaN or infinite {when}".rstrip())


def all_states(n: int, q: int) -> Iterator[Tensor]:
    """The q^n states of n nodes, some (m, n) at a time, of 0 ... q - 1."""
    powers = q ** torch.arange(n)
    for first in range(0, q**n, PART):
        yield (torch.arange(first, min(first + PART, q**n))[:, None] // powers) % q


def _by_site(x: Tensor, q: int) -> Tensor:
    """(..., n_sites, q) of units (..., n_units)."""
    return x.reshape(*x.shape[:-1], -1, q)


def products(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, of stacks of matrices one by one, each in memory of its own: where it begins decides its bits on
    some processors, and a machine must learn the same whatever others learn beside it."""
    if not a.dim() == b.dim() == 3 or len(a) != len(b):
        return a @ b
    kept = torch.contiguous_format
    pairs = zip(a, b, strict=True)
    return torch.stack([x.clone(memory_format=kept) @ y.clone(memory_format=kept) for x, y in pairs])


def _added(product: Tensor, bias: Tensor | None, scale: Scale) -> Tensor:
    if not isinstance(scale, float) or scale != 1.0:
        product = product * scale
    return product if bias is None else product + bias[..., None, :]


# tanh and logsigmoid of a number are the same wherever in a tensor it stands; torch's sigmoid, softplus and
# log1p differ in the last bits where the last numbers do not fill a vector
def _mean(x: Tensor, spin: bool) -> Tensor:
    return torch.tanh(x) if spin else (1 + torch.tanh(x / 2)) / 2


def _log_two(x: Tensor, spin: bool) -> Tensor:
    """ln 2 cosh x, or ln(1 + e^x), for large |x| too."""
    return x - logsigmoid(2 * x) if spin else -logsigmoid(-x)


def _drawn(mean: Tensor, uniforms: Tensor, spin: bool) -> Tensor:
    # rounded up, mean - u in (-1, 1) is 0 or 1; comparing and converting takes several times as long
    u = uniforms.to(mean.dtype)
    return 2 * torch.ceil((1 + mean) / 2 - u) - 1 if spin else torch.ceil(mean - u)
