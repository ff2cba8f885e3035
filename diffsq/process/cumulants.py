"""Cumulants kappa_n(t) along the forward and the backward process: formulas, and estimates with errors.

With W[J] = ln <e^{J x}> = sum_n kappa_n J^n/n! and x(t) = f [x(0) + sigma eps] (`diffsq.process.sde`)

    W_t[J] = W_0[f J] + 1/2 Xi J^2,   Xi = f^2 sigma^2,     kappa_n(t) = f^n [kappa_n(0) + delta_{n2} sigma^2]

(Aarts, Habibi, Wang, Zhou 2410.21212, sec. 3). The variance-expanding process (f = 1) conserves every
kappa_{n>2}; the variance-preserving one forgets them as f^n. Two estimates along the forward process:

    noised samples          kappa_n of f (x_0 + sigma eps): error ~ f^n (kappa_2 + sigma^2)^{n/2} sqrt(n!/N)
    exact noise average     the formula above with the sample's own kappa_n(0): error f^n delta kappa_n(0)

The first tests the process; where sigma is large it says nothing about kappa_n(0), and its error shows that.
The second is the expectation of the first over the noise (to order 1/N), without the noise of the noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import torch
from einops import rearrange, repeat
from torch import Tensor

from diffsq.process.sde import VESDE, VPSDE
from lattice.arrays import Floats, Integers, integer_array, real_array, same_length
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_errors
from lattice.statistics.cumulants import cumulants_from_moments
from lattice.statistics.pulls import sigmas_of

Watch = Callable[[int, Tensor], None]
"""watch(n, x_n) sees the fields x_n (n_samples, ...) at level n, in the samplers' variable x/f."""
ORDERS = (2, 3, 4, 5, 6, 7, 8)
MIN_BLOCKS = 10  # fewer give no error worth a pull


def signal(sde: VESDE | VPSDE, levels: Tensor) -> Floats:
    """f at the noise levels sigma (n_levels,), 0 included: 1, or 1/sqrt(1 + sigma^2) (VP)."""
    return sde.signal(sde.time(torch.from_numpy(real_array(levels.cpu(), "levels")))).numpy()


def flow(kappa: Floats, f: Floats, sigma: Floats, noise: float = 1.0) -> Floats:
    """kappa_1..kappa_n (..., n_levels, n) at signal f and noise level sigma (n_levels,) from those at t = 0.

    kappa (..., n): at t = 0. noise: variance of the observable per unit sigma^2, 1 for a site or an
    orthonormal mode and 1/V for M.

    >>> flow(np.array([0.0, 1.0, 0.0, -2.0]), np.array([0.5]), np.array([3.0]))
    array([[ 0.   ,  2.5  ,  0.   , -0.125]])
    """
    kappa, f, sigma = real_array(kappa, "kappa"), real_array(f, "f"), real_array(sigma, "sigma")
    same_length(f=f, sigma=sigma)
    start = repeat(kappa, "... n -> ... level n", level=len(f)).copy()
    start[..., 1] += noise * sigma**2
    return np.asarray(start * np.power.outer(f, np.arange(1, start.shape[-1] + 1)))


