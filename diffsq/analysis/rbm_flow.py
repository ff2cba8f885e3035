r"""The flow of a binary machine, v -> h -> v -> ..., from given spins (Iso, Shiba, Yokoo 1801.07172).

By sampling it is a chain of block Gibbs, whose end is the machine's own law, wherever it began; by
expectation values, v -> <v|<h|v>>, it runs into a fixed point. Recorded of every chain at every step, on a
torus: e = -(1/V) sum_<xy> s_x s_y, m, and G, the correlation of spins half a torus apart along an axis. Then

    c1 = <nearest neighbour> - <farthest> = -e/2 - G

is 0 where all pairs of spins are alike, as in mean-field states, and has a value of its own at T_c. Potts
spins: e = -(1/V) sum delta, |m| = (q max share - 1)/(q - 1), m^2 = (q sum shares^2 - 1)/(q - 1), correlations
(q <delta> - 1)/(q - 1).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsq.models.binary_rbm import BinaryRBM
from lattice.arrays import Floats
from lattice.errors import InputError, shown
from lattice.rng import uniforms
from lattice.statistics.gamma import Estimate, gamma_method

WAYS = ("sample", "mean")
NAMES = ("e", "abs_m", "m2", "c1")
N_SIGMA = 4.0


@dataclass(frozen=True)
class Flow:
    """series (n_steps + 1, n_chains, 4) of e, m, G and m^2, the start first; q of Potts, 0 of +-1; kept: the
    spins (n_chains, n_sites) int8 at the steps asked for."""

    series: Floats
    q: int = 0
    kept: dict[int, NDArray[np.int8]] = field(default_factory=dict)

    def then(self, longer: Flow) -> Flow:
        """The flow and what follows from its last step on, which begins with that step."""
        n = len(self.series) - 1
        kept = self.kept | {n + step: spins for step, spins in longer.kept.items()}
        return Flow(np.concatenate([self.series, longer.series[1:]]), self.q, kept)

    @property
    def recorded(self) -> Floats:
        """e, |m|, m^2 and c1 (n_steps + 1, n_chains, 4)."""
        e, m, far, m2 = np.moveaxis(self.series, -1, 0)
        return np.stack([e, np.abs(m), m2, nearest(e, self.q) - far], -1)

    @property
    def means(self) -> Floats:
        """Over chains (n_steps + 1, 4), named by NAMES."""
        return np.asarray(self.recorded.mean(1))

    @property
    def errors(self) -> Floats:
        """Of the means, from the scatter of the chains: infinite for one chain."""
        n = self.series.shape[1]
        return np.asarray(
            self.recorded.std(1, ddof=1) / math.sqrt(n) if n > 1 else np.full_like(self.means, np.inf)
        )


@dataclass(frozen=True)
class EndPoint:
    """Means (4,) of e, |m|, m^2 and c1 over the end of a flow, and their errors."""

    values: Floats
    errors: Floats


def nearest(e: Any, q: int = 0) -> Any:
    """The correlation of neighbours of an energy per site on a square lattice; q of Potts, 0 of +-1."""
    return (q * -e / 2 - 1) / (q - 1) if q else -e / 2


def measured(machine: BinaryRBM, v: Tensor, shape: tuple[int, int]) -> Floats:
    """e, m, G and m^2 (n, 4) of units v (n, n_units), which may be expectation values.

    Raises `InputError` for a shape that is not that of the machine.
    """
    _check_shape(machine, shape)
    if machine.units == "potts":
        s = v.reshape(len(v), *shape, machine.q)
    else:
        s = (v if machine.units == "spin" else 2 * v - 1).reshape(len(v), *shape, 1)

    def pairs(steps: tuple[int, int]) -> Tensor:
        """The mean over sites and both axes of the product with spins so many steps away."""
        both = [(s * s.roll(step, axis)).sum(-1).mean((1, 2)) for axis, step in zip((1, 2), steps)]
        return torch.stack(both)

    near, far = pairs((1, 1)), pairs((shape[0] // 2, shape[1] // 2)).mean(0)
    if machine.units == "potts":
        q = machine.q
        share = s.mean((1, 2))
        m, m2 = (q * share.amax(-1) - 1) / (q - 1), (q * (share**2).sum(-1) - 1) / (q - 1)
        far = (q * far - 1) / (q - 1)
    else:
        m = s.mean((1, 2, 3))
        m2 = m**2
    found: Floats = torch.stack([-near.sum(0), m, far, m2], -1).double().numpy()
    return found


def _check_shape(machine: BinaryRBM, shape: tuple[int, int]) -> None:
    if machine.w.ndim != 2:
        raise InputError(
            f"a flow is of one machine, got a batch of {list(machine.w.shape[:-2])}; take one(i)"
        )
    if len(shape) != 2 or min(shape) < 2 or math.prod(shape) != machine.n_sites:
        raise InputError(f"{list(shape)} is no torus of the {machine.n_sites} sites of the machine")


def flow(
    machine: BinaryRBM, start: Any, n_steps: int, seed: int, how: str = "sample",
    shape: tuple[int, int] | None = None, keep: Collection[int] = (), first: int = 0,
) -> Flow:  # fmt: skip
    """n_steps sweeps from spins `start` (n_chains, n_sites), float64; shape: square if not given; keep: the
    steps whose spins are kept; first: steps that were made before, whose numbers are not drawn again.

    how: "sample", each chain with numbers of its own, or "mean", v and h replaced by their means. Raises
    `InputError` for spins and shapes that do not fit.
    """
    if how not in WAYS:
        raise InputError(f"no flow by {shown(how)}; there are {', '.join(WAYS)}")
    side = math.isqrt(machine.n_sites)
    shape = shape or (side, side)
    _check_shape(machine, shape)
    machine = machine.to(torch.float64)
    machine.require_finite("of the flow")
    v = machine.encode(start)
    if v.ndim != 2 or n_steps < 0:
        raise InputError(f"need starts (n_chains, n_sites) and steps, got {list(v.shape)} and {n_steps}")
    rows, sizes = np.arange(len(v)), (machine.w.shape[1], machine.n_sites)
    series = np.empty((n_steps + 1, len(v), 4))
    series[0] = measured(machine, v, shape)
    kept = {0: _spins(machine, v)} if 0 in keep else {}
    for step in range(n_steps):
        if how == "mean":
            v = machine.mean_visible(machine.mean_hidden(v))
        else:
            names = ("hidden", "visible")
            u = [uniforms(seed, f"flow/{name}", rows, first + step, n) for name, n in zip(names, sizes)]
            v = machine.gibbs(v, torch.from_numpy(u[0]), torch.from_numpy(u[1]))
        series[step + 1] = measured(machine, v, shape)
        if step + 1 in keep:
            kept[step + 1] = _spins(machine, v)
    return Flow(series, machine.q if machine.units == "potts" else 0, kept)


def _spins(machine: BinaryRBM, v: Tensor) -> NDArray[np.int8]:
    found: NDArray[np.int8] = machine.decode(v).numpy()
    return found


def mixing_time(cold: Flow, hot: Flow, *, n_sigma: float = N_SIGMA) -> int | None:
    """Steps after which two flows agree in e, |m|, m^2 and c1 within n_sigma for good; None where they do not
    in the second half. Raises `InputError` for flows of different length."""
    if len(cold.series) != len(hot.series):
        raise InputError(
            f"flows of {len(cold.series) - 1} and {len(hot.series) - 1} steps cannot be compared"
        )
    gap, error = np.abs(cold.means - hot.means), np.hypot(cold.errors, hot.errors)
    apart = np.flatnonzero((gap > n_sigma * error + 1e-12).any(1))
    first = int(apart[-1]) + 1 if len(apart) else 0
    return first if first <= len(gap) // 2 else None


def end_point(one: Flow, begin: int | None = None) -> EndPoint:
    """Means from step `begin`, half of the flow if not given, on; errors from the scatter of the chains, each
    averaged over its steps. Raises `InputError` for one chain, and where nothing is left."""
    begin = len(one.series) // 2 if begin is None else begin
    if not 0 <= begin < len(one.series) or one.series.shape[1] < 2:
        raise InputError(f"an end needs two chains and steps after {begin}, got {list(one.series.shape[:2])}")
    each = one.recorded[begin:].mean(0)
    return EndPoint(each.mean(0), each.std(0, ddof=1) / math.sqrt(len(each)))


def autocorrelation(one: Flow, begin: int | None = None) -> dict[str, Estimate]:
    """e and m over the stationary part, with tau_int in sweeps (1/2 without correlation), over all chains."""
    begin = len(one.series) // 2 if begin is None else begin
    parts = one.series[begin:].transpose(1, 0, 2)
    return {name: gamma_method(parts[:, :, i : i + 1]) for i, name in enumerate(("e", "m"))}
