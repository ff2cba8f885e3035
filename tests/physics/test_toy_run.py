"""Runs on one variable from config to report, small: every stage, resumed and refused, and the physics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsq.commands.main import main
from diffsq.run_folder.summary_text import table_text
from lattice.actions.complexified import Complexified
from lattice.ensembles.ensemble import read_ensemble

SMALL = (
    "training.n_steps=150", "training.n_sigma=24", "training.n_nodes=2048", "training.batch_size=1024",
    "training.width=32", "sampling.n_samples=24000", "sampling.n_metropolis=20000",
    "sampling.sde=[ve,vp]", "sampling.n_levels={ve: 16, vp: 32}", "sampling.n_calibration=8192",
    "checks.samplers={methods: {euler: [20]}, n: 2000}",
)  # fmt: skip
COMPLEX = ("ensemble.n_configs=32000", "ensemble.n_chains=64", *SMALL)
REAL = ("ensemble.n_configs=100000", "models=[energy]", "n_parts=2", *SMALL)


def run(folder: Path, name: str, settings: tuple[str, ...]) -> int:
    return main(["run", name, "--run", str(folder), "--quiet", "--set", *settings])


@pytest.fixture(scope="module")
def quartic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "quartic"
    assert run(folder, "cl_quartic", COMPLEX) == 0
    return folder


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "well"
    assert run(folder, "toy_double_well", REAL) == 0
    return folder


def checked(folder: Path, name: str) -> dict[str, Any]:
    """The result of a check that the run made."""
    content: dict[str, Any] = json.loads((folder / "checks" / f"{name}.json").read_text())["result"]
    return content


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_every_product_is_an_ensemble_of_the_same_kind(quartic: Path) -> None:
    data = read_ensemble(quartic / "ensemble")
    assert isinstance(data.action, Complexified)
    for name in ("score-ve", "score-vp", "energy-ve", "energy-vp", "metropolis"):
        samples = read_ensemble(quartic / "samples" / name, data.action)
        assert samples.phi.shape[1:] == (2,)
        y = np.abs(samples.phi[:, 1]).max()
        assert name == "metropolis" or y <= np.abs(data.phi[:, 1]).max()


def test_quartic_learned_from_complex_langevin(quartic: Path) -> None:
    found = summary(quartic)
    assert found["ensemble_verdict"] == "trusted"
    ess = found["sampling"]["metropolis"]["ess"]
    assert 0.3 < ess["reverse"] < 0.999
    assert 0.3 < ess["forward"] < 0.999
    assert "metropolis: ESS/N: reverse" in table_text(found)
    data = found["columns"]["training"]["observables"]
    for column in ("training", "score-ve", "score-vp", "energy-ve", "energy-vp"):
        entries = found["columns"][column]["observables"]
        for name in ("Re m2", "Im m2", "Re m4", "Im m4", "Re kappa4", "Im kappa4"):
            error = np.hypot(entries[name]["error"], data[name]["error"])
            assert abs(entries[name]["value"] - found["exact"][name][0]) < 4.5 * error
    phi = read_ensemble(quartic / "ensemble").phi  # <x^2 + y^2> is another number: the signs matter
    assert abs((phi**2).sum(1).mean() - found["exact"]["Re m2"][0]) > 10 * data["Re m2"]["error"]
    assert found["checks"]["strip"]["passed"]


def test_energy_model_is_conservative_and_score_model_is_not(quartic: Path) -> None:
    curl = checked(quartic, "fokker-planck")["circulation"]
    assert max(curl["energy"].values()) < 1e-10
    assert min(curl["score"].values()) > 1e-5


def test_double_well_flow_and_learned_action(well: Path) -> None:
    flows = checked(well, "cumulants")["flows"]
    for flow in flows:
        analytic, forward = np.array(flow["analytic"]), flow["forward"]
        pull = (np.array(forward["value"]) - analytic) / np.array(forward["error"])
        assert np.abs(pull).max() < 5
        value, error = (np.array(flow["backward"][key])[0, :2] for key in ("value", "error"))
        assert np.abs((value - analytic[0, :2]) / error).max() < 5
    wrong = np.array([f for f in flows if f["sde"] == "vp"][0]["analytic"])[:, 1]
    assert abs(wrong[-1]) < 1e-2 * abs(wrong[0])  # forgotten; conserved in the other
    action = checked(well, "learned-action")["action"]
    assert action["off"]["noised"] < 0.25  # the depth of the well is 3.75; this network is tiny


def test_page_is_complete(quartic: Path, well: Path) -> None:
    for folder in (quartic, well):
        page = (folder / "report.html").read_text()
        assert "not drawn" not in page
        assert page.count("<svg") >= 4
        assert "http" not in page.replace("http://www.w3.org", "")


def test_again_skips_and_other_settings_are_refused(
    quartic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in quartic.rglob("*.h5")}
    assert run(quartic, "cl_quartic", COMPLEX) == 0
    assert {p: p.stat().st_mtime_ns for p in quartic.rglob("*.h5")} == before
    assert run(quartic, "cl_quartic", (*COMPLEX, "action.lam=2")) == 2
    assert "action.lam was 1.0, now 2.0" in capsys.readouterr().err


def test_a_wrong_run_is_not_learned_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """sigma0 = 1 + 4i lies outside 3 A^2 >= B^2: the verdict refuses to train on it."""
    assert run(tmp_path / "wrong", "cl_quartic", (*COMPLEX, "action.sigma0=[1,4]")) == 2
    assert "failed its certificate" in capsys.readouterr().err
    assert not (tmp_path / "wrong/train").exists() or not list((tmp_path / "wrong/train").iterdir())


def test_the_commands_serve_runs_on_one_variable(quartic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check, measure and compare, as for fields on a lattice; a check for another kind of run says so."""
    assert main(["check", "strip", str(quartic), "--quiet"]) == 0
    assert "beyond |y| =" in capsys.readouterr().out
    assert main(["check", "levels", str(quartic), "--quiet"]) == 2
    assert "those for" in capsys.readouterr().err
    assert main(["measure", str(quartic / "samples" / "energy-ve")]) == 0
    assert "Re kappa4" in capsys.readouterr().out
    assert main(["compare", str(quartic / "ensemble"), str(quartic / "samples" / "score-ve")]) in (0, 1)
    assert "Re m2" in capsys.readouterr().out


def test_a_run_without_models_ends_with_its_verdict_right_or_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = ("models=[]", "checks={}", "ensemble.n_configs=4000", "ensemble.n_chains=100")
    for beta, word in (([5.0, 0.1], "trusted"), ([0.1, 1.0], "wrong")):
        folder = tmp_path / word
        assert run(folder, "cl_quartic", (f"action={{kind: one_link, beta: {beta}}}", *alone)) == 0
        printed = capsys.readouterr().out
        assert f"complex Langevin: {word}" in printed
        assert ("verdict: passed" in printed) == (word == "trusted")
        assert (folder / "report.html").is_file()
