"""Damage to files: bytes of any of them, and the structure of JSON, YAML, safetensors and HDF5.

Each function changes a file in place, by the random numbers it is given, and returns what it did in words.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from campaign_hdf5 import damage_hdf5

Rng = np.random.Generator
DEEP = 100_000
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -1e308, 1e308, float("nan"), float("inf"), "",
    "x", "nan", "é\x00\n", "x" * 100_000, [], {}, [[]], [None], {"": None}, [1, "x", None],
    {"kind": "phi4"}, [1e999],
    [[1, 2], [3]], {"a": {"b": {"c": []}}}, "0.7(1)", ["__class__"], -0.0, [0] * 1000,
)  # fmt: skip
TAGS = (
    "!!python/object/apply:os.system ['touch OWNED']", "!!python/name:os.system", "!!python/object:object {}",
    "!!python/module:os", "!!binary '*'", "!!int x", "!!float x", "!!timestamp 2024-99-99", "2024-99-99",
    "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "{? [a] : 1}", "{? {a: 1} : 1}", "&a [*a]",
    "&a {b: *a}", "*nowhere", "'\\ud800'", '"\\ud800"', "0o7", "0x_", "1:99:99", "0b2", "9" * 5000, "-.inf",
    ".nan", "!!null x", "!!bool x", "!x y", "1e400", "{<<: 1}", "{<<: [1]}", "{<<: {a: 1}}", "|\n  text",
    "!!str {a: 1}", "!!seq {a: 1}", "!!map [1]", "=", "<<",
)  # fmt: skip


def bytes_of(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Bytes flipped, cut, swapped, doubled, overwritten, put in; half of the time near the beginning, where
    headers are."""
    n = len(data)
    if n == 0:
        return b"\x00", "a byte in an empty file"
    near = min(n, 2048) if rng.random() < 0.5 else n
    at, size = int(rng.integers(near)), int(min(n, 2 ** rng.integers(0, 12)))
    other, out = int(rng.integers(n)), bytearray(data)
    kind = int(rng.integers(10))
    if kind <= 2:
        for k in rng.integers(0, near, size=int(rng.integers(1, 9))):
            out[k] ^= 1 << int(rng.integers(8))
        return bytes(out), "bits flipped"
    if kind == 3:
        return data[:at], "cut"
    if kind == 4:
        return data[:at] + data[at + size :], "a block taken out"
    if kind == 5:
        return data[: at + size] + data[at:], "a block doubled"
    if kind == 6:
        a, b = bytes(out[at : at + size]), bytes(out[other : other + size])
        out[at : at + len(b)] = b
        out[other : other + len(a)] = a
        return bytes(out), "two blocks swapped"
    if kind == 7:
        out[at : at + size] = bytes([int(rng.choice([0, 255]))]) * len(out[at : at + size])
        return bytes(out), "a block of zeros or ones"
    if kind == 8:
        return data[:at] + rng.bytes(size) + data[at:], "random bytes put in"
    return data + rng.bytes(size), "random bytes at the end"


def damage_bytes(path: Path, rng: Rng) -> str:
    data, words = bytes_of(path.read_bytes(), rng)
    path.write_bytes(data)
    return words


