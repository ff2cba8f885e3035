"""Steps that are too large are seen, the number that is named suffices, and the bound covers the bias."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_config import SETTINGS
from small_models import equilibrium

from diffsq.config.config import LatticeRun, config_from_dict
from diffsq.exactness.discretisation import LIMIT, discretisation, warning, words
from diffsq.exactness.efficiency import diagnose
from diffsq.exactness.weights import ln_z
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.sampling.draws import Sampling
from diffsq.sampling.lattice_sets import sample
from diffsq.training.lattice import train
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.progress import Silent

ACTION = ScalarPhi4(0.25, 0.05)


def config(n_levels: int | None, **sampling: Any) -> LatticeRun:
    found = config_from_dict(
        {
            **SETTINGS, "action": {"kind": "phi4", "kappa": 0.25, "lam": 0.05}, "training": {"n_steps": 0},
            "model": {"channels": 0, "n_levels": 1, "n_sigma": 20, "n_fit": 1024},
            "sampling": {"n_samples": 1024, "n_levels": n_levels, "n_forward": 64, **sampling},
        }
    )  # fmt: skip
    assert isinstance(found, LatticeRun)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@lru_cache
def trained(folder: Path) -> tuple[LatticeScore, Ensemble]:
    ensemble = Ensemble.from_fields(
        equilibrium(ACTION, (4, 4), 2048).numpy(), ACTION, chain=np.arange(2048) % 8
    )
    return train(config(4), ensemble, folder / "train"), ensemble


@lru_cache
def judged(folder: Path, n_levels: int | None) -> tuple[Ensemble, dict[str, Any]]:
    """The samples in so many steps, and what is found of them."""
    out = folder / str(n_levels)
    samples = sample(config(n_levels), *trained(folder), out)
    found = discretisation(out, samples)
    assert found is not None
    return samples, found


@pytest.mark.parametrize("n_levels", [4])
def test_few_steps_are_flagged_and_the_number_named_suffices(folder: Path, n_levels: int) -> None:
    _, found = judged(folder, n_levels)
    name, share = found["largest"]
    assert share == max(entry["share"] for entry in found["observables"].values()) > LIMIT
    assert share == found["observables"][name]["share"]
    (line,) = warning(found)
    assert f"may bias {name} by {share:.2g} of its statistical error" in line
    assert f"take sampling.n_levels {found['enough']} (now {n_levels})" in line
    assert line in diagnose(folder / str(n_levels), 3)["warnings"]
    assert found["steps"] == [n_levels, 2 * n_levels]
    _, better = judged(folder, found["enough"])
    assert better["largest"][1] < LIMIT
    assert warning(better) == []


def test_steps_where_the_config_says_nothing_are_enough(folder: Path) -> None:
    samples, found = judged(folder, None)
    assert found["largest"][1] < LIMIT
    assert found["enough"] is None
    assert {"ln_z", "phi2", "susceptibility", "action_density"} <= found["observables"].keys()
    assert found["n"] == 512
    line = words(found)
    assert line.startswith(
        f"discretisation: at most {found['largest'][1]:.2g} of the statistical error (largest"
    )
    assert "ln Z with 48 - 24 steps " in line
    assert line.endswith(" on 512 pairs")
    assert found["log_weight"][1] < 0.1 * samples.log_weight.std()  # type: ignore[union-attr]


@pytest.mark.parametrize("n_levels", [4, 6, 24])
def test_the_bound_covers_the_bias(folder: Path, n_levels: int) -> None:
    """Against the same noise in 192 steps."""
    samples, found = judged(folder, n_levels)
    model, ensemble = trained(folder)
    work = Sampling(config(n_levels), model, ensemble, folder, "", "ve", torch.zeros(2), Silent())
    noise = work.noise("sample/flow", np.arange(512))(0)
    phi, log_w = LatticeFlow(model.base, 192).sample(ACTION.action, noise, torch.ones(512))
    assert samples.log_weight is not None
    weights = samples.log_weight[:512], log_w.numpy()
    bias = ln_z(weights[0])[0] - ln_z(weights[1])[0]
    assert 0 < abs(bias) < found["observables"]["ln_z"]["bound"]
    before, after = (
        float((np.exp(w - w.max()) * (q**2).mean((1, 2))).sum() / np.exp(w - w.max()).sum())
        for w, q in zip(weights, (samples.phi[:512], phi.numpy()), strict=True)
    )
    assert 0 < abs(before - after) < found["observables"]["phi2"]["bound"]


def test_samples_of_the_path_have_none(folder: Path) -> None:
    out = folder / "path"
    samples = sample(config(4, method="path", n_samples=64), *trained(folder), out)
    assert discretisation(out, samples) is None
    assert "discretisation" not in diagnose(out, 3)
