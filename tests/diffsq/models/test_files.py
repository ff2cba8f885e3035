"""Models on disk: round trip, damage, another kind, version or size; lattice and points alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import equilibrium, phi4_model, spoil
from small_points import random_model

from diffsq.models.files import finished_model, load_model, save_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.points import PointModel
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError

ACTION = ScalarPhi4(0.2, 0.05)
ABOUT: dict[str, Any] = {"action": ACTION.as_dict(), "ensemble": "0" * 64, "config": {}, "key": "made with"}
SIZES: dict[str, Any] = {"shape": [4, 4], "n_sigma": 6, "channels": 4, "n_levels": 2}


@pytest.fixture(scope="module")
def model() -> LatticeScore:
    return spoil(phi4_model(ACTION, equilibrium(ACTION, (4, 4), 256), channels=4, n_sigma=6), 0.1)


@pytest.fixture
def folder(tmp_path: Path, model: LatticeScore) -> Path:
    save_model(model, tmp_path / "model", ABOUT)
    return tmp_path / "model"


def test_round_trip(folder: Path, model: LatticeScore) -> None:
    again = load_model(folder, LatticeScore)
    assert again.about == model.about == json.loads((folder / "model.json").read_text())
    assert again.about["ensemble"] == ABOUT["ensemble"]
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, model.state_dict()[name]) for name, a in again.state_dict().items())
    x, sigma = equilibrium(ACTION, (4, 4), 256), torch.full((256,), 0.7, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(again.score(x, sigma), model.score(x, sigma))
    assert not again.training


def test_the_same_model_is_the_same_bytes(folder: Path, model: LatticeScore, tmp_path: Path) -> None:
    save_model(model, tmp_path / "again", ABOUT)
    for name in ("weights.safetensors", "model.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_truncated_weights_are_refused(folder: Path, size: int) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"weights.safetensors: changed since it was written"):
        load_model(folder)


def test_one_flipped_bit_is_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="sha256"):
        load_model(folder)


def edit(folder: Path, **values: Any) -> None:
    path = folder / "model.json"
    about = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in about.items() if v is not None}))


def test_another_schema_is_refused(folder: Path) -> None:
    edit(folder, schema="diffsq-model/3")
    with pytest.raises(
        InputError, match=r"schema is 'diffsq-model/3', expected 'diffsq-lattice/6' or 'diffsq-points/1'"
    ):
        load_model(folder)


def test_a_model_of_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"schema is 'diffsq-lattice/6', expected 'diffsq-points/1'"):
        load_model(folder, PointModel)


@pytest.mark.parametrize(
    "values",
    [
        {"sizes": {**SIZES, "shape": [8, 8]}},
        {"sizes": {**SIZES, "channels": 8}},
        {"sizes": {**SIZES, "channels": 2.5}},
        {"sizes": {**SIZES, "n_sigma": 10**6}},
        {"sizes": {**SIZES, "shape": []}},
        {"sizes": {"shape": [4, 4]}},
        {"sizes": [4, 4]},
        {"sizes": None},
        {"sha256": None},
    ],
)
def test_an_edited_description_is_refused(folder: Path, values: dict[str, Any]) -> None:
    edit(folder, **values)
    with pytest.raises(InputError, match="model"):
        load_model(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_half_a_model_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match="no trained model here"):
        load_model(folder)


def test_only_the_key_it_was_made_with_finds_it(folder: Path) -> None:
    assert finished_model(folder, "made with", LatticeScore) is not None
    assert finished_model(folder, "made otherwise", LatticeScore) is None
    assert finished_model(folder / "nowhere", "made with", LatticeScore) is None


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_points_make_the_same_trip(kind: str, tmp_path: Path) -> None:
    model = random_model(2, kind)
    save_model(model, tmp_path, {"seed": 1})
    again = load_model(tmp_path, PointModel)
    x, sigma = torch.ones(3, 2, dtype=torch.float64), torch.tensor([0.4])
    assert torch.equal(again.score(x, sigma), model.score(x, sigma))
    assert again.kind == kind
    assert again.about == model.about
    for sizes in ({**again.sizes, "width": 32}, {**again.sizes, "dim": "two"}, {**again.sizes, "extra": 1}):
        edit(tmp_path, sizes=sizes)
        with pytest.raises(InputError, match="do not fit"):
            load_model(tmp_path)


@pytest.mark.parametrize("schema", [[], {}, None, 3, ["diffsq-lattice/6"]])
def test_a_schema_that_is_no_text_is_refused(folder: Path, schema: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema}))
    with pytest.raises(InputError, match="schema is"):
        load_model(folder)


@pytest.mark.parametrize(
    "sizes", [{"shape": [4096, 4096]}, {"channels": 4096}, {"n_levels": 4096}, {"n_sigma": 4096}]
)
def test_sizes_larger_than_the_file_are_refused_before_anything_is_allocated(
    folder: Path, sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LatticeScore, "unfitted", lambda **_: pytest.fail("allocated"))
    edit(folder, sizes={**SIZES, **sizes})
    with pytest.raises(InputError, match="more .*than the"):
        load_model(folder)
