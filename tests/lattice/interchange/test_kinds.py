"""Files by their content: the kinds that are read, what others are told, and HDF5 that is not at rest."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from foreign import SMALL, free_draws, saved

from lattice.ensembles.shards import read_shard
from lattice.errors import InputError
from lattice.interchange.kinds import kind_of
from lattice.interchange.reading import read_foreign


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_foreign(path, SMALL, **options)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    phi = free_draws(6, 1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["phi"] = phi
    with h5py.File(tmp_path / "b.h5", "w", userblock_size=512) as file:  # as JLD2 and MATLAB write
        file["phi"] = phi
    np.savez(tmp_path / "c.npz", phi=phi)
    saved(tmp_path, phi, "d.npy")
    for name, others in (("a.h5", ("e.nc", "plain", "f.npy")), ("b.h5", ("g.jld2", "h.mat")),
                         ("c.npz", ("bare", "i.dat")), ("d.npy", ("none", "j.bin", "k.h5"))):  # fmt: skip
        for other in others:
            (tmp_path / other).write_bytes((tmp_path / name).read_bytes())
            np.testing.assert_array_equal(read_foreign(tmp_path / other, SMALL).phi, phi)
    assert read_foreign(tmp_path / "bare", SMALL, "phi").file["dataset"] == "phi"


def test_what_is_not_read_says_what_it_is_and_what_to_do(tmp_path: Path) -> None:
    phi = free_draws(6, 1)
    torch.save(torch.from_numpy(phi), tmp_path / "a.pt")
    (tmp_path / "b.npy.gz").write_bytes(gzip.compress(saved(tmp_path, phi).read_bytes()))
    (tmp_path / "c").write_bytes(b"CDF\x02" + bytes(60))
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(phi))
    (tmp_path / "e.npy").write_bytes(b"")
    (tmp_path / "f.npz").write_bytes(pickle.dumps([phi]))
    for name, words in (
        ("a.pt", "is a PyTorch file.* numpy.save"), ("b.npy.gz", "gzip file; unpack it with gunzip"),
        ("c", "classic netCDF file; convert it with nccopy"), ("d.pkl", "is a pickle; .*numpy.save"),
        ("e.npy", "is empty"), ("f.npz", "is a pickle"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"{name}: .*{words}"):
            kind_of(tmp_path / name)


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    assert "is a folder; name one file of fields in it" in refusal(tmp_path)
    first = saved(tmp_path, free_draws(6, 1), "a.npy")
    assert f"is a folder; name a file in it, such as {first}" in refusal(tmp_path)
    saved(tmp_path, free_draws(6, 1), "b.npy")
    assert "or stack the 2 into one" in refusal(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert "it is an ensemble already: `diffsq measure`" in refusal(tmp_path)


def test_an_array_of_objects_is_called_so(tmp_path: Path) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.ones((4, 4)), np.ones((4, 5))]
    np.save(tmp_path / "a.npy", ragged, allow_pickle=True)
    np.savez(tmp_path / "b.npz", a=ragged)
    for name in ("a.npy", "b.npz"):
        text = refusal(tmp_path / name)
        assert "array of objects" in text
        assert "numpy.stack" in text
        assert "damaged" not in text


@pytest.mark.parametrize("packing", [None, "gzip"])
def test_half_written_data_says_how_far_they_go(tmp_path: Path, packing: str | None) -> None:
    phi = free_draws(100, 1)
    path = tmp_path / "half.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("phi", (100, 4, 4), "f8", chunks=(10, 4, 4), compression=packing)
        data[:60] = phi[:60]
        file.create_dataset("empty", (100, 4, 4), "f8")
    text = refusal(path, dataset="phi")
    assert "6 of its 10 chunks were ever written and the rest reads as 0" in text
    assert "the first 60 along its first axis are there" in text
    assert "damaged" not in text
    assert "none were ever written" in refusal(path, dataset="empty")
    with h5py.File(path, "a") as file:  # the control: once it is all written it is read
        file["phi"][60:] = phi[60:]
    np.testing.assert_array_equal(read_foreign(path, SMALL, "phi").phi, phi)


def test_a_file_that_another_program_writes_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "busy.jld2"
    code = (
        "import sys, time, h5py, numpy; file = h5py.File(sys.argv[1], 'w'); "
        "file['a'] = numpy.ones((5, 4, 4)); file.flush(); print('open', flush=True); sys.stdin.read()"
    )
    env = {name: text for name, text in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    try:
        assert "is locked by another program that writes it" in refusal(path)
        with pytest.raises(InputError, match="is locked by another program"):
            read_shard(path)
    finally:
        writer.communicate("", timeout=20)
    assert len(read_foreign(path, SMALL).phi) == 5


def many(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in arrays.items():
            file[name] = data
    return path


def test_one_dataset_for_each_configuration_is_stacked_in_the_order_of_numbers(tmp_path: Path) -> None:
    phi = free_draws(12, 1)
    fields = {f"cfg_{i}": phi[i] for i in range(12)}  # HDF5 and zip list cfg_10 before cfg_2
    flat = many(tmp_path / "a.h5", {**fields, "beta": np.ones(12), "cfg_old": np.zeros((4, 4))})
    deep = many(tmp_path / "b.h5", {f"traj_{i}/phi": phi[i] for i in range(12)})
    signs = {"plus": 1, "minus": -1}
    mixed = many(
        tmp_path / "c.h5", {f"{g}/{name}": signs[g] * x for g in signs for name, x in fields.items()}
    )
    np.savez(tmp_path / "d.npz", **fields)
    for path, options in ((flat, {}), (deep, {}), (tmp_path / "d.npz", {}), (mixed, {"dataset": "/plus"}),
                          (deep, {"shape": None})):  # fmt: skip
        found = read_foreign(path, **{"shape": SMALL, **options})
        np.testing.assert_array_equal(found.phi, phi)
        assert any("in the order of their numbers" in note for note in found.notes)
    assert read_foreign(flat, SMALL).file["dataset"] == "cfg_0 ... cfg_11"
    chains = many(tmp_path / "e.h5", {f"chain{i}": phi[4 * i : 4 * i + 4] for i in range(3)})
    found = read_foreign(chains, SMALL)
    assert (found.n_chains, found.phi.shape) == (3, (12, 4, 4))
    np.testing.assert_array_equal(found.phi, phi)
    with pytest.raises(InputError, match=r"3 arrays could be the fields.*give the lattice shape, to stack"):
        read_foreign(chains)
    odd = many(tmp_path / "f.h5", {**fields, "cfg_7": np.ones((4, 5))})
    assert "cfg_7 has shape or type (4, 5), not (4, 4)" in refusal(odd)
    both = many(tmp_path / "g.h5", {**fields, "phi": phi})  # the whole beside its parts: name one
    np.testing.assert_array_equal(read_foreign(both, SMALL).phi, phi)
