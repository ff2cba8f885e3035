"""`check published`: samplers without weights beside exact ones, the action of a flow, the old protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsq.checks import published
from diffsq.checks.perform import check_options, serves
from diffsq.commands.main import main
from diffsq.run_folder.finished import Workbench, open_run, sample_sets
from diffsq.run_folder.own_files import own_name
from lattice.actions.phi4 import ScalarPhi4
from lattice.certificates.monte_carlo import certify
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.progress import Silent

RUN = """
name: small
seed: 5
action: {kind: phi4, kappa: 0.22, lam: 0.022}
lattice: {shape: [8, 8]}
ensemble: {n_configs: 8192, n_chains: 32, n_therm: 100}
models: [score, closed]
model: {channels: 4, n_levels: 1, n_sigma: 16, n_fit: 1024, base: wiener}
training: {n_steps: 40, batch_size: 32, use_action: false, warmup: 5, validate_every: 40}
sampling: {n_samples: {closed: 1024, score: 512}, n_levels: 24, n_forward: 256,
           method: {closed: flow, score: path}}
"""
OPTIONS: dict[str, Any] = {"methods": {"euler": [4, 64]}, "n": 512, "n_protocol": 512, "n_traj": 32}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = tmp_path_factory.mktemp("published")
    (folder / "small.yaml").write_text(RUN)
    for stage in ("ensemble", "train", "sample"):
        assert main([stage, str(folder / "small.yaml"), "--quiet", "--run", str(folder / "run")]) == 0
    found = open_run(folder / "run")
    assert isinstance(found, Workbench)
    return found


@pytest.fixture(scope="module")
def found(bench: Workbench) -> dict[str, Any]:
    return published.run(bench, Silent(), **OPTIONS)


def test_weighted_columns_agree(found: dict[str, Any]) -> None:
    assert found["passed"]
    assert {"score-ve weighted", "closed-ve weighted", "euler 4", "euler 64", "protocol"} <= set(
        found["sets"]
    )
    worst = {
        name: max(map(abs, own["pulls"].values())) for name, own in found["sets"].items() if own["pulls"]
    }
    assert worst["euler 4"] > 10  # four steps are far too few: a table that hides that is none
    assert worst["euler 64"] < 0.5 * worst["euler 4"]
    gain = found["gain"]
    assert gain["gain"] == pytest.approx(gain["wiener"] - gain["model"])
    assert gain["gain_error"] > 0


def test_wrong_weights_fail(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of another theory, e^{-0.2 S} too much: no agreement with the ensemble."""

    def tilted(folder: Path) -> dict[str, Ensemble]:
        found = sample_sets(folder)
        for samples in found.values():
            s = bench.action.action(torch.from_numpy(samples.phi)).numpy()
            samples.log_weight = samples.log_weight - 0.2 * s
        return found

    monkeypatch.setattr(published, "sample_sets", tilted)
    found = published.run(bench, Silent(), methods={}, n=64, n_protocol=0)
    assert found["passed"] is False
    assert found["worst"] > 8


def test_the_action_of_a_flow(found: dict[str, Any]) -> None:
    """-log q is S + const where the flow is exact: slope 1, and what is left is the spread of log w."""
    own = found["actions"]["closed-ve"]
    assert own["flow"]
    assert abs(own["slope"] - 1) < 4 * own["slope_error"] + 0.02
    assert own["spread"] < 0.2 * own["spread_s"]
    assert not found["actions"]["score-ve"]["flow"]


def test_a_tempered_sampler_has_another_slope() -> None:
    """Negative control: -log q = 2 S is no slope 1."""
    action = ScalarPhi4(0.2, 0.022)
    phi = np.random.default_rng(1).normal(size=(2000, 4, 4))
    s = action.action(torch.from_numpy(phi)).numpy()
    attrs = {"generated": {"sampler": "flow"}}
    samples = Ensemble.from_fields(phi, action, log_weight=s, attrs=attrs)
    assert published.effective_action(samples)["slope"] == pytest.approx(2)


def test_the_protocol_is_not_certified(bench: Workbench) -> None:
    """Deep in the broken phase hot starts of 128 trajectories leave domains, and no certificate passes."""
    action = ScalarPhi4(0.5, 0.022)
    fields = published.protocol(action, (16, 16), 64, 128, seed=1)
    found = published.domains(fields.phi)
    assert found["split"] > 0.1
    cold = published.domains(np.full((4, 16, 16), 3.0))
    assert cold == {"split": 0.0, "walls": 0.0}
    verdict = certify(fields)
    assert not verdict["passed"]
    assert "one configuration per chain" in verdict["reason"]


def test_samples_are_kept(bench: Workbench, found: dict[str, Any], monkeypatch: Any) -> None:
    kept = [p for p in (bench.folder / "checks" / "published").rglob("*") if p.is_file()]
    assert kept
    assert all(own_name("measure", str(path.relative_to(bench.folder))) for path in kept)
    stamps = {path: path.stat().st_mtime_ns for path in kept if path.suffix == ".h5"}
    again = published.run(bench, Silent(), **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert again["sets"]["euler 64"] == found["sets"]["euler 64"]


def test_words_and_figure(bench: Workbench, found: dict[str, Any]) -> None:
    words = published.text(found)
    assert "euler 64" in words
    assert "a certificate says: cannot be certified: one configuration per chain" in words
    assert "gain" in words
    assert len(published.figure(found).axes) == 3
    assert serves("published", bench)
    assert Path(bench.folder / "checks" / "published" / "euler-64" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": {"eulr": [10]}}, "did you mean euler"), ({"methods": {"pc": [1]}}, "2 at least"),
        ({"n": 3}, "n must be at least"), ({"n_protocol": 3}, "n_protocol"), ({"n_traj": 0}, "n_traj"),
    ],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_options("published", options)
