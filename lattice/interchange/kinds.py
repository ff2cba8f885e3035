"""What kind of file it is, by its first bytes; the suffix decides only where these say nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

from lattice.errors import InputError

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
_SAVE = "save the fields with numpy.save"
_STRANGERS = {  # first bytes of files that hold no plain array, and what to do
    b"CDF": ("a classic netCDF file", "convert it with nccopy -k nc4 OLD.nc NEW.nc"),
    b"\x1f\x8b": ("a gzip file", "unpack it with gunzip"),
    b"BZh": ("a bzip2 file", "unpack it with bunzip2"),
    b"\xfd7zXZ": ("an xz file", "unpack it with unxz"),
    b"(\xb5/\xfd": ("a zstd file", "unpack it with unzstd"),
    b"MATLAB 5": ("a MATLAB file of version 5 to 7", "save it with -v7.3, which is HDF5"),
    b"\x80\x02": ("a pickle", f"pickles are not opened, they can run code; {_SAVE}"),
    b"\x80\x03": ("a pickle", f"pickles are not opened, they can run code; {_SAVE}"),
    b"\x80\x04": ("a pickle", f"pickles are not opened, they can run code; {_SAVE}"),
    b"\x80\x05": ("a pickle", f"pickles are not opened, they can run code; {_SAVE}"),
}


def kind_of(path: Path) -> str:
    """ ".npy", ".npz" or "HDF5" (also of .jld2, .nc, .mat of version 7.3, or without a suffix).

    Raises InputError for a folder, a missing or empty file, and for kinds that are not read, with what to do.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; {_inside(path)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            if _is_hdf5(file):
                return "HDF5"
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith(b"\x93NUMPY"):
        return ".npy"
    if head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        return _archive(path)
    for start, (what, advice) in _STRANGERS.items():
        if head.startswith(start):
            raise InputError(f"{path}: is {what}; {advice}")
    suffix = path.suffix.lower()
    if not head:
        raise InputError(f"{path}: is empty (0 bytes)")
    if suffix in (".npy", ".npz"):
        return suffix
    if suffix in HDF5_SUFFIXES:
        return "HDF5"
    known = ", ".join((".npy", ".npz", *HDF5_SUFFIXES))
    raise InputError(
        f"{path}: unknown kind of file {suffix!r}; known: {known}, by their content whatever the name; "
        f"of numbers in text or raw bytes, {_SAVE} after numpy.loadtxt or numpy.fromfile"
    )


def _is_hdf5(file: IO[bytes]) -> bool:
    """Whether the signature is there: at byte 0, 512, 1024, 2048, ..., as a user's block may come before it.
    h5py itself cannot say so of a file that is locked."""
    size, at = file.seek(0, 2), 0
    while at < size:
        file.seek(at)
        if file.read(8) == b"\x89HDF\r\n\x1a\n":
            return True
        at = 2 * at or 512
    return False


def _archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(".npy") for name in names):
        return ".npz"
    if any(name.endswith("data.pkl") for name in names):
        raise InputError(f"{path}: is a PyTorch file, a pickle, which can run code; {_SAVE}: phi.numpy()")
    raise InputError(f"{path}: is a zip archive without arrays; unpack it and name a file in it")


def _inside(folder: Path) -> str:
    """What to name instead of a folder."""
    if (folder / "manifest.json").exists():
        return "it is an ensemble already: `diffsq measure` and the configs take it as it is"
    if (folder / ".zarray").exists() or (folder / "zarr.json").exists():
        return "zarr is not read; save the fields with numpy.save"
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in (".npy", ".npz", *HDF5_SUFFIXES)
    )
    if not files:
        return "name one file of fields in it (.npy, .npz or HDF5)"
    several = (
        f" or stack the {len(files)} into one (numpy.stack, numpy.concatenate)" if len(files) > 1 else ""
    )
    return f"name a file in it, such as {files[0]},{several}".rstrip(",")
