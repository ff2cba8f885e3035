r"""Training of binary restricted Boltzmann machines: ascent of the likelihood by block Gibbs sampling.

    dW = rate (<v <h>_v>_data - <v <h>_v>_machine),   db = rate (<v>_data - <v>_machine),   dc alike

    cd         the machine's mean after k sweeps from the mini-batch (Hinton, Neural Comput. 14 (2002) 1771)
    pcd        of chains that go on from step to step (Tieleman, ICML 2008)
    tempered   of the last of n_temperatures such chains, the others with W times a scale from `lowest` to 1.
               After the sweeps neighbours exchange their v with the probability of Metropolis, h summed over
               (Desjardins et al., AISTATS 2010; Swendsen and Wang, Phys. Rev. Lett. 57 (1986) 2607)

Tensors float32, all machines of a batch in one product. Every number drawn is a function of seed, stream,
number of the machine and step: other machines change nothing, and what is resumed ends in the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.models.binary_rbm import BinaryRBM, products
from lattice.arrays import Integers
from lattice.errors import InputError, shown
from lattice.rng import LOW, SHIFT, check_counters, compiled, philox, stream_id, uniforms

METHODS = ("cd", "pcd", "tempered")
CHECKED = 200  # steps between two looks for NaN
EIGHT, ULP = np.uint64(8), np.float32(2.0**-24)


@dataclass(frozen=True)
class BinaryLearning:
    """How: rate per step, times `cooling` every `period` steps; k sweeps a step; rows of a mini-batch;
    n_chains of pcd and tempered (None: as many as rows), at n_temperatures scales of W from `lowest` to 1.
    Raises `InputError` for what makes no sense."""

    rate: float
    method: str = "cd"
    k: int = 1
    batch: int = 100
    n_chains: int | None = None
    n_temperatures: int = 8
    lowest: float = 0.1
    cooling: float = 1.0
    period: int = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"no method {shown(self.method)} of learning; there are {', '.join(METHODS)}")
        if not (0 <= self.rate < math.inf and 0 < self.cooling <= 1):
            raise InputError(f"need 0 <= rate and 0 < cooling <= 1, got {self.rate} and {self.cooling}")
        sizes = self.k, self.batch, self.period, 1 if self.n_chains is None else self.n_chains
        if min(sizes) < 1:
            raise InputError(f"k, batch, period and n_chains must be at least 1, got {list(sizes)}")
        if self.method == "tempered" and not (self.n_temperatures >= 2 and 0 <= self.lowest < 1):
            got = f"{self.n_temperatures} and {self.lowest}"
            raise InputError(f"tempering needs two scales or more, the lowest in [0, 1), got {got}")

    @property
    def scales(self) -> Tensor:
        """Of W of the chains (n_temperatures,), the machine's own, 1, last; (1,) without tempering."""
        if self.method != "tempered":
            return torch.ones(1)
        return torch.linspace(self.lowest, 1.0, self.n_temperatures)


@dataclass
class State:
    """Where a learning stands: step; chains v (n_machines, n_scales, n_chains, n_units) of pcd and tempered;
    accepted: the shares of exchanges, summed over steps, (n_machines, n_scales - 1), and tried, their number.
    With the machines of that step it goes on from there, to the same bits."""

    step: int = 0
    chains: Tensor | None = None
    accepted: Tensor | None = None
    tried: Tensor | None = None


def learn_binary(
    machines: BinaryRBM, data: Any, learning: BinaryLearning, n_steps: int, seed: int,
    state: State | None = None, *, every: int = 1, numbers: Sequence[int] | None = None,
) -> Iterator[tuple[int, BinaryRBM]]:  # fmt: skip
    """Yields (step, machines) at step 0, the given ones, at every `every`th and at n_steps; from state.step,
    which is kept up to date, where `state` is given. Machines float32, w (*batch, n_units, n_hidden).

    data: spins (n, n_sites) for all machines, or (n_machines, n, n_sites), see `BinaryRBM.encode`. numbers:
    of the machines, by which their random numbers are drawn, 0, 1, ... if not given. Raises `InputError` for
    data that do not fit or have fewer rows than a mini-batch, for weights that are not finite and become so.
    """
    if every < 1 or n_steps < 0:
        raise InputError(f"need n_steps >= 0 and every >= 1, got {n_steps} and {every}")
    machines.require_finite("at the start")
    state = state or State()
    m = _stacked(machines)
    own = np.arange(len(m.w)) if numbers is None else np.asarray(numbers, dtype=np.int64)
    if own.shape != (len(m.w),):
        raise InputError(f"{len(m.w)} machines have as many numbers, got {own.shape}")
    draw, noise = _rows(m, data, learning.batch, seed, own), _Noise(m, seed, own, learning.k)
    if learning.method != "cd" and state.chains is None:
        state.chains = _random_units(m, learning, seed, own)
    yield state.step, _given_back(m, machines)
    for step in range(state.step, n_steps):
        _one_step(m, draw(step), learning, state, noise, step)
        state.step = step + 1
        shown_now = (step + 1) % every == 0 or step + 1 == n_steps
        if shown_now or (step + 1) % CHECKED == 0:
            m.require_finite(f"after step {step + 1}; take a smaller rate than {learning.rate:g}")
        if shown_now:
            yield step + 1, _given_back(m, machines)


