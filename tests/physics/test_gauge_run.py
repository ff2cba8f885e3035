"""U(1) from the config to the page: exact charges from draws, a frozen chain refused, links of complex
Langevin judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffsq.config.config import config_from_dict
from diffsq.pipeline import run
from diffsq.run_folder.summary_text import table_text
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.files import read_json


def settings(beta: float = 2.0, **changes: Any) -> dict[str, Any]:
    return {
        "name": "u1", "action": {"kind": "u1", "beta": beta}, "lattice": {"shape": [4, 6]},
        "ensemble": {"n_configs": 1024}, "models": ["score", "torus"], "model": {"channels": 2},
        "training": {"n_steps": 10}, "sampling": {"n_samples": 400, "n_forward": 100}, **changes,
    }  # fmt: skip


def test_a_run_ends_in_exact_charges_and_a_page(tmp_path: Path) -> None:
    checks = {"theta": {"thetas": [0.5]}, "rescaling": {"betas": [3.0], "n_samples": 128, "n_levels": 10}}
    run(config_from_dict(settings(checks=checks)), tmp_path / "run")
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["verdict"]["passed"], summary["verdict"]
    assert summary["verdict"]["certified"]
    text = table_text(summary)
    assert "lifted flux weighted" in text
    assert "charge2" in text
    assert "(exact " in text  # ln Z
    assert summary["sampling"]["score-ve"]["ess"]["reverse"] > 0.999
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "topological charge" in page
    assert "κ–λ" not in page
    before = read_json(tmp_path / "run" / "stages.json")["sample"]["identity"]
    larger = settings(checks=checks, sampling={"n_samples": 500, "n_forward": 100})
    run(config_from_dict(larger), tmp_path / "run")
    assert read_json(tmp_path / "run" / "stages.json")["sample"]["identity"] != before
    assert len(read_ensemble(tmp_path / "run" / "samples" / "score-ve")) == 500


def test_a_chain_that_is_stuck_is_no_training_data(tmp_path: Path) -> None:
    chains = {"n_chains": 16, "n_configs": 1600, "n_therm": 60, "cluster": "none"}
    changes = {"lattice": {"shape": [8, 8]}, "models": ["score"]}
    with pytest.raises(InputError, match="topology"):
        run(config_from_dict(settings(7.0, ensemble=chains, **changes)), tmp_path / "stuck")
    certificate = read_json(tmp_path / "stuck" / "ensemble" / "certificate.json")
    assert "n_winding" in certificate["reason"]


def test_complex_langevin_of_links_says_that_it_is_wrong(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "action": {"kind": "u1", "beta": 1.0, "theta": 1.0, "field": "x+iy"}, "lattice": {"shape": [4, 4]},
        "ensemble": {"n_configs": 640, "n_chains": 32, "step": 0.01}, "models": [],
    }  # fmt: skip
    for key in ("model", "training", "sampling"):
        changes[key] = None
    config = {key: value for key, value in settings(**changes).items() if value is not None}
    run(config_from_dict(config), tmp_path / "cl")
    summary = read_json(tmp_path / "cl" / "summary.json")
    assert summary["ensemble_verdict"] == "wrong"
    assert not summary["verdict"]["passed"]
    assert abs(summary["verdict"]["max_pull"]["training"]) > 5
