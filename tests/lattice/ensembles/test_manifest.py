"""The manifest of an ensemble folder: what it says is checked, what is missing is named."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from stored import ACTION, refused

from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import read_ensemble
from lattice.ensembles.manifest import new_manifest, shards_identity
from lattice.errors import InputError
from lattice.files import read_json, write_json


def test_wrong_action_and_missing_things(tmp_path: Path, folder: Path, shard: Path) -> None:
    with pytest.raises(InputError, match=r"0\.28"):
        read_ensemble(shard, ScalarPhi4(0.28, 0.022))
    with pytest.raises(InputError, match=r"0\.28"):
        read_ensemble(folder, ScalarPhi4(0.28, 0.022))
    refused(tmp_path / "nowhere", "no such file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no ensemble here")
    folder.rename(tmp_path / "ensemble")
    refused(tmp_path, "run folder")
    (tmp_path / "ensemble" / "manifest.json").unlink()
    refused(tmp_path / "ensemble", "not finished")


def test_manifest_is_checked(folder: Path, shard: Path) -> None:
    manifest = read_json(folder / "manifest.json")
    for change, words in (
        ({"schema": "x"}, "schema"),
        ({"complete": False}, "not complete"),
        ({"shards": [{"name": "../shard-0000.h5", "n": 1, "sha256": ""}]}, "malformed"),
        ({"shards": [{"name": "shard-0009.h5", "n": 1, "sha256": ""}]}, "missing"),
        ({"shards": [{"name": "shard-0000.h5", "n": 12, "sha256": "0" * 64}]}, "changed since"),
        ({"shape": [6, 4]}, "lattice"),
        ({"action": None}, "action is missing"),
        ({"attrs": [[1, 2], [3]]}, "malformed attrs"),
        ({"action": {"kind": "phi4", "convention": "bare", "kappa": 0.27, "lam": 0.022}}, "convention"),
    ):
        write_json(folder / "manifest.json", {**manifest, **change})
        refused(folder, words)
    write_json(folder / "manifest.json", manifest)
    with h5py.File(shard, "a") as file:
        file["phi"][0, 0, 0] += 1.0
    refused(folder, "changed since")


def test_identity_is_that_of_the_shards_in_their_order() -> None:
    one = new_manifest(ACTION, (4, 6), "k", [{"name": "a", "n": 3, "sha256": "x"}], {"note": "mine"})
    assert (one["n"], one["complete"], one["note"]) == (3, True, "mine")
    assert one["identity"] == shards_identity(["x"]) != shards_identity(["y"])
    assert shards_identity(["x", "y"]) != shards_identity(["y", "x"])
