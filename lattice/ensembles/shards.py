"""One HDF5 shard of an ensemble: the schema, its writer, and a reader that trusts nothing.

    /phi (n, *shape) float64, one configuration per chunk (few numbers: 4 kB of them), fletcher32,
            uncompressed (fields are noise)
    /chain, /trajectory (n,) int64        /log_weight (n,) float64, sampled ensembles only
    /series/{action, magnetization, phi2, ...} (n,) float64: S, M = (1/V) sum phi, (1/V) sum phi^2, and
            what the attribute `series` lists besides (dH and accepted for HMC)
    /state  attributes: what the Markov chain needs to go on from the last configuration of every chain
    attributes: schema, action, shape, boundary, algorithm, ... (text; everything but plain strings is JSON)

The stored series are the integrity check, as the average plaquette is in the ILDG format: `check_shard`
computes them again. A shard is made in memory and written at once, so it carries no time stamp and equal
content gives equal bytes; the date is in the manifest.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from einops import reduce

from lattice.actions.protocol import Action
from lattice.actions.spins import Spins
from lattice.arrays import Floats, Integers, real_array
from lattice.errors import InputError
from lattice.files import canonical_json, write_atomic

SCHEMA = "diffsq-ensemble/1"
SERIES = ("action", "magnetization", "phi2")
MAX_AXES = 5  # of a configuration: components and lattice
_TYPES = {"chain": "<i8", "trajectory": "<i8"}  # of the datasets; all others are <f8
_RTOL = 1e-9
_CHUNK_BYTES, _FEW = 2**12, 8
_BATCH_SITES = 2**20
_SERIES_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MAX_TEXT = 60_000  # HDF5 attributes in the compact form hold 64 kB
_PLAIN = {"schema", "boundary", "stream", "key"}  # attributes that are plain strings; all others are JSON


@dataclass(frozen=True)
class Shard:
    """The content of one shard; arrays as in the schema above, `attrs` and `state` plain JSON data."""

    phi: Floats
    chain: Integers
    trajectory: Integers
    series: dict[str, Floats]
    log_weight: Floats | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def columns_at(whole: Any, rows: Any) -> dict[str, Any]:
    """The columns phi, chain, trajectory, series, log_weight of a shard or ensemble at `rows`."""
    return {
        **{name: getattr(whole, name)[rows] for name in ("phi", "chain", "trajectory")},
        "series": {name: values[rows] for name, values in whole.series.items()},
        "log_weight": None if whole.log_weight is None else whole.log_weight[rows],
    }


def joined(parts: Sequence[Any]) -> dict[str, Any]:
    """The columns of shards or ensembles one after the other, with the series that all of them have."""

    def join(arrays: list[Any]) -> Any:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    names = sorted(set.intersection(*(set(part.series) for part in parts)))
    return {
        **{name: join([getattr(part, name) for part in parts]) for name in ("phi", "chain", "trajectory")},
        "series": {name: join([part.series[name] for part in parts]) for name in names},
        "log_weight": None if parts[0].log_weight is None else join([part.log_weight for part in parts]),
    }


def gathered(shards: Iterable[Shard], n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of shards of n configurations in all, each let go before the next is read; attributes of
    the first. InputError where they do not hold the same series."""
    columns: dict[str, Any] = {}
    attrs: dict[str, Any] = {}
    first = 0
    for shard in shards:
        own = columns_at(shard, slice(None))
        if len(shard.phi) == n:
            return own, shard.attrs
        if not columns:
            columns, attrs = _room(own, n), shard.attrs
        weighted = [each["log_weight"] is not None for each in (own, columns)]
        if set(own["series"]) != set(columns["series"]) or weighted[0] != weighted[1]:
            raise InputError(
                "the shards of this ensemble do not hold the same series: it was put together by hand"
            )
        _fill(columns, own, slice(first, first + len(shard.phi)))
        first += len(shard.phi)
    return columns, attrs


def _room(columns: Any, n: int) -> Any:
    """Arrays of n rows like these; None stays None."""
    if isinstance(columns, dict):
        return {name: _room(column, n) for name, column in columns.items()}
    return None if columns is None else np.empty((n, *columns.shape[1:]), columns.dtype)


def _fill(columns: Any, own: Any, rows: slice) -> None:
    for name, column in own.items():
        if isinstance(column, dict):
            _fill(columns[name], column, rows)
        elif column is not None:
            columns[name][rows] = column


