"""YAML in and out: a config file or a `--set key.path=value` as nested dicts, and the dialect read here.

Nothing here knows what the keys mean; `diffsq.config` does.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import yaml

from diffsq.config.presets import found, presets
from lattice.errors import InputError, nearest, shown


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one "key.path=value" in the nested dict `data`, in place.

    >>> d = {"lattice": {"shape": [16, 16]}}
    >>> apply_override(d, "lattice.shape=[32,32]"); apply_override(d, "training.learning_rate=1e-3"); d
    {'lattice': {'shape': [32, 32]}, 'training': {'learning_rate': 0.001}}
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set takes key.path=value, such as lattice.shape=[32,32]; got {override!r}")
    value = read_value(text, f"--set {key}")
    section = data
    for depth, part in enumerate(parts[:-1], start=1):
        inner = section.get(part)
        if inner is None:
            inner = section[part] = {}
        if not isinstance(inner, dict):
            raise InputError(f"--set {key}: {'.'.join(parts[:depth])} is a value, not a section")
        section = inner
    section[parts[-1]] = value


def read_value(text: str, where: str) -> Any:
    """One YAML value of the command line; InputError, which begins with `where`, for what cannot be read.

    >>> read_value("[1e5, -.5, 1e-3]", "--set x")
    [100000, -0.5, 0.001]
    """
    try:
        return yaml.load(text, Loader=Loader)
    except _Misread as error:
        raise InputError(f"{where}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a number too long for Python
        raise InputError(f"{where}: cannot read the value {text!r} as YAML") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML mapping, of a file or a preset; `InputError` when missing, unreadable, or with a key twice.

    Keys x-... are left out: a place for what is merged elsewhere, `x-base: &a {...}`, `action: {<<: *a}`.
    """
    path = found(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no such config file: {path}{_nearby_files(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"cannot read config file {path}: {reason}") from None
    try:
        data = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "syntax"
        said = problem if isinstance(error, _Misread) else f"not valid YAML ({problem})"
        raise InputError(f"{path}{where}: {said}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        if isinstance(data, dict):
            odd = next(key for key in data if not isinstance(key, str))
            raise InputError(f"{path}: the keys of a config are words, not {shown(odd)}")
        raise InputError(
            f"{path}: a config is a mapping (name, action, lattice, ...), not {type(data).__name__}"
        )
    return {key: value for key, value in data.items() if not key.startswith("x-")}


def _nearby_files(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    for name in (path.name, path.name + ".yaml"):
        if close := nearest(name, names, "{}"):
            return f"; did you mean {path.parent / close}?"
    if close := nearest(path.stem, presets(), "{}"):
        return f"; did you mean the preset {close}? (`diffsq configs` lists them)"
    return "; `diffsq configs` lists the presets" if str(path) == path.stem else ""


class _Misread(yaml.constructor.ConstructorError):
    """Sound YAML that says something else than its writer means."""


MAX_NODES = 10**6  # a scan of 10 000 points, each with every setting


class Loader(yaml.SafeLoader):
    """SafeLoader for numbers as a physicist writes them: 1e-3, 1e5 and -.5 are numbers (YAML 1.1 calls them
    text); 010, 1_000 and 1:00 are refused (YAML 1.1 reads 8, 1000 and 60); dates are text. A key written
    twice in one mapping is refused; one that a merge `<<: *base` brings in may be written again, and wins.

    Whatever else is wrong with a text is a YAMLError too: values that no date or number has, nesting without
    end, and aliases that contain themselves or stand for more than `MAX_NODES` values.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _size(node, {}) > MAX_NODES:
            raise yaml.constructor.ConstructorError(None, None, "its aliases stand for too many values")
        return node

    def get_single_data(self) -> Any:
        try:
            return super().get_single_data()
        except RecursionError:
            problem = "nested too deeply"
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            problem = " ".join(str(error).split())[:160]  # from the constructor of a number or a date
        raise yaml.constructor.ConstructorError(None, None, problem)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """One mapping as written; a YAMLError for a key twice. (Where mappings are constructed, merges are
        among their keys.)"""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                several = "; merge several as <<: [*a, *b]" if key.value == "<<" else ""
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} twice{several}", key.start_mark
                )
            seen.add(key.value)
        return node

    def construct_yaml_int(self, node: Any) -> int:
        text = str(self.construct_scalar(node))
        digits, sign = text.lstrip("+-"), "-" if text.startswith("-") else ""
        if re.fullmatch(r"0[0-9]+", digits):
            values = [int(digits), *([int(digits, 8)] if re.fullmatch(r"[0-7]+", digits) else [])]
            write = " or ".join(f"{sign}{value}" for value in dict.fromkeys(values))
            raise _misread(node, write, "octal in YAML 1.1, decimal elsewhere")
        if digits.startswith("0o"):
            raise _misread(node, f"{sign}{int(digits, 8)}", "octal elsewhere, text in YAML 1.1")
        number = int(super().construct_yaml_int(node))
        return number if re.fullmatch(r"[0-9]+|0[xb][0-9a-fA-F]+", digits) else _refuse(node, number)

    def construct_yaml_float(self, node: Any) -> float | int:
        text = str(self.construct_scalar(node))
        if re.fullmatch(r"[-+]?[0-9]+[eE]\+?[0-9]{1,2}", text):
            return int(Decimal(text))
        number = float(super().construct_yaml_float(node))
        return _refuse(node, number) if "_" in text or ":" in text else number


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """The number of values below a node, aliases counted each time; infinity where one contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")
        children = (
            node.value if isinstance(node, yaml.SequenceNode) else [n for pair in node.value for n in pair]
        )
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _refuse(node: Any, number: float) -> NoReturn:
    how = "of base 60" if ":" in node.value else "with underscores"
    raise _misread(node, f"{number:.15g}", f"a number {how} in YAML 1.1 alone")


def _misread(node: Any, write: str, why: str) -> _Misread:
    said = f"{node.value} is {why}: write {write}, or '{node.value}' in quotes if it is text"
    return _Misread(None, None, said, node.start_mark)


_NUMBERS = list("-+.0123456789")
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)
# a date where a number is wanted is then refused as text, and is text where that is wanted
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in Loader.yaml_implicit_resolvers.items()
}


class Dumper(yaml.SafeDumper):
    """Block style with inline lists: `shape: [16, 16]`."""


Dumper.add_representer(
    list, lambda d, seq: d.represent_sequence("tag:yaml.org,2002:seq", seq, flow_style=True)
)
for dialect in (Loader, Dumper):  # what one reads as a number, the other writes in quotes where it is text
    dialect.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$|^[-+]\.\d+$"),
        _NUMBERS,
    )
    dialect.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0o[0-7]+|0[0-9]+)$"), _NUMBERS)
