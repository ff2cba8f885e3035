"""Machines on disk come back to the bit; what is damaged, of another kind or no machine is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from small_models import noise_of

from diffsq.models.machine_files import load_machine, save_machine
from diffsq.models.rbm import GaussianRBM
from lattice.errors import InputError
from lattice.files import sha256_file

W = 0.2 * noise_of("machine/w", 1, (6, 3))(0)[0]
MU2 = torch.tensor(2.5).double()


def machine(source: bool = False, s: float = 1.0, w: torch.Tensor = W) -> GaussianRBM:
    return GaussianRBM(w, MU2, torch.linspace(-1, 1, 6).double() if source else None, s)


def rewrite(folder: Path, **tensors: torch.Tensor) -> None:
    """Other weights under the hash that belongs to them."""
    (folder / "weights.safetensors").write_bytes(save(tensors))
    about = json.loads((folder / "model.json").read_text())
    about["sha256"] = sha256_file(folder / "weights.safetensors")
    (folder / "model.json").write_text(json.dumps(about))


def describe(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, **changes}))


@pytest.mark.parametrize(("source", "s"), [(False, 1.0), (True, 1.0), (True, 0.37)])
def test_a_machine_comes_back_to_the_bit(source: bool, s: float, tmp_path: Path) -> None:
    one = machine(source, s, W.mT.contiguous().mT)  # not in row order
    save_machine(one, tmp_path, {"key": "abc", "rate": 0.1})
    other, about = load_machine(tmp_path)
    assert torch.equal(other.w, one.w)
    assert torch.equal(other.mu2, one.mu2)
    assert other.s == s
    assert (other.source is None) is not source
    phi = noise_of("machine/phi", 5, (6,))(0)
    assert torch.equal(other.log_prob(phi), machine(source, s).log_prob(phi))
    assert (about["key"], about["rate"]) == ("abc", 0.1)
    assert about["sizes"] == {"s": s, "n_visible": 6, "n_hidden": 3}
    first = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    save_machine(other, tmp_path, {"key": "abc", "rate": 0.1})
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == first


def test_half_a_folder_is_no_machine(tmp_path: Path) -> None:
    save_machine(machine(), tmp_path, {})
    for name in ("weights.safetensors", "model.json"):
        image = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(InputError, match="no trained machine here"):
            load_machine(tmp_path)
        (tmp_path / name).write_bytes(image)
    load_machine(str(tmp_path))


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    save_machine(machine(), tmp_path, {})
    path = tmp_path / "weights.safetensors"
    image = bytearray(path.read_bytes())
    image[-3] ^= 1
    path.write_bytes(bytes(image))
    with pytest.raises(InputError, match="changed since it was written"):
        load_machine(tmp_path)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    save_machine(machine(), tmp_path, {})
    describe(tmp_path, schema="diffsq-model/3")
    with pytest.raises(InputError, match="schema is 'diffsq-model/3', expected 'diffsq-gaussian-rbm/1'"):
        load_machine(tmp_path)
    describe(tmp_path, schema=None)
    with pytest.raises(InputError, match="schema is None"):
        load_machine(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [({"w": W}, "not the weights that model.json describes: 'mu2'"),
     ({"w": W.float(), "mu2": MU2}, "not the weights of a Gaussian machine, float64"),
     ({"w": W[None], "mu2": MU2}, "not the weights of a Gaussian machine"),
     ({"w": W, "mu2": MU2.expand(2).contiguous()}, "not the weights of a Gaussian machine"),
     ({"w": 5 * W, "mu2": MU2}, "K = mu.2 - s.2 W W.T is not positive .*weights.safetensors"),
     ({"w": W, "mu2": -MU2}, "is not positive"),
     ({"w": W * torch.nan, "mu2": MU2}, "weights or mu.2 are NaN or infinite in .*weights.safetensors"),
     ({"w": W, "mu2": MU2 * torch.nan}, "positive|NaN")],
)  # fmt: skip
def test_what_is_no_machine_is_refused(tensors: dict[str, torch.Tensor], words: str, tmp_path: Path) -> None:
    """Even where the hash is that of the file."""
    save_machine(machine(), tmp_path, {})
    rewrite(tmp_path, **tensors)
    with pytest.raises(InputError, match=words):
        load_machine(tmp_path)


def test_sizes_that_say_nothing_are_refused(tmp_path: Path) -> None:
    save_machine(machine(), tmp_path, {})
    for sizes in ({}, None, {"s": "much"}):
        describe(tmp_path, sizes=sizes)
        with pytest.raises(InputError, match="not the weights that model.json describes"):
            load_machine(tmp_path)
    describe(tmp_path, sizes={"s": 9.0})
    with pytest.raises(InputError, match="not positive"):
        load_machine(tmp_path)
    save_machine(machine(), tmp_path, {})
    (tmp_path / "weights.safetensors").write_bytes(b"no tensors")
    describe(tmp_path, sha256=sha256_file(tmp_path / "weights.safetensors"))
    with pytest.raises(InputError, match="not the weights that model.json describes"):
        load_machine(tmp_path)