def field_series(phi: Floats, action: Action) -> dict[str, Floats]:
    """The integrity series of fields phi (n, *components, *shape): action S, the order parameter M of the
    action (the mean of phi over components and sites) and the mean phi2 of phi^2, each (n,). S is stored as 0
    for a law without an action. Raises `InputError` for spins that are none.

    >>> from lattice.actions.phi4 import ScalarPhi4
    >>> {k: v.tolist() for k, v in field_series(np.full((1, 2, 2), -1.0), ScalarPhi4(0.0, 0.0)).items()}
    {'action': [4.0], 'magnetization': [-1.0], 'phi2': [1.0]}
    """
    phi = real_array(phi, "phi")
    n = len(phi)
    out = {name: np.empty(n) for name in SERIES}
    for batch in batches(phi.shape):
        if isinstance(action, Spins):
            action.labels(phi[batch])
        part = torch.from_numpy(phi[batch])
        axes = tuple(range(1, part.dim()))
        s = real_array(action.action(part), "the action S of real fields") if action.has_action else 0.0
        out["action"][batch] = s
        out["magnetization"][batch] = action.order(part).numpy()
        out["phi2"][batch] = (part * part).mean(dim=axes).numpy()
    return out


def batches(shape: tuple[int, ...]) -> list[slice]:
    """Slices of the first axis that keep temporaries in the cache; results do not depend on them."""
    step = max(1, _BATCH_SITES // max(1, int(np.prod(shape[1:]))))
    return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard atomically. Raises InputError when the folder is full or not writable."""
    write_atomic(path, _image(shard))


def read_shard(path: Path) -> Shard:
    """Read a shard: named datasets only, type, shape and size checked before anything is allocated.

    Raises InputError, naming the file, when it is missing, truncated, not HDF5, of another schema, or holds
    links, virtual, external, compressed or object data where the schema has plain arrays. The physics is not
    looked at: that is `check_shard`.
    """
    path = Path(path)
    with opened(path) as file:
        return _read(file, path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read from; InputError, naming it, where it is missing, truncated or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        fault = hdf5_fault(error) or f"truncated, damaged or not HDF5 ({reason[:160]})"
        raise InputError(f"{path}: {fault}") from error


def hdf5_fault(error: Exception) -> str:
    """What is wrong with a sound HDF5 file that cannot be opened now; "" where it is something else."""
    text = str(error)
    if "already open for write" in text or "consistency flags" in text:
        return (
            "is open for writing in another program, or was not closed by one that was killed; wait for it, "
            "or clear the mark with `h5clear -s FILE`"
        )
    if "unable to lock file" in text or isinstance(error, BlockingIOError):
        return "is locked by another program that writes it; wait until that is done, or take a copy"
    return ""


def check_finite(phi: Floats, where: str = "") -> None:
    """Refuse phi (n, ...) that is not finite, naming the first bad configuration; `where` begins the line."""
    finite = np.empty(len(phi), dtype=bool)
    for batch in batches(phi.shape):
        finite[batch] = reduce(np.isfinite(phi[batch]), "n ... -> n", np.all)
    if not finite.all():
        bad, first = f"{int((~finite).sum())} of {len(phi)} configurations", int(np.argmin(finite))
        raise InputError(f"{where}NaN or infinity in the fields of {bad}, first in configuration {first}")


def check_shard(shard: Shard, action: Action, label: str) -> None:
    """Check finite fields, and the stored series against them (relative 1e-9). `label` names the shard."""
    check_finite(shard.phi, f"{label}: ")
    if shard.log_weight is not None and not np.isfinite(shard.log_weight).all():
        first = int(np.argmin(np.isfinite(shard.log_weight)))
        raise InputError(f"{label}: log_weight of configuration {first} is not finite")
    for name in shard.series.keys() - {"dH"}:  # that of a trajectory that ran off, and was rejected, is not
        if not np.isfinite(shard.series[name]).all():
            first = int(np.argmin(np.isfinite(shard.series[name])))
            raise InputError(f"{label}: series {name} of configuration {first} is not finite")
    fresh = field_series(shard.phi, action)
    # sums of V terms of either sign round relative to the sum of their sizes, not to their small total
    action_size = np.abs(fresh["action"]) + shard.phi[0].size * fresh["phi2"]
    size = {"action": action_size, "magnetization": np.sqrt(fresh["phi2"]), "phi2": fresh["phi2"]}
    for name in SERIES:
        bad = ~(np.abs(shard.series[name] - fresh[name]) <= _RTOL * size[name] + 1e-300)
        if bad.any():
            c = int(np.argmax(bad))
            raise InputError(
                f"{label}: stored {name} of configuration {c} is {shard.series[name][c]:.12g}, "
                f"the field gives {fresh[name][c]:.12g}: the file was changed, "
                f"or its action is not {canonical_json(action.as_dict())}"
            )


def _image(shard: Shard) -> bytes:
    n, shape = len(shard.phi), shard.phi.shape[1:]
    rows = 1 if shard.phi[0].size > _FEW else min(n, _CHUNK_BYTES // shard.phi[0].nbytes)
    columns = {"phi": shard.phi, "chain": shard.chain, "trajectory": shard.trajectory}
    columns |= {f"series/{name}": shard.series[name] for name in sorted(shard.series)}
    columns |= {} if shard.log_weight is None else {"log_weight": shard.log_weight}
    schema = {"schema": SCHEMA, "shape": list(shape), "boundary": "periodic", "series": sorted(shard.series)}
    with h5py.File("shard", "w", driver="core", backing_store=False, track_order=False) as file:
        for name, data in columns.items():
            dtype, chunks = _TYPES.get(name, "<f8"), (rows, *shape) if name == "phi" else (n,)
            file.create_dataset(name, data=data, dtype=dtype, chunks=chunks, fletcher32=True)
        _write_attrs(file, {**shard.attrs, **schema})
        if shard.state:
            _write_attrs(file.create_group("state"), shard.state)
        file.flush()
        return bytes(file.id.get_file_image())


def _write_attrs(group: h5py.Group, attrs: dict[str, Any]) -> None:
    for name in sorted(attrs):
        text = attrs[name] if name in _PLAIN else canonical_json(attrs[name])
        if len(text) > _MAX_TEXT:
            raise InputError(f"attribute {name} is too long for an HDF5 attribute ({len(text)} characters)")
        group.attrs[name] = text


def _read(file: h5py.File, path: Path) -> Shard:
    attrs = _read_attrs(file, path)
    if attrs.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema is {attrs.get('schema')!r}, expected {SCHEMA!r}; foreign files go through import"
        )
    shape: Any = attrs.get("shape")
    names = attrs.get("series")
    extents = isinstance(shape, list) and all(isinstance(x, int) and x > 0 for x in shape)
    if not (extents and 1 <= len(shape) <= MAX_AXES):
        raise InputError(f"{path}: attribute shape is {shape!r}, expected 1 to {MAX_AXES} positive extents")
    if not (isinstance(names, list) and all(isinstance(x, str) and _SERIES_NAME.fullmatch(x) for x in names)):
        raise InputError(f"{path}: attribute series is not a list of names")
    for name in SERIES:
        if name not in names:
            raise InputError(f"{path}: series/{name} is missing")
    phi = dataset(file, path, "phi", (None, *shape))
    size = (len(phi),)
    return Shard(
        phi=phi,
        chain=dataset(file, path, "chain", size),
        trajectory=dataset(file, path, "trajectory", size),
        series={name: dataset(file, path, f"series/{name}", size) for name in names},
        log_weight=dataset(file, path, "log_weight", size) if "log_weight" in file else None,
        attrs=attrs,
        state=_read_attrs(_group(file, path, "state"), path) if "state" in file else {},
    )


def dataset(
    file: h5py.File, path: Path, name: str, shape: tuple[int | None, ...] | None = None
) -> npt.NDArray[Any]:
    """The plain numbers /name, of this shape (None: of any; any extent); InputError for anything else."""
    _hard_links_only(file, path, name)
    data, where, dtype = file[name], f"{path}: /{name}", np.dtype(_TYPES.get(name, "<f8"))
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise InputError(f"{where} is not a plain dataset (groups, virtual and external data are refused)")
    if data.dtype != dtype:
        raise InputError(f"{where} has type {data.dtype}, expected {dtype}")
    shape = data.shape if shape is None else shape
    if data.ndim != len(shape) or any(want not in (None, got) for got, want in zip(data.shape, shape)):
        expected = ", ".join("n" if extent is None else str(extent) for extent in shape)
        raise InputError(f"{where} has shape {data.shape}, expected ({expected})")
    if data.ndim < 1 or data.shape[0] < 1:
        raise InputError(f"{where} holds no configuration")
    if data.compression is not None or data.scaleoffset is not None:
        raise InputError(f"{where} is compressed; the schema stores plain numbers")
    if data.nbytes > path.stat().st_size or data.id.get_storage_size() < data.nbytes:
        raise InputError(
            f"{where} claims {data.nbytes} bytes, more than the file holds: truncated or damaged"
        )
    out = np.empty(data.shape, dtype=dtype)
    data.read_direct(out)
    return out


def _group(file: h5py.File, path: Path, name: str) -> h5py.Group:
    _hard_links_only(file, path, name)
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise InputError(f"{path}: /{name} is not a group")
    return group


def _hard_links_only(file: h5py.File, path: Path, name: str) -> None:
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        part = "/".join(parts[:depth])
        link = file.get(part, getlink=True)
        if link is None:
            raise InputError(f"{path}: /{part} is missing")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: /{part} is a link to elsewhere; links are refused")


def _read_attrs(group: h5py.Group, path: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in group.attrs:
        text = group.attrs[name]
        if not isinstance(text, str):
            continue  # not ours: every attribute of the schema is text
        try:
            out[name] = text if name in _PLAIN else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: attribute {name} is not valid JSON") from error
    return out
