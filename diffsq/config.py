"""The typed configuration of a run: YAML file + ``--set key.path=value`` -> `Config`.

Every section is a pydantic model that forbids unknown keys; `load_config` turns whatever is wrong into one
line that names the full dotted key, the value, and what is allowed.  Couplings are in the kappa-lambda
convention of `lattice.action`; lengths are in lattice units; sigma is the noise width in units of phi.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from diffsq.chain_parameters import ChainParameters
from diffsq.names import CHECK_NAMES
from diffsq.section import Section, one_line
from diffsq.yamlfile import Dumper, apply_override, read_yaml
from lattice.errors import InputError
from lattice.notation import parse_value
from lattice.parameters import EnsembleParameters

if TYPE_CHECKING:
    from lattice.action import ScalarPhi4

MIN_EXTENT, MAX_EXTENT = 4, 4096


class ActionConfig(Section):
    """Couplings of S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + (1 - 2 lam) phi_x^2 + lam phi_x^4]."""

    kind: Literal["phi4", "free"] = "phi4"
    kappa: float = Field(ge=-10, le=10)
    lam: float = Field(default=0.0, ge=0, le=1000)

    @model_validator(mode="after")
    def _free_has_no_lam(self) -> ActionConfig:
        if self.kind == "free" and self.lam != 0:
            raise InputError(f"action.lam must be 0 for kind free, got {self.lam}")
        if self.kind == "phi4" and "lam" not in self.model_fields_set:
            raise InputError("action.lam is missing (the quartic coupling of kind phi4, >= 0)")
        return self


class LatticeConfig(Section):
    """Periodic lattice, two extents (the score network is two-dimensional)."""

    shape: tuple[int, ...]

    @field_validator("shape")
    @classmethod
    def _even_extents(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2:
            raise InputError(f"lattice.shape must be two extents such as [16, 16], got {list(shape)}")
        for extent in shape:
            if extent % 2 or not MIN_EXTENT <= extent <= MAX_EXTENT:
                raise InputError(
                    f"lattice.shape: extents must be even, {MIN_EXTENT} to {MAX_EXTENT}, got {list(shape)}"
                )
        return shape


class SdeConfig(Section):
    """Noise-to-signal ratio from sigma_min to sigma_max; null = 2 sqrt(G(k=0)) of the training ensemble.

    "ve" variance-expanding: levels geometric in sigma; "vp" variance-preserving: levels uniform in its time.
    """

    kind: Literal["ve", "vp"] = "ve"
    sigma_min: float = Field(default=0.2, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> SdeConfig:
        if self.sigma_max is not None and self.sigma_max <= self.sigma_min:
            raise InputError(
                f"sde.sigma_max must exceed sde.sigma_min = {self.sigma_min}, got {self.sigma_max}"
            )
        return self


class ModelConfig(Section):
    """The score model: n_levels resolutions of the U-Net; n_sigma noise levels of the regression base, each
    fitted to n_fit training fields."""

    channels: int = Field(default=8, ge=0, le=1024)
    n_levels: int = Field(default=3, ge=1, le=8)
    n_sigma: int = Field(default=32, ge=4)
    n_fit: int = Field(default=4096, ge=1)


class TrainingConfig(Section):
    """Denoising score matching: Adam steps with warm-up, exponential moving average, held-out validation."""

    n_steps: int = Field(default=3000, ge=0)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    warmup: int = Field(default=100, ge=0)
    validation_fraction: float = Field(default=0.125, gt=0, le=0.5)
    validate_every: int = Field(default=250, ge=1)
    checkpoint_every: int = Field(default=250, ge=1)


class SamplingConfig(Section):
    """Reverse process: "path" (exact log-weight), "euler", "pc" (predictor-corrector), "heun" (flow ODE).

    n_calibration: training fields on which the variance of the reverse kernel of "path" is measured.
    placement of the levels: "sde", where the process puts them, or "adapted" to the posterior (placement.py).
    """

    n_samples: int = Field(default=8192, ge=20, le=10**9)
    n_levels: int = Field(default=40, ge=2)
    n_forward: int = Field(default=2048, ge=20)
    n_calibration: int = Field(default=8192, ge=64)
    method: Literal["path", "euler", "pc", "heun"] = "path"
    placement: Literal["sde", "adapted"] = "sde"


class ReferenceConfig(Section):
    """Known results ``NAME: value(error)`` at one point; used only when the run is at that point."""

    kappa: float
    lam: float = Field(ge=0)
    shape: tuple[int, ...]
    values: dict[str, str]

    @field_validator("values")
    @classmethod
    def _readable(cls, values: dict[str, str]) -> dict[str, str]:
        for name, text in values.items():
            try:
                parse_value(text)
            except ValueError as error:
                raise InputError(f"reference.values.{name} must look like 0.7617(7), got {text!r}") from error
        return values


class Config(Section):
    """A whole run.  `resolved_yaml` prints it; `load_config` reads it; `sections` are those of each stage."""

    sections: ClassVar[dict[str, tuple[str, ...]]] = {
        "ensemble": ("seed", "action", "lattice", "ensemble"),
        "train": ("seed", "action", "lattice", "sde", "model", "training"),
        "sample": ("seed", "sampling"),
        "measure": ("name", "seed", "checks", "reference"),
        "report": ("name",),
    }

    law: ClassVar[dict[str, int]] = {}  # model and samples carry their own versions

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    seed: int = Field(default=1, ge=0, lt=2**64)
    action: ActionConfig
    lattice: LatticeConfig
    ensemble: EnsembleParameters
    sde: SdeConfig = SdeConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    chain: ChainParameters = ChainParameters()
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)  # `diffsq check` NAME: {option: value}
    reference: ReferenceConfig | None = None

    @field_validator("checks", mode="before")
    @classmethod
    def _known_checks(cls, checks: Any) -> Any:
        if not isinstance(checks, Mapping):
            raise InputError(f"checks is a mapping NAME: {{option: value}}, got {checks!r}")
        for name in checks:
            if name not in CHECK_NAMES:
                raise InputError(f"checks.{name}: no such check; known: {', '.join(CHECK_NAMES)}")
        return {name: options or {} for name, options in checks.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        bound = 1 / (2 * len(self.lattice.shape))
        if self.action.lam == 0 and abs(self.action.kappa) >= bound:
            raise InputError(
                f"action.kappa must be within (-{bound:g}, {bound:g}) when lam = 0 (the free action is "
                f"unbounded below otherwise), got {self.action.kappa:g}"
            )
        if self.checks and self.sampling.method != "path":
            raise InputError(f"checks need sampling.method path, got {self.sampling.method}")
        factor = 2 ** (self.model.n_levels - 1)
        for extent in self.lattice.shape:
            if extent % factor:
                low, high = extent // factor * factor, -(-extent // factor) * factor
                near = [str(e) for e in (low, high) if e >= MIN_EXTENT]
                raise InputError(
                    f"lattice.shape: extent {extent} is not divisible by {factor} = 2^(model.n_levels - 1), "
                    f"the U-Net's halvings; take {' or '.join(near)}, or a smaller model.n_levels"
                )
        return self

    @property
    def source(self) -> str | None:
        """The folder of an ensemble made elsewhere, if the run takes one."""
        return self.ensemble.source

    def build_action(self) -> ScalarPhi4:
        from lattice.action import phi4_from_dict  # imports torch, which reading a config does not need

        return phi4_from_dict(self.action.model_dump())

    def active_reference(self) -> ReferenceConfig | None:
        """The reference values if they were measured at this run's couplings and shape, else None."""
        ref = self.reference
        here = (self.action.kappa, self.action.lam, self.lattice.shape)
        return ref if ref is not None and (ref.kappa, ref.lam, ref.shape) == here else None


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides "key.path=value" (values are YAML), validate.

    Raises `InputError`, one line: no such file, not YAML, unknown key (with the nearest one), bad value.
    """
    data = read_yaml(Path(path))
    for override in overrides:
        apply_override(data, override)
    return config_from_dict(data)


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """Validate a nested dict of the config's sections.  Raises `InputError` naming the dotted key.

    >>> config_from_dict({"name": "x", "action": {"kapa": 0.27, "lam": 0.022}})
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: unknown key action.kapa; did you mean action.kappa?
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(one_line(error, Config)) from None


def resolved_yaml(config: Section) -> str:
    """The complete configuration, defaults included, in schema order; `load_config` reads it back."""
    return yaml.dump(
        config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120
    )
