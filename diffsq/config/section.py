"""What every section of a config is, and how pydantic's findings become one line naming the dotted key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from lattice import errors
from lattice.errors import InputError, shown
from lattice.seeds import check_seed

EMPTY = " (null, as an empty value is read); give a value, or leave the key out for its default"
WORDS = {  # of pydantic, and what a user of a YAML file calls it
    "^Input should be": "must be", "^String should": "must", "^(Tuple|List|Dictionary) should": "must",
    " after validation.*": "", "a valid (tuple|list)": "a list", "a valid dictionary": "a mapping",
    "a valid integer, got a number with a fractional part": "an integer",
}  # fmt: skip
Model = TypeVar("Model", bound=BaseModel)
Seed = Annotated[int, BeforeValidator(check_seed)]


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean ...?``, or what is known where nothing is near.

    >>> nearest("kapa", ["kappa", "lam"])
    '; did you mean kappa?'
    """
    return errors.nearest(name, known, "; did you mean {}?") or f"; known: {', '.join(known)}"


class Section(BaseModel):
    """Unknown keys, NaN and infinity are errors; values do not change.

    `unsaid`: keys that are not written where they have these values, at which nothing changes: folders made
    before a key was there go on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    unsaid: ClassVar[Mapping[str, Any]] = {}

    @model_serializer(mode="wrap")
    def _written(self, own: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = own(self)
        silent = [name for name, value in self.unsaid.items() if name in found and found[name] == value]
        return {name: value for name, value in found.items() if name not in silent}


def validated(model: type[Model], data: Any, where: str) -> Model:
    """`data` as a `model`; InputError, one line that begins with `where`, for whatever is wrong with it."""
    try:
        refuse_truth_values(model, data)
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(where + one_line(error, model).replace(" from the config", "")) from None
    except InputError as error:
        raise InputError(f"{where}{error}") from None


def refuse_truth_values(model: type[BaseModel], data: Any, prefix: str = "") -> None:
    """InputError where `data` has true or false (YAML also reads yes, no, on, off so) for a number or a text:
    pydantic would take true as 1."""
    for name, field in model.model_fields.items():
        value = data.get(name) if isinstance(data, Mapping) else None
        kinds = list(_kinds(field.annotation))
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for section in sections if isinstance(value, Mapping) else []:
            refuse_truth_values(section, value, f"{prefix}{name}.")
        if Any in kinds or bool in kinds or sections or not _has_truth_value(value):
            continue
        number = int in kinds or float in kinds
        wanted, advice = ("a number", "the number itself") if number else ("text", "it in quotes")
        raise InputError(
            f"{prefix}{name} must be {wanted}, got {value!r}: yes, no, on, off, true and false are "
            f"truth values in YAML; write {advice}"
        )


def _kinds(annotation: Any) -> Iterator[Any]:
    """An annotation and all it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _has_truth_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return any(map(_has_truth_value, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The most telling of pydantic's findings: unknown keys first, they explain the missing ones."""
    found = [e for e in error.errors() if not _short_of_bad_entries(e)]
    findings = sorted(found, key=lambda e: (e["type"] != "extra_forbidden", e["type"] == "missing"))
    lines = [_finding(e, model) for e in findings]
    # A missing key is news only if nothing else is wrong: with `kapa` reported, "kappa is missing" is noise.
    more = sum(e["type"] != "missing" for e in findings[1:])
    return " ".join(lines[0].split()) + (f" (and {more} more)" if more else "")


def _short_of_bad_entries(error: Any) -> bool:
    """Whether a list is too short only because pydantic does not count entries with findings of their own."""
    return bool(error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"])


def _finding(error: Any, model: type[BaseModel]) -> str:
    path = ".".join(_keys(error["loc"], model))
    if error["type"] == "extra_forbidden":
        return f"unknown key {path}{_suggest(path, model)}"
    if error["type"] == "missing":
        return f"{path} is missing from the config"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Exception):  # raised by a validator: InputError says the key itself
        entry = max((i for i, key in enumerate(error["loc"]) if isinstance(key, int)), default=-1)
        of_list = ".".join(_keys(error["loc"][: entry + 1], model))  # which of a list, no validator can know
        words = f"{of_list}: {cause}" if of_list else str(cause)
        words = words if isinstance(cause, InputError) else f"{path}: {cause}"
        return words + (EMPTY if error["input"] is None else "")
    message = error["msg"]
    for theirs, ours in WORDS.items():
        message = re.sub(theirs, ours, message)
    given, advice = error["input"], ""
    if given is None:
        advice = EMPTY
    elif error["type"] == "string_type" and isinstance(given, int | float):
        advice = f"; write '{shown(given)}' in quotes"
    return f"{path}: {message}, got {shown(given)}{advice}"


def _keys(loc: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """The dotted key of a finding, without the tags that pydantic puts in for the members of a union."""
    known = {part for key in _known_keys(model) for part in key.split(".")}
    parts = [str(part) for i, part in enumerate(loc) if not (i == 1 and len(loc) > 2 and part not in known)]
    return [part for part in parts if not part.startswith("<")]


def _suggest(path: str, model: type[BaseModel]) -> str:
    known = list(_known_keys(model))
    section, _, leaf = path.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    elsewhere = [key for key in known if key.rpartition(".")[2] == leaf]
    close = siblings.get(errors.nearest(leaf, siblings, "{}")) or errors.nearest(
        path, known, "{}", cutoff=0.75
    )
    if close or elsewhere:
        return f"; did you mean {close or elsewhere[0]}?"
    return f"; known {'in ' + section if section else 'sections'}: {', '.join(siblings)}"


def _known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    yield from getattr(model, "action_keys", ())
    for name, field in model.model_fields.items():
        yield prefix + name
        for kind in _kinds(field.annotation):  # of a union the sections in it
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _known_keys(kind, f"{prefix}{name}.")
