r"""Training of Gaussian restricted Boltzmann machines: ascent of the likelihood, exact or by Gibbs sampling.

The gradient is s^2 (C - C') W, C the second moments of data and C' of the machine:

    exact    C' = K^-1
    cd       of k sweeps of block Gibbs from the data (Hinton, Neural Comput. 14 (2002) 1771); without
             mini-batches in expectation, C - C' = D - R^k D R^k, D = C - K^-1, R = s^2 W W^T/mu^2
    pcd      of chains that go on from step to step (Tieleman, ICML 2008), as many as a mini-batch has fields,
             or, beside the exact C, n_chains of them

`natural` multiplies C - C' by the inverse of the data's C from both sides, so that learned modes relax with
the rate 2 s^2 y*, without the stiffness 1/kappa^2. Mini-batches make the path of W a Langevin process, its
noise rate/batch. Rates above the limit of lattice.exact.gaussian_rbm.largest_step are refused: K would not
stay positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from diffsq.models.rbm import FLAT, GaussianRBM
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import (
    best_mass,
    largest_natural_step,
    largest_step,
    mass_step,
    reachable_step,
)
from lattice.rng import normals, uniforms

METHODS = ("exact", "cd", "pcd")
Draw = Callable[[int], Tensor]
"""draw(step): a mini-batch (*batch, n, n_visible) of every machine."""


@dataclass(frozen=True)
class Learning:
    """How: rate per step, times `cooling` every `period` steps; momentum (heavy ball); k sweeps of cd and
    pcd, n_chains of pcd without mini-batches; mass: whether mu^2 is learned. Raises `InputError` for what
    makes no sense."""

    rate: float
    method: str = "exact"
    k: int = 1
    momentum: float = 0.0
    cooling: float = 1.0
    period: int = 1
    natural: bool = False
    mass: bool = False
    n_chains: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"no method {self.method!r} of learning; there are {', '.join(METHODS)}")
        if not (0 <= self.rate < math.inf and 0 <= self.momentum < 1 and 0 < self.cooling <= 1):
            got = f"{self.rate}, {self.momentum} and {self.cooling}"
            raise InputError(f"need rate >= 0, 0 <= momentum < 1 and 0 < cooling <= 1, got {got}")
        if self.k < 1 or self.period < 1 or (self.n_chains is not None and self.n_chains < 1):
            got = f"{self.k}, {self.period} and {self.n_chains}"
            raise InputError(f"k, period and n_chains must be at least 1, got {got}")

    def limit(self, second: Tensor, machine: GaussianRBM) -> tuple[float, str]:
        """The rate above which the end of learning C (n, n) is unstable, or the way there leads out of
        positive K, and what sets it in words.

        Momentum b makes the limit at the end 1 + b times larger, that on the way smaller. A mass that is
        learned is judged where it starts and, together with the modes, where it ends. The natural gradient
        is judged at its end alone. Raises `InputError` where nothing can be learned.
        """
        kappa, n_hidden = kernel_of(second), machine.w.shape[-1]
        masses, found = {float(machine.mu2.min()), float(machine.mu2.max())}, list[tuple[float, str]]()
        b = 1 + self.momentum
        if self.mass and n_hidden < len(kappa):
            end = best_mass(kappa, n_hidden)
            masses = {*(mu2 for mu2 in masses if mu2 > kappa.min()), end}
            low = min(masses)
            found.append((b * 4 * low**2 / (len(kappa) - n_hidden), "the mass"))
            if not self.natural:
                found.append((b * mass_step(kappa, end, n_hidden, machine.s), "the mass with its modes"))
        for mu2 in masses:
            if self.natural:
                _refuse_flat(kappa)
                most, mode = largest_natural_step(kappa, mu2, machine.s, n_hidden)
            else:
                k = self.k if self.method == "cd" else None
                most, mode = largest_step(kappa, mu2, machine.s, k, n_hidden)
            found.append((b * most, f"mode {mode} with kappa = {kappa[mode]:.6g}"))
            if not self.natural:
                found += self._on_the_way(kappa, mu2, machine.s)
        return min(found)

    def _on_the_way(self, kappa: Floats, mu2: float, s: float) -> list[tuple[float, str]]:
        """The limit on the way of the softest mode, if there is one."""
        first = int(np.argmin(kappa))
        k, chains = None if self.method == "exact" else self.k, self.method == "pcd"
        most, limits = reachable_step(float(kappa[first]), mu2, s, k, self.momentum, chains)
        return [(most, f"mode {first} with kappa = {kappa[first]:.6g}, on its way,")] if limits else []


@dataclass
class State:
    """Where a learning stands: step, velocity of W and of mu^2, chains of pcd. With the machine of that step
    it goes on from there, to the same bits. refused: steps of single machines that were not taken."""

    step: int = 0
    velocity: tuple[Tensor, Tensor] | None = None
    chains: Tensor | None = None
    refused: int = 0


def kernel_of(second: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """kappa_a = 1/eigenvalues of second moments (n, n), rising; infinite where there is no variance."""
    values = np.linalg.eigvalsh(second.cpu().numpy())[::-1]
    flat = values <= FLAT * values[0]
    return np.where(flat, np.inf, 1 / np.where(flat, 1.0, values))


def _refuse_flat(kappa: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    if np.isinf(kappa).any():
        raise InputError(
            f"{int(np.isinf(kappa).sum())} of {len(kappa)} modes have no variance, kappa = inf: the natural "
            "gradient divides by it; leave such sites out, or take natural=False"
        )


def second_moments(phi: Tensor) -> Tensor:
    """<phi phi^T> (*batch, n_visible, n_visible) of fields (*batch, n, n_visible), not centred."""
    return phi.mT @ phi / phi.shape[-2]


def from_rows(fields: Tensor, size: int, seed: int, n_machines: int | None = None) -> Draw:
    """Mini-batches of the rows of fields (n, n_visible), each epoch in another order, each machine its own.

    Raises `InputError` for batches larger than the data and for fields that are not finite.
    """
    n = len(fields)
    if not 1 <= size <= n:
        raise InputError(f"a batch of {size} fields needs as many, the data has {n}")
    if not bool(torch.isfinite(fields).all()):
        raise InputError(f"{int((~torch.isfinite(fields)).any(1).sum())} of {n} fields are NaN or infinite")
    per_epoch, machines = n // size, np.arange(n_machines or 1)

    def draw(step: int) -> Tensor:
        epoch, part = divmod(step, per_epoch)
        order = uniforms(seed, "rbm/epoch", machines, epoch, n).argsort(1)[:, part * size : (part + 1) * size]
        found = fields[torch.from_numpy(order)]
        return found if n_machines else found[0]

    return draw


def from_gaussian(root: Tensor, size: int, seed: int, n_machines: int | None = None) -> Draw:
    """Fresh Gaussian data at every step: `root` (n_visible, n_visible) times white noise, C = root root^T."""
    n, machines = len(root), np.arange(n_machines or 1)

    def draw(step: int) -> Tensor:
        noise = torch.from_numpy(normals(seed, "rbm/data", machines, step, size * n))
        found = noise.reshape(len(machines), size, n) @ root.mT
        return found if n_machines else found[0]

    return draw


def learn(
    machine: GaussianRBM, second: Tensor, learning: Learning, n_steps: int, *, draw: Draw | None = None,
    mean: Tensor | None = None, seed: int = 1, allow_any_rate: bool = False, state: State | None = None,
    refuse_steps: bool = False,
) -> Iterator[tuple[int, GaussianRBM]]:  # fmt: skip
    """Yields (step, machine) from step 0, the given one, to n_steps; from state.step, which is kept up to
    date, where `state` is given.

    second (n_visible, n_visible): <phi phi^T> of the data, by which the rate is judged, and the positive
    phase without `draw`. mean (n_visible,): of the data, for a machine with a source, that of the largest
    likelihood given K, J = K <phi>, so that W learns what is left about the mean. allow_any_rate: to see what
    happens. refuse_steps: a machine whose K a step would make not positive, as noise can at any rate, stays
    where it is, counted in state.refused. Raises `InputError` for a rate above the limit, pcd without `draw`
    and n_chains, and where K is no longer positive.
    """
    if machine.source is not None and mean is None:
        raise InputError("a machine with a source learns from data with a mean; give mean")
    if not bool(torch.isfinite(second).all()) or not torch.allclose(second, second.mT):
        raise InputError("second moments must be a finite, symmetric matrix <phi phi^T>")
    if mean is not None:
        second = second - mean[:, None] * mean
    if not allow_any_rate and learning.rate > 0:
        most, mode = learning.limit(second, machine)
        if learning.rate >= most:
            raise InputError(
                f"a rate of {learning.rate:g} is unstable, K would not stay positive: {mode} allows less "
                f"than {most:.6g}"
            )
    if learning.method == "pcd" and draw is None and learning.n_chains is None:
        raise InputError(
            "pcd needs mini-batches; give draw, or n_chains, or take the method exact, which they approximate"
        )
    if learning.natural:
        _refuse_flat(kernel_of(second))  # at any rate
    inverse = torch.linalg.inv(second) if learning.natural else None
    state = state or State()
    machine = replace(machine, source=None)  # of the fluctuations about the mean
    heavy = state.velocity or (torch.zeros_like(machine.w), torch.zeros_like(machine.mu2))
    chains = state.chains
    yield state.step, _with_mean(machine, mean)
    for step in range(state.step, n_steps):
        batch = None if draw is None else draw(step) if mean is None else draw(step) - mean
        positive = second if batch is None else second_moments(batch)
        if learning.method == "pcd" and batch is None and chains is None:
            chains = _equilibrium(machine, learning.n_chains or 1, seed)
        if learning.method == "exact" or (batch is None and learning.method == "cd"):
            gap = exact_gap(machine, positive, learning.k if learning.method == "cd" else None)
        else:
            start = chains if chains is not None and learning.method == "pcd" else batch
            assert start is not None
            chains = _swept(machine, start, learning.k, seed, step)
            gap = positive - second_moments(chains)
        before = machine
        machine, heavy = _moved(machine, gap, learning, step, heavy, inverse)
        if refuse_steps:
            machine = _positive_or(before, machine, state)
        machine.require_positive(f"after step {step + 1}")
        state.step, state.velocity = step + 1, heavy
        state.chains = chains if learning.method == "pcd" else None
        yield step + 1, _with_mean(machine, mean)


def _with_mean(machine: GaussianRBM, mean: Tensor | None) -> GaussianRBM:
    return machine if mean is None else replace(machine, source=machine.kernel @ mean)


def exact_gap(machine: GaussianRBM, positive: Tensor, k: int | None = None) -> Tensor:
    """C - K^-1 (*batch, n_visible, n_visible), and what k sweeps of contrastive divergence leave of it.

    Raises `InputError` where K is not positive.
    """
    lower, info = torch.linalg.cholesky_ex(machine.kernel)
    if bool(info.any()):
        machine.require_positive()
    gap: Tensor = positive - torch.cholesky_inverse(lower)
    if k is None:
        return gap
    mass = machine.mu2[..., None, None]
    power = torch.linalg.matrix_power(machine.s**2 * machine.w @ machine.w.mT / mass, k)
    gap = gap - power @ gap @ power
    return gap


def _positive_or(before: GaussianRBM, after: GaussianRBM, state: State) -> GaussianRBM:
    """`after`, but the machines of `before` where its K is not positive."""
    bad = torch.linalg.cholesky_ex(after.kernel)[1] > 0
    if not bool(bad.any()):
        return after
    state.refused += int(bad.sum())
    w = torch.where(bad[..., None, None], before.w, after.w)
    return replace(after, w=w, mu2=torch.where(bad, before.mu2, after.mu2))


def _equilibrium(machine: GaussianRBM, n_chains: int, seed: int) -> Tensor:
    """Exact draws (*batch, n_chains, n_visible): where persistent chains start."""
    machines, n = np.arange(math.prod(machine.w.shape[:-2])), machine.w.shape[-2]
    white = torch.from_numpy(normals(seed, "rbm/chains", machines, 0, n_chains * n))
    return machine.sample(white.reshape(*machine.w.shape[:-2], n_chains, n).to(machine.w.device))


def _swept(machine: GaussianRBM, phi: Tensor, k: int, seed: int, step: int) -> Tensor:
    machines = np.arange(math.prod(machine.w.shape[:-2]))
    m, n_visible, n_hidden = phi.shape[-2], *machine.w.shape[-2:]
    for sweep in range(k):
        drawn = normals(seed, "rbm/gibbs", machines, step * k + sweep, m * (n_visible + n_hidden))
        noise = torch.from_numpy(drawn).reshape(*machine.w.shape[:-2], m, n_visible + n_hidden).to(phi.device)
        phi = machine.gibbs(phi, noise[..., n_visible:], noise[..., :n_visible])
    return phi


def _moved(
    machine: GaussianRBM, gap: Tensor, learning: Learning, step: int, heavy: tuple[Tensor, Tensor],
    inverse: Tensor | None,
) -> tuple[GaussianRBM, tuple[Tensor, Tensor]]:  # fmt: skip
    rate = learning.rate * learning.cooling ** (step // learning.period)
    of_mass = (
        -0.5 * gap.diagonal(dim1=-2, dim2=-1).sum(-1) if learning.mass else torch.zeros_like(machine.mu2)
    )
    if inverse is not None:
        gap = inverse @ gap @ inverse
    w = learning.momentum * heavy[0] + rate * machine.s**2 * gap @ machine.w
    mu2 = learning.momentum * heavy[1] + rate * of_mass
    return replace(machine, w=machine.w + w, mu2=machine.mu2 + mu2), (w, mu2)
