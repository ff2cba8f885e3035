"""The typed configuration of a run on a model of one variable: complex Langevin or exact draws, then learned.

`diffsq.config.config.load_config` hands over here when `action.kind` is one of these models; a complex number
is the pair [re, im]. Everything else is as in `diffsq.config`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_validator,
)

from diffsq.config.config import Config, config_from_dict
from diffsq.config.section import Section, one_line
from diffsq.config.sections import PointSampling, PointTraining
from diffsq.config.yaml_file import apply_override, read_yaml
from lattice.errors import InputError
from lattice.simulation.parameters import ComplexLangevin, ExactDraws

if TYPE_CHECKING:
    from lattice.actions.protocol import Action


def _pair(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value, 0.0)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"action.sigma0 must be a number or the pair [re, im], got {value!r}")
    return value


Complex = Annotated[tuple[float, float], BeforeValidator(_pair)]


class ComplexGaussianConfig(Section):
    """S = 1/2 sigma0 z^2, Re sigma0 > 0."""

    kind: Literal["complex_gaussian"]
    sigma0: Complex


class ComplexQuarticConfig(Section):
    """S = 1/2 sigma0 z^2 + 1/4 lam z^4."""

    kind: Literal["complex_quartic"]
    sigma0: Complex
    lam: float = Field(ge=0)


class RealQuarticConfig(Section):
    """S = 1/2 mu2 phi^2 + (g/4!) phi^4: a single (mu2 > 0) or a double well."""

    kind: Literal["real_quartic"]
    mu2: float
    g: float = Field(ge=0)


class TwoPeakConfig(Section):
    """p = 1/2 [N(mu0, sigma0^2) + N(-mu0, sigma0^2)], S = -ln p."""

    kind: Literal["two_peak"]
    mu0: float = Field(ge=0)
    sigma0: float = Field(gt=0)


class ToyConfig(Section):
    """A whole run on one variable; subclasses say where its configurations come from.

    n_parts: models trained besides on so many disjoint parts of the data, whose spread is the error band of
    the learned effective action of a real model; 0 for none.
    """

    sections: ClassVar[dict[str, tuple[str, ...]]] = {
        "ensemble": ("seed", "action", "ensemble"),
        "train": ("seed", "action", "models", "training", "n_parts"),
        "sample": ("seed", "sampling"),
        "measure": ("name", "seed"),
        "report": ("name",),
    }

    law: ClassVar[dict[str, int]] = {"train": 5, "sample": 4}  # raise with any change of what a stage makes

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    seed: int = Field(default=1, ge=0, lt=2**64)
    ensemble: ComplexLangevin | ExactDraws
    models: tuple[Literal["score", "energy"], ...] = ("score", "energy")
    training: PointTraining = PointTraining()
    n_parts: int = Field(default=0, ge=0, le=64)
    sampling: PointSampling = PointSampling()

    @model_validator(mode="after")
    def _consistent(self) -> ToyConfig:
        if not self.models or len(set(self.models)) < len(self.models):
            raise InputError(f"models must be [score], [energy] or both, got {list(self.models)}")
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

    @property
    def source(self) -> None:
        """These runs make their own ensembles."""
        return None

    def build_action(self) -> Action:
        """The action, validated."""
        from lattice.actions.kinds import action_from_dict

        return action_from_dict(self.model_dump(mode="json")["action"])


class ComplexConfig(ToyConfig):
    """Configurations z = x + iy of a complex action, by complex Langevin."""

    action: Annotated[ComplexGaussianConfig | ComplexQuarticConfig, Field(discriminator="kind")]
    ensemble: ComplexLangevin = ComplexLangevin()

    @model_validator(mode="after")
    def _no_parts(self) -> ComplexConfig:
        if self.n_parts:
            raise InputError("n_parts is for real models: the learned action of a complex one is not its S")
        return self


class RealToyConfig(ToyConfig):
    """Configurations of a real action, by exact draws."""

    action: Annotated[RealQuarticConfig | TwoPeakConfig, Field(discriminator="kind")]
    ensemble: ExactDraws = ExactDraws()


KINDS: dict[str, type[ComplexConfig] | type[RealToyConfig]] = {
    "complex_gaussian": ComplexConfig, "complex_quartic": ComplexConfig,
    "real_quartic": RealToyConfig, "two_peak": RealToyConfig,
}  # fmt: skip


def load_run_config(path: str | Path, overrides: Sequence[str] = ()) -> Config | ToyConfig:
    """`diffsq.config.config.load_config` for every kind of run: `action.kind` says which."""
    data = read_yaml(Path(path))
    for override in overrides:
        apply_override(data, override)
    action = data.get("action")
    kind = action.get("kind", "phi4") if isinstance(action, dict) else "phi4"
    if kind not in KINDS:
        if kind not in ("phi4", "free"):
            raise InputError(f"action.kind must be one of phi4, free, {', '.join(KINDS)}, got {kind!r}")
        return config_from_dict(data)
    try:
        return KINDS[kind].model_validate(data)
    except ValidationError as error:
        raise InputError(one_line(error, KINDS[kind])) from None
