r"""ln Z of binary machines by annealed importance sampling, where neither side can be enumerated.

    E_beta = -beta (v W h + c h) - [(1 - beta) a + beta b] v,    beta from 0 to 1,

so that beta = 0 are independent visible nodes in the base field a, Z_0 = 2^(n_hidden) prod z(a). Each run
begins there, exactly, and goes up with a sweep of block Gibbs at every beta; its weight is the product of
p*_beta_k(v)/p*_beta_(k-1)(v), and <w> = Z/Z_0 for any schedule (Neal, Stat. Comput. 11 (2001) 125;
Salakhutdinov and Murray, ICML 2008). Too short a schedule gives few runs all the weight: see `ess`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.models.binary_rbm import BinaryRBM
from lattice.arrays import Floats, real_array
from lattice.errors import InputError
from lattice.rng import uniforms
from lattice.statistics.weights import effective_sample_size, log_moments

FEWEST = 20
LOWEST_ESS = 0.05  # of the runs: below, the error of ln Z is no longer one of a normal law


@dataclass(frozen=True)
class Annealed:
    """ln Z and its error, from independent runs; ess: effective share of the runs, and its error; their
    log-weights (n_runs,), of which ln Z is the mean in the logarithm."""

    ln_z: float
    error: float
    ess: float
    ess_error: float
    log_weights: Floats

    @property
    def trusted(self) -> bool:
        """Whether enough runs carry the weight for the error to be believed."""
        return self.ess > LOWEST_ESS


def base_field(machine: BinaryRBM, data: Any) -> Tensor:
    """The a (n_units,) of independent nodes that have the means of the data (n, n_sites), half a row of every
    state added. Raises `InputError` as `BinaryRBM.encode`."""
    v = machine.to(torch.float64).encode(data)
    if v.ndim != 2 or not len(v):
        raise InputError(f"the base field needs spins (n, n_sites), got {list(v.shape)}")
    n = len(v)
    up = (v > 0.5).double().sum(0)
    if machine.units == "potts":
        found = torch.log((up + 0.5) / (n + 0.5 * machine.q))
        return found
    odds = torch.log((up + 0.5) / (n - up + 0.5))
    return odds / 2 if machine.units == "spin" else odds


def annealed(
    machine: BinaryRBM, n_runs: int, schedule: int | Floats, seed: int, base: Tensor | None = None
) -> Annealed:
    """ln Z of one machine, w (n_units, n_hidden), in float64.

    schedule: the number of equal steps of beta, or beta itself, rising from 0 to 1. base: a (n_units,), the
    machine's own b if not given. Run i draws the same numbers whatever n_runs. Raises `InputError` for
    batches, fewer than 20 runs and what is no schedule.
    """
    if machine.w.ndim != 2:
        raise InputError(f"one machine at a time, got a batch of {list(machine.w.shape[:-2])}; take one(i)")
    if n_runs < FEWEST:
        raise InputError(f"the error is of independent runs: take {FEWEST} or more, got {n_runs}")
    beta = _schedule(schedule)
    m = machine.to(torch.float64)
    m.require_finite("of the machine")
    b = torch.zeros_like(m.w[:, 0]) if m.b is None else m.b
    a = b if base is None else base.to(torch.float64)
    if a.shape != b.shape or not bool(torch.isfinite(a).all()):
        raise InputError(f"the base field is finite and ({len(b)},), got {list(a.shape)}")
    rows, n_hidden = np.arange(n_runs), m.w.shape[1]

    def numbers(name: str, step: int, size: int) -> Tensor:
        return torch.from_numpy(uniforms(seed, f"annealed/{name}", rows, step, size))

    start = replace(m, w=torch.zeros_like(m.w), b=a, c=None)
    free = start.visible_field(torch.zeros(1, n_hidden, dtype=torch.float64))
    v = start.visible(torch.zeros(n_runs, n_hidden, dtype=torch.float64), numbers("start", 0, m.n_sites))
    log_weight = n_hidden * math.log(2) + start.log_visible(free).expand(n_runs)
    for step, (low, high) in enumerate(zip(beta[:-1], beta[1:]), 1):
        x = m.hidden_field(v)
        gain = (m.log_states(high * x) - m.log_states(low * x)).sum(-1)
        log_weight = log_weight + gain + (high - low) * (v @ (b - a))
        if step < len(beta) - 1:
            field = (1 - high) * a + high * b
            at = replace(m, w=high * m.w, b=field, c=None if m.c is None else high * m.c)
            v = at.gibbs(v, numbers("hidden", step, n_hidden), numbers("visible", step, m.n_sites))
    weights: Floats = log_weight.numpy()
    return Annealed(*log_moments(weights, {1: 1.0}), *effective_sample_size(weights), weights)


def _schedule(given: int | Floats) -> list[float]:
    if isinstance(given, int):
        if given < 1:
            raise InputError(f"annealing has one step or more, got {given}")
        return [float(x) for x in np.linspace(0, 1, given + 1)]
    beta = real_array(given, "schedule")
    if beta.ndim != 1 or len(beta) < 2 or beta[0] != 0 or beta[-1] != 1 or not (np.diff(beta) > 0).all():
        raise InputError("a schedule is beta rising from 0 to 1, both included")
    return [float(x) for x in beta]