def places(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values of nested dicts and lists; of long lists the first few."""
    items: list[Any] = []
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree[:3]))
    return [prefix, *(place for key, value in items for place in places(value, (*prefix, key)))]


def change(tree: Any, rng: Rng) -> tuple[Any, str]:
    """A tree with one value of another type, one key gone, or one more."""
    tree, found = copy.deepcopy(tree), places(tree)
    at = found[int(rng.integers(len(found)))]
    value = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    if not at:
        return value, f"all of it now {str(value)[:30]!r}"
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    kind, where = int(rng.integers(8)), ".".join(map(str, at))
    if kind == 0:
        del inner[at[-1]]
        return tree, f"{where} gone"
    if kind == 1 and isinstance(inner, dict):
        inner["extra"] = value
        return tree, f"more beside {where}"
    if kind == 2:
        inner[at[-1]] = {"x": inner[at[-1]]} if rng.random() < 0.5 else [inner[at[-1]]]
        return tree, f"{where} nested"
    if kind == 3 and isinstance(inner[at[-1]], (int, float)) and not isinstance(inner[at[-1]], bool):
        inner[at[-1]] = inner[at[-1]] * (-1, 10**6, 0.5)[int(rng.integers(3))]
        return tree, f"{where} scaled"
    inner[at[-1]] = value
    return tree, f"{where} now {str(value)[:30]!r}"


def damage_json(path: Path, rng: Rng) -> str:
    text = path.read_text()
    kind = int(rng.integers(12))
    if kind == 0:
        deep = ("[" * DEEP, '{"a":' * DEEP, "[" * DEEP + "]" * DEEP)[int(rng.integers(3))]
        path.write_text(deep)
        return "nested deeply"
    if kind == 1:
        many = json.dumps(json.loads(text)).replace(": ", ": " + "9" * 5000, 1)
        path.write_text(many)
        return "a number of 5000 digits"
    if kind == 2:
        path.write_bytes(text.encode(("utf-16", "utf-8-sig", "utf-32")[int(rng.integers(3))]))
        return "another encoding"
    tree, words = change(json.loads(text), rng)
    path.write_text(json.dumps(tree))
    return words


def damage_lines(path: Path, rng: Rng) -> str:
    lines = path.read_text().splitlines()
    k = int(rng.integers(len(lines)))
    tree, words = change(json.loads(lines[k]), rng)
    path.write_text("\n".join([*lines[:k], json.dumps(tree), *lines[k + 1 :]]) + "\n")
    return f"line {k}: {words}"


def damage_yaml(path: Path, rng: Rng) -> str:
    text, kind = path.read_text(), int(rng.integers(8))
    tree = yaml.safe_load(text)
    if kind == 0:
        n, width = int(rng.integers(2, 30)), int(rng.integers(2, 12))
        pile = ["a0: &a0 [x, x]"]
        pile += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * width)}]" for k in range(1, n)]
        key = list(tree)[int(rng.integers(len(tree)))]
        inside = rng.random() < 0.5
        body = yaml.safe_dump({k: v for k, v in tree.items() if k != key or not inside})
        path.write_text("\n".join([*pile, body, f"{key}: *a{n - 1}" if inside else ""]))
        return "laughs"
    if kind == 1:
        path.write_text(text + "\nextra: " + ("[" * DEEP, "{a: " * DEEP, "- " * DEEP)[int(rng.integers(3))])
        return "nested deeply"
    if kind in (2, 3):
        found = [at for at in places(tree) if at]
        at, tag = found[int(rng.integers(len(found)))], TAGS[int(rng.integers(len(TAGS)))]
        inner = tree
        for key in at[:-1]:
            inner = inner[key]
        inner[at[-1]] = "PLACE"
        path.write_text(yaml.safe_dump(tree, default_flow_style=None).replace("PLACE", tag))
        return f"{'.'.join(map(str, at))}: {tag[:40]}"
    if kind == 4:
        odd = (
            text + text, "%YAML 9.9\n---\n" + text, text + "\n---\na: 1\n", "\t" + text, "\ufeff" + text,
            text.replace(":", ""), "- " + text, text + "\n1: 2\n", text + "\nnull: 2\n",
            text + "\n? [a]\n: 2\n", text + "\ntrue: 2\n", "null", "[]", "'text'", "1", "<<: *a", "? a",
            "!!python/name:os.system", "---\n...",
        )  # fmt: skip
        path.write_text(odd[int(rng.integers(len(odd)))])
        return "odd YAML"
    tree, words = change(tree, rng)
    path.write_text(yaml.safe_dump(tree))
    return words


def damage_safetensors(path: Path, rng: Rng) -> str:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body, kind = json.loads(data[8 : 8 + size]), data[8 + size :], int(rng.integers(6))
    if kind == 0:
        lie = int(
            rng.choice(np.array([0, 1, size - 1, size + 8, len(data), 2**31, 2**63 - 1], dtype=np.uint64))
        )
        path.write_bytes(struct.pack("<Q", lie) + data[8:])
        return f"header length {lie}"
    names = [name for name in header if name != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    if kind == 1:
        header[name]["data_offsets"] = [int(x) for x in rng.integers(-8, 2 * len(body) + 8, size=2)]
    elif kind == 2:
        header[name]["dtype"] = str(rng.choice(["F64", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "X9"]))
    elif kind == 3:
        shapes: list[list[Any]] = [[2**40, 2**40], [-1], [0], [], [1] * 200, [2**62, 4], ["x"], [1.5]]
        header[name]["shape"] = shapes[int(rng.integers(len(shapes)))]
    else:
        header, _ = change(header, rng)
    text = json.dumps(header).encode()
    if kind == 5 and rng.random() < 0.3:
        text = b'{"a":' * 20_000
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return f"header of {name}"


STRUCTURE: dict[str, Callable[[Path, Rng], str]] = {
    ".h5": damage_hdf5, ".json": damage_json, ".jsonl": damage_lines, ".yaml": damage_yaml,
    ".safetensors": damage_safetensors,
}  # fmt: skip


def damage(path: Path, rng: Rng) -> str:
    """Damage a file: its structure, or its bytes (always those of kinds not known here)."""
    own = STRUCTURE.get(path.suffix)
    if own is None or rng.random() < 0.5:
        return damage_bytes(path, rng)
    return own(path, rng)
