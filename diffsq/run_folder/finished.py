"""A finished run opened for checks: its models, its samples, and the configurations it was trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsq.config.config import LatticeRun, NetworkRun, PointRun
from diffsq.config.dynamics import DynamicsRun
from diffsq.config.gauge import GaugeRun
from diffsq.config.machines import MachineRun, PicturesRun
from diffsq.config.sections import PATH_LEVELS
from diffsq.models.files import load_model
from diffsq.models.gauge import GaugeScore
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.models.machine_files import load_machine
from diffsq.models.points import PointModel
from diffsq.models.rbm import GaussianRBM
from diffsq.models.torus import TorusScore
from diffsq.process.sde import SDES
from diffsq.run_folder.fields import NetworkBench, OfFields, first_set, network_bench
from diffsq.run_folder.pulls import Truth, by_label, exact_truth
from diffsq.run_folder.records import open_config
from diffsq.sampling.flow_sets import flow_from, in_groups
from diffsq.sampling.lattice_path import ReversePath, path_from
from diffsq.sampling.lattice_sets import check_model
from diffsq.sampling.point_sets import PointDraws
from diffsq.training.checkpoint import read_lines
from diffsq.training.dynamics import read_rows
from diffsq.training.machines import second_of
from diffsq.training.pictures import read_pictures
from lattice.actions.complexified import Complexified
from lattice.arrays import Floats, Integers
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError
from lattice.observables.holomorphic import blocks_of, estimates, exact_numbers, variable


@dataclass
class Workbench(OfFields):
    """What a check of a run on a lattice works with: the first of its models. `samples` is the run's own
    product, raw fields with log-weights; `flow` drew them, None for another sampler; `path` did, or is the
    referee of a flow, the path sampler of the same model."""

    model: LatticeScore
    path: ReversePath
    flow: LatticeFlow | None
    samples: Ensemble

    def weigh(self, phi: Tensor, stream: str, index: Integers) -> Tensor:
        """log w (n,) of given fields (n, *shape) by the run's own sampler."""
        action, flow = self.action.action, self.flow
        if flow is not None:
            return in_groups(lambda part: flow.latent(part, action), phi)[1]
        return self.path.weigh(phi, action, self.noise(stream, index), self.frames())[0]


@dataclass
class PointBench:
    """What a check of a run on one variable works with: `draws` samples its models as the run did."""

    folder: Path
    config: PointRun
    action: Any
    models: dict[str, PointModel]
    ensemble: Ensemble

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.seed

    @cached_property
    def draws(self) -> PointDraws:
        """The run's samplers."""
        kernels = self.folder / "checks" / "kernels"
        return PointDraws(self.config.sampling, self.seed, self.ensemble, self.models, kernels=kernels)

    @property
    def is_complex(self) -> bool:
        """Whether the variable is x + iy."""
        return isinstance(self.action, Complexified)

    @property
    def against(self) -> str:
        """What samples are held against: complex Langevin's own law nobody knows."""
        return "data" if self.is_complex else "exact values"

    @cached_property
    def exact(self) -> dict[str, list[float]]:
        """Exact moments and cumulants."""
        return exact_numbers(self.action)

    @cached_property
    def truth(self) -> Truth:
        """The data's table, or the exact one."""
        if not self.is_complex:
            return exact_truth(self.exact, False)
        entries = by_label(estimates(variable(self.ensemble.phi), blocks_of(self.ensemble)), True)
        return {label: (entry["value"], entry["error"]) for label, entry in entries.items()}

    @property
    def strip(self) -> float | None:
        """y_- of the quartic model, which complex Langevin with real noise does not pass; None where
        unknown."""
        inner = getattr(self.action, "inner", None)
        if getattr(self.config.ensemble, "imaginary_noise", 1.0) > 0:
            return None
        edge: float | None = getattr(inner, "strip", None)
        return edge

    def sample_sets(self) -> dict[str, Ensemble]:
        """The run's sample sets by name."""
        return sample_sets(self.folder)

    def parts(self) -> list[PointModel]:
        """The models trained on disjoint parts of the data."""
        return [
            load_model(self.folder / "train" / f"part-{k}", PointModel) for k in range(self.config.n_parts)
        ]

    def real_only(self, check: str) -> None:
        """Refuse a complex variable."""
        if self.is_complex:
            raise InputError(f"the check {check} is for real variables; this run's is complex")

    def complex_only(self, check: str) -> None:
        """Refuse a real variable."""
        if not self.is_complex:
            raise InputError(f"the check {check} is for complex variables; this run's is real")


