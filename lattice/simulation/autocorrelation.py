"""tau_int of an update, and its cost: CPU time per independent configuration, 2 tau_int times that of a step.

Chains begin with equilibrium fields, whoever made them, so that nothing is spent on thermalisation; they go
on until tau_int of the slowest observable is known as well as asked for. How long they are is a function of
their history, never of a clock: only the seconds depend on the machine.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lattice.actions.protocol import Action
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.simulation.parameters import MonteCarlo
from lattice.simulation.recipe import Recipe
from lattice.simulation.trajectory import Settings, one_trajectory
from lattice.statistics.gamma import EstimatorError, gamma_method

OBSERVABLES = ("abs_magnetization", "magnetization2", "action_density")
STRETCHES = 16  # of a run, each timed
FIRST = 512  # steps before the first look; twice as many before each later one


@dataclass(frozen=True)
class Autocorrelation:
    """Of a Markov chain, in its own steps: tau_int and mean of each of `OBSERVABLES`, (value, error); seconds
    of CPU time per step of one chain, (value, error).

    failure: why tau_int is not known; then tau_int and mean are empty.
    """

    seconds: tuple[float, float]
    n_steps: int
    n_chains: int
    tau_int: dict[str, tuple[float, float]] = field(default_factory=dict)
    mean: dict[str, tuple[float, float]] = field(default_factory=dict)
    failure: str = ""

    @property
    def slowest(self) -> str:
        """The observable with the largest tau_int. Raises `InputError` where none is known."""
        if not self.tau_int:
            raise InputError(f"tau_int is not known: {self.failure}")
        return max(self.tau_int, key=lambda name: self.tau_int[name][0])

    @property
    def cost(self) -> tuple[float, float]:
        """CPU seconds per independent configuration, of the slowest observable, and its error."""
        (value, error), (seconds, spread) = self.tau_int[self.slowest], self.seconds
        return 2 * value * seconds, 2 * math.hypot(error * seconds, value * spread)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `cost` is None where tau_int is not known."""
        known = {"slowest": self.slowest, "cost": list(self.cost)} if self.tau_int else {"cost": None}
        return {
            "seconds": list(self.seconds), "n_steps": self.n_steps, "n_chains": self.n_chains,
            "tau_int": {name: list(pair) for name, pair in self.tau_int.items()},
            "mean": {name: list(pair) for name, pair in self.mean.items()}, "failure": self.failure, **known,
        }  # fmt: skip


def observed(action: Action, phi: Floats) -> Floats:
    """`OBSERVABLES` of fields (n, *shape): (3, n).

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> observed(ScalarPhi4(0.2, 0.0), np.full((1, 4, 4), -2.0)).round(12).tolist()
    [[2.0], [4.0], [0.8]]
    """
    fields = torch.from_numpy(phi)
    m = action.order(fields).numpy()
    return np.array([np.abs(m), m * m, action.action(fields).numpy() / math.prod(phi.shape[1:])])


def typical(seconds: Floats) -> tuple[float, float]:
    """Of the seconds of equal pieces of work in their order: the median of the means of up to 16 stretches,
    and its error. What else a machine does comes and goes.

    >>> typical(np.array([1.0] * 40 + [9.0] * 3 + [1.0] * 5))[0]
    1.0
    """
    means = np.array([part.mean() for part in np.array_split(seconds, min(STRETCHES, len(seconds)))])
    spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return float(np.median(means)), math.sqrt(math.pi / 2 / len(means)) * spread


def of_series(series: Floats, seconds: tuple[float, float]) -> Autocorrelation:
    """From series (3, n_chains, n_steps) of `OBSERVABLES` and CPU seconds per step of one chain."""
    _, n_chains, n_steps = series.shape
    tau, mean = dict[str, tuple[float, float]](), dict[str, tuple[float, float]]()
    for name, values in zip(OBSERVABLES, series, strict=True):
        try:
            found = gamma_method(values[:, :, None])
        except EstimatorError as error:
            return Autocorrelation(seconds, n_steps, n_chains, failure=f"{name}: {error}")
        tau[name], mean[name] = (found.tau_int, found.tau_int_error), (found.value, found.error)
    return Autocorrelation(seconds, n_steps, n_chains, tau, mean)


def autocorrelation(
    recipe: Recipe[MonteCarlo], settings: Settings, phi: Floats, *, error: float = 0.05, most: int = 2**14
) -> Autocorrelation:
    """Of one trajectory of `recipe`, from equilibrium fields phi (n_chains, *shape) on.

    error: of the largest tau_int, relative, at which the chains end; most: trajectories of each at most.
    Raises `InputError` for fields of another number or shape than those of the recipe.
    """
    if phi.shape != (recipe.params.n_chains, *recipe.fields):
        raise InputError(f"phi must be {(recipe.params.n_chains, *recipe.fields)}, got {phi.shape}")
    one_trajectory(recipe, settings, phi[:1], recipe.chains[:1], 0)  # compiles; not counted
    n, wanted, spent, rows = recipe.params.n_chains, min(FIRST, most), list[float](), list[Floats]()
    while True:
        for step in range(len(rows), wanted):
            begun = time.process_time()
            phi, _, _ = one_trajectory(recipe, settings, phi, recipe.chains, step)
            spent.append((time.process_time() - begun) / n)
            rows.append(observed(recipe.action, phi))
        found = of_series(np.stack(rows, axis=2), typical(np.array(spent)))
        if wanted >= most or (found.tau_int and _known(found, error)):
            return found
        wanted = min(2 * wanted, most)


def _known(found: Autocorrelation, error: float) -> bool:
    value, own = found.tau_int[found.slowest]
    return own <= error * value
