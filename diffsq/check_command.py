"""`diffsq check NAME RUN`: one check of a finished run, its numbers and its figure into RUN/checks."""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import time
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffsq.arguments import CHECK_NAMES
from diffsq.yamlfile import Loader
from lattice.errors import InputError

MODULES = {name: f"diffsq.checks.{name.replace('-', '_')}" for name in CHECK_NAMES}


def check_command(args: argparse.Namespace) -> int:
    """check NAME RUN: 1 when the check's verdict is negative."""
    from diffsq.cli import _limit_threads, pick_device

    _limit_threads(args.threads)
    module = importlib.import_module(MODULES[args.name])
    options = read_options(args.set, module.run, args.name)
    from diffsq.checks.workbench import open_run
    from lattice.files import code_version, write_json
    from lattice.progress import make_progress

    bench = open_run(args.run, pick_device(args.device))
    started = time.monotonic()
    result = module.run(bench, make_progress(args.quiet), **options)
    content = {
        "check": args.name,
        "passed": result["passed"],
        "options": {**_defaults(module.run), **options},
        "samples": bench.samples.identity,
        "seconds": round(time.monotonic() - started, 2),
        "code": code_version(),
        "result": result,
    }
    folder = args.run / "checks"
    write_json(folder / f"{args.name}.json", content)
    _write_figure(folder / f"{args.name}.png", module.figure(result))
    if args.json:
        print((folder / f"{args.name}.json").read_text(encoding="utf-8"), end="")
    else:
        print(module.text(result))
        print(f"{folder / args.name}.json, {folder / args.name}.png")
    return 1 if result["passed"] is False else 0


def read_options(settings: Sequence[str], run: Callable[..., Any], name: str) -> dict[str, Any]:
    """`--set NAME=VALUE` (values are YAML) as keyword arguments of the check's `run`, after its annotations.

    Raises `InputError` for what is not NAME=VALUE, for a name that `run` does not have and for a value of
    another type than its own.

    >>> def run(bench, progress, n_fields: int = 256, levels: list[int] | None = None): ...
    >>> read_options(["n_fields=100", "levels=[1, 5]"], run, "calibration")
    {'n_fields': 100, 'levels': [1, 5]}
    """
    kinds = typing.get_type_hints(run)
    known, options = _defaults(run), {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not key:
            raise InputError(f"--set takes NAME=VALUE, such as {next(iter(known), 'n')}=...; got {setting!r}")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its options: {', '.join(known) or 'none'}"
            raise InputError(f"the check {name} has no option {key}; {hint}")
        try:
            value = yaml.load(text, Loader=Loader)
        except yaml.YAMLError:
            raise InputError(f"--set {key}: cannot read the value {text!r} as YAML") from None
        kind = kinds.get(key, Any)
        if not fits(value, kind):
            words = inspect.formatannotation(kind)
            raise InputError(f"the option {key} of the check {name} must be {words}, got {text!r}")
        if kind is float or typing.get_origin(kind) is tuple:
            value = float(value) if kind is float else tuple(value)
        options[key] = value
    return options


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
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and all(fits(each, inside[0]) for each in value)
    if kind in (None, type(None)):
        return value is None
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _write_figure(path: Path, figure: Any) -> None:
    from lattice.files import write_atomic

    write_atomic(path, lambda file: figure.savefig(file, format="png"))