class Tally:
    """Sums of x^p, p = 1..n_max, at each level and for each block of samples: what the jackknife needs.

    Fields may come in any order and split; block (n,) is the block of each sample, which is left out whole
    (its chain, where the samples are autocorrelated). Powers of fields (n, ...) are averaged over all axes
    but the first: sites, or the real modes of one class.
    """

    def __init__(self, n_levels: int, n_blocks: int, n_max: int = ORDERS[-1]) -> None:
        if n_blocks < MIN_BLOCKS:
            raise InputError(f"jackknife errors need {MIN_BLOCKS} or more blocks of samples, got {n_blocks}")
        self.sums, self.counts = np.zeros((n_levels, n_blocks, n_max)), np.zeros((n_levels, n_blocks))

    def add(self, level: int, x: Tensor | Floats, block: Integers, weight: Floats | None = None) -> None:
        """Count fields x (n, ...) at a level, with importance weights (n,) if they have any.

        Raises `InputError` for values that are not finite.
        """
        n_blocks, n_max = self.counts.shape[1], self.sums.shape[2]
        field = real_array(x.cpu() if isinstance(x, Tensor) else x, "x").reshape(len(x), -1)
        if not np.isfinite(field).all():
            raise InputError(f"NaN or infinite values at level {level}: the process ran away")
        w = np.ones(len(field)) if weight is None else real_array(weight, "weight")
        block = integer_array(block, "block")
        same_length(x=field, block=block, weight=w)
        self.counts[level] += np.bincount(block, w, n_blocks)
        power = np.ones_like(field)
        for p in range(n_max):
            power *= field
            mean = power[:, 0] if power.shape[1] == 1 else power.mean(axis=1)
            self.sums[level, :, p] += np.bincount(block, w * mean, n_blocks)

    def replicas(self, z2: bool = False) -> tuple[Floats, Floats]:
        """kappa_1..kappa_n_max of all samples (n_levels, n_max), and without each block (n_levels, b, n_max).

        z2: odd moments have their exact value 0, for a law symmetric under x -> -x (see
        `lattice.statistics.cumulants.cumulant_ratio_z2`: in two peaks far less noisy). Raises `InputError`
        for a level without samples.
        """
        used = self.counts.sum(axis=0) > 0
        sums, counts = self.sums[:, used], self.counts[:, used]
        total, number = sums.sum(axis=1), counts.sum(axis=1)
        if used.sum() < MIN_BLOCKS or not number.min() > 0:
            raise InputError(f"every level needs samples in {MIN_BLOCKS} or more blocks, got {used.sum()}")
        moments = total / number[:, None]
        without = (total[:, None] - sums) / (number[:, None] - counts)[..., None]
        if z2:
            moments[..., ::2], without[..., ::2] = 0.0, 0.0
        return cumulants_from_moments(moments).real, cumulants_from_moments(without).real

    def curve(self, sigma: Floats, orders: Sequence[int] = ORDERS, z2: bool = False) -> "Curve":
        """kappa_n and jackknife errors at the levels sigma (n_levels,)."""
        return Curve.of(sigma, orders, *self.replicas(z2))


@dataclass(frozen=True)
class Curve:
    """kappa_n at noise levels sigma (n_levels,): value and error (n_levels, n_orders)."""

    sigma: Floats
    orders: tuple[int, ...]
    value: Floats
    error: Floats

    @classmethod
    def of(cls, sigma: Floats, orders: Sequence[int], value: Floats, without: Floats) -> "Curve":
        """From kappa_1.. (n_levels, n_max) and the same without each block (n_levels, b, n_max)."""
        columns, error = columns_of(orders, value.shape[-1]), jackknife_errors(without, -2)
        return cls(np.asarray(sigma), tuple(orders), value[:, columns], error[:, columns])

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {"value": self.value.tolist(), "error": self.error.tolist()}


def columns_of(orders: Sequence[int], n_max: int) -> list[int]:
    """Columns of kappa_1..kappa_n_max that hold these orders; `InputError` for others than 1..n_max."""
    if not orders or not all(1 <= n <= n_max for n in orders):
        raise InputError(f"orders must be among 1..{n_max}, got {list(orders)}")
    return [n - 1 for n in orders]


def estimate(
    x: Tensor | Floats, orders: Sequence[int] = ORDERS, *, z2: bool = False,
    block: Integers | None = None, weight: Floats | None = None, n_blocks: int = 100,
) -> tuple[Floats, Floats]:  # fmt: skip
    """kappa_n of samples x (n, ...) and errors, each (n_orders,); block (n,): chains, else n_blocks slices.

    >>> x = np.random.default_rng(1).exponential(size=(40000, 1))
    >>> value, error = estimate(x, (2, 3, 4))
    >>> bool((np.abs(value - [1.0, 2.0, 6.0]) < 4 * error).all())
    True
    """
    whole = None if block is None else integer_array(block, "block")
    labels = slices(len(x), n_blocks) if whole is None else np.unique(whole, return_inverse=True)[1]
    tally = Tally(1, int(labels.max()) + 1)
    tally.add(0, x, labels, weight)
    curve = tally.curve(np.zeros(1), orders, z2)
    return curve.value[0], curve.error[0]


