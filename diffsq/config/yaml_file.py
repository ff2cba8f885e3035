"""YAML in and out: a config file or a `--set key.path=value` as nested dicts, and the dialect read here.

Nothing here knows what the keys mean; `diffsq.config` does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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
    try:
        value = yaml.load(text, Loader=Loader)
    except yaml.YAMLError:
        raise InputError(f"--set {key}: cannot read the value {text!r} as YAML") from None
    section = data
    for depth, part in enumerate(parts[:-1], start=1):
        inner = section.get(part)
        if inner is None:
            inner = section[part] = {}
        if not isinstance(inner, dict):
            raise InputError(f"--set {key}: {'.'.join(parts[:depth])} is a value, not a section")
        section = inner
    section[parts[-1]] = value


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML mapping, of a file or a preset; `InputError` when missing, unreadable, or with a key twice."""
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
        raise InputError(
            f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or 'syntax'})"
        ) from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        if isinstance(data, dict):
            odd = next(key for key in data if not isinstance(key, str))
            raise InputError(f"{path}: the keys of a config are words, not {shown(odd)}")
        raise InputError(
            f"{path}: a config is a mapping (name, action, lattice, ...), not {type(data).__name__}"
        )
    return data


def _nearby_files(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    for name in (path.name, path.name + ".yaml"):
        if close := nearest(name, names, "{}"):
            return f"; did you mean {path.parent / close}?"
    if close := nearest(path.stem, presets(), "{}"):
        return f"; did you mean the preset {close}? (`diffsq configs` lists them)"
    return "; `diffsq configs` lists the presets" if str(path) == path.stem else ""


MAX_NODES = 10**6  # a scan of 10 000 points, each with every setting


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number (YAML 1.1 calls it text) and refuses a key given twice.

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

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return mapping


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


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class Dumper(yaml.SafeDumper):
    """Block style with inline lists: `shape: [16, 16]`."""


Dumper.add_representer(
    list, lambda d, seq: d.represent_sequence("tag:yaml.org,2002:seq", seq, flow_style=True)
)
