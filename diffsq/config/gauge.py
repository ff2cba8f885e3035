"""The config of two-dimensional U(1): links by chains or exact draws, their score, and how it is sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from diffsq.config.base import Config
from diffsq.config.section import Section, nearest
from diffsq.config.sections import ShapeConfig
from lattice.errors import InputError
from lattice.simulation.parameters import ExactDraws, MonteCarlo

GaugeModelName = Literal["score", "torus"]
N_DRAWS = 16384  # where the config says nothing
MOST_VOLUME = 2**18  # plaquettes
NEED_SCORE = ("freezing", "rescaling")


def _draws_or_chains(given: Any) -> str:
    """Exact draws say how many and nothing else; what is no section at all is refused as one of chains."""
    keys = set(given) if isinstance(given, Mapping) else set(getattr(type(given), "model_fields", {"chains"}))
    return "<draws>" if keys <= {"n_configs"} else "<chains>"


class GaugeModel(Section):
    """channels: of the network of the model `torus`."""

    channels: int = Field(default=24, ge=1, le=256)


class GaugeTraining(Section):
    """use_action: the score is that of the action, closed-form, without a fit; false: of a plaquette action
    learned from the links, n_harmonics of cos n theta_p by score matching. sectors: the law of charges that
    samples begin with, that of the action ("exact", or of the learned one) or a smooth one of the charges of
    the data ("data"). The rest is the optimisation of the model `torus`."""

    validation_fraction: float = Field(default=0.125, gt=0, le=0.5)
    use_action: bool = True
    n_harmonics: int = Field(default=3, ge=1, le=32)
    sectors: Literal["exact", "data"] = "exact"
    n_steps: int = Field(default=1500, ge=0, le=10**7)
    batch_size: int = Field(default=64, ge=1, le=2**16)
    learning_rate: float = Field(default=5e-3, gt=0)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    warmup: int = Field(default=50, ge=0)
    checkpoint_every: int = Field(default=250, ge=1)


class GaugeSampling(Section):
    """method of the model `score`: the flow of its lifted flux, or reverse paths; `torus` has paths on the
    circle. n_levels: steps, null for 16 of the flow, 40 of a path, 100 on the circle."""

    n_samples: int = Field(default=8192, ge=20, le=10**9)
    n_forward: int = Field(default=2048, ge=20)
    method: Literal["flow", "path"] = "flow"
    n_levels: int | None = Field(default=None, ge=2, le=10**5)


class GaugeRun(Config):
    """Links of two-dimensional U(1). models: "score", closed-form in the lifted flux, and "torus", a network
    on the circle. `ensemble: {n_configs: N}` are independent exact draws; with any other key Markov chains.
    """

    action_keys: ClassVar[tuple[str, ...]] = ("action.kind", "action.beta", "action.theta")
    usual_checks: ClassVar[tuple[str, ...]] = ("topology",)

    lattice: ShapeConfig
    ensemble: Annotated[
        Annotated[ExactDraws, Tag("<draws>")] | Annotated[MonteCarlo, Tag("<chains>")],
        Discriminator(_draws_or_chains),
    ] = ExactDraws(n_configs=N_DRAWS)
    models: tuple[GaugeModelName, ...] = ("score",)
    model: GaugeModel = GaugeModel()
    training: GaugeTraining = GaugeTraining()
    sampling: GaugeSampling = GaugeSampling()

    @model_validator(mode="before")
    @classmethod
    def _some_draws(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("ensemble") == {}:
            return {**data, "ensemble": {"n_configs": N_DRAWS}}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.action.is_complex:
            raise InputError(
                "S is complex: complex action.beta, or action.theta, is for complex Langevin, action.field: "
                "x+iy with models: []; samples of theta = 0 know Z(theta) by the check theta"
            )
        self.action.check_normalisable(self.lattice.shape)
        for name in self.checks:
            if name in NEED_SCORE and "score" not in self.models:
                raise InputError(f"checks.{name} asks the model score; take models: [score, ...]")
        if math.prod(self.lattice.shape) > MOST_VOLUME:
            raise InputError(f"lattice.shape: at most {MOST_VOLUME} plaquettes, got {list(self.shape)}")
        return self

    @property
    def processes(self) -> tuple[str, ...]:
        """Heat-kernel noise on links, variance-expanding."""
        return ("ve",)

    @property
    def method(self) -> str:
        """The sampler of the first model."""
        return self.sampling.method if self.models[0] == "score" else "angles"

    @property
    def n_samples(self) -> int:
        return self.sampling.n_samples

    def of(self, name: str) -> Self:
        """The run of one of `models` alone."""
        if name not in self.models:
            raise InputError(f"the run has no model {name}{nearest(name, self.models)}")
        return self.model_copy(update={"models": (name,)})
