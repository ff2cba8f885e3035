"""Machines, pairs and pictures from the config to the page, by `pipeline.run` and by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from killer import killed_command

from diffsq import pipeline, stages
from diffsq.checks import gibbs, machine
from diffsq.commands.main import main
from diffsq.config.config import config_from_dict
from diffsq.exactness.weights import metropolis_ensemble
from diffsq.run_folder.records import read_records
from lattice.ensembles.ensemble import read_ensemble
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import lattice_kernel

MACHINE: dict[str, Any] = {
    "name": "machine", "seed": 2, "action": {"kind": "free", "kappa": 0.2}, "lattice": {"shape": [4, 4]},
    "ensemble": {"n_configs": 2048, "n_chains": 32, "n_therm": 60, "acceleration": "free", "cluster": "none",
                 "n_clusters": 0},
    "models": ["rbm"], "machine": {"width": 0.1},
    "training": {"second": "exact", "natural": True, "n_steps": 400, "checkpoint_every": 100},
    "sampling": {"n_samples": 2048, "n_forward": 256},
    "checks": {"machine": {"n_draws": 256}, "learning": False, "gibbs": {"n_chains": 16}},
}  # fmt: skip
PAIRS: dict[str, Any] = {
    "name": "pairs", "seed": 4, "models": ["pairs"],
    "training": {"n_visible": 6, "mu2": 20.0, "n_replicas": 64, "n_snapshots": 6, "n_apart": 0.5,
                 "rows": [{"rate": 0.1, "batch": 128}, {"rate": 0.05, "batch": 64}]},
}  # fmt: skip
PICTURES: dict[str, Any] = {
    "name": "pictures", "models": ["rbm"], "ensemble": {"data": "digits"},
    "machine": {"mu2": 36.0, "n_hidden": 3, "width": 0.1},
    "training": {"method": "cd", "rate": 0.02, "n_steps": 2500, "checkpoint_every": 1000},
    "checks": {"pictures": {"nodes": [3], "n_shown": 2}},
}  # fmt: skip
STAGES = ("ensemble", "train", "sample", "measure", "report")


def quiet(text: str) -> None:
    """Say nothing."""


def words(folder: Path, settings: dict[str, Any], *more: str) -> list[str]:
    """`diffsq run` of a file with these settings."""
    path = folder.parent / f"{settings['name']}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return ["run", str(path), "--quiet", "--run", str(folder), *more]


def summary_of(folder: Path) -> dict[str, Any]:
    """summary.json without the wall times."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    del summary["seconds"]
    return summary


def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take longer than all the rest."""
    monkeypatch.setitem(
        stages.STAGE, "report", lambda run, _: str((run.folder / "report.html").write_text(""))
    )
    for module in (gibbs, machine):
        monkeypatch.delattr(module, "figure")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the machine, in one go."""
    folder = tmp_path_factory.mktemp("machine") / "run"
    pipeline.run(config_from_dict(MACHINE), folder, say=quiet)
    return folder


def test_a_machine_of_the_free_field_passes(straight: Path) -> None:
    """Its weighted fields have the exact numbers, and as few weights as an exact machine has: ESS 1."""
    summary = summary_of(straight)
    assert summary["verdict"]["certified"]
    assert summary["verdict"]["passed"], summary["verdict"]
    assert {name: check["passed"] for name, check in summary["checks"].items()} == {
        "machine": True, "gibbs": True,
    }  # fmt: skip
    kernel = lattice_kernel((4, 4), 0.2)
    exact = {"susceptibility_full": 1 / kernel[0], "phi2": (1 / kernel).mean(), "action_density": 0.5}
    for column in ("training", "raw", "weighted", "metropolis"):
        observables = summary["columns"][column]["observables"]
        for name, known in exact.items():
            entry = observables[name]
            assert abs(entry["value"] - known) < 4.5 * entry["error"], (column, name)
    sampling = summary["sampling"]["rbm-exact"]
    assert sampling["ess"]["reverse"] > 0.999
    assert sampling["ess"]["forward"] > 0.999
    assert sampling["acceptance"] > 0.99


