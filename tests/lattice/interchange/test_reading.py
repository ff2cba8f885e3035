"""Files of other programs: what their axes mean, which array is meant, and every way to be malformed."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from foreign import SMALL, free_draws, saved

from lattice.errors import InputError
from lattice.interchange.reading import layout, read_foreign


@pytest.mark.parametrize(
    ("found", "shape", "n_chains", "want"),
    [
        ((50, 8), None, None, ((8,), None, 50)),
        ((50, 8, 4), None, None, ((8, 4), None, 50)),
        ((50, 8, 4), (8, 4), None, ((8, 4), None, 50)),
        ((5, 10, 8, 4), (8, 4), None, ((8, 4), 5, 50)),
        ((5, 10, 8, 4), (10, 8, 4), None, ((10, 8, 4), None, 5)),  # no assumption either
        ((50, 1, 8, 4), (8, 4), None, ((8, 4), None, 50)),
        ((50, 8, 4, 1), (8, 4), None, ((8, 4), None, 50)),
        ((50, 1, 8), (1, 8), None, ((1, 8), None, 50)),  # an extent of 1 is a lattice like any other
        ((5, 10, 1, 8, 4), (8, 4), None, ((8, 4), 5, 50)),
        ((50, 8, 4), (4, 8), None, None),
        ((8, 4), (8, 4), None, None),
        ((0, 8, 4), None, None, None),
        ((2, 2, 2, 2, 2, 2, 2), None, None, None),
    ],
)
def test_layout(found: Any, shape: Any, n_chains: Any, want: Any) -> None:
    fit = layout(found, shape, n_chains)
    assert (None if fit is None else (fit.shape, fit.n_chains, fit.n)) == want
    assert fit is None or bool(fit.note) == (fit.n_chains is not None)


def test_what_was_assumed_is_said() -> None:
    channel, three = layout((50, 1, 8, 8), None), layout((50, 4, 8, 8), None)
    axis = layout((4, 9, 8, 8), None, 4)
    assert channel is not None
    assert channel.shape == (8, 8)
    assert "first axis of extent 1 as a channel" in channel.note
    assert three is not None
    assert "lattice as 4x8x8" in three.note
    assert axis is not None
    assert (axis.shape, axis.n_chains) == ((8, 8), 4)
    assert "the first axis as 4 chains, the second as the configurations of each in order" in axis.note
    two = layout((4, 9, 8, 8), (8, 8))
    assert two is not None
    assert two.note == (
        "assumed: the first axis as 4 chains, the second as the configurations of each in order; "
        "swap the two axes if they are (time, chain)"
    )


def test_formats_agree(tmp_path: Path) -> None:
    phi = free_draws(12, 1)
    saved(tmp_path, np.asfortranarray(phi), "a.npy")
    np.savez_compressed(tmp_path / "b.npz", beta=np.ones(12), cfg=phi)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["runs/a/cfg"] = phi
        file["runs/a/beta"] = np.arange(12.0)
        file.create_dataset("runs/ints", data=np.zeros((12, 4, 4), dtype=int))
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file.create_dataset("cfg", data=phi, compression="gzip", shuffle=True, chunks=(3, 4, 4))
    for name, dataset in (("a.npy", None), ("b.npz", "cfg"), ("c.h5", "runs/a/cfg"), ("d.hdf5", "cfg")):
        got = read_foreign(tmp_path / name, SMALL)
        np.testing.assert_array_equal(got.phi, phi)
        assert got.file["dataset"] == dataset
        assert got.phi.flags.writeable
        assert got.phi.flags.c_contiguous


def test_chains(tmp_path: Path) -> None:
    path = saved(tmp_path, free_draws(12, 1).reshape(3, 4, 4, 4))
    assert read_foreign(path, SMALL).n_chains == 3
    assert read_foreign(path, SMALL, n_chains=3).n_chains == 3
    with pytest.raises(InputError, match="an axis of 3 chains, but n_chains = 4"):
        read_foreign(path, SMALL, n_chains=4)
    with pytest.raises(InputError, match="12 configurations are not 5 chains"):
        read_foreign(saved(tmp_path, free_draws(12, 1)), SMALL, n_chains=5)


def test_which_dataset(tmp_path: Path) -> None:
    path = tmp_path / "two.h5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"], file["beta"] = free_draws(3, 1), free_draws(4, 2), np.ones(3)
    with pytest.raises(InputError, match=r"2 arrays could be the fields.*a \(3, 4, 4\), b \(4, 4, 4\)$"):
        read_foreign(path, SMALL)
    assert len(read_foreign(path, SMALL, "/b").phi) == 4
    with pytest.raises(InputError, match="no array 'c'; it has a, b, beta"):
        read_foreign(path, SMALL, "c")
    with pytest.raises(InputError, match=r"shape \(3,\), expected \(n, 4, 4\)"):
        read_foreign(path, SMALL, "beta")
    with pytest.raises(InputError, match="no array of a fitting shape"):
        read_foreign(path, (8, 8))
    with pytest.raises(InputError, match="leave dataset out"):
        read_foreign(saved(tmp_path, free_draws(3, 1)), SMALL, "a")


@pytest.mark.parametrize("dtype", ["f2", "i4", "c16", "S3", "?"])
def test_types(tmp_path: Path, dtype: str) -> None:
    data = np.ones((5, 4, 4)).astype(dtype)
    np.savez(tmp_path / "a.npz", a=data)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = data
    for path in (saved(tmp_path, data), tmp_path / "a.npz", tmp_path / "a.h5"):
        with pytest.raises(InputError, match=r"has type .*must be float32 or float64"):
            read_foreign(path, SMALL)


def test_not_finite(tmp_path: Path) -> None:
    phi = free_draws(9, 1)
    phi[4, 2, 1], phi[6, 0, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 of 9 configurations, first in configuration 4"):
        read_foreign(saved(tmp_path, phi))


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "trapped"),)

    traps = np.array([Trap(), Trap()], dtype=object)
    np.save(tmp_path / "a.npy", traps, allow_pickle=True)
    np.savez(tmp_path / "b.npz", a=traps)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(traps))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(InputError, match=name):
            read_foreign(tmp_path / name, SMALL)
    assert not (tmp_path / "trapped").exists()


def test_sizes_that_lie(tmp_path: Path) -> None:
    """Headers that claim more than the file holds are refused before memory is asked for."""
    header = str({"descr": "<f8", "fortran_order": False, "shape": (10**12, 4, 4)}).ljust(117) + "\n"
    liar = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 64
    (tmp_path / "a.npy").write_bytes(liar)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("a.npy", liar)
    np.savez_compressed(tmp_path / "c.npz", a=np.zeros((10**5, 4, 4)))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("a", shape=(10**9, 4, 4), dtype="f8", chunks=(1, 4, 4))
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("a", data=np.zeros((10**5, 4, 4)), compression="gzip", chunks=(1000, 4, 4))
    (tmp_path / "f.npy").write_bytes(saved(tmp_path, free_draws(9, 1)).read_bytes()[:-8])
    (tmp_path / "g.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
    (tmp_path / "h.npz").write_bytes(b"PK" + b"\0" * 50)
    for path in sorted(tmp_path.glob("?.*")):
        with pytest.raises(InputError, match=rf"{path.name}: .*(claims|truncated|damaged)"):
            read_foreign(path, SMALL)


def test_links_and_virtual_data(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = free_draws(5, 1)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["external"] = h5py.ExternalLink("secret.h5", "/a")
        file["soft"] = h5py.SoftLink("/external")
        virtual = h5py.VirtualLayout(shape=(5, 4, 4), dtype="f8")
        virtual[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "a", shape=(5, 4, 4))
        file.create_virtual_dataset("virtual", virtual)
        file.create_dataset("raw", (5, 4, 4), "f8", external=[(str(tmp_path / "secret.h5"), 0, 640)])
        file["circle/again"] = file["/"]
    for name in ("external", "soft", "virtual", "raw"):
        with pytest.raises(InputError, match=r"no array|too deeply"):
            read_foreign(tmp_path / "b.h5", SMALL, name)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"unknown kind of file '\.csv'; known: \.npy, \.npz, \.h5"):
        read_foreign(tmp_path / "a.csv")
    with pytest.raises(InputError, match="no such file"):
        read_foreign(tmp_path / "b.npy")
