"""The typed configuration of a run: YAML file + ``--set key.path=value`` -> `Config`.

Every section is a pydantic model that forbids unknown keys; `load_config` turns whatever is wrong into one
line that names the full dotted key, the value, and what is allowed. `action.kind` says which sections a run
has: fields on a lattice (`LatticeRun`, of a law without action `NetworkRun`), or one variable (`PointRun`),
whose configurations are complex Langevin's or exact draws. Lengths are in lattice units; sigma is the noise
width in units of phi.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import yaml
from pydantic import Field, ValidationError, field_serializer, model_validator

from diffsq.config.action_section import check_limits, read_action
from diffsq.config.base import Config as Config  # handed on
from diffsq.config.base import ModelName
from diffsq.config.dynamics import DYNAMICS, DynamicsRun
from diffsq.config.families import FamilyRun
from diffsq.config.gauge import GaugeRun
from diffsq.config.machines import MachineRun, PicturesRun
from diffsq.config.names import STEP_NAMES
from diffsq.config.presets import found
from diffsq.config.section import Section, nearest, one_line, refuse_truth_values
from diffsq.config.sections import (
    FLOW_LEVELS,
    MIN_EXTENT,
    MIN_FLOW_LEVELS,
    PATH_LEVELS,
    ChainParameters,
    LatticeConfig,
    LatticeModel,
    ModelConfig,
    PointSampling,
    PointTraining,
    SamplingConfig,
    SdeConfig,
    ShapeConfig,
    TrainingConfig,
    check_each,
    of_model,
)
from diffsq.config.spins import FlowRun, SpinRun
from diffsq.config.version import unreadable
from diffsq.config.yaml_file import Dumper, apply_override, read_yaml
from lattice.actions.protocol import check_one_variable
from lattice.errors import InputError
from lattice.simulation.parameters import ComplexLangevin, ExactDraws, MonteCarlo, RandomNetworks

if TYPE_CHECKING:
    from lattice.actions.protocol import Action

MOVED = {  # keys of version 0.1
    "sde.kind": "sampling.sde", "sampling.scan": "checks.samplers.methods",
    "sampling.n_scan": "checks.samplers.n",
}  # fmt: skip
GONE = {  # keys of fields on a lattice until version 0.3, and why nothing takes their place
    "sampling.placement": "the levels are where the process puts them",
    "sampling.n_calibration": "the variances of the path sampler are the model's own",
    "chain.n_calibration": "block moves are not calibrated",
}
WITHOUT_WEIGHTS = "heun"  # the best of the samplers without weights, configs/networks
WITHOUT_ACTION: dict[str, type[DynamicsRun]] = {**DYNAMICS, "spin_flow": FlowRun, "family": FamilyRun}
ORDER = (
    "name", "seed", "action", "lattice", "ensemble", "models", "machine", "sde", "model", "training",
    "n_parts", "sampling", "chain", "checks", "reference",
)  # fmt: skip


class LatticeRun(Config):
    """Real fields on a two-dimensional lattice; `action: null` takes the action of the ensemble it is
    given.

    models: "score" is the model of the section `model`, "closed" the closed-form regression alone.
    checked: the samplers whose samples checks know what to do with.
    """

    checked: ClassVar[tuple[str, ...]] = ("flow", "path")
    lattice: LatticeConfig
    ensemble: MonteCarlo
    models: tuple[LatticeModel, ...] = ("score",)
    sde: SdeConfig = SdeConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    chain: ChainParameters = ChainParameters()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.action is not None:
            self.action.check_normalisable(self.lattice.shape)
        for key, given in (("method", self.sampling.method), ("n_samples", self.sampling.n_samples)):
            check_each(f"sampling.{key}", given, self.models)
        for name in self.models:
            self._check_sampler(name)
        if self.checks and self.models and self.method not in self.checked:
            raise InputError(f"checks need sampling.method flow or path, got {self.method}")
        training = self.training
        if not self.model.network and (training.loss not in ("auto", "score") or training.penalty):
            raise InputError(
                f"training.loss {training.loss} with training.penalty {training.penalty:g} goes through the "
                f"flow, which is for model.network; a U-Net is trained by score, without a penalty"
            )
        if self.model.network and not (training.use_action or training.loss in ("likelihood", "score")):
            raise InputError("training.loss of a network without action is likelihood or score: others use S")
        matched = self.model.network and (training.loss == "score" or training.penalty)
        if training.n_posterior and not (self.model.channels or matched):
            raise InputError("training.n_posterior averages targets of score matching: here is none; take 0")
        factor = 2 ** (self.model.n_levels - 1)
        for extent in self.lattice.shape if self.models else ():
            if extent % factor:
                low, high = extent // factor * factor, -(-extent // factor) * factor
                near = [str(e) for e in (low, high) if e >= MIN_EXTENT]
                raise InputError(
                    f"lattice.shape: extent {extent} is not divisible by {factor} = 2^(model.n_levels - 1), "
                    f"the U-Net's halvings; take {' or '.join(near)}, or a smaller model.n_levels"
                )
        return self

    def _check_sampler(self, name: str) -> None:
        alone = self.of(name)
        if alone.method == "flow" and alone.model.channels:
            raise InputError(
                "sampling.method flow needs a score whose divergence is closed-form, which a U-Net has not; "
                "take sampling.method path, or model.channels 0"
            )
        if alone.method == "flow" and (n := alone.n_levels) < MIN_FLOW_LEVELS:
            order = f"the flow's integrator of order 4 needs at least {MIN_FLOW_LEVELS}"
            raise InputError(f"sampling.n_levels: {order}, got {n}")
        if alone.model.covariance and alone.method != "path":
            raise InputError(f"model.covariance is for sampling.method path, got {alone.method}")

    @property
    def method(self) -> str:
        """The sampler of the first model."""
        given = of_model(self.sampling.method, self.models[0])
        return given if given != "auto" else self._own_method

    @property
    def _own_method(self) -> str:
        """What "auto" is."""
        return "path" if self.model.channels and self.models[0] == "score" else "flow"

    @property
    def n_levels(self) -> int:
        """Steps of the sampler of the first model."""
        return self.sampling.n_levels or (FLOW_LEVELS if self.method == "flow" else PATH_LEVELS)

    @property
    def n_samples(self) -> int:
        """How many fields are drawn of the first model."""
        return of_model(self.sampling.n_samples, self.models[0])

    def of(self, name: str) -> Self:
        """The run of one of `models` alone, as if that were all: its model and how it is sampled."""
        if name not in self.models:
            raise InputError(f"the run has no model {name}{nearest(name, self.models)}")
        sampling, own = self.sampling, self.model
        settings = {
            "method": of_model(sampling.method, name),
            "n_samples": of_model(sampling.n_samples, name),
        }
        if name == "closed":
            own = ModelConfig(channels=0, n_levels=1, n_sigma=own.n_sigma, n_fit=own.n_fit)
        training = self.training
        if not own.network:
            n = training.n_posterior if own.channels else 0
            unused = {"loss": "auto", "n_levels": None, "penalty": 0.0, "n_posterior": n}
            training = training.model_copy(update=unused)
        alone = {"models": (name,), "model": own, "sampling": sampling.model_copy(update=settings)}
        return self.model_copy(update={**alone, "training": training})


class NetworkRun(LatticeRun):
    """Fields of random networks, a law without an action: samplers without weights. Without models only the
    ensemble is made, on a lattice of any shape."""

    checked: ClassVar[tuple[str, ...]] = STEP_NAMES
    lattice: ShapeConfig  # type: ignore[assignment]
    ensemble: RandomNetworks = RandomNetworks()  # type: ignore[assignment]

    def _check_sampler(self, name: str) -> None:
        LatticeConfig(shape=self.lattice.shape)
        if (method := self.of(name).method) not in STEP_NAMES:
            raise InputError(
                f"sampling.method: {method} weighs its samples with S, and {self.action.kind} is a law "
                f"without an action; take {', '.join(STEP_NAMES)}"
            )

    @property
    def _own_method(self) -> str:
        return WITHOUT_WEIGHTS


class PointRun(Config):
    """One variable, real or complex. n_parts: models trained besides on so many disjoint parts of the data,
    whose spread is the error band of the learned effective action of a real model; 0 for none."""

    ensemble: ComplexLangevin | ExactDraws
    models: tuple[Literal["score", "energy"], ...] = ("score", "energy")
    training: PointTraining = PointTraining()
    n_parts: int = Field(default=0, ge=0, le=64)
    sampling: PointSampling = PointSampling()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.action.one_variable:
            check_one_variable(self.shape, f"{type(self.action).__name__} is a model")
        if "kind" in self.training.model_fields_set:
            raise InputError("training.kind is set by `models`; remove it")
        low, high = self.training.sigma_min, self.training.sigma_max or math.inf
        at = self.sampling.metropolis_sigma
        if at is not None and "energy" in self.models and not low <= at < high:
            raise InputError(
                f"sampling.metropolis_sigma must lie in the range learned, {low:g} to {high:g}, got {at:g}"
            )
        if self.n_parts == 1:
            raise InputError("n_parts must be 0 or at least 2: one model has no spread")
        return self

    @field_serializer("training")
    def _without_kind(self, training: PointTraining) -> dict[str, Any]:
        return training.model_dump(mode="json", exclude={"kind"})


class ComplexRun(PointRun):
    """z = x + iy of a holomorphic action by complex Langevin; on more than one site only the ensemble is
    made."""

    usual_checks: ClassVar[tuple[str, ...]] = ("strip", "samplers", "fokker-planck")
    ensemble: ComplexLangevin = ComplexLangevin()

    @model_validator(mode="after")
    def _learnable(self) -> Self:
        if self.n_parts:
            raise InputError("n_parts is for real models: the learned action of a complex one is not its S")
        if self.models and math.prod(self.shape) > 1:
            raise InputError(
                f"models of points learn one complex variable, lattice.shape is {list(self.shape)}; "
                "models: [] makes the ensemble and its verdict alone"
            )
        if self.models and self.action.period is not None:
            raise InputError("Re z of this action is an angle, which no model here learns; set models: []")
        return self


class RealRun(PointRun):
    """A real variable by exact draws."""

    usual_checks: ClassVar[tuple[str, ...]] = ("samplers", "limits", "cumulants", "learned-action")
    ensemble: ExactDraws = ExactDraws()


OF_FIELD: dict[str, type[Config]] = {"spin": SpinRun, "angle": GaugeRun, "complex": ComplexRun}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides "key.path=value" (values are YAML), validate.

    Raises `InputError`, one line: no such file, not YAML, unknown key (with the nearest one), bad value.
    """
    data = read_yaml(Path(path))
    for override in overrides:
        apply_override(data, override)
    try:
        return config_from_dict(data)
    except InputError as error:
        if overrides and _complaint(read_yaml(Path(path))) != str(error):
            raise  # the overrides are at fault
        raise unreadable(found(Path(path)), error) from None


