"""Fields from files of other programs: .npy, .npz, HDF5. Nothing in them is trusted.

Types, shapes and sizes are compared with what the file holds before anything is allocated; pickles, object
types, links to elsewhere, virtual and external data are refused. What an axis means is taken from the shape
and the layout the user gives; without them the reader says what it assumed (lattice.interchange.layouts).
Files are read in parts, and fields that are large lie in a temporary file, not in memory.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lattice.actions.protocol import check_shape
from lattice.arrays import Floats
from lattice.ensembles.shards import check_finite
from lattice.errors import InputError
from lattice.files import sha256_file, temporary_space
from lattice.interchange.families import family_of, others, spoken
from lattice.interchange.hdf5 import MAX_RATIO, Stack, check_stored, opened, plain_datasets
from lattice.interchange.kinds import kind_of
from lattice.interchange.layouts import Layout, layout, no_fit, parse_order

_IN_MEMORY = 2**29  # bytes of fields; more lie in a temporary file
_PART = 2**26  # bytes read at once


@dataclass(frozen=True)
class ForeignFields:
    """phi (n, *shape) float64, a temporary file mapped into memory where it is large; n_chains or None when
    unknown, chains one after the other; file: name, sha256, dataset, dtype, array_shape; notes for the
    reader; layout: what the axes of the array were taken for; whether that was said (`declared`), and whether
    the lattice was (`known_shape`)."""

    phi: Floats
    n_chains: int | None
    file: dict[str, Any]
    notes: list[str]
    layout: Layout
    declared: bool = False
    known_shape: bool = False


Header = tuple[tuple[int, ...], np.dtype[Any]]
Choose = Callable[[Mapping[str, Header]], list[str]]
"""The names of the fields among the arrays of a file, by their shapes and types; several are stacked."""
Found = tuple[Any, str | None]
"""An array that is read where it is indexed, and its name in the file."""


def read_foreign(
    path: Path, shape: tuple[int, ...] | None = None, dataset: str | None = None,
    n_chains: int | None = None, order: str | None = None,
) -> ForeignFields:  # fmt: skip
    """Read the fields of a .npy, .npz or HDF5 file, recognised by its content.

    The array is (n, *shape) or, with `shape` (or an `n_chains` equal to its first axis), (n_chains, n,
    *shape), with an optional channel axis of extent 1 before or after the lattice; with `shape` also (*shape,
    n) or flat, (n, V). `order` says it in words, such as "lattice,n" (lattice.interchange.layouts). `dataset`
    names the array of an .npz or HDF5 file, or a group of one array for each configuration, which are stacked
    in the order of their numbers; it may be left out when only one reading fits. `n_chains` says that the n
    configurations are that many chains of equal length, one after the other.

    Raises InputError naming the file: a folder, missing, damaged, not written to its end, locked by another
    program, of another type than float32 or float64, of no fitting shape, or with NaN or infinity (naming the
    first such configuration).
    """
    path = Path(path)
    kind = kind_of(path)
    if shape is not None:
        check_shape(shape)
    if n_chains is not None and n_chains < 1:
        raise InputError(f"n_chains must be at least 1, got {n_chains}")
    words = None if order is None else parse_order(order)

    def fit_of(found: tuple[int, ...]) -> Layout | None:
        return layout(found, shape, n_chains, words)

    def choose(headers: Mapping[str, Header]) -> list[str]:
        return _choose(path, kind, dataset, headers, fit_of, known=shape is not None)

    try:
        with _READERS[kind](path, dataset, choose) as (raw, name):
            fit = fit_of(tuple(raw.shape))
            if fit is None:
                raise InputError(f"{path}: {no_fit(tuple(raw.shape), shape, words)}")
            phi = _taken(raw, fit)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into the memory of this machine") from error
    # zlib and zipfile have exception types of their own; all of them mean a file that cannot be read
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path}: truncated, damaged or not a {kind} file ({reason})") from error
    check_finite(phi, f"{path}: ")
    notes = [fit.note] if fit.note else []
    if isinstance(raw, Stack):
        notes.append(f"stacked: {len(raw.members)} arrays, {name}, in the order of their numbers")
    if raw.dtype.itemsize == 4:
        notes.append("float32 in the file: fields are known to 7 digits")
    file = {
        "name": path.name, "sha256": sha256_file(path), "dataset": name, "dtype": raw.dtype.name,
        "array_shape": list(raw.shape),
    }  # fmt: skip
    return ForeignFields(
        phi, _chains(path, fit, n_chains), file, notes, fit, words is not None, shape is not None
    )


def _taken(raw: Any, fit: Layout) -> Floats:
    """The fields (n, *shape) of an array, a part of the configurations at a time."""
    sites, plain = math.prod(fit.shape), fit.order[-1] == "lattice" and fit.order != ("n", "chain", "lattice")
    large = 8 * fit.n * sites > _IN_MEMORY
    if large and plain and isinstance(raw, np.memmap) and raw.dtype == np.float64 and raw.flags.c_contiguous:
        return np.asarray(raw).reshape(
            fit.n, *fit.shape
        )  # as it is in the file, of which it is a private map
    phi = _room((fit.n, *fit.shape))
    at, n_chains = fit.axis_of("n", raw.ndim if hasattr(raw, "ndim") else len(raw.shape)), fit.n_chains or 1
    per_chain, step = fit.n // n_chains, max(1, _PART // (8 * sites))
    for chain in range(n_chains):
        for start in range(0, per_chain, step):
            index = [slice(None)] * len(raw.shape)
            index[at] = slice(start, start + step)
            if fit.n_chains is not None:
                index[fit.axis_of("chain", len(raw.shape))] = slice(chain, chain + 1)
            part = fit.arranged(np.asarray(raw[tuple(index)]))
            first = chain * per_chain + start
            phi[first : first + len(part)] = part
    return phi


def _room(shape: tuple[int, ...]) -> Floats:
    """An array for the fields: in memory, or a temporary file that goes when the array does."""
    if 8 * math.prod(shape) <= _IN_MEMORY:
        return np.empty(shape)
    with temporary_space(), tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, 8 * math.prod(shape))  # a full disk met later would be a crash
        mapped = np.memmap(file, dtype=np.float64, mode="r+", shape=shape)
    return np.asarray(mapped)


def _chains(path: Path, fit: Layout, n_chains: int | None) -> int | None:
    if fit.n_chains is not None and n_chains not in (None, fit.n_chains):
        raise InputError(f"{path}: an axis of {fit.n_chains} chains, but n_chains = {n_chains} was given")
    if n_chains is not None and fit.n % n_chains:
        raise InputError(f"{path}: {fit.n} configurations are not {n_chains} chains of equal length")
    return fit.n_chains or n_chains


def _check_type(where: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise InputError(
            f"{where} has type {dtype}: an array of objects (pickled, such as fields of unequal shapes in "
            "one list), which is not opened; fields must be float32 or float64: numpy.stack and save again"
        )
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise InputError(f"{where} has type {dtype}; fields must be float32 or float64")


def _choose(
    path: Path, kind: str, wanted: str | None, headers: Mapping[str, Header],
    fit_of: Callable[[tuple[int, ...]], Layout | None], *, known: bool,
) -> list[str]:  # fmt: skip
    """One name, or a family; known: the lattice is, without it stacked fields have two axes at most."""
    numbers = {name: header for name, header in headers.items() if header[1].kind == "f"}
    fitting = {name: found for name, (found, _) in numbers.items() if fit_of(found) is not None}
    if wanted is not None:
        name = wanted if kind == ".npz" else wanted.strip("/")
        if name in headers:
            return [name]
        if family := family_of(numbers, name):
            return _whole(path, family, headers)
        has = ", ".join(sorted(headers)[:20]) or "none"
        raise InputError(f"{path}: no array {name!r}; it has {has}")
    family = family_of(numbers)
    if family and set(fitting) <= set(family):
        member = headers[family[0]][0]
        if (known or len(member) <= 2) and fit_of((len(family), *member)) is not None:
            return _whole(path, family, headers)
    if len(fitting) == 1:
        return [next(iter(fitting))]
    if len(headers) == 1:
        return list(headers)  # its type or shape is refused in its own words
    listed = ", ".join(f"{name} {found}" for name, found in sorted(fitting.items())[:20])
    if fitting:
        ask = f"; or give the lattice shape, to stack {spoken(family)}" if family and not known else ""
        raise InputError(
            f"{path}: {len(fitting)} arrays could be the fields, name one as dataset: {listed}{ask}"
        )
    has = ", ".join(sorted(headers)[:20]) or "none"
    stacked = f"; {spoken(family)} have shape {headers[family[0]][0]} each" if family else ""
    raise InputError(
        f"{path}: no array of a fitting shape and floating-point type; its arrays: {has}{stacked}"
    )


def _whole(path: Path, family: list[str], headers: Mapping[str, Header]) -> list[str]:
    """The family, unless one of its names has another shape: a configuration that is none."""
    if odd := others(headers, family):
        shapes = f"{headers[odd[0]][0]}, not {headers[family[0]][0]}"
        raise InputError(
            f"{path}: {spoken(family)} could be stacked, but {odd[0]} has shape or type {shapes}; name "
            "a group"
        )
    return family


@contextlib.contextmanager
def _npy(path: Path, dataset: str | None, choose: Choose) -> Iterator[Found]:
    if dataset is not None:
        raise InputError(f"{path}: an .npy file holds one array without a name; leave dataset out")
    with open(path, "rb") as file:
        _check_type(str(path), _npy_header(file)[1])
    # mapping compares the header with the size of the file
    yield np.load(path, mmap_mode="c", allow_pickle=False), None


@contextlib.contextmanager
def _npz(path: Path, dataset: str | None, choose: Choose) -> Iterator[Found]:
    infos, headers = {}, {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                key = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    infos[key], headers[key] = info, _npy_header(member)
    names = choose(headers)
    for name in names:
        (found, dtype), info = headers[name], infos[name]
        _check_type(f"{path}: array {name!r}", dtype)
        claimed = math.prod(found) * dtype.itemsize
        if claimed > info.file_size or info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise InputError(f"{path}: array {name!r} claims {claimed} bytes, which the file cannot hold")
    with np.load(path, allow_pickle=False) as arrays:
        yield _one_or_stacked({name: arrays[name] for name in names})


@contextlib.contextmanager
def _hdf5(path: Path, dataset: str | None, choose: Choose) -> Iterator[Found]:
    with opened(path) as file:
        plain = plain_datasets(file)
        names = choose({key: (data.shape, data.dtype) for key, data in plain.items()})
        for name in names:
            _check_type(f"{path}: /{name}", plain[name].dtype)
            check_stored(path, name, plain[name])
        yield _one_or_stacked({name: plain[name] for name in names})


def _one_or_stacked(arrays: dict[str, Any]) -> Found:
    names = list(arrays)
    if len(names) == 1:
        return arrays[names[0]], names[0]
    return Stack(list(arrays.values())), f"{names[0]} ... {names[-1]}"


def _npy_header(member: Any) -> Header:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array format {version} is for structured types")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


_READERS = {".npy": _npy, ".npz": _npz, "HDF5": _hdf5}