def slices(n: int, n_blocks: int = 100) -> Integers:
    """Block of each of n independent samples, n_blocks contiguous slices."""
    return np.arange(n) * min(n_blocks, n) // n


def watch_into(tally: Tally, f: Floats, block: Integers, basis: Tensor | None = None) -> Watch:
    """A watch that counts f x, x in the samplers' variable; basis (V, m): projections instead of sites."""

    def watch(n: int, x: Tensor) -> None:
        seen = x if basis is None else x.flatten(1) @ basis.to(x)
        tally.add(n, f[n] * seen, block)

    return watch


def forward(x: Tensor, levels: Tensor, noise: Callable[[int], Tensor], watch: Watch) -> None:
    """Noise fields x (n, ...) up through levels (N+1,), as a process: noise(n) is that of the step from n."""
    watch(0, x)
    for n in range(len(levels) - 1):
        x = x + (levels[n + 1] ** 2 - levels[n] ** 2).sqrt() * noise(n)
        watch(n + 1, x)


def _averaged(tally: Tally, f: Floats, sigma: Floats, z2: bool, noise: float) -> tuple[Floats, Floats]:
    """As `Tally.replicas` at every level, from level 0 by the formula."""
    value, without = (flow(kappa[0], f, sigma, noise) for kappa in tally.replicas(z2))
    return value, rearrange(without, "block level n -> level block n")


def exact_average(
    tally: Tally, f: Floats, sigma: Floats, orders: Sequence[int] = ORDERS, z2: bool = False,
    noise: float = 1.0,
) -> Curve:  # fmt: skip
    """The forward curve with the noise averaged exactly, from the samples of level 0 of a tally."""
    return Curve.of(sigma, orders, *_averaged(tally, f, sigma, z2, noise))


def forward_pulls(
    tally: Tally, f: Floats, sigma: Floats, orders: Sequence[int] = ORDERS, z2: bool = False,
    noise: float = 1.0,
) -> Floats:  # fmt: skip
    """Sigmas between noised samples and the formula, (n_levels - 1, n_orders), both from the same x_0.

    What the two have in common, the sample's kappa_n(0), drops out of the jackknife error of the difference;
    few blocks count as Student's t.
    """
    columns = columns_of(orders, tally.sums.shape[2])
    counted, exact = tally.replicas(z2), _averaged(tally, f, sigma, z2, noise)
    off, without = ((a - b)[1:][..., columns] for a, b in zip(counted, exact))
    error, dof = jackknife_errors(without, -2), without.shape[1] - 1
    width = np.sqrt(np.abs(exact[0][1:, 1:2]))
    scale = np.maximum(np.abs(exact[0][1:][:, columns]), width ** np.array(orders))  # of the terms of kappa_n
    rows = zip(off, error, scale, strict=True)
    return np.array([[sigmas_of(o, e, dof, s) for o, e, s in zip(*row)] for row in rows])


def consistent(pulls: Floats, gate: float = 4.5) -> tuple[bool, float]:
    """Whether the largest of the pulls is within the gate, counting how many there are; and its p-value.

    Bonferroni: n p(largest) against p(gate), p two-sided and normal.

    >>> consistent(np.array([1.0, 4.6]))[0], consistent(np.array([4.6]))[0]
    (True, False)
    """
    pulls = real_array(pulls, "pulls")
    if not np.isfinite(pulls).all():
        return False, 0.0
    p = min(1.0, pulls.size * 2 * float(scipy.stats.norm.sf(np.abs(pulls).max())))
    return p >= 2 * float(scipy.stats.norm.sf(gate)), p
