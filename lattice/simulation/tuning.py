"""Tuning of HMC while thermalising: the step number, then the trajectory length, then the step number again.

What is chosen is a function of the chains' history alone, never of a clock, so a run that is repeated, killed
or split over processes chooses the same; it is frozen after the first 40 % of the thermalisation and stored.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.special

from lattice.arrays import Floats
from lattice.simulation.parameters import MonteCarlo
from lattice.updates.integrator import scheme

TUNING_PART = 0.4  # of the thermalisation; the rest runs with what was chosen
LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # candidates up to L, in the units of H = p^2/2 + S
FOURIER_LENGTHS = (0.75, 1.5, 3.0)  # in units where every mode has frequency 1
MIN_PAIRS = 3  # trajectories per candidate below which lengths are not compared
# Costs per site in units of one force of the compiled loops (scripts/bench_updates.py); they only steer the
# choice of the length.
TRAJECTORY_COST, CLUSTER_COST = 12.0, 25.0
FOURIER_COST = 0.45  # times the extent: the transforms are dense


def scaled_steps(n_steps: int, acceptance: float, target: float, integrator: str) -> int:
    """The step number expected to reach `target`, from the acceptance measured with `n_steps`; changes at
    most 2-fold.

    acceptance = erfc(sqrt(<dH>)/2) and <dH> ~ (step size)^(2 order) (Gupta, Irbaeck, Karsch, Petersson,
    Phys. Lett. B242 (1990) 437).

    >>> scaled_steps(10, 0.5, 0.9, "omelyan2"), scaled_steps(10, 1.0, 0.9, "omelyan2")
    (20, 5)
    """
    size: float = scipy.special.erfcinv(min(max(acceptance, 0.01), 0.9999)) / scipy.special.erfcinv(target)
    factor: float = min(max(size ** (1.0 / scheme(integrator).order), 0.5), 2.0)
    return max(1, math.ceil(n_steps * factor - 1e-9))


class StepTuner:
    """Chooses the step number from blocks of the next `n_trajectories`, then freezes it.

    Near the stability limit of the integrator the acceptance drops much faster than its scaling law, and dH
    has rare large values that hold a chain back while the mean still looks fair. So a block fails by its mean
    acceptance or by one dH beyond ten of the standard deviations that belong to the target; a number that
    failed is not tried again, the last block may only raise it, and a tenth is added at the end.
    """

    def __init__(self, n_steps: int, target: float, integrator: str, n_trajectories: int) -> None:
        self.n_steps, self._target, self._integrator = n_steps, target, integrator
        self._block = max(2, n_trajectories // 10)
        self._until = self._block * (n_trajectories // self._block)
        self._failed, self._passed = 0, 2**31
        self._seen: list[float] = []
        self._largest: list[float] = []
        # acceptance = erfc(sqrt(<dH>)/2), and dH normal of variance 2 <dH>
        self._limit = 10.0 * math.sqrt(2.0) * 2.0 * float(scipy.special.erfcinv(self._target))

    def observe(self, dH: Floats, accepted: Floats) -> None:
        """Take in dH and the accepted flags, both (n_chains,), of the next trajectory."""
        t = len(self._seen)
        if t >= self._until:
            return
        self._seen.append(float(accepted.mean()))
        self._largest.append(float(dH.max()))
        if (t + 1) % self._block:
            return
        recent, last = float(np.mean(self._seen[-self._block :])), t + 1 == self._until
        wanted = scaled_steps(self.n_steps, recent, self._target, self._integrator)
        if t + 1 <= self._until // 2:
            self._failed, self._passed = 0, 2**31  # far from equilibrium a failure says little
        if recent < self._target or max(self._largest[-self._block :]) > self._limit:
            self._failed = max(self._failed, self.n_steps)
            self.n_steps = min(max(wanted, self.n_steps + 1), self._passed)
        else:
            self._passed = self.n_steps
            self.n_steps = self.n_steps if last else min(max(wanted, self._failed + 1), self.n_steps)
        if last:
            self.n_steps = math.ceil(1.1 * self.n_steps)


def tau_from_pairs(x: Floats) -> float:
    """tau_int of the slowest of the centred series x (time, series, chain), from its correlations over one
    step and over half of the time: (1 + r)/(2 - 2 r) with r the correlation per step, whichever is larger.

    The second sees slow modes behind a fast first decay; below three of its own errors it says nothing.

    >>> tau_from_pairs(np.random.default_rng(1).normal(size=(20, 1, 500))) < 0.6
    True
    """
    largest, variance = 0.0, np.maximum((x * x).mean(axis=(0, 2)), 1e-300)
    for lag in (1, len(x) // 2):
        rho = float(((x[lag:] * x[:-lag]).mean(axis=(0, 2)) / variance).max())
        noise = 1.0 / math.sqrt((len(x) - lag) * x.shape[2])
        if lag == 1 or rho > 3.0 * noise:
            largest = max(largest, min(max(rho, 0.0), 0.999) ** (1.0 / lag))
    return (1.0 + largest) / (2.0 - 2.0 * largest)


class Tuner:
    """`length` and `n_steps` of the next trajectory; tell it what each did by `observe`.

    Three parts of the tuning time: the step number at a first length (35 %); each candidate length in turn,
    with that step size (35 %); the step number at the best length (the rest). The best has the lowest cost
    per independent configuration: (forces + fixed cost) * tau_int, over all chains, of the slowest of M^2, S
    and the square of M^2's deviation. Candidates go up to the longest `extent` of the lattice. What the
    parameters fix is left alone; clusters: updates of a trajectory (None: those of the parameters).
    `measure_modes` is true when the first part has just ended: the moment to measure the propagator for the
    acceleration.
    """

    def __init__(self, params: MonteCarlo, extent: int, clusters: int | None = None) -> None:
        self._clusters = params.clusters if clusters is None else clusters
        self._params, self._extent, n = params, extent, int(TUNING_PART * params.n_therm)
        self._fixed = params.update != "hmc" or params.n_steps is not None
        accelerated = params.acceleration != "none"
        lengths = [length for length in LENGTHS if length <= max(4, extent)]
        candidates = FOURIER_LENGTHS if accelerated else tuple(lengths)
        self._per_candidate = int(0.35 * n) // len(candidates)
        search = params.trajectory_length is None and self._per_candidate >= MIN_PAIRS
        self._candidates = candidates if search and not self._fixed else ()
        self.length = params.trajectory_length or (candidates[1] if accelerated else 4.0)
        self.n_steps = params.n_steps or math.ceil(self.length / (0.5 if accelerated else 0.2))
        split = bool(self._candidates) or params.acceleration == "measured"
        self._first = int(0.35 * n) if split else n
        self._search_until = self._first + self._per_candidate * len(self._candidates)
        self._end = n
        self._steps = self._step_tuner(self._first)
        self._step_size = 0.0
        self._t, self._slow = 0, list[Floats]()
        self._scores: list[float] = []

    @property
    def measure_modes(self) -> bool:
        return self._params.acceleration == "measured" and self._t == self._first

    def observe(self, dH: Floats, accepted: Floats, m2: Floats, action: Floats) -> None:
        """Take in dH, the accepted flags, and M^2 and S after it, each (n_chains,), of the trajectory just
        made."""
        self._t += 1
        self._slow = [*self._slow[-self._per_candidate :], np.stack([m2, action])]
        if self._fixed or self._t > self._end:
            return
        if self._t <= self._first or self._t > self._search_until:
            self._steps.observe(dH, accepted)
            self.n_steps = self._steps.n_steps
        if self._t == self._first:
            self._step_size = self.length / self.n_steps
        if self._first <= self._t < self._search_until:
            self._search(self._t - self._first)
        elif self._t == self._search_until and self._first < self._end:
            self._choose()

    def _search(self, t: int) -> None:
        """Trajectory t of the search is next."""
        k, within = divmod(t, self._per_candidate)
        if within:
            return
        if k:
            self._scores.append(self._score())
        self._set_length(self._candidates[k])

    def _choose(self) -> None:
        if self._candidates:
            self._scores.append(self._score())
            self._set_length(self._candidates[int(np.argmin(self._scores))])
        self._steps = self._step_tuner(self._end - self._search_until)

    def _set_length(self, length: float) -> None:
        self.length, self.n_steps = length, max(1, math.ceil(length / self._step_size - 1e-9))

    def _score(self) -> float:
        x = np.array(self._slow)  # (time, M^2 or S, chain)
        # chains of one kind of start drift together while they thermalise: that is no autocorrelation
        kinds = 4 if x.shape[2] >= 32 else 1
        for kind in range(kinds):
            x[..., kind::kinds] -= x[..., kind::kinds].mean(axis=2, keepdims=True)
        square = x[:, :1] ** 2  # a mode that swings through its well keeps its amplitude, not its value
        tau = tau_from_pairs(np.concatenate([x, square - square.mean(axis=2, keepdims=True)], axis=1))
        p = self._params
        force = 1.0 + (FOURIER_COST * self._extent if p.acceleration != "none" else 0.0)
        fixed = TRAJECTORY_COST * (1 + p.n_overrelax) + CLUSTER_COST * self._clusters
        forces = self.n_steps * scheme(p.integrator).force_evaluations
        return (force * forces + fixed) * tau

    def _step_tuner(self, n_trajectories: int) -> StepTuner:
        p = self._params
        return StepTuner(self.n_steps, p.target_acceptance, p.integrator, n_trajectories)
