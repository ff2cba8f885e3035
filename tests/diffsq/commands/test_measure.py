"""`diffsq measure`: its options, several weighted samples at once, and the warning of a low ESS."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import weighted_sample as sample

from diffsq.commands.main import main
from lattice.actions.phi4 import FreeScalar
from lattice.ensembles.ensemble import Ensemble
from lattice.ensembles.writer import write_ensemble


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """An unweighted ensemble of two chains whose fields are autocorrelated."""
    phi = np.random.default_rng(4).normal(size=(2, 500, 4, 4))
    for t in range(1, 500):
        phi[:, t] += 0.6 * phi[:, t - 1]
    chain = np.repeat([0, 1], 500)
    write_ensemble(Ensemble.from_fields(phi.reshape(-1, 4, 4), FreeScalar(0.2), chain=chain), tmp_path / "e")
    return tmp_path / "e"


def test_measure_all_shows_every_cumulant(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = []
    for words in ([], ["--all"]):
        assert main(["measure", str(series), *words]) == 0
        names.append({line.split()[0] for line in capsys.readouterr().out.splitlines()})
    assert {"kappa3", "kappa3_ratio", "kappa8_k2"} <= names[1] - names[0]
    assert {"binder", "kappa4_ratio"} <= names[0] & names[1]


def test_measure_jackknife_is_a_second_opinion(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for method in ("gamma", "jackknife"):
        assert main(["measure", str(series), "--json", "--method", method]) == 0
        tables.append(json.loads(capsys.readouterr().out))
    gamma, jackknife = tables
    assert "Gamma" in gamma["method"]
    assert "jackknife" in jackknife["method"]
    one, two = (t["observables"]["phi2"] for t in tables)
    assert two["value"] == pytest.approx(one["value"], rel=1e-12)
    assert two["error"] == pytest.approx(one["error"], rel=0.4)
    assert two["error"] != one["error"]


def test_several_ensembles_without_weights_are_refused(
    series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(series), str(series)]) == 2
    assert "only weighted samples are combined" in capsys.readouterr().err
    assert main(["measure", str(series), "--metropolis"]) == 2
    assert "there is nothing to correct" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("samples")
    for name, ensemble in (("one", sample(1)), ("two", sample(2)), ("more", sample(1, first=400))):
        write_ensemble(ensemble, root / name)
    return [str(root / name) for name in ("one", "two", "more")]


def test_measure_takes_several_files(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", *folders]) == 0
    printed = capsys.readouterr()
    assert "n = 1200" in printed.out
    assert printed.err == ""
    assert main(["measure", folders[0], folders[2], "--metropolis"]) == 0
    assert "n = 800" in capsys.readouterr().out


def test_measure_refuses_in_one_line(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([*folders[:2], "--metropolis"], f"{folders[1]} differs from {folders[0]} in the seed"),
        ([folders[0], folders[0]], "holds 400 samples"),
    ):
        assert main(["measure", *words]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert said in lines[0]


def test_one_of_a_grid_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of numbers, of the run folder and of its ensemble folder alike."""
    (tmp_path / "stages.json").write_text("{}")
    names = [f"T{t}" for t in (2, 2.5, 10, 11, 12, 13, 14)]
    for name in names:
        write_ensemble(sample(1), tmp_path / "ensemble" / name)
    where = ", ".join(str(tmp_path / "ensemble" / name) for name in names[:6])
    for folder, which in ((tmp_path, "of its ensembles"), (tmp_path / "ensemble", "ensemble in it")):
        assert main(["measure", str(folder)]) == 2
        assert f"name one {which}: {where} and 1 more" in capsys.readouterr().err


def test_a_low_ess_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poor = sample(1)
    assert poor.log_weight is not None
    poor.log_weight = poor.log_weight + 3 * np.random.default_rng(5).normal(size=len(poor))
    write_ensemble(poor, tmp_path / "poor")
    assert main(["measure", str(tmp_path / "poor")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("diffsq: warning: ESS/N = ")
    assert "below 0.1" in lines[0]
    assert "Var log w = " in lines[0]
    assert main(["measure", str(tmp_path / "poor"), "--raw"]) == 0  # no weights, nothing to warn of
    assert capsys.readouterr().err == ""
