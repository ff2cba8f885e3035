"""Stochastic quantization as a tool: Langevin runs at several step sizes and their limit h -> 0.

The update is `lattice.updates.langevin.langevin_update`, whose distribution differs from exp(-S) by a power
series in the step size h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lattice.actions.protocol import Action, check_shape
from lattice.arrays import Floats, integer_array, real_array
from lattice.errors import InputError
from lattice.seeds import check_seed
from lattice.simulation.starts import has_walls, start_fields, start_names
from lattice.statistics.extrapolation import MIN_CHAINS, Extrapolation, extrapolate_step
from lattice.statistics.notation import format_value
from lattice.statistics.pulls import mean_and_error, sigmas_of
from lattice.updates.langevin import langevin_update
from lattice.updates.stiffness import largest_step, stiffness, two_digits, typical, unstable

NAMES = ("phi2", "abs_m", "s", "g0")
MAX_PULL = 4.0  # between starts, in sigma
SMALL = 0.3  # step times S'' up to which averages are nearly linear in the step


@dataclass(frozen=True)
class StepTable:
    """A run per step size and the limit: name -> (n_sizes,) values and errors, name -> `Extrapolation`.

    pulls: name -> (n_sizes,) sigmas between hot (or domain-wall) and cold starts, the larger of the two.
    """

    steps: tuple[float, ...]
    values: dict[str, Floats]
    errors: dict[str, Floats]
    pulls: dict[str, Floats]
    limits: dict[str, Extrapolation]

    @property
    def text(self) -> str:
        """Aligned lines: one row per step size, the limit below, then what is not to be trusted."""
        rows = [["step", *self.values]]
        for i, h in enumerate(self.steps):
            numbers = zip(self.values.values(), self.errors.values(), strict=True)
            rows.append([f"{h:g}", *(format_value(v[i], e[i]) for v, e in numbers)])
        rows.append(["0 (fit)", *(format_value(x.value, x.error) for x in self.limits.values())])
        rows.append(["p-value", *(f"{x.p_value:.2g}" for x in self.limits.values())])
        rows.append(["start pull", *(f"{x.max():.1f} sigma" for x in self.pulls.values())])
        lines = ["  ".join(cell.ljust(16) for cell in row).rstrip() for row in rows]
        return "\n".join(lines + [f"{name}: {x.reason}" for name, x in self.limits.items() if x.reason])


def stochastic_quantization(
    action: Action, shape: tuple[int, ...], *, steps: Sequence[float] = (0.02, 0.04, 0.06, 0.08),
    n_chains: int = 256, tau_therm: float = 20.0, tau_run: float = 100.0, tau_measure: float = 0.5,
    order: int = 1, seed: int, n_threads: int | None = None,
) -> StepTable:  # fmt: skip
    """Langevin runs at several step sizes h and equal Langevin time, and their limit h -> 0.

    Each size runs `n_chains` chains of its own random numbers for `tau_therm` (thrown away) and `tau_run`,
    measured every `tau_measure` (times rounded up to whole measurements): phi2 = <phi^2>, abs_m = <|M|>,
    s = <S>/V, g0 = V <M^2>.  Errors are those of independent chain means.  Chains start hot, cold and with
    domain walls (lattice.simulation.starts); where these differ by more than 4 sigma at any step size,
    tau_therm was too short and the limit is not trusted.  Raises `InputError` as `langevin_update` and
    `extrapolate_step` do, for fewer than 16 chains, for times that are not positive and for fields of several
    components.
    """
    sizes = tuple(real_array(steps, "steps").tolist())
    extrapolate_step(sizes, np.zeros(len(sizes)), np.ones(len(sizes)), order)  # refuse early
    shape, seed = tuple(integer_array(shape, "shape").tolist()), check_seed(seed)
    check_shape(shape)
    if action.components:
        raise InputError(
            f"step tables are of fields of one real component; those of {type(action).__name__} have "
            f"{action.components[0]}"
        )
    if n_chains < MIN_CHAINS:
        raise InputError(f"n_chains must be >= {MIN_CHAINS} for errors from chain means, got {n_chains}")
    for name, tau in (("tau_therm", tau_therm), ("tau_run", tau_run), ("tau_measure", tau_measure)):
        if not (math.isfinite(tau) and tau > 0):
            raise InputError(f"{name} must be a positive Langevin time, got {tau}")
    means, pulls = [], []
    starts = np.array(start_names(len(sizes) * n_chains, has_walls(action, shape, len(sizes) * n_chains)))
    first = start_fields(action, shape, len(starts), seed)
    for i, h in enumerate(sizes):
        chains = np.arange(i * n_chains, (i + 1) * n_chains)  # no noise in common: the points are independent
        phi, total = first[chains], np.zeros((4, n_chains))
        n = max(1, round(tau_measure / h))
        n_therm, n_run = (math.ceil(tau / (n * h) * (1 - 1e-12)) for tau in (tau_therm, tau_run))
        for t in range(n_therm + n_run):
            phi, _ = langevin_update(
                action, phi, seed=seed, chains=chains, trajectory=t, step=h, n_steps=n, n_threads=n_threads
            )
            if t == 0:
                _refuse_stiff(action, phi, h)
            total += _observables(action, phi) if t >= n_therm else 0.0
        means.append(total / n_run)
        pulls.append([_start_pull(row, starts[chains]) for row in means[-1]])
    data = np.stack(means, axis=1)  # (4, n_sizes, n_chains)
    value, error = data.mean(axis=2), data.std(axis=2, ddof=1) / math.sqrt(n_chains)
    limits = {k: extrapolate_step(sizes, v, e, order) for k, v, e in zip(NAMES, value, error, strict=True)}
    pull = dict(zip(NAMES, np.array(pulls).T, strict=True))
    limits = {k: _judged(limit, sizes, pull[k], tau_therm) for k, limit in limits.items()}
    return StepTable(sizes, dict(zip(NAMES, value)), dict(zip(NAMES, error)), pull, limits)


def _refuse_stiff(action: Action, phi: Floats, h: float) -> None:
    """`InputError` where steps h are unstable at most sites: the chains grow, slowly perhaps, but forever."""
    lam = stiffness(action, phi)
    if unstable(lam, h, heun=False):
        size, limit = typical(lam), largest_step(lam, h, heun=False)
        raise InputError(
            f"Langevin runs away at step {h:g}: S'' = {size:.2g} needs steps below {limit:.2g}; use steps up "
            f"to {two_digits(SMALL / size):g}"
        )


def _start_pull(means: Floats, starts: NDArray[np.str_]) -> float:
    """Sigmas between the chain means (n_chains,) of hot or domain-wall starts and of cold ones."""
    cold, *others = (means[starts == name] for name in ("cold", "hot", "wall") if (starts == name).any())
    (a, noise), found = mean_and_error(cold), []
    for group in others:
        b, more = mean_and_error(group)
        found.append(sigmas_of(b - a, math.hypot(noise, more), min(len(group), len(cold)) - 1))
    return max(found)


def _judged(limit: Extrapolation, steps: Sequence[float], pulls: Floats, tau_therm: float) -> Extrapolation:
    worst = int(np.argmax(pulls))
    if pulls[worst] <= MAX_PULL:
        return limit
    reason = (
        f"hot or domain-wall and cold starts differ by {pulls[worst]:.1f} sigma at step {steps[worst]:g}: "
        f"tau_therm = {tau_therm:g} is too short"
    )
    return replace(limit, trusted=False, reason="; ".join(filter(None, (limit.reason, reason))))


def _observables(action: Action, phi: Floats) -> Floats:
    flat = phi.reshape(len(phi), -1)
    m, s = flat.mean(axis=1), action.action(torch.from_numpy(phi)).numpy() / flat.shape[1]
    return np.stack([(flat * flat).mean(axis=1), np.abs(m), s, flat.shape[1] * m * m])
