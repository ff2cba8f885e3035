"""Fields from files of other programs: .npy, .npz, HDF5. Nothing in them is trusted.

Types, shapes and sizes are compared with what the file holds before anything is allocated; pickles, object
types, links to elsewhere, virtual and external data are refused. What an axis means is taken from the shape
the user gives; without it the reader says what it assumed.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lattice.actions.protocol import MAX_DIM, check_shape
from lattice.arrays import Floats, real_array
from lattice.ensembles.shards import check_finite
from lattice.errors import InputError
from lattice.files import sha256_file

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
_MAX_RATIO = 50  # uncompressed/compressed bytes; fields are noise, they never shrink like that
_MAX_OBJECTS = 10_000
_PACKING = {1, 32000}  # deflate, lzf
_FILTERS = {*_PACKING, 2, 3}  # and shuffle, fletcher32: in every build of HDF5, and lossless


@dataclass(frozen=True)
class Layout:
    """What the axes of an array mean: lattice, number of chains if they have an axis, configurations in all,
    and what had to be assumed ("" if nothing)."""

    shape: tuple[int, ...]
    n_chains: int | None
    n: int
    note: str = ""


@dataclass(frozen=True)
class ForeignFields:
    """phi (n, *shape) float64; n_chains or None when unknown, chains one after the other; file: name, sha256,
    dataset, dtype, array_shape; notes for the reader."""

    phi: Floats
    n_chains: int | None
    file: dict[str, Any]
    notes: list[str]


Header = tuple[tuple[int, ...], np.dtype[Any]]
Choose = Callable[[Mapping[str, Header]], str]
"""The name of the fields among the arrays of a file, by their shapes and types."""


def read_foreign(
    path: Path, shape: tuple[int, ...] | None = None, dataset: str | None = None, n_chains: int | None = None
) -> ForeignFields:
    """Read the fields of a .npy, .npz or HDF5 file.

    The array is (n, *shape) or, with `shape` (or an `n_chains` equal to its first axis), (n_chains, n,
    *shape), with an optional channel axis of extent 1 before or after the lattice. `dataset` names the array
    of an .npz or HDF5 file and may be left out when only one fits. `n_chains` says that the n configurations
    are that many chains of equal length, one after the other.

    Raises InputError naming the file: missing, damaged, of another type than float32 or float64, of no
    fitting shape, or with NaN or infinity (naming the first such configuration).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if shape is not None:
        check_shape(shape)
    if n_chains is not None and n_chains < 1:
        raise InputError(f"n_chains must be at least 1, got {n_chains}")

    def choose(headers: Mapping[str, Header]) -> str:
        fitting = {
            name: found
            for name, (found, dtype) in headers.items()
            if dtype.kind == "f" and layout(found, shape, n_chains) is not None
        }
        return _choose(path, dataset, list(headers), fitting)

    kind = _kind(path)
    try:
        raw, name = _READERS[kind](path, dataset, choose)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into the memory of this machine") from error
    # zlib and zipfile have exception types of their own; all of them mean a file that cannot be read
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path}: truncated, damaged or not a {kind} file ({reason})") from error
    fit = layout(raw.shape, shape, n_chains)
    if fit is None:
        raise InputError(f"{path}: {_no_fit(raw.shape, shape)}")
    phi = np.array(real_array(raw, f"{path}: /{name}"), order="C").reshape(fit.n, *fit.shape)  # not the file
    check_finite(phi, f"{path}: ")
    notes = [fit.note] if fit.note else []
    if raw.dtype.itemsize == 4:
        notes.append("float32 in the file: fields are known to 7 digits")
    file = {
        "name": path.name, "sha256": sha256_file(path), "dataset": name, "dtype": raw.dtype.name,
        "array_shape": list(raw.shape),
    }  # fmt: skip
    return ForeignFields(phi, _chains(path, fit, n_chains), file, notes)


def layout(
    found: tuple[int, ...], shape: tuple[int, ...] | None, n_chains: int | None = None
) -> Layout | None:
    """What an array of shape `found` means on the lattice `shape`, or None if it does not fit.

    >>> layout((100, 1, 8, 8), (8, 8))
    Layout(shape=(8, 8), n_chains=None, n=100, note='')
    >>> layout((4, 25, 8, 8), (8, 8)).n_chains, layout((100, 8, 8), (16, 16))
    (4, None)
    """
    if 0 in found or len(found) < 2:
        return None
    if shape is None:
        return _assumed(found, n_chains)
    for lead in (1, 2):  # (n, ...) before (n_chains, n, ...)
        axes = found[lead:]
        without_channel = (axes[1:] if axes[:1] == (1,) else None, axes[:-1] if axes[-1:] == (1,) else None)
        if tuple(shape) in (axes, *without_channel):
            chains = found[0] if lead == 2 else None
            note = f"assumed: {_two_axes(found[0])}; swap the two axes if they are (time, chain)"
            return Layout(tuple(shape), chains, math.prod(found[:lead]), note if chains else "")
    return None


def _two_axes(n_chains: int) -> str:
    return f"the first axis as {n_chains} chains, the second as the configurations of each in order"


