"""One run of two models, the closed form and a U-Net that learned on the bare Wiener filter: both exact."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from longer import same_numbers

from diffsq import pipeline, stages
from diffsq.config.config import Config, config_from_dict
from diffsq.run_folder.finished import Workbench, open_run
from diffsq.run_folder.records import Run
from diffsq.run_folder.summary_text import table_text
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.progress import Progress, Silent

SETS = {"closed-ve": "flow", "score-ve": "U-Net"}
EXACT = ("abs_magnetization", "susceptibility_full", "binder", "phi2", "action_density")
SETTINGS: dict[str, Any] = {
    "name": "two", "seed": 3, "action": {"kind": "phi4", "kappa": 0.27, "lam": 0.022},
    "lattice": {"shape": (8, 8)}, "ensemble": {"n_configs": 4096, "n_chains": 16, "n_therm": 200},
    "sde": {"sigma_min": 0.25}, "models": ["closed", "score"],
    "model": {"base": "wiener", "channels": 4, "n_levels": 2, "n_sigma": 12, "n_fit": 1024},
    "training": {"n_steps": 150, "batch_size": 32, "learning_rate": 1e-2, "warmup": 20, "validate_every": 75},
    "sampling": {
        "n_samples": {"closed": 1024, "score": 512}, "method": {"closed": "flow", "score": "path"},
        "n_levels": 16, "n_forward": 256,
    },
}  # fmt: skip


def config(**sampling: Any) -> Config:
    return config_from_dict({**SETTINGS, "sampling": {**SETTINGS["sampling"], **sampling}})


class Stop(Silent):
    """A keyboard interrupt at the n-th update under a label."""

    def __init__(self, wanted: str, n: int) -> None:
        self.wanted, self.n, self.label = wanted, n, ""

    def start(self, total: int, label: str, done: int = 0) -> None:
        self.label = label

    def update(self, n: int = 1, **info: object) -> None:
        self.n -= self.label == self.wanted
        if self.n <= 0:
            raise KeyboardInterrupt


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    pipeline.run(config(), folder, say=quiet)
    return folder


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_each_model_has_its_training_samples_and_columns(folder: Path, summary: dict[str, Any]) -> None:
    assert sorted(path.name for path in (folder / "train").iterdir()) == ["closed", "score"]
    assert {name: len(read_ensemble(folder / "samples" / name)) for name in SETS} == {
        "closed-ve": 1024, "score-ve": 512,
    }  # fmt: skip
    kinds = ("raw", "weighted", "metropolis")
    assert list(summary["columns"]) == ["training", *(f"{s} {k}" for s in SETS.values() for k in kinds)]
    assert set(summary["gated"]) == {f"{s} {k}" for s in SETS.values() for k in kinds[1:]}
    text = table_text(summary)
    for label in SETS.values():
        assert f"{label}: ESS/N: reverse" in text
    assert "U-Net: KL on held-out data: wiener" in text
    bench = open_run(folder)
    assert isinstance(bench, Workbench)
    assert bench.model.unet is None, "checks and chains work with the first model"
    assert len(bench.samples) == 1024


@pytest.mark.parametrize("label", SETS.values())
def test_weighted_samples_of_both_agree_with_monte_carlo(summary: dict[str, Any], label: str) -> None:
    training = summary["columns"]["training"]["observables"]
    for name in EXACT:
        a, b = summary["columns"][f"{label} weighted"]["observables"][name], training[name]
        assert abs(a["value"] - b["value"]) < 4 * math.hypot(a["error"], b["error"]), name


def test_ln_z_of_both_is_one_number(summary: dict[str, Any]) -> None:
    a, b = (summary["sampling"][name]["ln_z"] for name in SETS)
    assert abs(a["value"] - b["value"]) < 4 * math.hypot(a["error"], b["error"])


def test_the_network_alone_gains_over_the_wiener_filter(summary: dict[str, Any]) -> None:
    kl = summary["sampling"]["score-ve"]["kl"]
    assert kl["base"] is None
    assert kl["gain"] == pytest.approx(kl["wiener"] - kl["model"])
    assert kl["gain"] > 5 * kl["gain_error"]
    closed = summary["sampling"]["closed-ve"]["kl"]
    assert closed["gain"] is None
    assert closed["model"] < kl["wiener"], "on the same held-out fields the regression is better"


def test_no_number_of_one_is_in_the_other(folder: Path) -> None:
    closed, score = (read_ensemble(folder / "samples" / name) for name in SETS)
    assert not np.isin(closed.phi, score.phi).any()
    assert closed.log_weight is not None
    assert score.log_weight is not None
    both = np.stack([closed.phi[:512].mean((1, 2)), score.phi.mean((1, 2))])
    assert abs(np.corrcoef(both)[0, 1]) < 4 / math.sqrt(512), "independent: columns may be compared"


def test_the_page_shows_both(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "not drawn" not in page
    for label in SETS.values():
        assert f"{label} Metropolis" in page
        assert f"Log-weights: {label}" in page
        assert f"{label}: ESS/N reverse" in page
    for name in SETS:
        assert f'id="section-path-kl--{name}"' in page
    assert "gain of the U-Net" in page
    assert page.count('data-observable="ln_z"') == 1


SMALL: dict[str, Any] = {
    **SETTINGS, "lattice": {"shape": (4, 4)}, "ensemble": {"n_configs": 1024, "n_chains": 16, "n_therm": 100},
    "model": {"base": "wiener", "channels": 2, "n_levels": 1, "n_sigma": 8, "n_fit": 256},
    "training": {"n_steps": 12, "batch_size": 16, "checkpoint_every": 4},
    "sampling": {"n_samples": 1100, "n_levels": 4, "n_forward": 64},
}  # fmt: skip


@pytest.mark.parametrize(("label", "n"), [("score matching", 7), ("samples", 35)])
def test_stopped_in_the_second_model_it_goes_on_there(label: str, n: int, tmp_path: Path) -> None:
    """35 updates: beyond the 18 blocks of the closed form, in the network's second shard."""
    stages_of, small = ("ensemble", "train", "sample"), config_from_dict(SMALL)
    pipeline.run(small, tmp_path / "straight", stages_of, say=quiet)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(small, tmp_path / "stopped", stages_of, say=quiet, progress=Stop(label, n))
    assert (tmp_path / "stopped/train/closed/model.json").exists()
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "stopped/train/closed").iterdir()}
    pipeline.run(small, tmp_path / "stopped", stages_of, say=quiet)
    assert all(p.stat().st_mtime_ns == time for p, time in written.items()), "the closed form is kept"
    for name in SETS:
        a, b = (read_ensemble(tmp_path / run / "samples" / name) for run in ("stopped", "straight"))
        assert same_numbers(a, b)


def test_more_samples_of_one_model_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other's are not touched; fewer are refused, and so is another method."""

    def no_page(run: Run, progress: Progress) -> str:
        (run.folder / "report.html").write_text("")
        return ""

    monkeypatch.setitem(stages.STAGE, "report", no_page)
    before = {name: read_ensemble(folder / "samples" / name) for name in SETS}
    pipeline.run(config(n_samples={"closed": 1024, "score": 640}), folder, say=quiet)
    after = {name: read_ensemble(folder / "samples" / name) for name in SETS}
    assert after["closed-ve"].identity == before["closed-ve"].identity
    assert len(after["score-ve"]) == 640
    assert np.array_equal(after["score-ve"].phi[:512], before["score-ve"].phi)
    with pytest.raises(InputError, match=r"sampling\.n_samples\.score was 640, now 512"):
        pipeline.run(config(), folder, say=quiet)
    other = config(method={"closed": "path", "score": "pc"}, n_samples={"closed": 1024, "score": 640})
    with pytest.raises(InputError, match=r"sampling\.method\.score was path, now pc"):
        pipeline.run(other, folder, say=quiet)
