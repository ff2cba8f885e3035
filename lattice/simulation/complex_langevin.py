"""Complex Langevin ensembles: thermalise, run, write shards, run at larger steps, judge; the same call again
resumes.

A folder holds request.json, shard-*.h5, steps.json (the runs at larger steps), certificate.json (the
verdict) and, last, manifest.json. Shards are those of any ensemble: phi (n, 2, *shape) with axis 1 = (x, y),
links of U(1) (n, 2, 2, L0, L1), and the series action (Re S), action_im, drift (max_x |S'|), of links also
peak_drift (its maximum on the way there). Every random number is a function of (seed, stream, chain,
trajectory number), so a run killed anywhere and started again writes the same bytes as one that was not.

Chains start at random, normal with `start_width`: even ones on the real axis, odd ones in the complex plane.
Links of U(1) start hot in two of four chains, with real parts anywhere on the circle, and cold in the others,
with real parts 0: the charge of the one is that of a random field, that of the other is nothing.
The drift scale of the adaptive step is three times the median of |K|, over the chains at the ends of the
trajectories, averaged over the second quarter of thermalisation, and fixed from there on; of links it is
less where steps are so large that the drift could turn one by more than a tenth.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from lattice.actions.complexified import Complexified
from lattice.actions.protocol import Action, check_one_variable, check_shape
from lattice.arrays import Complexes, Floats, Integers, integer_array
from lattice.certificates.complex_langevin import PEAK, verdict
from lattice.certificates.drift import chain_averages
from lattice.certificates.sectors import has_sectors, is_cold
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.shards import Shard
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError, shown
from lattice.files import read_json, write_json
from lattice.progress import Progress, Silent
from lattice.rng import normals
from lattice.simulation.parameters import ComplexLangevin
from lattice.simulation.probe import TooStiff, equilibrium_stiffness, refuse_stiff
from lattice.simulation.recipe import Recipe
from lattice.statistics.pulls import mean_and_error
from lattice.updates.complex_langevin import (
    ESCAPE,
    ComplexInfo,
    Runaway,
    complex_langevin_update,
    largest_drift,
    wrapped,
)
from lattice.updates.gauge_cooling import in_its_gauge
from lattice.updates.stiffness import LEADING, typical

START = "complex_langevin/start"
SCALE = 3.0  # drift scale over the median of |K|
MOVE = (
    0.1  # the drift turns no link farther in a substep: beyond, a plaquette may be thrown to and fro for ever
)
HOT, NEAR = 4.0, 0.25  # widths of link angles: anywhere on the circle; of Im z, in units of start_width
_COUNTERS = ("substeps", "shrunken", "escapes")


def generate_complex(
    action: Action, shape: tuple[int, ...], params: ComplexLangevin, seed: int, out: Path,
    progress: Progress | None = None,
) -> Ensemble:  # fmt: skip
    """`lattice.simulate` by complex Langevin: the verdict is the certificate. Raises InputError also where
    steps cannot follow the drift, before any work, saying which can, and where a chain runs away, naming the
    chain, trajectory and substep. Hold `run_lock` on the run folder."""
    out, action = Path(out), action.holomorphic  # of fields that are said to be x + iy, the S of z
    recipe = Recipe(Complexified(action), _complex_shape(action, shape), params, seed)
    if (made := recipe.made(out)) is not None:
        return made
    run = _Run(recipe, progress or Silent())
    refuse_stiff(run.stiffness, params.step, params.scheme, params.tau)
    recipe.begin(out)
    algorithm = {"name": "complex-langevin", "parameters": params.model_dump(mode="json")}
    writer = recipe.writer(out, algorithm, params.n_therm, 1)
    try:
        totals, scale = run.shards(writer)
        steps = run.larger_steps(out / "steps.json", scale)
    except Runaway:
        if not any(out.glob("shard-*.h5")):
            (out / "request.json").unlink()  # nothing was made: the folder is free for other settings
        raise
    finally:
        run.bar.close()
    ensemble = writer.read()
    certificate = verdict(ensemble, steps=steps, escapes=int(totals["escapes"]))
    certificate["run"] = {**totals, "drift_scale": scale, "adaptive": params.adaptive}
    return recipe.finish(writer, ensemble, certificate)


class _Run:
    """One request: its chains, thermalised or resumed, and its shards."""

    def __init__(self, recipe: Recipe[ComplexLangevin], bar: Progress) -> None:
        self.recipe, self.params, self.bar = recipe, recipe.params, bar
        self.action = recipe.action.holomorphic

    @cached_property
    def stiffness(self) -> NDArray[Any]:
        """S'' where the chains will be, from a few of them."""
        recipe, params = self.recipe, self.params
        z = start_fields(self.action, recipe.shape, recipe.chains, recipe.seed, params.start_width)
        return equilibrium_stiffness(self.action, z, recipe.chains, recipe.seed, params.imaginary_noise)

    def shards(self, writer: EnsembleWriter) -> tuple[dict[str, float], float]:
        """All shards; the counters of the whole run and its drift scale."""
        params = self.params
        chains = self.recipe.chains
        totals: dict[str, float] = {**dict.fromkeys(_COUNTERS, 0), "largest_drift": 0.0}
        z: Complexes | None = None
        trajectory, scale = params.n_therm, 0.0
        for k, times, kept in self.recipe.spans(writer):
            if kept is None:
                if z is None:
                    z, scale = self.thermalised(chains)
                self.bar.start(params.n_saved, "configurations", times.start * params.n_chains)
                z, kept = self.one_shard(writer, k, len(times), z, chains, trajectory, scale)
            else:
                last = kept.phi[-params.n_chains :]
                z = last[:, 0] + 1j * last[:, 1]
            state = _checked(kept.state, writer.path(k))
            trajectory, scale = int(kept.trajectory[-1]), float(state["drift_scale"])
            for name in _COUNTERS:
                totals[name] += int(state[name])
            totals["largest_drift"] = max(totals["largest_drift"], float(state["largest_drift"]))
        self.bar.close()
        return totals, scale

    def thermalised(self, chains: Integers, step: float | None = None) -> tuple[Complexes, float]:
        """The chains after thermalisation, and the drift scale."""
        params = self.params
        z = start_fields(self.action, self.recipe.shape, chains, self.recipe.seed, params.start_width)
        seen: list[float] = []
        refuse_stiff(self.stiffness, step or params.step, params.scheme, params.tau)
        scale = _scale(self.action, z)
        quarter = params.n_therm // 4
        self.bar.start(params.n_therm, "thermalisation")
        for t in range(params.n_therm):
            z, _ = self.update(z, chains, t, scale, step)
            if t < 2 * quarter:
                seen.append(_scale(self.action, z))
                scale = float(np.mean(seen[quarter:])) if len(seen) > quarter else seen[-1]
            self.bar.update(1)
        self.bar.close()
        return z, scale

    def update(
        self, z: Complexes, chains: Integers, trajectory: int, scale: float, step: float | None = None
    ) -> tuple[Complexes, ComplexInfo]:
        params, step = self.params, step or self.params.step
        largest = min(scale, MOVE / step) if has_sectors(self.action) else scale
        return complex_langevin_update(
            self.action, z, seed=self.recipe.seed, chains=chains, trajectory=trajectory, tau=params.tau,
            step=step, drift_scale=largest if params.adaptive else None,
            imaginary_noise=params.imaginary_noise, scheme=params.scheme, escape=ESCAPE * scale,
        )  # fmt: skip

    def one_shard(
        self, writer: EnsembleWriter, k: int, n_times: int, z: Complexes, chains: Integers, trajectory: int,
        scale: float,
    ) -> tuple[Complexes, Shard]:  # fmt: skip
        """The next n_times of all chains, written; the last fields, and the shard read back."""
        params = self.params
        fields = np.empty((n_times, params.n_chains, *self.recipe.fields))
        counts, peaks = dict.fromkeys(_COUNTERS, 0), np.empty((n_times, params.n_chains))
        for t in range(n_times):
            z, info = self.update(z, chains, trajectory + t, scale)
            fields[t, :, 0], fields[t, :, 1] = z.real, z.imag
            for name in _COUNTERS:
                counts[name] += int(getattr(info, name).sum())
            peaks[t] = info.drift
            self.bar.update(params.n_chains, escapes=counts["escapes"], drift=float(peaks[: t + 1].max()))
        series = complex_series(self.action, rearrange(fields, "time chain ... -> (time chain) ..."))
        if has_sectors(self.action):
            series[PEAK] = peaks.reshape(-1)
        numbers = np.arange(trajectory + 1, trajectory + n_times + 1)
        self.recipe.write(
            writer, k, fields, numbers, series, drift_scale=scale, largest_drift=float(peaks.max()), **counts
        )
        shard = writer.verified(k)
        if shard is None:
            raise InputError(f"{writer.path(k)}: damaged while it was written; run the same command again")
        return z, shard

    def larger_steps(self, path: Path, scale: float) -> dict[str, Any]:
        """The averages at the larger steps, one size after the other, kept in steps.json; those of a longer
        run are made again, from their own starts."""
        params = self.params
        n_times = max(1, math.ceil(params.step_fraction * params.n_times))
        kept = read_json(path) if path.exists() else {}
        found = kept["sizes"] if kept.get("n_times") == n_times else []
        for i, step in enumerate(self.sizes()):
            if i >= len(found):
                found.append({"step": step, **self._averages(i, step, n_times, scale)})
                write_json(path, {"n_times": n_times, "sizes": found})
        return {"step": params.step, "order": params.order, "sizes": found}

    def sizes(self) -> tuple[float, ...]:
        """The larger steps: as asked for, else 4, 8 and 12 times the step, or less where such large ones are
        beyond the leading error of the scheme."""
        params, rate = self.params, typical(self.stiffness) * self.params.step
        largest = LEADING / rate if np.isfinite(rate) and rate > 0 else math.inf
        if params.step_sizes is not None or largest >= 12.0:
            return params.extrapolation_steps
        return tuple(round(max(4.0, largest) * params.step * part, 12) for part in (1 / 3, 2 / 3, 1.0))

    def _averages(self, i: int, step: float, n_times: int, scale: float) -> dict[str, Any]:
        n = self.params.n_chains
        chains = np.arange((i + 1) * n, (i + 2) * n, dtype=np.int64)  # no noise in common with another run
        total: dict[str, Floats] = {}
        try:
            z, _ = self.thermalised(chains, step)
            self.bar.start(n_times, f"step {step:g}")
            for t in range(n_times):
                z, _ = self.update(z, chains, self.params.n_therm + t, scale, step)
                for name, mean in chain_averages(self.action, z[:, None]).items():
                    total[name] = total.get(name, 0.0) + mean / n_times
                self.bar.update(1)
        except (Runaway, TooStiff) as error:
            return {"runaway": str(error)}
        finally:
            self.bar.close()
        return {"averages": {name: list(mean_and_error(x)) for name, x in total.items()}}


def _checked(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """What the chains go on from; `InputError` where a number of it is missing or none."""
    for name in (*_COUNTERS, "drift_scale", "largest_drift"):
        value = state.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(
                f"{path}: its state is damaged ({name} is {shown(value)}); remove it, and run again"
            )
    return state


def start_fields(
    action: Action, shape: tuple[int, ...], chains: Integers, seed: int, width: float
) -> Complexes:
    """Start fields (n, *components, *shape): normal numbers of this width, real for even chains, complex for
    odd ones. Links: real parts anywhere (hot) or, of `is_cold` chains, 0, Im z of a quarter of the width."""
    whole = (*action.components, *shape)
    numbers = width * normals(seed, START, chains, 0, 2 * math.prod(whole)).reshape(len(chains), 2, *whole)
    numbers[chains % 2 == 0, 1] = 0.0
    if action.components:
        numbers *= np.array([HOT / width, NEAR]).reshape(2, *[1] * len(whole))
        numbers[is_cold(chains), 0] = 0.0
    return in_its_gauge(action, wrapped(action, numbers[:, 0] + 1j * numbers[:, 1]))


def complex_series(action: Action, phi: Floats) -> dict[str, Floats]:
    """action_im = Im S and drift = max_x |S'| of fields phi (n, 2, *components, *shape), each (n,)."""
    z = phi[:, 0] + 1j * phi[:, 1]
    imaginary: Floats = action.action(torch.from_numpy(z)).imag.numpy()
    return {"action_im": imaginary, "drift": largest_drift(action, z)}


def _scale(action: Action, z: Complexes) -> float:
    """Three times the median of |K|, never quite 0."""
    return SCALE * max(float(np.median(largest_drift(action, z))), 1e-6)


def _complex_shape(action: Action, shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(integer_array(shape, "shape").tolist())
    if action.one_variable:
        check_one_variable(shape, f"{type(action).__name__} is a model")
        return ()
    check_shape(shape)
    action.check_normalisable(shape)
    return shape
