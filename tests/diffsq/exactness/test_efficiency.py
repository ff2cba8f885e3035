"""Warnings of the path sampler: none above the floor, below it the advice that fits the cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import synthetic_run

from diffsq.exactness.efficiency import path_diagnostics, warnings, warnings_of
from diffsq.report.reader import RunFolder
from diffsq.report.sample_sets import OF_A_SET
from diffsq.report.sections import build_sections
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import Ensemble
from lattice.observables.measure import MIN_ESS

FLAT = [1.0] * 20  # variance of log w by level, none of them outstanding


def numbers(
    reverse: float = 0.05, forward: float = 0.04, variance: list[float] = FLAT, kl: float = 1.5,
    error: float = 0.004,
) -> dict[str, Any]:  # fmt: skip
    return {
        "reverse": {"ess": reverse, "ess_error": error},
        "forward": {"ess": forward, "ess_error": error},
        "per_level": {"sigma": np.geomspace(0.2, 9, len(variance)).tolist(), "variance": variance},
        "kl": {"model": kl},
    }


@pytest.mark.parametrize(("reverse", "forward"), [(0.6, 0.5), (MIN_ESS, MIN_ESS), (0.9, 0.1)])
def test_nothing_is_said_above_the_floor(reverse: float, forward: float) -> None:
    assert warnings(numbers(reverse, forward, [9.0, *FLAT]), 4096, 64) == []


@pytest.mark.parametrize(("reverse", "forward"), [(0.05, 0.5), (0.5, 0.05), (0.0999, 0.0999)])
def test_either_ess_below_the_floor_warns(reverse: float, forward: float) -> None:
    first, *advice = warnings(numbers(reverse, forward), 4096, 64)
    assert "below 0.1" in first
    assert "4096" in first
    assert advice


CAUSES = {
    "tails": ("thin tails", "raise ensemble.n_configs"),
    "first level": ("of the variance of log w", "lower sde.sigma_min (now 0.2)"),
    "levels": ("raise sampling.n_levels (now 20)", "diffsq check levels RUN"),
    "volume": ("c = 0.0015 per site", "chain.block"),
}


@pytest.mark.parametrize(
    ("found", "volume", "causes"),
    [
        (numbers(0.6, 0.003), 256, ["tails"]),
        (numbers(0.09, 0.03), 256, ["tails"]),
        (numbers(0.09, 0.03, error=0.02), 256, ["levels"]),  # half the reverse one, but within 3 errors
        (numbers(0.09, 0.05), 256, ["levels"]),
        (numbers(variance=[8.0, *FLAT[1:]]), 256, ["first level"]),
        (numbers(variance=[6.0, *FLAT[1:]]), 256, ["levels"]),  # 24 % of the sum
        (numbers(0.6, 0.003, [8.0, *FLAT[1:]]), 256, ["tails", "first level"]),
        (numbers(kl=1.5), 1000, ["levels", "volume"]),
        (numbers(kl=2.1), 1000, ["levels"]),
        (numbers(0.6, 0.003), 4096, ["tails"]),
    ],
)
def test_the_advice_fits_the_cause(found: dict[str, Any], volume: int, causes: list[str]) -> None:
    _, *advice = warnings(found, 1000, volume)
    assert len(advice) == len(causes)
    for line, cause in zip(advice, causes, strict=True):
        assert all(part in line for part in CAUSES[cause]), (cause, line)
        assert "\n" not in line


def gaussian(v: float, n: int = 4000, shape: tuple[int, ...] = (8, 8)) -> tuple[Ensemble, dict[str, Any]]:
    """Gaussian log-weights of variance v, reverse and forward (their means are -v/2 and +v/2), ln Z = 0."""
    rng = np.random.default_rng(3)
    samples = Ensemble.from_fields(
        rng.normal(size=(n, *shape)), FreeScalar(0.2), log_weight=-v / 2 + np.sqrt(v) * rng.normal(size=n),
        attrs={"generated": {"levels": [0.0, 0.2, 1.0, 5.0]}},
    )  # fmt: skip
    parts = np.sqrt(v / 3) * rng.normal(size=(n, 3))
    forward = {"model": (v / 2 + parts.sum(1)).tolist(), "increments": parts, "chain": np.arange(n) % 16}
    return samples, forward


def test_diagnostics_hold_the_warnings() -> None:
    good = path_diagnostics(*gaussian(0.5), 1)
    assert good["reverse"]["ess"] == pytest.approx(np.exp(-0.5), abs=0.05)
    assert good["warnings"] == []
    poor = path_diagnostics(*gaussian(4.0), 1)
    assert poor["reverse"]["ess"] < MIN_ESS
    assert "ESS/N: reverse 0.0" in poor["warnings"][0]
    assert len(poor["warnings"]) > 1
    json.dumps(poor["warnings"])


def test_every_number_has_an_error_and_the_ess_what_explains_it() -> None:
    found = path_diagnostics(*gaussian(0.5), 1)
    for way in ("reverse", "forward"):
        part = found[way]
        assert abs(part["exp_minus_var"] - np.exp(-0.5)) < 4 * part["exp_minus_var_error"]
        assert abs(part["ess"] - part["exp_minus_var"]) < 4 * part["ess_error"]
        assert abs(part["kl"] - 0.25) < 4 * part["kl_error"]
        assert 1 / 4000 < part["largest_weight"] < 0.01
    assert found["forward"]["kl"] == found["kl"]["model"]
    assert found["kl"]["model_error"] > found["ln_z_error"]  # it has both parts
    assert 0 < found["acceptance_error"] < 0.03
    assert "Var log w" in path_diagnostics(*gaussian(2.5), 1)["warnings"][-1]


def test_warnings_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "diagnostics.json"
    for content, said in (({"warnings": ["low"]}, ["low"]), ({"method": "euler"}, [])):
        path.write_text(json.dumps(content))
        assert warnings_of(tmp_path) == said


def test_the_report_shows_them(tmp_path: Path) -> None:
    run = RunFolder(synthetic_run(tmp_path / "run"))
    weights = tuple(s for s in OF_A_SET if s[0] == "weights")
    (quiet,) = build_sections(run, weights)
    assert (quiet.note, quiet.problem) == ("", False)
    lines = warnings(numbers(), 1000, 64)
    run.diagnostics["warnings"] = lines
    (loud,) = build_sections(run, weights)
    assert loud.problem  # repeated at the top of the page
    assert loud.figure
    assert all(line in loud.note for line in lines)