class _OfMachine(ABC):
    """What the benches of Gaussian machines share, whatever the data."""

    folder: Path
    config: Any

    @property
    @abstractmethod
    def trained_on(self) -> Floats:
        """The fields it has learned from (n, *shape)."""

    @property
    def seed(self) -> int:
        """Of the run."""
        seed: int = self.config.seed
        return seed

    @cached_property
    def second(self) -> Tensor:
        """The second moments it has learned from, not centred."""
        return second_of(self.config, self.trained_on)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The lines of its metrics."""
        return read_lines(self.folder / "train" / "rbm" / "metrics.jsonl")


@dataclass
class MachineBench(_OfMachine):
    """What a check of a Gaussian machine on a lattice works with."""

    folder: Path
    config: MachineRun
    action: Any
    machine: GaussianRBM
    about: dict[str, Any]
    ensemble: Ensemble
    samples: Ensemble

    @cached_property
    def trained_on(self) -> Floats:
        """The fields of the chains that are not held out."""
        return self.ensemble.phi[self.ensemble.split_rows(self.config.training.validation_fraction)[0]]


@dataclass
class PicturesBench(_OfMachine):
    """The same of a machine of pictures, the data phi (n, *shape)."""

    folder: Path
    config: PicturesRun
    machine: GaussianRBM
    about: dict[str, Any]
    phi: Floats

    @property
    def trained_on(self) -> Floats:
        """All of them."""
        return self.phi


@dataclass
class GaugeBench:
    """What a check of U(1) links works with: all models and sample sets of the run, by name."""

    folder: Path
    config: GaugeRun
    action: Any
    ensemble: Ensemble
    models: dict[str, GaugeScore | TorusScore]
    samples: dict[str, Ensemble]

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.seed

    @property
    def score(self) -> GaugeScore:
        """The model of lifted flux; `InputError` where the run has none."""
        found = self.models.get("score")
        if not isinstance(found, GaugeScore):
            raise InputError("this check needs the model score: models: [score, ...]")
        return found


@dataclass
class DynamicsBench:
    """The rows of a run that watches training, by name."""

    folder: Path
    config: DynamicsRun
    rows: dict[str, dict[str, Any]]


Bench = Workbench | NetworkBench | PointBench | MachineBench | PicturesBench | DynamicsBench | GaugeBench


def sample_sets(folder: Path) -> dict[str, Ensemble]:
    """The finished sample sets of a run folder by name, the models' in alphabetical order."""
    found = sorted(path.parent for path in (folder / "samples").glob("*/manifest.json"))
    return {path.name: read_ensemble(path) for path in found}


def open_run(folder: str | Path, device: str = "cpu") -> Bench:
    """Open a run folder with finished train and sample stages (on a lattice: method "path").

    Raises `InputError` when a part is missing, or model and ensemble do not belong together.
    """
    folder = Path(folder)
    config = open_config(folder)
    if isinstance(config, DynamicsRun):
        return DynamicsBench(folder, config, read_rows(config, folder / "train"))
    if isinstance(config, PicturesRun):
        phi, _ = read_pictures(folder / "ensemble")
        return PicturesBench(folder, config, *load_machine(folder / "train" / "rbm"), phi)
    if isinstance(config, MachineRun):
        ensemble = read_ensemble(folder / "ensemble")
        samples = read_ensemble(folder / "samples" / "rbm-exact", ensemble.action)
        machine, about = load_machine(folder / "train" / "rbm")
        return MachineBench(folder, config, ensemble.action, machine, about, ensemble, samples)
    if isinstance(config, PointRun):
        ensemble = read_ensemble(folder / "ensemble")
        models = {str(kind): load_model(folder / "train" / kind, PointModel) for kind in config.models}
        return PointBench(folder, config, ensemble.action, models, ensemble)
    if isinstance(config, GaugeRun):
        return _gauge_bench(folder, config)
    if isinstance(config, NetworkRun):
        return network_bench(folder, config, torch.device(device))
    assert isinstance(config, LatticeRun)
    return _lattice_bench(folder, config, torch.device(device))


def _gauge_bench(folder: Path, config: GaugeRun) -> GaugeBench:
    ensemble, models = read_ensemble(folder / "ensemble"), dict[str, GaugeScore | TorusScore]()
    for name in config.models:
        kind: Any = GaugeScore if name == "score" else TorusScore
        models[str(name)] = load_model(folder / "train" / name, kind)
        check_model(models[name], ensemble, folder / "train" / name)
    sets = {name.removesuffix("-ve"): samples for name, samples in sample_sets(folder).items()}
    return GaugeBench(folder, config, ensemble.action, ensemble, models, sets)


def _lattice_bench(folder: Path, config: LatticeRun, device: torch.device) -> Workbench:
    place = folder / "train" / config.models[0]
    model = load_model(place, LatticeScore)
    ensemble = read_ensemble(folder / "ensemble")
    check_model(model, ensemble, place)
    model = model.to(device)
    first = first_set(folder, config)
    action = ensemble.action
    samples = read_ensemble(first, action)
    flow = flow_from(samples, model)
    if flow is None:
        path = path_from(samples, model, device)
    else:  # the referee of a flow
        low, high = (float(model.base.log_sigma[end].exp()) for end in (0, -1))
        levels = SDES[config.processes[0]](low, high).levels(max(PATH_LEVELS, config.n_levels))
        path = ReversePath(model, levels.to(device))
    return Workbench(folder, config, action, ensemble, device, model, path, flow, samples)