def _assumed(found: tuple[int, ...], n_chains: int | None) -> Layout | None:
    # read flat, such a file would be n_chains chains of one configuration: never what is meant
    lead = 2 if n_chains is not None and n_chains == found[0] and len(found) > 2 else 1
    axes, said = found[lead:], []
    if lead == 2:
        said.append(_two_axes(found[0]))
    if len(axes) > 1 and 1 in (axes[0], axes[-1]):
        said.append(f"the {'first' if axes[0] == 1 else 'last'} axis of extent 1 as a channel")
        axes = axes[1:] if axes[0] == 1 else axes[:-1]
    if len(axes) > MAX_DIM:
        return None
    if said or len(axes) > 2:
        said.append(f"the lattice as {'x'.join(map(str, axes))}")
    note = f"assumed: {', '.join(said)}; give the lattice shape to say otherwise" if said else ""
    return Layout(axes, found[0] if lead == 2 else None, math.prod(found[:lead]), note)


def _no_fit(found: tuple[int, ...], shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return f"array of shape {found}, expected (n, L_1, ..., L_d) with 1 to {MAX_DIM} lattice axes"
    lattice = ", ".join(map(str, shape))
    return f"array of shape {found}, expected (n, {lattice}) or (n_chains, n, {lattice})"


def _chains(path: Path, fit: Layout, n_chains: int | None) -> int | None:
    if fit.n_chains is not None and n_chains not in (None, fit.n_chains):
        raise InputError(f"{path}: an axis of {fit.n_chains} chains, but n_chains = {n_chains} was given")
    if n_chains is not None and fit.n % n_chains:
        raise InputError(f"{path}: {fit.n} configurations are not {n_chains} chains of equal length")
    return fit.n_chains or n_chains


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return suffix
    if suffix in HDF5_SUFFIXES:
        return "HDF5"
    known = ", ".join((".npy", ".npz", *HDF5_SUFFIXES))
    raise InputError(f"{path}: unknown kind of file {suffix!r}; known: {known}")


def _check_type(where: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise InputError(f"{where} has type {dtype}; fields must be float32 or float64")


def _choose(path: Path, wanted: str | None, names: list[str], fitting: Mapping[str, tuple[int, ...]]) -> str:
    if wanted is not None:
        name = wanted if path.suffix.lower() == ".npz" else wanted.strip("/")
        if name not in names:
            raise InputError(f"{path}: no array {name!r}; it has {', '.join(sorted(names)[:20]) or 'none'}")
        return name
    if len(fitting) == 1:
        return next(iter(fitting))
    if len(names) == 1:
        return names[0]  # its type or shape is refused in its own words
    listed = ", ".join(f"{name} {found}" for name, found in sorted(fitting.items())[:20])
    if fitting:
        raise InputError(f"{path}: {len(fitting)} arrays could be the fields, name one as dataset: {listed}")
    has = ", ".join(sorted(names)[:20]) or "none"
    raise InputError(f"{path}: no array of a fitting shape and floating-point type; its arrays: {has}")


def _read_npy(path: Path, dataset: str | None, choose: Choose) -> tuple[Any, str | None]:
    if dataset is not None:
        raise InputError(f"{path}: an .npy file holds one array without a name; leave dataset out")
    # mapping compares the header with the size of the file
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    _check_type(str(path), array.dtype)
    return array, None


def _read_npz(path: Path, dataset: str | None, choose: Choose) -> tuple[Any, str | None]:
    infos, headers = {}, {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                key = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    infos[key], headers[key] = info, _npy_header(member)
    name = choose(headers)
    (found, dtype), info = headers[name], infos[name]
    _check_type(f"{path}: array {name!r}", dtype)
    claimed = math.prod(found) * dtype.itemsize
    if claimed > info.file_size or info.file_size > _MAX_RATIO * max(info.compress_size, 1):
        raise InputError(f"{path}: array {name!r} claims {claimed} bytes, which the file cannot hold")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name], name


def _npy_header(member: Any) -> Header:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array format {version} is for structured types")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


def _read_hdf5(path: Path, dataset: str | None, choose: Choose) -> tuple[Any, str | None]:
    with h5py.File(path, "r", locking="best-effort") as file:
        plain = _plain_datasets(file)
        name = choose({key: (data.shape, data.dtype) for key, data in plain.items()})
        data = plain[name]
        _check_type(f"{path}: /{name}", data.dtype)
        properties = data.id.get_create_plist()
        filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
        if not filters <= _FILTERS:
            raise InputError(f"{path}: /{name} has a filter besides gzip, lzf, shuffle and fletcher32")
        stored = data.id.get_storage_size() * (_MAX_RATIO if filters & _PACKING else 1)
        if data.nbytes > min(stored, _MAX_RATIO * path.stat().st_size):
            raise InputError(f"{path}: /{name} claims {data.nbytes} bytes, more than the file holds")
        return data[()], name


def _plain_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Datasets reached through hard links only, neither virtual nor external, by their path."""
    out: dict[str, h5py.Dataset] = {}
    todo: list[tuple[str, h5py.Group]] = [("", file)]
    seen = 0
    while todo:
        prefix, group = todo.pop()
        for key in group:
            seen += 1
            if seen > _MAX_OBJECTS or prefix.count("/") > 16:  # hard links can also form circles
                raise InputError(f"{file.filename}: more than {_MAX_OBJECTS} objects, or nested too deeply")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            item = group[key]
            if isinstance(item, h5py.Group):
                todo.append((f"{prefix}{key}/", item))
            elif isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external and item.shape:
                out[prefix + key] = item
    return out


_READERS = {".npy": _read_npy, ".npz": _read_npz, "HDF5": _read_hdf5}
