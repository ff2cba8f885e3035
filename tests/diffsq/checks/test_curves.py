"""`check curves`: one model at many couplings against closed forms, and a wrong ln Z that does not pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_family import KAPPAS, LAM, free_family, free_ln_z

from diffsq.checks import curves
from diffsq.checks.perform import check_options, serves
from diffsq.config.config import config_from_dict
from diffsq.models.family_files import save_family
from diffsq.run_folder.finished import DynamicsBench
from lattice.errors import InputError
from lattice.progress import Silent

RUN: dict[str, Any] = {
    "name": "x", "models": ["family"],
    "ensemble": {"lines": [{"lam": LAM, "kappa": list(KAPPAS)}], "sizes": [4, 8]},
}  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> DynamicsBench:
    folder = tmp_path_factory.mktemp("curves")
    save_family(free_family(), folder / "train" / "family", {})
    config: Any = config_from_dict(RUN)
    return DynamicsBench(folder, config, {})


@pytest.fixture(scope="module")
def found(bench: DynamicsBench) -> dict[str, Any]:
    return curves.run(bench, Silent(), kappas=[0.17, 0.18, 0.19], sizes=[4, 16], n_samples=512)


def test_every_point_is_exact(found: dict[str, Any]) -> None:
    assert found["passed"]
    assert len(found["points"]) == 6
    assert len(found["half_way"]) == 4
    for p in found["points"]:
        z = free_ln_z(p["kappa"], p["size"])
        assert abs(p["ln_z"] - z) < 4 * p["ln_z_error"] + 1e-3
        h = 1e-5
        slope = (free_ln_z(p["kappa"] + h, p["size"]) - free_ln_z(p["kappa"] - h, p["size"])) / (2 * h)
        assert abs(p["slope"] - slope) < 4 * p["slope_error"]
    for h in found["half_way"]:
        for way in ("below", "above"):
            assert abs(h[way] - free_ln_z(h["kappa"], h["size"])) < 5 * h["error"] + 1e-3


def test_an_energy_that_is_not_the_slope_shows() -> None:
    rng = np.random.default_rng(4)
    first, second = (rng.normal(size=2000) * 0.1 for _ in range(2))
    energy = 100 + rng.normal(size=2000)
    shift = 0.01 * 100
    right = curves.half_way((0.2, first, energy), (0.21, second + shift, energy), 8)
    wrong = curves.half_way((0.2, first, energy), (0.21, second + shift, math.sqrt(2) * energy), 8)
    assert abs(right["pull"]) < 4 < 10 < abs(wrong["pull"])


def test_words_and_figure(found: dict[str, Any]) -> None:
    text = curves.text(found)
    assert "largest pull" in text
    assert "both signs" in text
    assert text.count("\n") > 6
    figure = curves.figure(found)
    assert len(figure.axes) == 6


def test_it_is_for_families_and_for_theories_they_know(bench: DynamicsBench, tmp_path: Path) -> None:
    assert serves("curves", bench)
    with pytest.raises(InputError, match="outside of what the model knows"):
        curves.run(bench, Silent(), kappas=[0.17, 0.4])
    with pytest.raises(InputError, match="n_samples"):
        check_options("curves", {"n_samples": 10})
    with pytest.raises(InputError, match="n_kappa"):
        check_options("curves", {"n_kappa": 1})


def test_sizes_that_are_drawn() -> None:
    assert curves.default_sizes([8, 16, 32], 32) == [8, 16, 24, 32]
