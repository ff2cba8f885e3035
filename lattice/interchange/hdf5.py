"""HDF5 files of other programs: which datasets they hold, and whether what is claimed was ever written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lattice.ensembles.shards import hdf5_fault
from lattice.errors import InputError

MAX_RATIO = 50  # uncompressed/compressed bytes; fields are noise, they never shrink like that
_MAX_OBJECTS = 100_000
_MAX_CHUNKS = 10**7
_PACKING = {1, 32000}  # deflate, lzf
_FILTERS = {*_PACKING, 2, 3}  # and shuffle, fletcher32: in every build of HDF5, and lossless


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file to read from; InputError where another program holds it open for writing."""
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if fault := hdf5_fault(error):
            raise InputError(f"{path}: {fault}") from error
        raise
    with file:
        yield file


def plain_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
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


def check_stored(path: Path, name: str, data: h5py.Dataset) -> None:
    """Refuse a dataset with filters that not every HDF5 has, one that is not all written, and one that claims
    more bytes than the file can hold."""
    properties = data.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if not filters <= _FILTERS:
        raise InputError(f"{path}: /{name} has a filter besides gzip, lzf, shuffle and fletcher32")
    _check_written(path, name, data)
    stored = data.id.get_storage_size() * (MAX_RATIO if filters & _PACKING else 1)
    if data.nbytes > min(stored, MAX_RATIO * path.stat().st_size):
        raise InputError(
            f"{path}: /{name} claims {data.nbytes} bytes, more than the file holds (fields are noise and "
            "never shrink so far: most of it is one number)"
        )


def _check_written(path: Path, name: str, data: h5py.Dataset) -> None:
    claim = f"{path}: /{name} claims {data.nbytes} bytes"
    if data.chunks is None:
        if data.id.get_storage_size() == 0:
            raise InputError(f"{claim}, of which none were ever written: it is empty, and reads as zeros")
        return
    pieces = [-(-extent // chunk) for extent, chunk in zip(data.shape, data.chunks)]
    written, expected = int(data.id.get_num_chunks()), math.prod(pieces)
    if written >= expected:
        return
    fill = f"{float(data.fillvalue):g}" if data.dtype.kind in "fiu" else "its fill value"
    there = ""
    if expected <= _MAX_CHUNKS and hasattr(data.id, "chunk_iter"):
        rows = np.zeros(pieces[0], dtype=np.int64)

        def count(info: Any) -> None:
            rows[info.chunk_offset[0] // data.chunks[0]] += 1

        data.id.chunk_iter(count)
        first = int(np.argmax(rows < expected // pieces[0])) * data.chunks[0]
        there = f"; the first {first} along its first axis are there: copy [:{first}] into a new file"
    raise InputError(
        f"{claim}, but {written} of its {expected} chunks were ever written and the rest reads as {fill}: "
        f"the program that wrote it was stopped half way, or still runs{there}"
    )


class Stack:
    """Datasets of one shape and type as one array with a first axis more; read where it is indexed."""

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = list(members)
        self.shape = (len(self.members), *members[0].shape)
        self.dtype: np.dtype[Any] = members[0].dtype

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        return np.stack([member[index[1:]] for member in self.members[index[0]]])
