"""Ensembles in memory and on disk: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, EnsembleWriter, read_ensemble, write_ensemble
from lattice.errors import InputError
from lattice.files import read_json, sha256_file, write_json

ACTION = ScalarPhi4(0.27, 0.022)


def fields(n: int = 12, shape: tuple[int, ...] = (4, 6)) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(3).normal(size=(n, *shape))


def ensemble(**more: Any) -> Ensemble:
    return Ensemble.from_fields(fields(), ACTION, chain=np.tile(np.arange(3), 4), **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_ensemble(ensemble(series={"dH": np.linspace(-1, 1, 12)}), tmp_path / "e")
    return tmp_path / "e"


@pytest.fixture
def shard(folder: Path) -> Path:
    return folder / "shard-0000.h5"


def test_series_by_their_definition() -> None:
    e, phi = ensemble(), fields()
    site_sum = np.zeros(12)
    for x in range(4):
        for y in range(6):
            here = phi[:, x, y]
            hop = phi[:, (x + 1) % 4, y] + phi[:, x, (y + 1) % 6]
            site_sum += -2 * 0.27 * here * hop + (1 - 2 * 0.022) * here**2 + 0.022 * here**4
    np.testing.assert_allclose(e.series["action"], site_sum, rtol=1e-12)
    np.testing.assert_allclose(e.series["magnetization"], phi.mean(axis=(1, 2)), atol=1e-15)
    np.testing.assert_allclose(e.series["phi2"], (phi**2).mean(axis=(1, 2)), rtol=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(8,), (4, 6), (2, 3, 4)])
def test_round_trip(tmp_path: Path, weighted: bool, shape: tuple[int, ...]) -> None:
    weights = np.linspace(-3, 2, 12) if weighted else None
    e = Ensemble.from_fields(
        fields(shape=shape),
        ACTION,
        chain=np.arange(12) % 2,
        log_weight=weights,
        attrs={"n_therm": 7, "generated": {"sampler": "x"}},
    )
    manifest = write_ensemble(e, tmp_path / "a", {"note": "mine"})
    back = read_ensemble(tmp_path / "a", ACTION)
    assert np.array_equal(back.phi, e.phi)
    assert np.array_equal(back.trajectory, e.trajectory)
    assert set(back.series) == set(e.series)
    assert back.action == ACTION
    assert back.attrs["n_therm"] == 7
    assert back.attrs["generated"] == {"sampler": "x"}
    assert back.attrs["boundary"] == "periodic"
    assert back.identity == manifest["identity"]
    assert manifest["note"] == "mine"
    assert (back.log_weight is None) == (not weighted)
    if weights is not None:
        assert np.array_equal(back.log_weight, weights)
    single = read_ensemble(tmp_path / "a" / "shard-0000.h5")
    assert np.array_equal(single.phi, e.phi)
    assert single.identity == back.identity


def test_equal_content_equal_bytes_and_schema(tmp_path: Path, shard: Path) -> None:
    again = tmp_path / "again"
    write_ensemble(ensemble(series={"dH": np.linspace(-1, 1, 12)}), again)
    assert sha256_file(again / "shard-0000.h5") == sha256_file(shard)
    with h5py.File(shard) as file:
        assert file["phi"].chunks == (1, 4, 6)
        assert file["phi"].fletcher32
        assert file["phi"].compression is None
        assert file["phi"].dtype == np.float64
        assert file["chain"].dtype == np.int64
        assert file["trajectory"].dtype == np.int64
        assert set(file["series"]) == {"action", "magnetization", "phi2", "dH"}
        assert file.attrs["schema"] == "diffsq-ensemble/1"
        assert json.loads(file.attrs["action"]) == {
            "kind": "phi4",
            "convention": "kappa-lambda",
            "kappa": 0.27,
            "lam": 0.022,
        }


def test_replicas_and_split_by_chains() -> None:
    e = Ensemble.from_fields(
        fields(), ACTION, chain=[5, 2] * 6, trajectory=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 11, 10]
    )
    two, five = e.replicas()
    assert set(e.chain[two]) == {2}
    assert (np.diff(e.trajectory[two]) > 0).all()
    assert set(e.chain[five]) == {5}
    assert (np.diff(e.trajectory[five]) > 0).all()
    e = Ensemble.from_fields(fields(40), ACTION, chain=np.arange(40) % 10)
    train, held = e.split_chains(0.2)
    assert len(train) == 32
    assert len(held) == 8
    assert not set(train.chain) & set(held.chain)
    assert len({e.identity, train.identity, held.identity}) == 3
    with pytest.raises(InputError, match="one chain"):
        Ensemble.from_fields(fields(), ACTION).split_chains(0.2)
    with pytest.raises(InputError, match="between 0 and 1"):
        e.split_chains(1.5)


def test_select_by_index_and_mask() -> None:
    e = ensemble(log_weight=np.arange(12.0))
    a, b = e.select([3, 3, 1]), e.select(e.chain == 1)
    assert np.array_equal(a.phi, e.phi[[3, 3, 1]])
    assert a.log_weight is not None
    assert a.log_weight.tolist() == [3, 3, 1]
    assert set(b.chain) == {1}
    assert np.array_equal(b.series["action"], e.series["action"][e.chain == 1])
    with pytest.raises(InputError, match="no configuration"):
        e.select([])


def test_writer_keeps_sound_shards_and_replaces_damaged_ones(tmp_path: Path) -> None:
    def write(key: str = "k") -> list[bool]:
        writer = EnsembleWriter(tmp_path, ACTION, (4, 6), key, {"seed": 2**63 + 5})
        parts = [slice(0, 5), slice(5, 12)]
        done = [
            writer.append(
                k, phi=e.phi[p], chain=e.chain[p], trajectory=e.trajectory[p], state={"trajectory": k}
            )
            for k, p in enumerate(parts)
        ]
        writer.finish({"certificate": {"passed": True}})
        return done

    e = ensemble()
    assert write() == [True, True]
    identity = read_ensemble(tmp_path).identity
    assert write() == [False, False]
    path = tmp_path / "shard-0001.h5"
    path.write_bytes(path.read_bytes()[:-100])
    assert write() == [False, True]
    back = read_ensemble(tmp_path)
    assert back.identity == identity
    assert back.attrs["seed"] == 2**63 + 5
    assert back.attrs["certificate"] == {"passed": True}
    assert np.array_equal(back.phi, e.phi)
    with pytest.raises(InputError, match="other parameters"):
        write("another")
    writer = EnsembleWriter(tmp_path / "gap", ACTION, (4, 6), "k", {})
    writer.append(1, phi=e.phi, chain=e.chain, trajectory=e.trajectory)
    with pytest.raises(InputError, match="complete sequence"):
        writer.finish()


def test_nan_is_refused_before_it_is_written(tmp_path: Path) -> None:
    bad = fields()
    bad[7, 1, 1] = np.nan
    with pytest.raises(InputError, match="configuration 7"):
        Ensemble.from_fields(bad, ACTION)
    writer = EnsembleWriter(tmp_path, ACTION, (4, 6), "k", {})
    with pytest.raises(InputError, match="configuration 7"):
        writer.append(0, phi=bad, chain=np.zeros(12, dtype=np.int64), trajectory=np.arange(12))
    assert list(tmp_path.iterdir()) == []


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_ensemble(path, ACTION)
    assert "\n" not in str(caught.value)


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
        ({"action": {"kind": "phi4", "convention": "bare", "kappa": 0.27, "lam": 0.022}}, "convention"),
    ):
        write_json(folder / "manifest.json", {**manifest, **change})
        refused(folder, words)
    write_json(folder / "manifest.json", manifest)
    with h5py.File(shard, "a") as file:
        file["phi"][0, 0, 0] += 1.0
    refused(folder, "changed since")


def set_attr(name: str, value: Any) -> Any:
    return lambda file: file.attrs.__setitem__(name, value)


def replace(name: str, data: Any, **more: Any) -> Any:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, **more)

    return change


def soft_link(file: h5py.File) -> None:
    file.move("phi", "elsewhere")
    file["phi"] = h5py.SoftLink("/elsewhere")


def external_link(file: h5py.File) -> None:
    del file["phi"]
    file["phi"] = h5py.ExternalLink("other.h5", "/phi")


def linked_group(file: h5py.File) -> None:
    file.move("series", "elsewhere")
    file["series"] = h5py.SoftLink("/elsewhere")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((12, 4, 6), dtype="<f8")
    layout[:] = h5py.VirtualSource("other.h5", "phi", (12, 4, 6))
    del file["phi"]
    file.create_virtual_dataset("phi", layout)


def external_data(file: h5py.File) -> None:
    del file["phi"]
    file.create_dataset("phi", (12, 4, 6), "<f8", external=[("/etc/hostname", 0, 2304)])


def objects(file: h5py.File) -> None:
    del file["chain"]
    file.create_dataset("chain", (12,), dtype=h5py.string_dtype())


def huge(file: h5py.File) -> None:
    del file["phi"]
    file.create_dataset("phi", (2**36, 4, 6), "<f8", chunks=(1, 4, 6))


def with_nan(file: h5py.File) -> None:
    file["phi"][4, 2, 2] = np.inf


def edit(name: str) -> Any:
    def change(file: h5py.File) -> None:
        file[name][5] *= 1 + 1e-7

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_attr("schema", "other/1"), "schema"),
        (set_attr("shape", "[4,7]"), "shape"),
        (set_attr("shape", '"x"'), "shape"),
        (set_attr("action", "{"), "JSON"),
        (set_attr("series", '["../phi"]'), "series"),
        (set_attr("series", '["action"]'), "series/magnetization"),
        (replace("phi", fields().astype("f4")), "type"),
        (replace("phi", fields().astype(">f8")), "type"),
        (replace("phi", fields(), compression="gzip"), "compressed"),
        (replace("chain", np.arange(11)), "shape"),
        (replace("phi", fields()[:0]), "no configuration"),
        (lambda file: file.pop("trajectory"), "missing"),
        (soft_link, "link"),
        (external_link, "link"),
        (linked_group, "link"),
        (virtual, "plain dataset"),
        (external_data, "plain dataset"),
        (objects, "type"),
        (huge, "claims"),
        (with_nan, "configuration 4"),
        (edit("series/action"), "stored action of configuration 5"),
        (edit("series/magnetization"), "stored magnetization of configuration 5"),
        (edit("series/phi2"), "stored phi2 of configuration 5"),
        (
            set_attr("action", '{"kind":"phi4","convention":"kappa-lambda","kappa":0.26,"lam":0.022}'),
            "expected",
        ),
    ],
)
def test_bad_shards_are_refused_in_one_line(shard: Path, change: Any, words: str) -> None:
    with h5py.File(shard, "a") as file:
        change(file)
    refused(shard, words)


def test_a_file_that_lies_about_its_action(shard: Path) -> None:
    """Without an expected action the series still give it away."""
    with h5py.File(shard, "a") as file:
        file.attrs["action"] = '{"kind":"phi4","convention":"kappa-lambda","kappa":0.26,"lam":0.022}'
    with pytest.raises(InputError, match="stored action"):
        read_ensemble(shard)


def test_truncated_and_foreign_files(shard: Path) -> None:
    content = shard.read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:size])
        refused(shard, "truncated")
    shard.write_bytes(b"not HDF5 at all" * 100)
    refused(shard, "truncated, damaged or not HDF5")


def test_flipped_bit_in_a_field(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    at = content.find(fields()[6].tobytes())
    content[at + 40] ^= 1
    shard.write_bytes(bytes(content))
    refused(shard, "damaged")
