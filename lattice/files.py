"""Files that survive: atomic writes, hashes, provenance, and the lock of a run folder.

A file appears under its own name only when it is complete and on the disk: write a temporary file beside it,
fsync, rename, fsync the folder. A kill -9 leaves at worst a `*.tmp` that no reader looks at.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock

from lattice.errors import InputError, Notice

_MAX_JSON = 64 * 2**20
_TEMPORARY = re.compile(
    r"\..+\.(\d+)\.diffsq\.tmp"
)  # of `replacing`; so called that no file of the user's is one
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# of flock where there are no locks; 524 is the kernel's own ENOTSUPP, which some servers let through
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, 524)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`: the file or folder written there takes its place when the block ends.

    Missing parent folders are made. Where the block fails, what was written is removed and an older `path`
    stays as it was; an error of the operating system becomes an InputError naming the folder.
    """
    tmp = path.with_name(f".{path.name}.{os.getpid()}.diffsq.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield tmp
        os.replace(tmp, path)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise folder_error(path.parent, error) from error
    finally:
        _remove(tmp)


def write_atomic(path: Path, content: bytes | Callable[[IO[bytes]], None]) -> None:
    """Write `path` so that it is either absent (or its old self) or complete; errors as in `replacing`.

    `content` is the bytes, or a function that writes them to the open binary file it is given.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...     write_atomic(Path(d) / "a.txt", b"kappa"); (Path(d) / "a.txt").read_bytes()
    b'kappa'
    """
    with replacing(Path(path)) as tmp, open(tmp, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def folder_error(folder: Path, error: OSError) -> InputError:
    """The one-line InputError for an operating-system error met while writing in `folder`."""
    what = f"cannot be written: {error.strerror or error}"
    if error.errno in _FULL:
        what = "disk full or over quota while writing; free some space and run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = "not writable (permission denied or read-only); choose a folder you may write to"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        what = "cannot be used as a folder, a file of another kind is in the way"
    return InputError(f"{folder}: {what}")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, removed when the block ends; errors as in `temporary_space`."""
    with temporary_space(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def temporary_space() -> Iterator[None]:
    """Around work with temporary files: InputError, naming their folder and TMPDIR, when it cannot be written
    or is full."""
    try:
        place = tempfile.gettempdir()
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, f"{place} cannot be written")
    except OSError as error:
        raise InputError(
            f"no temporary folder can be made ({error.strerror or error}); set TMPDIR to one that can "
            "be written"
        ) from error
    try:
        yield
    except (OSError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        full = isinstance(cause, OSError) and (cause.errno in _FULL or "No space left" in str(cause))
        if not full:
            raise
        raise InputError(
            f"{place}: disk full or over quota, in the folder for temporary files; free some space there, or "
            "set TMPDIR to another folder, and run the same command again"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in `folder` and below it, but not in a folder with a
    lock of its own, nor those of a process that lives. Call it only while holding the folder's lock."""
    for here, folders, names in os.walk(folder):
        for name in (*names, *folders):
            if (found := _TEMPORARY.fullmatch(name)) and not _lives(int(found[1])):
                _remove(Path(here) / name)
        folders[:] = [
            name
            for name in folders
            if not (_TEMPORARY.fullmatch(name) or (Path(here) / name / "lock").exists())
        ]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return pid != os.getpid()


def set_aside(path: Path) -> Path:
    """Rename a file that is in the way to NAME.changed-1, or the first such name that is free; the name."""
    n = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.changed-{n}")):
        n += 1
    path.rename(aside)
    return aside


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, atomically. NaN and infinity are written as null: they are not JSON."""
    write_atomic(path, (json.dumps(_finite(data), indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError when the file is missing, too large, or not a JSON object."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_JSON:
            raise InputError(f"{path}: too large for a JSON file of this project")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def json_data(data: Any, what: str) -> Any:
    """`data` as JSON data: NumPy's numbers, texts and arrays as Python's, tuples as lists.

    What JSON cannot hold, and would change or lose, is an InputError that names it: `what` and its keys.

    >>> json_data({"beta": (1, 2.5)}, "attrs")
    {'beta': [1, 2.5]}
    >>> json_data({"beta": 1j}, "attrs")
    Traceback (most recent call last):
        ...
    lattice.errors.InputError: attrs.beta is of type complex, which JSON cannot hold: pass [z.real, z.imag]
    """
    dtype = getattr(data, "dtype", None)
    kind = getattr(dtype, "kind", "")
    exact = kind == "U" or (kind in ("b", "i", "u", "f") and dtype is not None and dtype.itemsize <= 8)
    if exact and not hasattr(data, "compressed"):  # a scalar or array of NumPy, without a mask
        data = data.tolist()
    if data is None or type(data) in (bool, int, str):
        return data
    if isinstance(data, float) and data - data == 0:
        return float(data)
    if isinstance(data, list | tuple):
        return [json_data(x, f"{what}[{i}]") for i, x in enumerate(data)]
    if isinstance(data, dict):
        for key in data:
            if not isinstance(key, str):
                raise InputError(f"{what} has the key {key!r}: keys are text, pass {str(key)!r}")
        return {str(key): json_data(x, f"{what}.{key}") for key, x in data.items()}
    advice = "pass numbers, text, lists, or dicts of them"
    if "complex" in f"{type(data).__name__} {dtype}":
        advice = "pass [z.real, z.imag]"
    found = f"{data}" if isinstance(data, float) else f"of type {type(data).__name__}"
    raise InputError(f"{what} is {found}, which JSON cannot hold: {advice}")


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces: equal data give equal text, which is what gets hashed.

    >>> canonical_json({"b": 1, "a": [2.0]})
    '{"a":[2.0],"b":1}'
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_bytes(content: bytes) -> str:
    """The hexadecimal sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_text(text: str) -> str:
    """The hexadecimal sha256 of a text."""
    return sha256_bytes(text.encode())


def sha256_file(path: Path) -> str:
    """The hexadecimal sha256 of a file. Raises InputError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the operating system lets go of it when it ends, also by kill -9. What
    killed processes left half written in it is removed (`remove_leftovers`).

    Where the file system has no locks (some mounts of Lustre and NFS) a marker, lock.soft, holds the folder,
    with a Notice: one that a killed process left on this machine is taken over, one from elsewhere is named.
    Raises InputError at once when another process holds the folder, when it cannot be written, and when a
    file called "lock" in it has a content: it is somebody else's.
    """
    folder = Path(folder)
    if (folder / "lock").is_file() and (folder / "lock").stat().st_size:
        raise InputError(
            f"{folder / 'lock'}: not diffsq's lock, it has a content; choose another folder, or move it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _held(folder)
    except OSError as error:
        raise folder_error(folder, error) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()


def _held(folder: Path) -> filelock.BaseFileLock:
    lock: filelock.BaseFileLock = filelock.FileLock(folder / "lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
        return lock
    except filelock.Timeout:
        raise InputError(
            f"{folder}: another process is working in this run folder; wait for it, or choose another folder"
        ) from None
    except NotImplementedError as error:
        reason = str(error)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        reason = error.strerror or str(error)
    marker = folder / "lock.soft"
    lock = filelock.SoftFileLock(marker, timeout=0.2)  # some versions take a dead one over at the second try
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(
            f"{folder}: {_holder(marker)} is working in this run folder; "
            f"wait for it, or, if it was killed and no longer runs, remove {marker}"
        ) from None
    warnings.warn(
        f"{folder}: this file system has no locks ({reason}); the marker {marker.name} holds the folder "
        "instead, and stays there if this process is killed",
        Notice, stacklevel=4,
    )  # fmt: skip
    return lock


def _holder(marker: Path) -> str:
    """Who wrote a marker: its first lines are a process number and the name of a machine."""
    try:
        lines = marker.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    return f"process {lines[0]} on {lines[1]}" if len(lines) > 1 else "another process"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if hasattr(data, "tolist"):  # NumPy scalars and arrays
        return _finite(data.tolist())
    if isinstance(data, float) and not (data - data == 0.0):
        return None
    return data
