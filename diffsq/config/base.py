"""What every run has: its name, seed, action, ensemble and checks, whatever kind of field it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PlainSerializer,
    SkipValidation,
    StringConstraints,
    field_serializer,
    field_validator,
    model_validator,
)

from diffsq.config.names import CHECK_NAMES
from diffsq.config.section import Section, Seed, nearest
from diffsq.config.sections import Checks, ReferenceConfig, ShapeConfig
from lattice.errors import InputError

if TYPE_CHECKING:
    from lattice.actions.protocol import Action

ModelName = Literal[
    "closed",
    "score",
    "energy",
    "rbm",
    "pairs",
    "teacher_student",
    "transformer",
    "spin_flow",
    "family",
    "torus",
]
Built = Annotated[
    Any, SkipValidation, PlainSerializer(lambda action: None if action is None else action.as_dict())
]


class Config(Section):
    """A whole run. `resolved_yaml` prints it, `load_config` reads it; `action` is the action itself.

    sections: of each stage, those that a config has.
    """

    sections: ClassVar[dict[str, tuple[str, ...]]] = {
        "ensemble": ("seed", "action", "lattice", "ensemble"),
        "train": ("seed", "action", "lattice", "sde", "model", "models", "machine", "training", "n_parts"),
        "sample": ("seed", "sampling"),
        "measure": ("name", "seed", "checks", "reference"),
        "report": ("name",),
    }
    usual_checks: ClassVar[tuple[str, ...]] = ()
    action_keys: ClassVar[tuple[str, ...]] = ("action.kind", "action.kappa", "action.lam")

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    seed: Seed = 1
    action: Built = None
    lattice: ShapeConfig | None = None
    ensemble: Any
    models: tuple[ModelName, ...] = ("score",)
    training: Any = None
    sampling: Any = None
    checks: Checks = Field(default_factory=dict)
    reference: ReferenceConfig | None = None

    @field_validator("checks", mode="before")
    @classmethod
    def _known_checks(cls, checks: Any) -> Any:
        """`NAME: {option: value}` beside the checks that are usual for this kind of run; `NAME: false` drops
        one."""
        if checks is None:
            return {}
        if not isinstance(checks, Mapping):
            raise InputError(f"checks is a mapping NAME: {{option: value}}, got {checks!r}")
        for name in map(str, checks):
            if name not in CHECK_NAMES:
                raise InputError(f"checks.{name}: no such check{nearest(name, CHECK_NAMES)}")
        return {name: options or {} for name, options in checks.items() if options is not False}

    @field_serializer("checks")
    def _with_dropped_checks(self, checks: Checks) -> dict[str, Any]:
        return {**{name: False for name in self.usual_checks if name not in checks}, **checks}

    @model_validator(mode="before")
    @classmethod
    def _with_usual_checks(cls, data: Any) -> Any:
        given = (data.get("checks") or {}) if isinstance(data, dict) else None
        if not isinstance(given, dict) or data.get("models") == []:
            return data
        return {**data, "checks": {**dict.fromkeys(cls.usual_checks), **given}}

    @model_validator(mode="after")
    def _distinct_models(self) -> Self:
        if len(set(self.models)) < len(self.models):
            raise InputError(f"models must be distinct, got {list(self.models)}")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """The lattice; () for one variable."""
        return () if self.lattice is None else self.lattice.shape

    def require_action(self, action: Action) -> None:
        """Raise `InputError` unless the action of an ensemble is the config's, if that has one."""
        if self.action is not None and action.holomorphic.as_dict() != self.action.holomorphic.as_dict():
            raise InputError(f"the ensemble's action is {action.holomorphic.as_dict()}, not the config's")

    @property
    def source(self) -> str | None:
        """The folder of an ensemble made elsewhere, if the run takes one."""
        return getattr(self.ensemble, "source", None)

    @property
    def processes(self) -> tuple[str, ...]:
        """The noising processes that are sampled through, "ve" or "vp"."""
        return tuple(self.sampling.sde)

    def active_reference(self) -> ReferenceConfig | None:
        """The reference values if they were measured at this run's couplings and shape, else None."""
        ref = self.reference
        if ref is None:
            return None
        here = (getattr(self.action, "kappa", None), getattr(self.action, "lam", None), self.shape)
        return ref if (ref.kappa, ref.lam, ref.shape) == here else None
