"""Philox against its published vectors, the maps to uniforms and normals, and the promise about keys."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from scipy import stats

from lattice.errors import InputError
from lattice.rng import check_counters, normals, philox, stream_id, uniforms

FULL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known-answer vectors of the Random123 distribution (Salmon et al., SC'11), philox4x32, 10 rounds
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, expected):
    words = philox(*(np.uint64(w) for w in counter + key))
    assert tuple(int(w) for w in words) == expected


def test_uniforms_are_the_counter_words():
    """Position 5 of a stream is the second half of counter block 2, as the file says."""
    seed, index, step = 0x0123456789ABCDEF, 77, 12
    key = (seed & FULL, seed >> 32)
    words = [int(w) for w in philox(*map(np.uint64, (2, step, index, stream_id("test"), *key)))]
    expected = [((words[i] | words[i + 1] << 32) >> 12) + 0.5 for i in (0, 2)]
    drawn = uniforms(seed, "test", np.array([index]), step, 6)[0, 4:]
    np.testing.assert_array_equal(drawn, np.array(expected) * 2.0**-52)


def test_normals_are_box_muller_of_the_uniforms():
    u = uniforms(3, "x", np.arange(50), 1, 2000).reshape(-1, 2)
    z = normals(3, "x", np.arange(50), 1, 2000).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log(u[:, 0])), 2 * np.pi * u[:, 1] - np.pi / 4
    np.testing.assert_allclose(z[:, 0], radius * np.cos(angle), rtol=0, atol=1e-14)
    np.testing.assert_allclose(z[:, 1], radius * np.sin(angle), rtol=0, atol=1e-14)


def test_normals_are_normal():
    z = normals(11, "test/normal", np.arange(1000), 0, 1000).ravel()
    n = z.size
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10395 - 225)):
        assert abs(np.mean(z**power) - moment) < 4.5 * math.sqrt(variance / n), power
    assert stats.kstest(z, "norm").pvalue > 1e-5
    tail = np.mean(np.abs(z) > 4)
    p = 2 * stats.norm.sf(4)
    assert abs(tail - p) < 4.5 * math.sqrt(p / n)


def test_uniforms_are_uniform_and_open():
    u = uniforms(12, "test/uniform", np.arange(1000), 0, 1000).ravel()
    assert u.min() > 0
    assert u.max() < 1
    counts = np.histogram(u, bins=256, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-5


@pytest.mark.parametrize("draw", [normals, uniforms])
def test_no_correlation_between_neighbouring_keys(draw):
    """Positions, indices, steps, streams and seeds next to each other: correlations within 4.5/sqrt(n)."""
    index = np.arange(400)
    base = draw(5, "a", index, 7, 501)
    base = (base - base.mean()) / base.std()
    others = {
        "position": (base[:, :-1], base[:, 1:]),
        "index": (base[:-1], base[1:]),
    }
    for name, args in {
        "step": (5, "a", index, 8),
        "stream": (5, "b", index, 7),
        "seed": (6, "a", index, 7),
    }.items():
        other = draw(*args, 501)
        others[name] = (base, (other - other.mean()) / other.std())
    for name, (a, b) in others.items():
        assert abs(np.mean(a * b)) * math.sqrt(a.size) < 4.5, name


@pytest.mark.parametrize("draw", [normals, uniforms])
def test_numbers_depend_on_their_key_only(draw):
    whole = draw(9, "s", np.arange(20), 3, 33)
    permuted = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(draw(9, "s", permuted, 3, 33), whole[permuted])
    for size in (1, 2, 7, 32):
        np.testing.assert_array_equal(draw(9, "s", np.array([4]), 3, size)[0], whole[4, :size])
    assert not np.array_equal(draw(9, "s", np.arange(20), 4, 33), whole)


def test_largest_keys():
    z = normals(2**64 - 1, "s", np.array([2**32 - 1]), 2**32 - 1, 3)
    assert np.isfinite(z).all()
    assert not np.array_equal(z, normals(2**32 - 1, "s", np.array([2**32 - 1]), 2**32 - 1, 3))


@pytest.mark.parametrize(
    ("seed", "index", "step", "message"),
    [
        (-1, [0], 0, "seed must be"),
        (2**64, [0], 0, "seed must be"),
        (0, [-1], 0, "indices"),
        (0, [2**32], 0, "indices"),
        (0, [0.5], 0, "indices"),
        (0, [0], -1, "step number"),
        (0, [0], 2**32, "step number"),
    ],
)
def test_bad_keys(seed, index, step, message):
    with pytest.raises(InputError, match=message):
        check_counters(seed, np.array(index), step)


def test_an_installation_that_cannot_be_written_compiles_uncached_and_says_so_once(tmp_path: Path) -> None:
    """A copy whose __pycache__ cannot be folders, and no home: root too cannot write there."""
    shutil.copytree(ROOT / "lattice", tmp_path / "lattice", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [path for path in (tmp_path / "lattice").rglob("*") if path.is_dir()]:
        (folder / "__pycache__").touch()
    (tmp_path / "lattice" / "__pycache__").touch()
    known = {
        name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
    }
    load = "import numpy as np; from lattice.rng import philox, __file__\n"
    call = "z = np.uint64(0); print(__file__, *(f'{w:08x}' for w in philox(z, z, z, z, z, z)))"

    def run(code: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {**known, "HOME": "/dev/null", "PYTHONPATH": str(tmp_path), **more}
        return subprocess.run(
            [sys.executable, "-B", "-c", code],
            env=env,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=True,
        )

    done = run(load + call)
    assert done.stdout.split() == [
        str(tmp_path / "lattice/rng.py"), "6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"
    ]  # fmt: skip
    assert done.stderr.count("set NUMBA_CACHE_DIR to a folder that can be written") == 1
    assert "Traceback" not in done.stderr
    assert run(load, NUMBA_CACHE_DIR=str(tmp_path / "cache")).stderr == ""  # the advice works