def _one_step(
    m: BinaryRBM, v: Tensor, learning: BinaryLearning, state: State, noise: _Noise, step: int
) -> None:
    """One step of learning; m is changed in place."""
    up = m.mean_hidden(v)
    if learning.method == "cd":
        end, mean = v, up
        for sweep in range(learning.k):
            for_hidden, for_visible = noise(step, sweep, v.shape[1])
            end = m.visible(m.draw_hidden(mean, for_hidden), for_visible)
            mean = m.mean_hidden(end)
    else:
        assert state.chains is not None
        state.chains = _moved_chains(m, state.chains, learning, state, noise, step)
        end = state.chains[:, -1].contiguous()
        mean = m.mean_hidden(end)
    rate = learning.rate * learning.cooling ** (step // learning.period)
    plus, minus = rate / v.shape[1], -rate / end.shape[1]
    m.w.add_(products(v.mT, up), alpha=plus).add_(products(end.mT, mean), alpha=minus)
    if m.b is not None:
        m.b.add_(v.sum(1), alpha=plus).add_(end.sum(1), alpha=minus)
    if m.c is not None:
        m.c.add_(up.sum(1), alpha=plus).add_(mean.sum(1), alpha=minus)


def _moved_chains(
    m: BinaryRBM, chains: Tensor, learning: BinaryLearning, state: State, noise: _Noise, step: int
) -> Tensor:
    n_machines, n_scales, n, _ = chains.shape
    scales = learning.scales.to(m.w.dtype)
    v, scale = chains.flatten(1, 2), 1.0 if n_scales == 1 else scales.repeat_interleave(n)[:, None]
    for sweep in range(learning.k):
        v = m.gibbs(v, *noise(step, sweep, n_scales * n), scale)
    chains = v.view(n_machines, n_scales, n, -1)
    if n_scales == 1:
        return chains
    u = noise.exchange(step, (n_scales - 1) * n).view(n_machines, n_scales - 1, n)
    chains, accepted = exchanged(m, chains, scales, u, step % 2)
    if state.accepted is None or state.tried is None:
        state.accepted = torch.zeros(n_machines, n_scales - 1, dtype=torch.float64)
        state.tried = torch.zeros(n_scales - 1, dtype=torch.float64)
    state.accepted += accepted.double().mean(-1)
    state.tried[step % 2 :: 2] += 1
    return chains


def exchanged(m: BinaryRBM, chains: Tensor, scales: Tensor, u: Tensor, parity: int) -> tuple[Tensor, Tensor]:
    """Chains (n_machines, n_scales, n, n_units) after exchanges of the pairs parity, parity + 2, ... with
    their upper neighbours, by uniform u (n_machines, n_scales - 1, n), and which were accepted, as u.

    v and v' at scales a < b change places with probability min(1, p_a(v') p_b(v)/[p_a(v) p_b(v')]), which
    keeps the joint law, the product of all p_scale(v).
    """
    n_scales, accepted = chains.shape[1], torch.zeros_like(u, dtype=torch.bool)
    low = torch.arange(parity, n_scales - 1, 2)
    if not len(low):
        return chains, accepted
    product = products(chains.flatten(1, 2), m.w)
    x = product.view(*chains.shape[:3], -1)
    bias = 0.0 if m.c is None else m.c[:, None, None]

    def log_p(place: Tensor, at: Tensor) -> Tensor:
        """ln p at the scales `at` of the v in `place`; b v is common to all scales."""
        return m.log_states(scales[at][:, None, None] * x[:, place] + bias).sum(-1)

    high = low + 1
    ratio = log_p(high, low) + log_p(low, high) - log_p(low, low) - log_p(high, high)
    yes = u[:, low].log() < ratio
    accepted[:, low] = yes
    found, one, other = chains.clone(), chains[:, low], chains[:, high]
    found[:, low] = torch.where(yes[..., None], other, one)
    found[:, high] = torch.where(yes[..., None], one, other)
    return found, accepted


@compiled
def fill_coarse(rows: Any, seed: Any, stream: Any, index: Any, step: Any) -> None:
    """rows (n, 4 m) float32 = numbers n 2^-24 uniform in [0, 1) of the streams of index (n,), four a counter
    of `lattice.rng` (arguments uint64): as fine as float32 is below 1, and several times as fast as its 52
    bits."""
    for i in range(index.size):
        for block in range(rows.shape[1] // 4):
            a, b, c, d = philox(np.uint64(block), step, index[i], stream, seed & LOW, seed >> SHIFT)
            rows[i, 4 * block] = np.float32(np.int32(a >> EIGHT)) * ULP
            rows[i, 4 * block + 1] = np.float32(np.int32(b >> EIGHT)) * ULP
            rows[i, 4 * block + 2] = np.float32(np.int32(c >> EIGHT)) * ULP
            rows[i, 4 * block + 3] = np.float32(np.int32(d >> EIGHT)) * ULP


class _Noise:
    """Uniform numbers of sweeps and exchanges, a function of seed, machine and step; those of sweeps are good
    until the next are drawn."""

    def __init__(self, m: BinaryRBM, seed: int, numbers: Integers, k: int) -> None:
        self.sizes, self.seed, self.numbers, self.k = (m.w.shape[-1], m.n_sites), seed, numbers, k
        self.keys, self.kept = check_counters(seed, numbers, 0), dict[str, tuple[Any, Tensor]]()

    def __call__(self, step: int, sweep: int, n: int) -> tuple[Tensor, Tensor]:
        """For h (n_machines, n, n_hidden) and for v (n_machines, n, n_sites)."""
        key, (n_hidden, n_sites) = step * self.k + sweep, self.sizes
        return self._drawn("binary/hidden", key, n, n_hidden), self._drawn("binary/visible", key, n, n_sites)

    def _drawn(self, stream: str, key: int, n: int, size: int) -> Tensor:
        if stream not in self.kept:
            rows = np.empty((len(self.keys), -(-n * size // 4) * 4), dtype=np.float32)
            self.kept[stream] = rows, torch.from_numpy(rows)[:, : n * size].view(len(rows), n, size)
        rows, view = self.kept[stream]
        fill_coarse(rows, np.uint64(self.seed), np.uint64(stream_id(stream)), self.keys, np.uint64(key))
        return view

    def exchange(self, step: int, n: int) -> Tensor:
        return torch.from_numpy(uniforms(self.seed, "binary/exchange", self.numbers, step, n))


def _rows(m: BinaryRBM, data: Any, size: int, seed: int, numbers: Integers) -> Callable[[int], Tensor]:
    """draw(step): mini-batches (n_machines, size, n_units), each epoch in another order, each machine its
    own."""
    v = m.encode(data)
    if v.ndim not in (2, 3) or (v.ndim == 3 and len(v) != len(m.w)):
        raise InputError(f"spins for {len(m.w)} machines (n, n_sites) or one set each, got {list(v.shape)}")
    n = v.shape[-2]
    if n < size:
        raise InputError(f"a mini-batch of {size} rows needs as many, the data has {n}")
    per_epoch, kept = n // size, dict[int, Tensor]()
    if v.ndim == 3:
        first = torch.arange(len(v))[:, None] * n
        v = v.flatten(0, 1)
    else:
        first = torch.zeros(len(m.w), 1, dtype=torch.int64)

    def draw(step: int) -> Tensor:
        epoch, part = divmod(step, per_epoch)
        if epoch not in kept:
            kept.clear()
            order = uniforms(seed, "binary/epoch", numbers, epoch, n).argsort(1)
            kept[epoch] = torch.from_numpy(order) + first
        return v[kept[epoch][:, part * size : (part + 1) * size]]

    return draw


def _random_units(m: BinaryRBM, learning: BinaryLearning, seed: int, numbers: Integers) -> Tensor:
    """v of infinite temperature (n_machines, n_scales, n_chains, n_units): where chains start."""
    shape = (len(m.w), len(learning.scales), learning.n_chains or learning.batch)
    drawn = uniforms(seed, "binary/chains", numbers, 0, math.prod(shape[1:]) * m.n_sites)
    u = torch.from_numpy(drawn).view(*shape, m.n_sites)
    n_units, level = m.w.shape[-2], {"spin": 0.0, "bit": 0.5, "potts": 1 / m.q}[m.units]
    return m.draw_visible(torch.full((*shape, n_units), level, dtype=m.w.dtype), u)


def _stacked(machines: BinaryRBM) -> BinaryRBM:
    """Copies in float32, one direction of machines."""
    m = machines.to(torch.float32)
    w, b, c = m.w, m.b, m.c
    b, c = (None if x is None else x.reshape(-1, x.shape[-1]) for x in (b, c))
    return replace(m, w=w.reshape(-1, *w.shape[-2:]), b=b, c=c)


def _given_back(m: BinaryRBM, like: BinaryRBM) -> BinaryRBM:
    """Copies of the machines in the shape of those given."""
    copy = m.to(torch.float32)
    w, b, c = copy.w, copy.b, copy.c
    return replace(
        copy,
        w=w.reshape(like.w.shape),
        b=None if b is None or like.b is None else b.reshape(like.b.shape),
        c=None if c is None or like.c is None else c.reshape(like.c.shape),
    )
