"""The typed configuration of a run: YAML file + ``--set key.path=value`` -> `Config`.

Every section is a pydantic model that forbids unknown keys; `load_config` turns whatever is wrong into one
line that names the full dotted key, the value, and what is allowed.  Couplings are in the kappa-lambda
convention of `lattice.actions.protocol`; lengths are in lattice units; sigma is the noise width in units of
phi.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from diffsq.config.action_section import ActionConfig
from diffsq.config.names import CHECK_NAMES
from diffsq.config.section import Section, one_line
from diffsq.config.sections import (
    MIN_EXTENT,
    ChainParameters,
    LatticeConfig,
    ModelConfig,
    ReferenceConfig,
    SamplingConfig,
    SdeConfig,
    TrainingConfig,
)
from diffsq.config.yaml_file import Dumper, apply_override, read_yaml
from lattice.errors import InputError
from lattice.simulation.parameters import MonteCarlo

if TYPE_CHECKING:
    from lattice.actions.phi4 import ScalarPhi4


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
    ensemble: MonteCarlo
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
        from lattice.actions.kinds import action_from_dict

        built: Any = action_from_dict(self.action.model_dump())
        return built  # type: ignore[no-any-return]

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
