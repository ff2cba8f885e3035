"""Atomic writes, hashes, JSON, and the lock of a run folder."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from lattice import files
from lattice.errors import InputError, Notice


def child(code: str, *args: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "data.bin"
    files.write_atomic(path, b"one")
    files.write_atomic(path, lambda file: file.write(b"two") and None)
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["data.bin"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "disk full"),
        (errno.EACCES, "not writable"),
        (errno.EROFS, "not writable"),
    ],
)
def test_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    path = tmp_path / "data.bin"
    files.write_atomic(path, b"old")

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(InputError, match=words) as caught:
        files.write_atomic(path, b"new")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_size_limit_met_in_mid_write(tmp_path: Path) -> None:
    """A real short write, by a limit on the size of files: one line, nothing left behind."""
    code = (
        "import resource, sys; from pathlib import Path; from lattice.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "try: write_atomic(Path(sys.argv[1]) / 'big', b'x' * 10**6)\n"
        "except ValueError as error: print(error); sys.exit(3)"
    )
    process = child(code, str(tmp_path))
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "disk full" in out
    assert out.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "thing").write_text("")
    with pytest.raises(InputError, match="folder"):
        files.write_atomic(tmp_path / "thing" / "x", b"")
    with pytest.raises(InputError, match="folder"), files.run_lock(tmp_path / "thing"):
        pass


def test_exception_in_the_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(tmp_path / "x", fail)
    assert list(tmp_path.iterdir()) == []


def test_json_round_trip_and_bad_json(tmp_path: Path) -> None:
    data = {
        "a": np.float64(1.5),
        "b": np.arange(3),
        "c": math.nan,
        "d": (1, "x"),
        "e": np.bool_(True),
        "f": None,
    }
    files.write_json(tmp_path / "d.json", data)
    assert files.read_json(tmp_path / "d.json") == {
        "a": 1.5,
        "b": [0, 1, 2],
        "c": None,
        "d": [1, "x"],
        "e": True,
        "f": None,
    }
    for text in ("{", "[1]", "\x00\xff", "[" * 100000):
        (tmp_path / "bad.json").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=r"bad\.json"):
            files.read_json(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot be read"):
        files.read_json(tmp_path / "none.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"phi" * 1000)
    assert files.sha256_file(tmp_path / "x") == hashlib.sha256(b"phi" * 1000).hexdigest()


HOLD = (
    "import sys, time; from pathlib import Path; from lattice.files import run_lock\n"
    "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_second_process_gets_one_line_and_kill_releases(tmp_path: Path) -> None:
    holder = child(HOLD, str(tmp_path))
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process") as caught, files.run_lock(tmp_path):
            pass
        assert "\n" not in str(caught.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=10)
    with files.run_lock(tmp_path):
        pass
    with files.run_lock(tmp_path):  # and is released in the ordinary way too
        pass


UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, 524)


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The file system of a mount that does not know flock."""

    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)


@pytest.mark.parametrize("number", UNSUPPORTED)
def test_without_locks_a_marker_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "lock").touch()  # of an earlier run, where there were locks
    without_locks(monkeypatch, number)
    held = files.run_lock(tmp_path)
    with pytest.warns(Notice, match=r"this file system has no locks .* lock\.soft"):
        held.__enter__()
    assert (tmp_path / "lock.soft").exists()
    with (
        pytest.raises(InputError, match=f"process {os.getpid()} on .* is working") as caught,
        files.run_lock(tmp_path),
    ):
        pass
    assert f"remove {tmp_path / 'lock.soft'}" in str(caught.value)
    assert "\n" not in str(caught.value)
    held.__exit__(None, None, None)
    assert not (tmp_path / "lock.soft").exists()


def test_a_marker_of_a_killed_process_is_taken_over_here_and_named_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = "import errno, fcntl\ndef flock(*_): raise OSError(errno.ENOSYS, '')\nfcntl.flock = flock\n" + HOLD
    holder = child(hold, str(tmp_path))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    without_locks(monkeypatch, errno.ENOSYS)
    with pytest.raises(InputError, match=f"process {holder.pid} on"), files.run_lock(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=10)
    assert (tmp_path / "lock.soft").exists()
    with pytest.warns(Notice), files.run_lock(tmp_path):
        pass
    marker = tmp_path / "lock.soft"
    marker.write_text(f"{holder.pid}\nanother-node\n")
    with (
        pytest.raises(InputError, match=f"process {holder.pid} on another-node .* remove"),
        files.run_lock(tmp_path),
    ):
        pass
    marker.unlink()  # what the line advises
    with pytest.warns(Notice), files.run_lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_other_faults_of_a_lock_are_no_missing_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """EACCES is how some file systems say that another process holds it."""
    without_locks(monkeypatch, number)
    with pytest.raises(InputError), files.run_lock(tmp_path):
        pass
    assert not (tmp_path / "lock.soft").exists()


def test_a_full_folder_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("errno = 28, 'No space left on device'"),
    ):
        with pytest.raises(InputError, match=f"^{tmp_path}: disk full.*TMPDIR"), files.scratch_folder():
            raise error
        with (
            pytest.raises(InputError, match=f"^{tmp_path}: disk full.*TMPDIR"),
            files.scratch_folder() as folder,
        ):
            raise files.folder_error(folder, error) from error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="^as it is$"), files.scratch_folder():
        raise InputError("as it is")
    with pytest.raises(OSError, match="elsewhere"), files.scratch_folder():
        raise OSError(errno.EIO, "elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(InputError, match="set TMPDIR"), files.scratch_folder():
        pass


def test_set_aside_never_takes_a_name(tmp_path: Path) -> None:
    for k in (1, 2):
        (tmp_path / "a.txt").write_text(str(k))
        assert files.set_aside(tmp_path / "a.txt").name == f"a.txt.changed-{k}"
    assert [(tmp_path / f"a.txt.changed-{k}").read_text() for k in (1, 2)] == ["1", "2"]
    assert not (tmp_path / "a.txt").exists()


def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [
        f".a.{dead.pid}.diffsq.tmp",
        f"train/score/.b.{dead.pid}.diffsq.tmp",
        f".folder.{dead.pid}.diffsq.tmp/c",
    ]
    kept = [
        f".a.{os.getppid()}.diffsq.tmp",
        ".mine.tmp",
        f".mine.{dead.pid}.tmp",
        "x.7.diffsq.tmp",
        f"point/.a.{dead.pid}.diffsq.tmp",
        "point/lock",
    ]
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with files.run_lock(tmp_path):
        found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {*kept, "lock"}