def test_the_samples_are_those_of_the_machine(straight: Path) -> None:
    samples = read_ensemble(straight / "samples" / "rbm-exact")
    assert len(samples) == 2048
    assert samples.log_weight is not None
    assert float(samples.log_weight.std()) < 1e-2
    assert len(metropolis_ensemble(samples, 1)) == 2048


def test_the_page_has_everything_of_a_machine(straight: Path) -> None:
    page = (straight / "report.html").read_text()
    for name in ("machine", "gibbs"):
        assert f"{name}" in page
        assert (straight / "checks" / f"{name}.png").stat().st_size > 5000
        assert (
            json.loads((straight / "checks" / f"{name}.json").read_text())["text"].splitlines()[-1]
            == "passed"
        )
    assert "16 modes, kappa from 0.4 to 3.6" in page
    assert "not run yet" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_call_does_nothing_and_a_changed_section_is_refused(straight: Path) -> None:
    said: list[str] = []
    pipeline.run(config_from_dict(MACHINE), straight, say=said.append)
    assert len([line for line in said if "unchanged" in line]) == 5
    with pytest.raises(InputError, match=r"train stage.*training.n_steps was 400, now 300.*--restart train"):
        pipeline.run(config_from_dict({**MACHINE, "training": {"n_steps": 300}}), straight, say=quiet)


