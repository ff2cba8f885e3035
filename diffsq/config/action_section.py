"""What a user declares outside a config: couplings in any convention, with one-line errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from diffsq.config.section import Section, nearest, one_line
from diffsq.config.yaml_file import apply_override
from lattice.errors import InputError

if TYPE_CHECKING:
    from lattice.actions.phi4 import ScalarPhi4


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


CONVENTION = "kappa-lambda"
Model = TypeVar("Model", bound=BaseModel)


class AnyAction(Section):
    """Couplings in any convention of `lattice.actions.protocol`: kappa and lam, or mass2 and coupling."""

    kind: Literal["phi4", "free"] = "phi4"
    convention: Literal["kappa-lambda", "bare", "flow", "schaich-loinaz"] = "kappa-lambda"
    kappa: float | None = None
    lam: float | None = None
    mass2: float | None = None
    coupling: float | None = None

    @model_validator(mode="after")
    def _of_one_convention(self) -> AnyAction:
        ours, theirs = ("kappa", "lam"), ("mass2", "coupling")
        needed, stray = (ours, theirs) if self.convention == CONVENTION else (theirs, ours)
        for key in stray:
            if getattr(self, key) is not None:
                raise InputError(f"action.{key} does not belong to convention {self.convention}, which takes "
                                 f"{' and '.join(needed)}")  # fmt: skip
        for key in needed:
            if getattr(self, key) is None and not (self.kind == "free" and key != needed[0]):
                raise InputError(f"action.{key} is missing (convention {self.convention})")
        return self

    def build(self, dim: int) -> ScalarPhi4:
        """The action in `dim` dimensions, in the kappa-lambda convention."""
        from lattice.actions.conventions import to_kappa_lambda
        from lattice.actions.phi4 import FreeScalar, ScalarPhi4

        if self.kappa is None:
            assert self.mass2 is not None  # by _of_one_convention
            action = to_kappa_lambda(self.convention, self.mass2, self.coupling or 0.0, dim)
        else:
            ours = ActionConfig(kind=self.kind, kappa=self.kappa, lam=self.lam or 0.0)
            action = ScalarPhi4(ours.kappa, ours.lam)
        return FreeScalar(action.kappa, action.lam) if self.kind == "free" else action


class _Lattice(Section):
    shape: tuple[int, ...]


class _Declared(Section):
    action: AnyAction
    lattice: _Lattice | None = None


def declared_action(words: Sequence[str]) -> tuple[ScalarPhi4, tuple[int, ...] | None]:
    """Action and shape (None: not given) of `--set` words for an ensemble that has no config.

    >>> declared_action(["action.kappa=0.27", "action.lam=0.022"])
    (ScalarPhi4(kappa=0.27, lam=0.022), None)
    """
    data: dict[str, Any] = {}
    for word in words:
        apply_override(data, word)
    if "action" not in data:
        raise InputError("declare the action: --set action.kappa=... --set action.lam=...")
    declared = validated(_Declared, data, "--set: ")
    shape = None if declared.lattice is None else declared.lattice.shape
    if shape is None and declared.action.convention != CONVENTION:
        raise InputError(
            f"--set lattice.shape=[...] is needed to convert couplings of {declared.action.convention}"
        )
    try:
        return declared.action.build(len(shape or ())), shape
    except ValidationError as error:
        raise InputError(f"--set: action.{one_line(error, ActionConfig)}") from None


def validated(model: type[Model], data: Any, where: str) -> Model:
    """`data` as a `model`; InputError, one line that begins with `where`, for whatever is wrong with it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        stray = next((e for e in error.errors() if e["type"] == "extra_forbidden"), None)
        if stray is None:
            raise InputError(where + one_line(error, model).replace(" from the config", "")) from None
        path = ".".join(map(str, stray["loc"]))
        raise InputError(f"{where}unknown key {path}{nearest(path, list(_keys(model)))}") from None


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")
