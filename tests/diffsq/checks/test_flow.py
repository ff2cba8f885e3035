"""`diffsq check flow`: right runs pass, wrong weights do not, and too few steps are made good."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from small_models import equilibrium

from diffsq.checks import flow as check
from diffsq.config.config import LatticeRun, config_from_dict, resolved_yaml
from diffsq.exactness.discretisation import discretisation
from diffsq.exactness.weights import ln_z
from diffsq.models import lattice_flow
from diffsq.models.files import load_model
from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.run_folder.fields import first_set
from diffsq.run_folder.finished import Workbench, open_run
from diffsq.sampling.lattice_sets import sample
from diffsq.training.lattice import train
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.progress import Silent
from lattice.statistics.blocks import jackknife_of
from lattice.statistics.pulls import pull

ACTION, SHAPE = ScalarPhi4(0.27, 0.022), (8, 8)
CONFIG: dict[str, Any] = {
    "name": "flow",
    "seed": 3,
    "action": {"kind": "phi4", "kappa": 0.27, "lam": 0.022},
    "lattice": {"shape": SHAPE},
    "ensemble": {"n_configs": 2048, "n_chains": 16},
    "model": {"channels": 0, "n_levels": 1, "n_sigma": 24, "n_fit": 1024},
    "training": {"n_steps": 0},
    "sampling": {"n_samples": 512, "n_forward": 64, "method": "flow"},
}


def configured(folder: Path, n_levels: int) -> LatticeRun:
    """The config of a run in so many steps, written into its folder."""
    sampling = {**CONFIG["sampling"], "n_levels": n_levels}
    config = config_from_dict({**copy.deepcopy(CONFIG), "sampling": sampling})
    assert isinstance(config, LatticeRun)
    (folder / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ensemble and model."""
    folder = tmp_path_factory.mktemp("flow") / "run"
    folder.mkdir()
    config = configured(folder, 12)
    phi = equilibrium(ACTION, SHAPE, 2048).numpy()
    write_ensemble(Ensemble.from_fields(phi, ACTION, chain=np.arange(2048) // 128), folder / "ensemble")
    train(config, read_ensemble(folder / "ensemble"), folder / "train" / config.models[0])
    return folder


def drawn(trained: Path, n_levels: int) -> Workbench:
    """A run of that model with samples in so many steps."""
    folder = trained.parent / f"steps-{n_levels}"
    shutil.copytree(trained, folder)
    config = configured(folder, n_levels)
    model = load_model(folder / "train" / config.models[0], LatticeScore)
    sample(config, model, read_ensemble(folder / "ensemble"), first_set(folder, config))
    bench = open_run(folder)
    assert isinstance(bench, Workbench)
    return bench


@pytest.fixture(scope="module")
def usual(trained: Path) -> Workbench:
    return drawn(trained, 12)


@pytest.fixture(scope="module")
def coarse(trained: Path) -> Workbench:
    """In six steps by the method of many steps, which is not stable there; Runge and Kutta's is too good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice_flow, "STABLE", 10.0)
        return drawn(trained, 6)


def test_a_right_run_passes(usual: Workbench) -> None:
    result = check.run(usual, Silent(), n_path=192, n_exact=128)
    assert result["passed"] is True
    assert {"ln_z", "binder", "action_density", "kappa4_ratio"} <= result["observables"].keys()
    assert max(q["share"] for q in result["observables"].values()) < 0.5, "the remainder costs no precision"
    assert 2.5 < result["cost"] < 5  # 3.8 on average
    assert result["levels"][0]["steps"] == [12, 24]
    said = check.text(result)
    assert "passed: True" in said
    assert "limit 4.71, as improbable among 26 as 4 alone" in said
    assert isinstance(check.figure(result), Figure)


def test_the_remainder_is_that_of_the_same_noises(usual: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one level it is a mean difference of 24 and 12 steps, whatever is asked for beside it."""
    monkeypatch.setattr(check, "TOP", 1)
    table, flow = check.Table(usual, 46.0), usual.flow
    assert flow is not None
    found, _, cost = check._differences(usual, flow, table, Silent(), 48)
    noise, sign = usual.noise("check/flow/exact", np.arange(48))(0), torch.ones(48, dtype=torch.float64)
    fine = LatticeFlow(flow.base, 24, flow.process, torch.float64)
    both = [table.columns(x.numpy(), w.numpy())
            for x, w in (each.sample(ACTION.action, noise, sign) for each in (fine, flow))]  # fmt: skip
    assert flow.base.sector is False
    assert np.allclose(found, both[0] - both[1], rtol=1e-9, atol=1e-12)
    assert np.abs(found[:, -1]).mean() > 1e-3
    assert cost == pytest.approx((12 + 4 + 24 + 4) / (12 + 4))
    fewer = check._differences(usual, flow, table, Silent(), 40)[0]
    assert np.allclose(fewer, found[:40], rtol=1e-9, atol=1e-12)


def test_too_few_steps_are_seen_and_made_good(coarse: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps: ln Z is off by many errors and the run says so; the remainder is that of the same noises."""
    monkeypatch.setattr(lattice_flow, "STABLE", 10.0)
    flow, samples = coarse.flow, coarse.samples
    assert flow is not None
    assert samples.log_weight is not None
    noise, sign = coarse.noise("test/flow", np.arange(512))(0), torch.ones(512, dtype=torch.float64)
    log_w = [flow.in_steps(n).sample(ACTION.action, noise, sign)[1].numpy() for n in (6, 96)]
    off, off_error = jackknife_of(
        lambda w: float(np.diff(np.log(np.exp(w - w.max()).mean(0)))[0]), np.stack(log_w, 1)
    )
    truth, own = ln_z(log_w[1]), ln_z(samples.log_weight)
    assert abs(off) > 6 * off_error
    assert abs(pull(*own, *truth)) > 5, "the control: without the remainder it is wrong"
    steps = discretisation(first_set(coarse.folder, coarse.config), samples)
    assert steps is not None
    assert steps["enough"] is not None
    result = check.run(coarse, Silent(), n_path=128, n_exact=512)
    assert result["levels"][2]["rms"] < 0.1 * result["levels"][0]["rms"], "of order 4"
    found = result["observables"]["ln_z"]
    assert abs(found["remainder"]) > 6 * found["remainder_error"]
    assert abs(pull(found["remainder"], found["remainder_error"], off, off_error)) < 4
    assert abs(pull(found["exact"], found["exact_error"], *truth)) < 4
    assert all(abs(q["exact_pull"]) < result["limit"] for q in result["observables"].values())


@pytest.mark.parametrize("wrong", ["shifted", "tilted"])
def test_wrong_weights_fail(usual: Workbench, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "TOP", 1)
    bench, samples = copy.copy(usual), copy.copy(usual.samples)
    assert samples.log_weight is not None
    more = 0.15 if wrong == "shifted" else 0.02 * (samples.phi**2).sum((1, 2))
    samples.log_weight = samples.log_weight + more
    bench.samples = samples
    result = check.run(bench, Silent(), n_path=192, n_exact=40)
    assert result["passed"] is False
    assert abs(result["observables"]["ln_z"]["pull"]) > result["limit"]
    assert "passed: False" in check.text(result)


def test_levels_are_drawn_with_their_probabilities() -> None:
    p = check.chances()
    assert p.sum() == pytest.approx(1)
    assert np.allclose(p[1:] / p[:-1], 2**-2.5)
    assert (p * 1.5 * 2.0 ** np.arange(1, check.TOP + 1)).sum() == pytest.approx(3.8, abs=0.05)  # flows


def test_means_of_columns_are_those_of_the_jackknife() -> None:
    data = np.abs(np.random.default_rng(1).normal(1, 0.3, (500, 2)))

    def ratio(means: np.ndarray) -> float:
        return float(means[0] / means[1])

    value, error = check.Means.of(data).estimate(ratio)
    assert (value, error) == pytest.approx(jackknife_of(lambda rows: ratio(rows.mean(0)), data))
    assert np.isnan(check.Means.of(data - 2).estimate(lambda means: float(np.log(means[0])))).all()


def test_refusals(usual: Workbench) -> None:
    other = copy.copy(usual)
    other.flow = None
    with pytest.raises(InputError, match="sampling.method flow"):
        check.run(other, Silent())
    with pytest.raises(InputError, match="n_exact >= 40"):
        check.run(usual, Silent(), n_exact=10)