def test_kill_9_then_the_same_command(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All numbers are those of one go; afterwards training is restarted, to the same bits."""
    folder = tmp_path / "run"
    for kill in (("machine", 250), ("samples", 1)):
        killed_command(*kill, words(folder, MACHINE))
    without_figures(monkeypatch)
    assert main(words(folder, MACHINE)) == 0
    assert "verdict: passed" in capsys.readouterr().out
    assert summary_of(folder) == summary_of(straight)
    for stage in ("ensemble", "samples/rbm-exact"):
        assert read_ensemble(folder / stage).identity == read_ensemble(straight / stage).identity
    before = read_records(folder)
    assert main(words(folder, MACHINE, "--restart", "train")) == 0
    after = read_records(folder)
    assert {name: after[name]["identity"] for name in ("ensemble", "train", "sample")} == {
        name: before[name]["identity"] for name in ("ensemble", "train", "sample")
    }  # fmt: skip
    assert summary_of(folder) == summary_of(straight)


def test_a_restart_with_another_machine_measures_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gibbs too: its ensemble is of the machine, and a product of the stage that is made again."""
    without_figures(monkeypatch)
    folder = tmp_path / "run"
    first = STAGES[:4]
    config = config_from_dict({**MACHINE, "checks": {**MACHINE["checks"], "machine": False}})
    pipeline.run(config, folder, first, say=quiet)
    heavier = config_from_dict({**config.model_dump(mode="json"), "machine": {"width": 0.1, "mu2": 4.0}})
    pipeline.run(heavier, folder, first, restart="train", say=quiet)
    found = json.loads((folder / "checks" / "gibbs.json").read_text())
    assert found["result"]["mu2"] == 4.0
    assert found["passed"] is True


def test_pairs_from_the_config_to_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(words(folder, PAIRS)) == 0
    told = capsys.readouterr().out
    assert "verdict: passed" in told
    assert told.splitlines()[-1] == f"report: {folder / 'report.html'}"
    summary = summary_of(folder)
    assert summary["columns"] == {}
    assert summary["checks"]["pairs"]["passed"] is True
    assert set(STAGES) <= set(read_records(folder))
    page = (folder / "report.html").read_text()
    assert "a of the block" in page
    assert "not run yet" not in page
    said: list[str] = []
    pipeline.run(config_from_dict(PAIRS), folder, say=said.append)
    assert len([line for line in said if "unchanged" in line]) == 5
    row = folder / "train" / "pairs-0" / "row.json"
    row.write_text(row.read_text().replace('"rate"', '"rate" '))
    assert main(words(folder, PAIRS)) == 2
    error = capsys.readouterr().err
    assert "train/pairs-0/row.json" in error
    assert len(error.strip().splitlines()) == 1
    assert main(["check", "machine", str(folder)]) == 2
    assert "for another kind of run" in capsys.readouterr().err


def test_pairs_killed_between_rows_go_on(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", config_from_dict(PAIRS)
    label = "64 machines, rate 0.05, batch 64"
    killed_command(label, 3, words(folder, PAIRS))
    kept = (folder / "train" / "pairs-0" / "row.json").stat()
    assert not (folder / "train" / "pairs-1" / "row.json").exists()
    pipeline.run(config, folder, ("ensemble", "train"), say=quiet)
    again = (folder / "train" / "pairs-0" / "row.json").stat()
    assert (again.st_mtime_ns, again.st_ino) == (kept.st_mtime_ns, kept.st_ino)
    assert (folder / "train" / "pairs-1" / "row.json").exists()


def test_pictures_from_the_config_to_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    folder = tmp_path / "run"
    assert main(words(folder, PICTURES)) == 0
    assert "verdict: passed" in capsys.readouterr().out
    summary = summary_of(folder)
    assert summary["checks"]["pictures"]["passed"] is True
    assert "pixels 0, 32, 39 never change" in summary["checks"]["pictures"]["text"]
    page = (folder / "report.html").read_text()
    assert "not run yet" not in page
    assert "of the best machine" in page
    data = folder / "ensemble" / "data.npy"
    data.write_bytes(data.read_bytes()[:-8] + b"\0" * 7 + b"\x3f")
    assert main(words(folder, PICTURES)) == 2
    assert "ensemble/data.npy" in capsys.readouterr().err


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (MACHINE, {"machine": {"n_hiden": 3}}, "machine.n_hidden"),
    (MACHINE, {"action": {"kind": "phi4", "kappa": 0.2, "lam": 0.1}}, "training.second exact"),
    (MACHINE, {"training": {"method": "pcd"}}, "training.batch"),
    (MACHINE, {"machine": {"mu2": 0.3}}, "0.3"),
    (MACHINE, {"training": {"second": "exact", "rate": 1.0}}, "a rate of 1 is unstable"),
    (PAIRS, {"lattice": {"shape": [4]}}, "leave them out"),
    (PAIRS, {"training": {**PAIRS["training"], "mu2": 7.0}}, "training.mu2 must be above"),
    (PICTURES, {"training": {"second": "symmetric"}}, "training.second symmetric"),
    (PICTURES, {"ensemble": {"data": "faces"}}, "ensemble.data"),
    (PICTURES, {"lattice": {"shape": [8, 8]}}, "no action, lattice or reference"),
    ({"name": "students", "models": ["teacher_student"],
      "training": {"rows": [{"rate": 1.2, "batch": 4}]}}, {}, "has no stationary state"),
    ({"name": "text", "models": ["transformer"], "training": {"n_steps": 10}}, {}, "training.at must rise"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "bad", "what"), BAD)
def test_errors_end_with_code_2_and_one_line(
    tmp_path: Path,
    settings: dict[str, Any],
    bad: dict[str, Any],
    what: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if settings is PICTURES:
        pytest.importorskip("sklearn")
    small = (
        {"ensemble": {**MACHINE["ensemble"], "n_configs": 256, "n_therm": 20}} if settings is MACHINE else {}
    )
    given = words(tmp_path / "run", {**settings, **small, **bad})
    accept = ["--accept-uncertified"] if settings is MACHINE else []
    assert main([*given, *accept]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.strip().splitlines()
    assert what in line
    assert "Traceback" not in line
