"""A family on disk: the same numbers when read back; damaged, foreign and missing ones in one line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_family import LAM, free_family

from diffsq.models.family_files import SCHEMA, checkpoints, load_family, save_family
from diffsq.models.lattice_flow import LatticeFlow, steps_of
from diffsq.models.momentum import Momenta
from diffsq.sampling.family_sets import flow_fields
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError
from lattice.statistics.weights import effective_sample_size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_family(free_family(), tmp_path, {"seed": 3})
    return tmp_path


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    found = load_family(folder)
    assert found.about["schema"] == SCHEMA
    assert found.about["seed"] == 3
    for name, tensor in free_family().state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    a, b = (f.at(0.19, LAM, 8).base for f in (found, free_family()))
    assert torch.equal(a.coefficients, b.coefficients)
    assert torch.equal(a.g, b.g)


def edited(folder: Path, **changes: object) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "diffsq-family/0"}, "this version reads diffsq-family/2; fit it again"),
        ({"schema": "diffsq-lattice/6"}, "schema is"),
        ({"sha256": "0" * 64}, "changed since it was written"),
        ({"sizes": {"n_line": 1, "n_kappa": 4, "n_size": 2, "n_sigma": 16}}, "do not fit"),
        ({"sizes": {"n_line": 1, "n_kappa": 10**9, "n_size": 2, "n_sigma": 16}}, "do not fit"),
        ({"sizes": {"n_line": 1}}, "do not fit"),
    ],
)
def test_other_files_are_refused(folder: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_family(edited(folder, **changes))
    assert "\n" not in str(error.value)


def test_missing_weights_and_unknown_names(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="missing, or changed"):
        load_family(folder)
    with pytest.raises(InputError, match="did you mean 'phi4-2d'"):
        load_family("phi4-2")
    with pytest.raises(InputError, match="no model of a family"):
        load_family(folder / "nowhere")


def test_the_model_that_comes_with_the_package_knows_its_range() -> None:
    assert list(checkpoints()) == ["phi4-2d"]
    family = load_family("phi4-2d")
    assert family.couplings.largest >= 64
    assert family.about["certificate"]["passed"]
    low, high = family.couplings.range(0.022)
    assert (low, high) == pytest.approx((0.24, 0.30))
    size = sum(path.stat().st_size for path in checkpoints()["phi4-2d"].iterdir())
    assert size < 5_000_000


def test_the_shipped_model_is_as_good_between_its_couplings() -> None:
    """Half-way between the couplings of its fit ln G(k) is half-way, and its samples have weights of use."""
    family = load_family("phi4-2d")
    lam, nodes = float(family.couplings.lam[0]), family.couplings.kappa[0].tolist()
    momenta = Momenta((16, 16))

    def ln_g(kappa: float) -> torch.Tensor:
        return family.propagator(family.couplings.at(kappa, lam, 16), momenta)[3:].log()

    for low, high in itertools.pairwise(nodes):
        swing = ln_g((low + high) / 2) - (ln_g(low) + ln_g(high)) / 2
        assert float(swing.abs().max()) < 0.1, (low, high)
    for kappa in (0.2425, 0.2575, 0.2825, 0.2975):
        model, action = family.at(kappa, lam, 8), ScalarPhi4(kappa, lam)
        base = model.base if model.sector is None else model.sector
        flow = LatticeFlow(base, steps_of(base))
        log_w = flow_fields(flow, action.action, np.arange(512), 1, "test")[1]
        assert effective_sample_size(log_w.numpy())[0] > 0.85, kappa
