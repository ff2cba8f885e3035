r"""Polish: a few HMC trajectories after sampling, and how the bias of raw samples heals with their number.

HMC leaves e^{-S} invariant, so biased samples can only come closer to it, mode by mode. A Gaussian mode with
<|phi_k|^2> = G(k) has the frequency omega = G(k)^-1/2: after a trajectory of length tau, without step error,

    phi_k -> phi_k cos(omega tau) + (p_k/omega) sin(omega tau),
    bias of <|phi_k|^2> -> cos^2(omega tau) bias.

tau = pi/2 sqrt(G_min) replaces the fastest mode in one trajectory, while the slow ones keep 1 - tau^2/G(k) of
theirs: ultraviolet modes heal first (Hybrid Monte Carlo: Duane et al., PLB 195 (1987) 216).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.models.blocks import block_size
from diffsq.models.momentum import Momenta, shells
from lattice.actions.phi4 import ScalarPhi4
from lattice.arrays import Floats, Integers, real_array
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.weights import normalised_weights
from lattice.updates.batch import check_batch
from lattice.updates.hmc import hmc_trajectory

OBSERVABLES = ("phi2", "action_density", "abs_magnetization", "kappa4")
RESOLVED = 3.0  # errors beyond which a bias counts as seen
CHUNK = 1024, 2**20  # fields, and sites, at a time


def quarter_period(g: Tensor) -> float:
    """pi/2 sqrt(G_min): the trajectory length that replaces the fastest mode of propagator g (n_class,).

    >>> round(quarter_period(torch.tensor([4.0, 1.0])), 4)
    1.5708
    """
    return 0.5 * math.pi * math.sqrt(float(g.min()))


def gaussian_factor(g: Tensor, length: float) -> Tensor:
    """cos^2(length/sqrt(G)) per class: the part of the bias of <|phi_k|^2> that a trajectory leaves.

    >>> gaussian_factor(torch.tensor([1.0, 1e6]), math.pi / 2).round(decimals=4)
    tensor([0., 1.])
    """
    return torch.cos(length / g.sqrt()) ** 2


def steps_for(ensemble: Ensemble, length: float) -> int:
    """HMC steps for a trajectory of this length at the step that the ensemble's own HMC was tuned to.

    At least 2; 4 where the ensemble tells no step (imported, local updates, Fourier acceleration).
    """
    used = (ensemble.attrs.get("algorithm") or {}).get("parameters") or {}
    tuned, n_steps = used.get("trajectory_length"), used.get("n_steps")
    if not tuned or not n_steps or used.get("acceleration", "none") != "none":
        return 4
    return max(2, math.ceil(length * int(n_steps) / float(tuned)))


def polish(
    action: ScalarPhi4, phi: Floats, n_traj: int, seed: int, *, length: float, n_steps: int,
    chains: Integers | None = None,
) -> Iterator[tuple[Floats, float]]:  # fmt: skip
    """Fields and acceptance after 0, 1, ..., n_traj HMC trajectories of independent chains phi (n, *shape).

    The random numbers of a field depend on (seed, its chain number, trajectory) only; `chains` are
    0 ... n-1 by default. The acceptance of the start is 1. Raises `InputError` for fields that are not finite
    or not float64, and bad settings.
    """
    if n_traj < 0:
        raise InputError(f"the number of trajectories must be 0 or more, got {n_traj}")
    numbers = np.arange(len(phi)) if chains is None else chains
    start, _ = check_batch(action, phi, seed, numbers, 0)
    bad = ~np.isfinite(start.reshape(len(start), -1)).all(axis=1)
    if bad.any():
        raise InputError(f"{int(bad.sum())} fields are not finite, first field {int(bad.argmax())}")

    def trajectories() -> Iterator[tuple[Floats, float]]:
        moved = start
        yield moved, 1.0
        for trajectory in range(n_traj):
            moved, info = hmc_trajectory(
                action, moved, seed=seed, chains=numbers, trajectory=trajectory, length=length,
                n_steps=n_steps,
            )  # fmt: skip
            yield moved, float(info.accepted.mean())

    return trajectories()


def names_of(momenta: Momenta) -> list[str]:
    """What `measure_fields` leads to: G of each momentum shell, then `OBSERVABLES`."""
    return [f"G, {label['label']}" for label in shells(momenta)[1]] + list(OBSERVABLES)


def measure_fields(momenta: Momenta, action: ScalarPhi4, phi: Floats) -> Floats:
    """Per field: |phi_k|^2 averaged over each shell, phi^2, S/V, |M|, phi^4 (site averages): (n, n_name)."""
    index, labels = shells(momenta)
    weight = torch.zeros(len(index), len(labels), dtype=torch.float64)
    weight[torch.arange(len(index)), index] = momenta.multiplicity
    weight /= weight.sum(0)
    rows = []
    for part in torch.split(torch.from_numpy(real_array(phi, "phi")), block_size(momenta.shape, *CHUNK)):
        site = part.flatten(1)
        rest = (site**2).mean(1), action.action(part) / momenta.volume, site.mean(1).abs(), (site**4).mean(1)
        rows.append(torch.cat([momenta.power(part) @ weight, torch.stack(rest, 1)], 1))
    return torch.cat(rows).numpy()


def _parts(columns: Floats) -> list[Floats]:
    """The columns that each observable is made of: its own, or phi^2 and phi^4 for kappa4, the last."""
    last = columns.shape[1] - 1
    return [columns[:, [i] if i < last else [last + 1 - len(OBSERVABLES), last]] for i in range(last + 1)]


def _value(means: Floats) -> float:
    """Observable from the means of its parts; kappa4 = <phi^4> - 3 <phi^2>^2, odd moments exactly zero."""
    return float(means[0] if len(means) == 1 else means[1] - 3 * means[0] ** 2)


def _plain(data: Floats) -> float:
    return _value(data.mean(0))


def _weighted(data: Floats) -> float:
    """Columns: the parts, weight."""
    w = data[:, -1]
    return _value(w @ data[:, :-1] / w.sum())


def _difference(data: Floats) -> float:
    """Polished minus weighted; columns: the parts polished, the parts raw, weight."""
    half = data.shape[1] // 2
    return _plain(data[:, :half]) - _weighted(data[:, half:])


def _all(
    estimate: Callable[[Floats], float], data: list[Floats], chain: Integers | None = None
) -> tuple[Floats, Floats]:
    """Values and jackknife errors (n_name,) of one table of parts per observable."""
    value, error = np.array([jackknife_of(estimate, d, chain=chain) for d in data]).T
    return value, error


@dataclass
class Reference:
    """Truth for the bias: `value` and `error` (n_name,).

    With `raw` and `weight` it is the weighted average of the very samples that are polished, and the
    bias has the jackknife error of the paired difference.
    """

    value: Floats
    error: Floats
    raw: Floats | None = None
    weight: Floats | None = None

    @classmethod
    def of_ensemble(cls, columns: Floats, chain: Integers | None) -> "Reference":
        """From `measure_fields` of an equilibrium ensemble; errors by the jackknife over chains."""
        return cls(*_all(_plain, _parts(columns), chain))

    @classmethod
    def of_weights(cls, columns: Floats, log_weight: Floats) -> "Reference":
        """From `measure_fields` of the raw samples and their path weights."""
        w = normalised_weights(log_weight)
        data = [np.column_stack([part, w]) for part in _parts(columns)]
        return cls(*_all(_weighted, data), columns, w)

    def bias(self, columns: Floats, chain: Integers | None = None) -> tuple[Floats, Floats]:
        """Bias and error (n_name,) of fields measured in `columns` (n, n_name)."""
        if self.raw is None or self.weight is None:
            value, error = _all(_plain, _parts(columns), chain)
            return value - self.value, np.hypot(error, self.error)
        if len(columns) != len(self.raw):
            raise InputError(f"{len(columns)} polished fields but weights of {len(self.raw)}")
        both = zip(_parts(columns), _parts(self.raw))
        return _all(_difference, [np.column_stack([*pair, self.weight]) for pair in both])


def healing(
    fields: Iterator[tuple[Floats, float]], measured: Callable[[Floats], Floats], reference: Reference,
    chain: Integers | None = None, done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Bias of every observable against the number of trajectories, from `polish` and `measure_fields`.

    Returns "bias", "error" (n_traj + 1, n_name), "acceptance" (n_traj + 1,) and "healed" (n_name,), see
    `healed_after`; `done` is called after each trajectory.
    """
    bias, error, acceptance = [], [], []
    for phi, accepted in fields:
        value, sigma = reference.bias(measured(phi), chain)
        bias.append(value.tolist())
        error.append(sigma.tolist())
        acceptance.append(accepted)
        done()
    healed = [healed_after(b, e) for b, e in zip(zip(*bias), zip(*error))]
    return {"bias": bias, "error": error, "acceptance": acceptance, "healed": healed}


def healed_after(bias: tuple[float, ...], error: tuple[float, ...]) -> int | None:
    """Trajectories from which on |bias| stays below `RESOLVED` errors; None if it does not within those made.

    >>> healed_after((9.0, 4.0, 1.0, 0.5), (1.0, 1.0, 1.0, 1.0)), healed_after((9.0, 5.0), (1.0, 1.0))
    (2, None)
    """
    seen = [t for t, (b, e) in enumerate(zip(bias, error)) if not abs(b) < RESOLVED * e]
    first = seen[-1] + 1 if seen else 0
    return first if first < len(bias) else None
