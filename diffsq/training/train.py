"""One model of a run: a score of fields on a lattice, a score or an energy of points, a Gaussian machine."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from diffsq.config.config import Config, LatticeRun, PointRun
from diffsq.config.dynamics import DynamicsRun
from diffsq.config.families import FamilyRun
from diffsq.config.gauge import GaugeRun
from diffsq.config.machines import MachineRun, PicturesRun
from diffsq.models import family, regression
from diffsq.models.gauge import GaugeScore
from diffsq.models.lattice import LatticeScore
from diffsq.models.points import PointModel
from diffsq.models.rbm import GaussianRBM
from diffsq.models.torus import TorusScore
from diffsq.training import dynamics, gauge, lattice, machines, points
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.manifest import refuse_foreign
from lattice.errors import InputError
from lattice.files import write_json
from lattice.processes import Team
from lattice.progress import Progress
from lattice.rng import stream_id

FILES = re.compile(
    r"(request|model|validation|row)\.json|weights\.safetensors|metrics\.jsonl|checkpoint-\d+\.safetensors"
)
"""The names in the folder of a training that are ours."""
_OURS = ("request.json", "model.json")


def train(
    config: Config, ensemble: Ensemble, out: str | Path, *,
    name: str | None = None, progress: Progress | None = None, device: str = "cpu",
    team: Team | None = None,
) -> LatticeScore | PointModel | GaussianRBM | GaugeScore | TorusScore:  # fmt: skip
    """Train a model of `config` on an ensemble in the folder `out`; the same call again resumes, or reads it.

    name: of `models` (default: the first), or "part-K" for the last of them trained on the K-th of `n_parts`
    disjoint parts of the data. team: processes that share the steps of a U-Net. Raises `InputError` when
    config and ensemble do not belong together, and for a loss that is not finite; the last good checkpoint is
    kept.
    """
    out = Path(out)
    if isinstance(config, LatticeRun):
        own = config.of(name or config.models[0])
        lattice.describe(own, ensemble)  # refused before the folder is taken
        claim(out)
        return lattice.train(own, ensemble, out, progress=progress, device=device, team=team)
    if isinstance(config, GaugeRun):
        own_name = name or config.models[0]
        gauge.describe(config, ensemble, own_name)
        claim(out)
        return gauge.train_gauge(config, ensemble, out, own_name, progress)
    if isinstance(config, MachineRun):
        config.require_action(ensemble.action)
        claim(out)
        rows = ensemble.split_rows(config.training.validation_fraction)[0]
        return machines.train_machine(config, ensemble.phi[rows], ensemble.identity, out, progress)
    assert isinstance(config, PointRun)
    config.require_action(ensemble.action)
    name, data = name or config.models[0], torch.from_numpy(ensemble.phi)
    known = ("score", "energy", *(f"part-{k}" for k in range(config.n_parts)))
    if name not in known:
        raise InputError(f"a model of one variable is {', '.join(known)}; got {name!r}")
    kind, seed = name, (config.seed + stream_id(f"train/{name}")) % 2**64  # no two models share numbers
    if name.startswith("part-"):
        part = ensemble.parts(config.n_parts)[int(name.removeprefix("part-"))]
        kind, data = config.models[-1], data[torch.from_numpy(part)]
    claim(out)
    return points.train_points(data, config.training.model_copy(update={"kind": kind}), seed, out, progress)


def versions(config: Config) -> dict[str, int]:
    """The version of every law and fit that enters the models of `config`."""
    if isinstance(config, GaugeRun):
        return gauge.versions(config)
    if isinstance(config, MachineRun | PicturesRun):
        return {"machine": machines.VERSION}
    if isinstance(config, DynamicsRun):
        own = {"family": family.VERSION, "base": regression.VERSION} if isinstance(config, FamilyRun) else {}
        return {"rows": dynamics.VERSION, **own}
    return lattice.versions(config) if isinstance(config, LatticeRun) else points.versions()


def claim(out: Path) -> None:
    """Take a folder for a training; `InputError` where it holds files of such names that are not of one."""
    if any(out.glob("checkpoint-*.safetensors")) or any((out / name).exists() for name in _OURS):
        return
    refuse_foreign(out, FILES)
    write_json(out / _OURS[0], {"training": out.name})
