"""`check curves`: one model at many couplings against closed forms, and a wrong ln Z that does not pass."""

from __future__ import annotations

import math
import warnings
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
    assert (len(found["points"]), len(found["ratios"])) == (6, 4)
    for p in found["points"]:
        z = free_ln_z(p["kappa"], p["size"])
        assert abs(p["ln_z"] - z) < 4 * p["ln_z_error"] + 1e-3
        h = 1e-5
        slope = (free_ln_z(p["kappa"] + h, p["size"]) - free_ln_z(p["kappa"] - h, p["size"])) / (2 * h)
        assert abs(p["slope"] - slope) < 4 * p["slope_error"]
    for r in found["ratios"]:
        exact = free_ln_z(r["kappa"] + 0.005, r["size"]) - free_ln_z(r["kappa"] - 0.005, r["size"])
        for way in ("by_weights", "by_energy"):
            assert abs(r[way] - exact) < 5 * r["error"] + 1e-3
        assert r["overlap"] > 0.1


def energies(kappa: float, rng: np.random.Generator, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """E of a law whose ln Z is 100 kappa + 5000 kappa^2, and log-weights whose mean is Z."""
    noise = 0.1 * rng.normal(size=n)
    return 100 + 1e4 * kappa + 100 * rng.normal(size=n), 100 * kappa + 5000 * kappa**2 + noise - 0.005


def test_an_energy_that_is_not_the_slope_shows() -> None:
    rng = np.random.default_rng(4)
    (e_low, w_low), (e_high, w_high) = energies(0.0, rng), energies(0.01, rng)
    right = curves.ratio((0.0, w_low, e_low), (0.01, w_high, e_high), 8)
    assert right["overlap"] > 0.3
    assert abs(right["pull"]) < 4
    for wrong in (
        curves.ratio((0.0, w_low, math.sqrt(2) * e_low), (0.01, w_high, math.sqrt(2) * e_high), 8),
        curves.ratio((0.0, w_low, e_low), (0.01, w_high + math.log(2), e_high), 8),
    ):
        assert abs(wrong["pull"]) > 10


def test_fields_that_do_not_meet_are_not_compared() -> None:
    rng = np.random.default_rng(5)
    (e_low, w_low), (e_high, w_high) = energies(0.0, rng), energies(0.1, rng)
    assert curves.ratio((0.0, w_low, e_low), (0.1, w_high, e_high), 8)["pull"] is None


def test_words_and_figure(found: dict[str, Any]) -> None:
    text = curves.text(found)
    assert "largest pull" in text
    assert "both signs" in text
    assert text.count("\n") > 6
    assert len(curves.figure(found).axes) == 6
    many = [{**p, "size": p["size"] * k} for k in range(1, 9) for p in found["points"]]
    legend = curves.figure({**found, "points": many}).axes[0].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == len({p["size"] for p in many})


def test_it_is_for_families_and_for_theories_they_know(bench: DynamicsBench, tmp_path: Path) -> None:
    assert serves("curves", bench)
    with pytest.raises(InputError, match="outside of what the model knows"):
        curves.run(bench, Silent(), kappas=[0.17, 0.4])
    with pytest.raises(InputError, match="n_samples"):
        check_options("curves", {"n_samples": 10})
    with pytest.raises(InputError, match="n_kappa"):
        check_options("curves", {"n_kappa": 1})
    for options in ({"kappas": [0.17]}, {"kappas": [0.2, 0.1]}, {"kappas": [0.2, 0.2]}, {"sizes": [4, 4]}):
        with pytest.raises(InputError, match="must rise"):
            check_options("curves", options)


def test_sizes_that_are_drawn() -> None:
    assert curves.default_sizes([8, 16, 32], 32) == [8, 16, 24, 32]
    kappas = curves.default_kappas([0.100004, 0.15, 0.25, 0.299996], 9, 0.2)
    assert (kappas[0], kappas[-1]) == (0.100004, 0.299996)
    assert kappas == sorted(set(kappas))
    assert {0.125, 0.2, 0.275} <= set(kappas)  # half-way between the couplings that were fitted


def test_a_single_large_weight_is_not_compared() -> None:
    """Nothing is known of a theory of which one sample has all the weight: no number, no warning."""
    log_w = np.array([2000.0] + [0.0] * 999)
    energy = np.random.default_rng(3).normal(size=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = curves.ratio((0.2, log_w, energy), (0.21, np.zeros(1000), energy), 8)
    assert found["pull"] is None
