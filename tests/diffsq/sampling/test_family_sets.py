"""Samples of one theory of a family: exact by weights, the same however they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_family import LAM, free_family, free_ln_z

from diffsq.config.config import LatticeRun, config_from_dict
from diffsq.exactness.efficiency import reverse_efficiency
from diffsq.sampling.family_sets import sample_family
from lattice.errors import InputError


def config(kappa: float = 0.19, size: int = 8, **sampling: Any) -> LatticeRun:
    found = config_from_dict({
        "name": "x", "action": {"kind": "phi4", "kappa": kappa, "lam": LAM},
        "lattice": {"shape": [size, size]}, "ensemble": {}, "model": {"channels": 0, "n_levels": 1},
        "sampling": {"n_samples": 256, **sampling},
    })  # fmt: skip
    assert isinstance(found, LatticeRun)
    return found


def test_samples_are_exact_and_go_on(tmp_path: Path) -> None:
    few = sample_family(config(), free_family(), tmp_path / "a")
    more = sample_family(config(n_samples=512), free_family(), tmp_path / "a")
    whole = sample_family(config(n_samples=512), free_family(), tmp_path / "b")
    assert np.array_equal(more.phi, whole.phi)
    assert np.array_equal(few.phi, whole.phi[:256])
    assert np.array_equal(more.log_weight, whole.log_weight)
    found = reverse_efficiency(tmp_path / "b", whole, 1)
    assert found["ess"] > 0.9
    assert found["acceptance"] > 0.8
    assert abs(found["ln_z"] - free_ln_z(0.19, 8)) < 4 * found["ln_z_error"] + 1e-3
    assert found["discretisation"]["n"] == 512


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kappa": 0.3}, "outside of what the model knows"),
        ({"size": 32}, "L = 4 to 16"),
        ({"method": "path"}, "sampled by the flow"),
    ],
)
def test_what_the_model_does_not_know_is_refused_before_anything(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        sample_family(config(**settings), free_family(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_samples_is_left_alone(tmp_path: Path) -> None:
    sample_family(config(n_samples=128), free_family(), tmp_path)
    with pytest.raises(InputError, match="other parameters"):
        sample_family(config(kappa=0.2, n_samples=128), free_family(), tmp_path)
