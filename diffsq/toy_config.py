"""The typed configuration of a run on a model of one variable: complex Langevin or exact draws, then learned.

`diffsq.config.load_config` hands over here when `action.kind` is one of these models; a complex number is
the pair [re, im]. Everything else is as in `diffsq.config`.
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
    field_validator,
    model_validator,
)

from diffsq.config import Config, config_from_dict
from diffsq.point_parameters import PointTraining
from diffsq.section import Section, one_line
from diffsq.yamlfile import apply_override, read_yaml
from lattice.complex_parameters import ComplexLangevinParameters
from lattice.errors import InputError

if TYPE_CHECKING:
    from lattice.toys import ToyAction

Process = Literal["ve", "vp"]
METROPOLIS_SIGMA = 10.0  # in lowest noise levels: below, the energy is steep and poorly known
Method = Literal["flow", "path", "euler", "pc", "heun"]


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


class DrawsConfig(Section):
    """Independent exact draws (real models): n_configs to train on."""

    n_configs: int = Field(default=2**22, ge=1000, le=10**8)


class PointSampling(Section):
    """Global sampling: `n_samples` of each model by `method`, through the levels of each process in `sde`,
    `n_levels` of them (a number, or one for each).

    scan: further samplers METHOD: [N, ...] with `n_scan` samples each, so that the error of the sampler can
    be told from that of the model. n_metropolis: paths of `metropolis_levels` levels offered to the
    Metropolis correction of an energy model, at the noise metropolis_sigma (null: 10 training.sigma_min,
    or the middle of the range of ln sigma where that is less).
    n_calibration: points on which the kernel of "path" is measured.
    """

    n_samples: int = Field(default=10**6, ge=1000, le=2**25)
    n_levels: dict[Process, Annotated[int, Field(ge=4, le=100_000)]] = {"ve": 24, "vp": 48}
    method: Method = "flow"
    sde: tuple[Process, ...] = ("ve", "vp")
    n_metropolis: int = Field(default=10**6, ge=1000, le=10**9)
    metropolis_levels: int = Field(default=40, ge=4, le=100_000)
    metropolis_sigma: float | None = Field(default=None, gt=0)
    n_calibration: int = Field(default=65536, ge=1000)
    scan: dict[Method, tuple[Annotated[int, Field(ge=4, le=100_000)], ...]] = Field(default_factory=dict)
    n_scan: int = Field(default=100_000, ge=1000, le=2**25)

    @field_validator("n_levels", mode="before")
    @classmethod
    def _one_for_each(cls, n_levels: Any) -> Any:
        return n_levels if isinstance(n_levels, dict) else {"ve": n_levels, "vp": n_levels}

    @field_validator("sde")
    @classmethod
    def _some_process(cls, sde: tuple[str, ...]) -> tuple[str, ...]:
        if not sde or len(set(sde)) < len(sde):
            raise InputError(f"sampling.sde must be [ve], [vp] or [ve, vp], got {list(sde)}")
        return sde

    @model_validator(mode="after")
    def _levels_for_each(self) -> PointSampling:
        missing = [sde for sde in self.sde if sde not in self.n_levels]
        if missing:
            raise InputError(f"sampling.n_levels has no entry for {', '.join(missing)}")
        return self


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

    def build_action(self) -> ToyAction:
        """The action, validated."""
        from lattice.action import action_from_dict

        built: Any = action_from_dict(self.model_dump(mode="json")["action"])
        return built  # type: ignore[no-any-return]


class ComplexConfig(ToyConfig):
    """Configurations z = x + iy of a complex action, by complex Langevin."""

    action: Annotated[ComplexGaussianConfig | ComplexQuarticConfig, Field(discriminator="kind")]
    ensemble: ComplexLangevinParameters = ComplexLangevinParameters()

    @model_validator(mode="after")
    def _no_parts(self) -> ComplexConfig:
        if self.n_parts:
            raise InputError("n_parts is for real models: the learned action of a complex one is not its S")
        return self


class RealToyConfig(ToyConfig):
    """Configurations of a real action, by exact draws."""

    action: Annotated[RealQuarticConfig | TwoPeakConfig, Field(discriminator="kind")]
    ensemble: DrawsConfig = DrawsConfig()


KINDS: dict[str, type[ComplexConfig] | type[RealToyConfig]] = {
    "complex_gaussian": ComplexConfig, "complex_quartic": ComplexConfig,
    "real_quartic": RealToyConfig, "two_peak": RealToyConfig,
}  # fmt: skip


def load_run_config(path: str | Path, overrides: Sequence[str] = ()) -> Config | ToyConfig:
    """`diffsq.config.load_config` for every kind of run: `action.kind` says which."""
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
