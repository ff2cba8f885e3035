"""Damage to the structure of an HDF5 file: types, shapes, sizes, links, attributes unlike the schema's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Rng = np.random.Generator


def damage_hdf5(path: Path, rng: Rng) -> str:
    """Change one dataset or one attribute; what was done in words."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        holders = [file, *(item for item in file.values() if isinstance(item, h5py.Group))]
        held = [(holder, name) for holder in holders for name in holder.attrs]
        if held and (not names or rng.random() < 0.4):
            holder, name = held[int(rng.integers(len(held)))]
            return f"attribute {name}: {_attribute(holder, name, rng)}"
        name = names[int(rng.integers(len(names)))]
        return f"/{name}: {_dataset(file, path, name, rng)}"


def _attribute(holder: h5py.Group, name: str, rng: Rng) -> str:
    old = holder.attrs[name]
    values: list[Any] = [
        None, 3, -1.5, np.nan, np.arange(3), np.zeros((2, 2)), "", "x", "null", "[]", "{}", "1e999", "NaN",
        "[" * 50_000, "9" * 5000, b"\xff\xfe", np.bytes_(b"\xff"), h5py.Empty("f8"), ["a", "b"], True,
        np.float32(2), '{"a":' * 9000, np.array([b"x"]), '"diffsq"', "[1, 2]", "[0]", "[-4]", "[4.5]",
        '["phi2"]', '{"kind": []}', np.complex128(1j), "[true]", "[" + "4, " * 2000 + "4]", "[1000000000000]",
        '["action","magnetization","phi2","a/../b"]', '{"kind": "phi4"}',
    ]  # fmt: skip
    value = values[int(rng.integers(len(values)))]
    if isinstance(old, str) and old[:1] in "[{" and rng.random() < 0.3:
        from campaign_damage import change

        value = json.dumps(change(json.loads(old), rng)[0])
    del holder.attrs[name]
    if value is None:
        return "gone"
    try:
        holder.attrs[name] = value
    except (OSError, RuntimeError, ValueError):  # too long for an attribute
        holder.attrs[name] = str(value)[:1000]
    return str(value)[:40]


def _dataset(file: h5py.File, path: Path, name: str, rng: Rng) -> str:
    data, kind = file[name][()], int(rng.integers(20))
    shape = data.shape
    if kind == 0 and data.dtype.kind == "f" and data.size:
        file[name][tuple(int(rng.integers(n)) for n in shape)] = (np.nan, np.inf)[int(rng.integers(2))]
        return "not a number"
    del file[name]
    if kind <= 1:
        return "gone"
    if kind <= 4:
        types = ("<f4", "<i4", ">f8", "<u8", "S8", "?", "<c16", "<f2", ">i8")
        dtype = np.dtype(types[int(rng.integers(len(types)))])
        file.create_dataset(name, data=np.zeros(shape, dtype=dtype))
        return f"type {dtype}"
    if kind <= 6:
        shapes = [
            (0,),
            (),
            (1,),
            (len(data) + 1, *shape[1:]),
            (*shape, 1),
            shape[::-1],
            (0, *shape[1:]),
            (1, *shape),
        ]
        new = [other for other in shapes if other != shape][int(rng.integers(len(shapes) - 2))]
        file.create_dataset(name, data=np.zeros(new, dtype=data.dtype))
        return f"shape {new}"
    if kind <= 8:
        huge = [(10**12, *shape[1:]), (2**40,), (len(data), 2**30), (2**20,) * 3][int(rng.integers(4))]
        file.create_dataset(name, shape=huge, dtype=data.dtype, chunks=(1,) * len(huge))
        return f"claims {huge}"
    if kind == 9:
        bomb = (2**27, *([1] * (len(shape) - 1)))
        file.create_dataset(name, shape=bomb, dtype=data.dtype, chunks=(2**20, *bomb[1:]), compression="gzip")
        return "claims a gigabyte, packed"
    if kind == 10:
        file[name] = h5py.SoftLink(("/phi", "/", f"/{name}", "/nowhere")[int(rng.integers(4))])
        return "a link"
    if kind == 11:
        file[name] = h5py.ExternalLink(("secret.h5", "/dev/zero", str(path))[int(rng.integers(3))], "/phi")
        return "a link to another file"
    if kind == 12:
        file.create_group(name)
        return "a group"
    if kind == 13:
        file[name] = np.dtype("<f8")
        return "a type under its name"
    if kind == 14:
        layout = h5py.VirtualLayout(shape=shape, dtype=data.dtype)
        layout[...] = h5py.VirtualSource("secret.h5", "phi", shape=shape)
        file.create_virtual_dataset(name, layout)
        return "virtual"
    if kind == 15:
        size = int(data.nbytes)
        file.create_dataset(name, shape=shape, dtype=data.dtype, external=[("/dev/zero", 0, size)])
        return "external"
    if kind == 16:
        text = h5py.string_dtype()
        file.create_dataset(name, data=np.full(shape, "x", dtype=object), dtype=text)
        return "text"
    if kind == 17:
        file.create_dataset(name, data=np.zeros(shape, dtype=[("a", "<f8"), ("b", "<i4")]))
        return "records"
    if kind == 18:
        file.create_dataset(name, shape=shape, dtype=data.dtype)
        return "never written"
    file[f"moved_{name.replace('/', '_')}"] = data
    file[name] = file["/"]
    return "a circle"
