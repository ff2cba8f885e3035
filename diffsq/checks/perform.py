"""One check of a finished run: its options, its numbers and its figure into RUN/checks."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import time
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffsq.config.names import CHECK_NAMES
from diffsq.config.section import nearest
from diffsq.config.yaml_file import read_value
from diffsq.run_folder.finished import open_run
from lattice.errors import InputError
from lattice.files import (
    read_json,
    set_aside,
    sha256_bytes,
    sha256_file,
    write_atomic,
    write_json,
)  # fmt: skip
from lattice.progress import Progress, Silent
from lattice.provenance import code_version

MODULES = {name: f"diffsq.checks.{name.replace('-', '_')}" for name in CHECK_NAMES}


def check(
    name: str,
    folder: str | Path,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Run one check of the run in `folder`, write checks/NAME.json and NAME.png there, return the content.

    name: a file of diffsq/checks, such as "levels"; options: of its `run`; key: hash of all that the result
    depends on, one made with the same is read. Raises `InputError` for options
    that the check does not have, and for a run that is not finished or of another kind.
    """
    folder = Path(folder)
    if name not in MODULES:
        raise InputError(f"no such check: {name}{nearest(name, CHECK_NAMES)}")
    module, options = importlib.import_module(MODULES[name]), dict(options or {})
    check_options(name, options)
    path, have = folder / "checks" / f"{name}.json", own_check(folder, name)
    picture = path.with_suffix(".png")
    drawn = have.get("figure")
    if key is not None and have.get("key") == key and (not drawn or _is(picture, drawn)):
        return have
    bench = open_run(folder, device)
    if not serves(name, bench):
        fitting = [other for other in CHECK_NAMES if serves(other, bench)]
        raise InputError(
            f"the check {name} is for another kind of run; those for {folder}: {', '.join(fitting)}"
        )
    started = time.monotonic()
    result = module.run(bench, progress or Silent(), **options)
    content = {
        "check": name,
        "key": key,
        "passed": result["passed"],
        "options": {**_defaults(module.run), **options},
        "seconds": round(time.monotonic() - started, 2),
        "code": code_version(),
        "text": module.text(result),
        "result": result,
    }
    image = io.BytesIO()
    if (figure := module.figure(result) if hasattr(module, "figure") else None) is not None:
        figure.savefig(image, format="png")
        content["figure"] = sha256_bytes(image.getvalue())
        if drawn and picture.exists() and not _is(picture, drawn):
            set_aside(picture)
    write_json(path, content)  # before the figure, which it tells to be ours
    if figure is not None:
        write_atomic(picture, image.getvalue())
    return content


def own_check(folder: Path, name: str) -> dict[str, Any]:
    """What checks/NAME.json holds, {} without one; `InputError` where it or NAME.png is not a check's."""
    path = folder / "checks" / f"{name}.json"
    picture = path.with_suffix(".png")
    have = read_json(path) if path.is_file() else {}
    for foreign in (path if have and have.get("check") != name else None, None if have else picture):
        if foreign is not None and os.path.lexists(foreign):
            raise InputError(f"{foreign}: is there already and not made by `diffsq check`; move it")
    return have


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_file(path) == digest


def serves(name: str, bench: Any) -> bool:
    """Whether the check NAME is for this kind of run: that of the annotation of its `bench`, and what `OF` of
    its file says of the config or the action."""
    module = importlib.import_module(MODULES[name])
    kind = typing.get_type_hints(module.run)["bench"]
    return (kind is Any or isinstance(bench, kind)) and all(
        isinstance(getattr(bench, what), kinds) for what, kinds in getattr(module, "OF", {}).items()
    )


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the check NAME does not have, values of another type than its own, and those that
    the `refuse` of its file refuses."""
    module = importlib.import_module(MODULES[name])
    for key, value in options.items():
        _check_option(key, value, module.run, name)
    if hasattr(module, "refuse"):
        module.refuse(**options)


def read_options(settings: Sequence[str], run: Callable[..., Any], name: str) -> dict[str, Any]:
    """`--set NAME=VALUE` (values are YAML) as keyword arguments of the check's `run`, after its annotations.

    Raises `InputError` for what is not NAME=VALUE, for a name that `run` does not have and for a value of
    another type than its own.

    >>> def run(bench, progress, n_fields: int = 256, levels: list[int] | None = None): ...
    >>> read_options(["n_fields=100", "levels=[1, 5]"], run, "calibration")
    {'n_fields': 100, 'levels': [1, 5]}
    """
    known, options = _defaults(run), {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not key:
            raise InputError(f"--set takes NAME=VALUE, such as {next(iter(known), 'n')}=...; got {setting!r}")
        value = read_value(text, f"--set {key}")
        kind = _check_option(key, value, run, name)
        if kind is float or typing.get_origin(kind) is tuple:
            value = float(value) if kind is float else tuple(value)
        options[key] = value
    return options


def _check_option(key: str, value: Any, run: Callable[..., Any], name: str) -> Any:
    """The annotated type of an option, once it and its value are sound."""
    known = _defaults(run)
    if key not in known:
        hint = nearest(key, tuple(known)) if known else "; it has none"
        raise InputError(f"the check {name} has no option {key}{hint}")
    kind = typing.get_type_hints(run).get(key, Any)
    if not fits(value, kind):
        words = inspect.formatannotation(kind)
        raise InputError(f"the option {key} of the check {name} must be {words}, got {value!r}")
    return kind


def _defaults(run: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(run).parameters.items()
    return {name: p.default for name, p in parameters if p.default is not inspect.Parameter.empty}


def fits(value: Any, kind: Any) -> bool:
    """Whether a YAML value is of the annotated type: numbers, text, truth values, lists of them, or None.

    >>> fits(3, float), fits(True, int), fits([1, 2], list[int] | None), fits([1.5], list[int])
    (True, False, True, False)
    """
    if kind is Any:
        return True
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in inside)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items()
        )
    if origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(each, inside[0]) for each in value)
    if kind in (None, type(None)):
        return value is None
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)
