"""Ensembles in memory and on disk: what is written is read back, chains stay together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import ACTION, ensemble, fields

from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import EnsembleWriter, write_ensemble
from lattice.errors import InputError


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


def test_numpy_numbers_in_attrs_are_stored_and_read_back(tmp_path: Path) -> None:
    given = {
        "beta": np.float64(0.27), "n": np.int64(2**60), "flag": np.True_, "name": np.str_("flow"),
        "half": np.float32(0.1), "zero_d": np.array(3), "table": np.arange(6.0).reshape(2, 3),
        "deep": {"levels": (np.int8(1), 2.5, None, "x")},
    }  # fmt: skip
    made = Ensemble.from_fields(np.ones((3, 2, 2)), ACTION, attrs=given)
    assert made.attrs["table"] == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    made.attrs["later"] = np.float64(1.5)
    write_ensemble(made, tmp_path, {"note": np.int64(1)})
    found = read_ensemble(tmp_path).attrs
    assert {key: found[key] for key in made.attrs} == made.attrs
    assert found["n"] == 2**60
    assert found["half"] == np.float32(0.1)
    assert found["deep"] == {"levels": [1, 2.5, None, "x"]}


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"z": 1j}, r"attrs\.z is of type complex.*pass \[z\.real, z\.imag\]"),
        ({"a": {"z": np.array([1j])}}, r"attrs\.a\.z is of type ndarray.*\[z\.real, z\.imag\]"),
        ({"x": float("nan")}, r"attrs\.x is nan"), ({"x": [1.0, np.inf]}, r"attrs\.x\[1\] is inf"),
        ({"x": object()}, r"attrs\.x is of type object"),
        ({"x": {1: 2}}, r"attrs\.x has the key 1: .*pass '1'"),
        ({"x": np.longdouble(1)}, r"attrs\.x is of type longdouble"),
        ({"x": {1, 2}}, r"attrs\.x is of type set"),
        ({"x": np.ma.array([1.0, 2.0], mask=[0, 1])}, r"attrs\.x is of type MaskedArray"),
        ({"shape": [2]}, r"attrs\.shape is written by the file itself"), ({"stream": 3}, r"attrs\.stream"),
    ],
)  # fmt: skip
def test_attrs_that_cannot_be_stored_are_refused_by_name(attrs: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        Ensemble.from_fields(np.ones((3, 2, 2)), ACTION, attrs=attrs)
    if "shape" not in attrs and "stream" not in attrs:  # set later, they are refused when they are written
        made = Ensemble.from_fields(np.ones((3, 2, 2)), ACTION)
        made.attrs.update(attrs)
        with pytest.raises(InputError, match=words):
            write_ensemble(made, tmp_path)
        assert not list(tmp_path.glob("*"))


def test_rows_in_time_however_they_are_stored():
    order = np.random.default_rng(3).permutation(24)
    chain, time = np.arange(24) % 3, np.arange(24) // 3
    phi = fields(24)
    stored = Ensemble.from_fields(phi[order], ACTION, chain=chain[order], trajectory=time[order])
    assert (stored.phi[stored.in_time()] == phi).all()
    some = np.flatnonzero(stored.chain == 1)
    assert stored.trajectory[stored.in_time(some)].tolist() == list(range(8))
