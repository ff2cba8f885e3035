"""From a start to equilibrium: hot and cold chains, one update, the tuning of the step number, and the
history kept.

One trajectory is an HMC trajectory, then `n_clusters` Wolff updates and, with these, phi -> -phi with
probability one half: deep in the broken phase every Wolff update flips nearly the whole lattice, and an even
number of them would never change the sign of M. The stream "ensemble/flip" draws it. Even chains start hot
(independent normal numbers of width 1), odd ones cold (the classical minimum everywhere, or 1 where that is
zero). That they end up alike is the first thing a certificate asks.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.special
import torch

from lattice.action import Action, ScalarPhi4
from lattice.cluster import wolff_update
from lattice.errors import InputError
from lattice.files import canonical_json, write_atomic
from lattice.hmc import hmc_trajectory
from lattice.parameters import EnsembleParameters
from lattice.progress import Progress
from lattice.rng import normals, uniforms
from lattice.shards import Floats

SCHEMA = "diffsq-thermalisation/1"
HISTORY = ("magnetization", "abs_magnetization", "action_density", "dH", "accepted")
TUNING_PART = 0.4  # of the thermalisation; the rest runs with the frozen step number
_ORDER = {"leapfrog": 2, "omelyan2": 2, "omelyan4": 4}  # dH ~ (step size)^order


@dataclass(frozen=True)
class Thermalisation:
    """What thermalisation leaves: phi (n_chains, *shape), the frozen n_steps, and the history.

    history: magnetization, abs_magnetization, action_density, dH, accepted, each (n_therm, n_chains), and
    start, a list of "hot" or "cold" per chain.
    """

    phi: Floats
    n_steps: int
    history: dict[str, Any]


def start_names(n_chains: int) -> list[str]:
    """ "hot" for even chains, "cold" for odd ones."""
    return ["cold" if chain % 2 else "hot" for chain in range(n_chains)]


def start_fields(action: Action, shape: tuple[int, ...], n_chains: int, seed: int) -> Floats:
    """Start configurations (n_chains, *shape), hot and cold alternating."""
    phi = normals(seed, "ensemble/start", np.arange(n_chains), 0, math.prod(shape)).reshape(n_chains, *shape)
    phi[1::2] = classical_field(action, len(shape))
    return phi


def classical_field(action: Action, dim: int) -> float:
    """The uniform field that minimises S, 1 where that is zero: phi^2 = (2 d kappa - 1 + 2 lam)/(2 lam).

    >>> from lattice.action import ScalarPhi4
    >>> classical_field(ScalarPhi4(0.5, 0.5), 2), classical_field(ScalarPhi4(0.1, 0.022), 2)
    (1.4142135623730951, 1.0)
    """
    if action.lam <= 0:
        return 1.0
    square = (2 * dim * action.kappa - 1 + 2 * action.lam) / (2 * action.lam)
    return math.sqrt(square) if square > 0 else 1.0


def one_trajectory(
    action: Action, phi: Floats, seed: int, params: EnsembleParameters, trajectory: int, n_steps: int
) -> tuple[Floats, Floats, Floats]:
    """HMC trajectory number `trajectory` of all chains, then the cluster updates: (phi', dH (n,), accepted
    (n,) 0 or 1).

    The length is jittered, one draw for all chains, so that no mode of a nearly free field comes back to
    where it was (Mackenzie, Phys. Lett. B226 (1989) 369).
    """
    chains = np.arange(len(phi), dtype=np.int64)
    u = float(uniforms(seed, "hmc/length", np.zeros(1, dtype=np.int64), trajectory, 1)[0, 0])
    length = params.trajectory_length * (1.0 + params.length_jitter * (2.0 * u - 1.0))
    phi, info = hmc_trajectory(
        action,
        phi,
        seed=seed,
        chains=chains,
        trajectory=trajectory,
        length=length,
        n_steps=n_steps,
        integrator=params.integrator,
    )
    if params.n_clusters:
        if not isinstance(action, ScalarPhi4):
            raise InputError("cluster updates know phi4 and free actions only; set ensemble.n_clusters to 0")
        phi, _ = wolff_update(
            action, phi, seed=seed, chains=chains, trajectory=trajectory, n_clusters=params.n_clusters
        )
        flip = uniforms(seed, "ensemble/flip", chains, trajectory, 1)[:, 0] < 0.5
        phi = np.where(flip.reshape(-1, *[1] * (phi.ndim - 1)), -phi, phi)
    dH = np.asarray(info.dH, dtype=np.float64)
    dH = np.where(np.isfinite(dH), dH, np.inf)  # a trajectory that ran off was rejected: weight exp(-dH) = 0
    return phi, dH, np.asarray(info.accepted, dtype=np.float64)


def scaled_steps(n_steps: int, acceptance: float, target: float, integrator: str) -> int:
    """The step number expected to reach `target`, from the acceptance measured with `n_steps`; changes at
    most 2-fold.

    acceptance = erfc(sqrt(<dH>)/2) and <dH> ~ (step size)^(2 order) (Gupta, Irbaeck, Karsch, Petersson,
    Phys. Lett. B242 (1990) 437).

    >>> scaled_steps(10, 0.5, 0.9, "omelyan2"), scaled_steps(10, 1.0, 0.9, "omelyan2")
    (20, 5)
    """
    size: float = scipy.special.erfcinv(min(max(acceptance, 0.01), 0.9999)) / scipy.special.erfcinv(target)
    factor: float = min(max(size ** (1.0 / _ORDER.get(integrator, 2)), 0.5), 2.0)
    return max(1, math.ceil(n_steps * factor - 1e-9))


class StepTuner:
    """Chooses the step number from blocks of trajectories in the first 40 % of the thermalisation, then
    freezes it.

    Near the stability limit of the integrator the acceptance drops much faster than its scaling law, and dH
    has rare large values that hold a chain back while the mean still looks fair. So a block fails by its mean
    acceptance or by one dH beyond ten of the standard deviations that belong to the target; a number that
    failed is not tried again, the last block may only raise it, and a tenth is added at the end.
    """

    def __init__(self, params: EnsembleParameters) -> None:
        self._fixed = params.n_steps is not None
        self._target, self._integrator = params.target_acceptance, params.integrator
        self.n_steps = params.n_steps or math.ceil(params.trajectory_length / 0.2)
        self._block = max(2, int(TUNING_PART * params.n_therm) // 10)
        self._until = self._block * (int(TUNING_PART * params.n_therm) // self._block)
        self._failed, self._passed = 0, 2**31
        self._seen: list[float] = []
        self._largest: list[float] = []
        # acceptance = erfc(sqrt(<dH>)/2), and dH normal of variance 2 <dH>
        self._limit = 10.0 * math.sqrt(2.0) * 2.0 * float(scipy.special.erfcinv(self._target))

    def observe(self, dH: Floats, accepted: Floats) -> None:
        """Take in dH and the accepted flags, both (n_chains,), of the next trajectory."""
        t = len(self._seen)
        if self._fixed or t >= self._until:
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


def thermalise(
    action: Action, shape: tuple[int, ...], params: EnsembleParameters, seed: int, progress: Progress
) -> Thermalisation:
    """Run `n_therm` trajectories from hot and cold starts; the step number is tuned in the first 40 %."""
    phi = start_fields(action, shape, params.n_chains, seed)
    volume = math.prod(shape)
    tuner = StepTuner(params)
    history: dict[str, Any] = {name: np.empty((params.n_therm, params.n_chains)) for name in HISTORY}
    progress.start(params.n_therm, "thermalisation")
    for t in range(params.n_therm):
        phi, dH, accepted = one_trajectory(action, phi, seed, params, t, tuner.n_steps)
        m = phi.reshape(len(phi), -1).mean(axis=1)
        s = action.action(torch.from_numpy(phi)).numpy() / volume
        for name, row in zip(HISTORY, (m, np.abs(m), s, dH, accepted), strict=True):
            history[name][t] = row
        tuner.observe(dH, accepted)
        progress.update(1, acceptance=float(accepted.mean()), n_steps=tuner.n_steps)
    progress.close()
    history["start"] = start_names(params.n_chains)
    return Thermalisation(phi, tuner.n_steps, history)


def write_thermalisation(path: Path, therm: Thermalisation, request: dict[str, Any]) -> None:
    """Write therm.h5, atomically: the history, the fields to go on from, `request` and n_steps."""
    with h5py.File("therm", "w", driver="core", backing_store=False) as file:
        for name in HISTORY:
            file.create_dataset(name, data=therm.history[name], dtype="<f8", chunks=True, fletcher32=True)
        file.create_dataset(
            "state/phi", data=therm.phi, dtype="<f8", chunks=(1, *therm.phi.shape[1:]), fletcher32=True
        )
        file.attrs["schema"] = SCHEMA
        file.attrs["start"] = canonical_json(therm.history["start"])
        file.attrs["n_steps"] = therm.n_steps
        file.attrs["request"] = canonical_json(request)
        file.flush()
        image = bytes(file.id.get_file_image())
    write_atomic(path, image)


def read_thermalisation(path: Path) -> tuple[Thermalisation, dict[str, Any]]:
    """(thermalisation, request) from therm.h5. Raises InputError when missing, damaged or of other schema."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if file.attrs.get("schema") != SCHEMA:
                raise InputError(f"{path}: schema is {file.attrs.get('schema')!r}, expected {SCHEMA!r}")
            history: dict[str, Any] = {name: _plain(file, path, name) for name in HISTORY}
            history["start"] = json.loads(file.attrs["start"])
            phi, n_steps = _plain(file, path, "state/phi"), int(file.attrs["n_steps"])
            request = json.loads(file.attrs["request"])
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: truncated, damaged or not HDF5 ({' '.join(str(error).split())[:160]})"
        ) from error
    shape = history["dH"].shape
    if len(shape) != 2 or any(history[name].shape != shape for name in HISTORY) or len(phi) != shape[1]:
        raise InputError(f"{path}: histories and fields do not fit each other")
    if len(history["start"]) != shape[1]:
        raise InputError(f"{path}: {len(history['start'])} starts for {shape[1]} chains")
    if not (np.isfinite(phi).all() and isinstance(request, dict) and n_steps > 0):
        raise InputError(f"{path}: the stored state is not finite or not complete")
    return Thermalisation(phi, n_steps, history), request


def _plain(file: h5py.File, path: Path, name: str) -> Floats:
    for part in (name.split("/")[0], name):
        if not isinstance(file.get(part, getlink=True), h5py.HardLink):
            raise InputError(f"{path}: /{part} is missing or a link")
    data = file[name]
    plain = isinstance(data, h5py.Dataset) and not data.is_virtual and not data.external
    if not plain or data.dtype != np.dtype("<f8") or data.nbytes > path.stat().st_size:
        raise InputError(f"{path}: /{name} is not a plain float64 dataset")
    return np.asarray(data[...], dtype=np.float64)