def _complaint(data: Mapping[str, Any]) -> str:
    """What is wrong with the content of a file, "" if nothing."""
    try:
        config_from_dict(data)
    except InputError as error:
        return str(error)
    return ""


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """Validate a nested dict of the config's sections.  Raises `InputError` naming the dotted key.

    >>> config_from_dict({"name": "x", "action": {"kapa": 0.27, "lam": 0.022}})
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: unknown key action.kapa; did you mean action.kappa?
    """
    models = data.get("models")
    first = models[0] if isinstance(models, list | tuple) and models else models
    if "action" not in data and first not in (*WITHOUT_ACTION, "rbm"):
        known = get_args(ModelName)
        if isinstance(first, str) and first not in known:
            raise InputError(f"models: no such model {first!r}{nearest(first, known)}")
        raise InputError("action is missing from the config")
    for old, new in MOVED.items():
        if _has(data, old):
            raise InputError(f"{old} is called {new} since version 0.2")
    lattice = data.get("lattice")
    shape = lattice.get("shape") if isinstance(lattice, Mapping) else None
    action = None
    if data.get("action") is not None:
        action = read_action(data["action"], len(shape) if isinstance(shape, list | tuple) else None)
        check_limits(action)  # also of converted couplings
    kind = run_kind(action, str(first), data.get("ensemble"))
    for old, why in GONE.items() if kind is LatticeRun else ():
        if _has(data, old):
            raise InputError(f"{old} is gone since version 0.3: {why}; remove it")
    refuse_truth_values(kind, data)
    try:
        return kind.model_validate({**data, "action": action})
    except ValidationError as error:
        raise InputError(one_line(error, kind)) from None


def _has(data: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.partition(".")
    return isinstance(data.get(section), Mapping) and name in data[section]


def run_kind(action: Action | None, model: str = "", ensemble: Any = None) -> type[Config]:
    """Which sections a run has, by its first model and its action; None, an action from Python, is for fields
    on a lattice. A machine learns from an ensemble, or from a data set where that is named."""
    if model in WITHOUT_ACTION:
        return WITHOUT_ACTION[model]
    if model == "rbm":
        return PicturesRun if isinstance(ensemble, Mapping) and "data" in ensemble else MachineRun
    if action is None:
        return LatticeRun
    if not action.has_action:
        return NetworkRun
    return OF_FIELD.get(action.field) or (RealRun if action.one_variable else LatticeRun)


def resolved_yaml(config: Section) -> str:
    """The configuration, defaults included but for keys `Section.unsaid`; `load_config` reads it back."""
    data = config.model_dump(mode="json")
    ordered = {
        key: data[key] for key in sorted(data, key=lambda key: ORDER.index(key) if key in ORDER else -1)
    }
    return yaml.dump(ordered, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
