"""The run folder: skip, resume, refuse, restart, lock.

The stages are replaced by small fakes that write files, so these tests are about the plumbing alone; the
end-to-end run of a tiny config (and kill -9 in each real stage) is the business of other tests.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffsq import pipeline
from diffsq.config import Config, config_from_dict
from lattice.errors import InputError
from lattice.progress import Progress


def fake_stages(log: list[str], certified: bool = True) -> dict[str, Callable[[pipeline.Run, Progress], str]]:
    """Stage functions that write one file each and note that they ran."""

    def stage(name: str) -> Callable[[pipeline.Run, Progress], str]:
        def work(run: pipeline.Run, progress: Progress) -> str:
            if name == "train":
                pipeline.require_certificate(run)
            log.append(name)
            progress.start(1, name)
            progress.update(1)
            if name in pipeline.FOLDER:
                out = run.out(name)
                out.mkdir(exist_ok=True)
                (out / "data").write_text(f"{name} {run.config.seed}")
                if name == "ensemble":
                    check = {"name": "drift", "passed": certified}
                    (out / "certificate.json").write_text(
                        json.dumps({"passed": certified, "checks": [check]})
                    )
            else:
                (run.folder / pipeline.PRODUCT[name]).write_text("{}")
            return f"identity of {name}"

        return work

    return {name: stage(name) for name in pipeline.STAGES}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    ran: list[str] = []
    monkeypatch.setattr(pipeline, "_STAGE", fake_stages(ran))
    return ran


@pytest.fixture
def config(settings: dict[str, Any]) -> Config:
    return config_from_dict(settings)


def changed(settings: dict[str, Any], section: str, **values: Any) -> Config:
    return config_from_dict({**settings, section: {**settings.get(section, {}), **values}})


def quiet(text: str) -> None:
    """Say nothing."""


def test_stages_run_in_order_and_are_then_skipped(tmp_path: Path, config: Config, log: list[str]) -> None:
    run = pipeline.run_stages(config, tmp_path / "run", say=quiet)
    assert log == list(pipeline.STAGES)
    assert set(run.seconds()) == set(pipeline.STAGES)
    said: list[str] = []
    pipeline.run_stages(config, tmp_path / "run", say=said.append)
    assert log == list(pipeline.STAGES)
    assert len(said) == 5
    assert all("unchanged" in line for line in said)


def test_the_resolved_config_is_in_the_folder(tmp_path: Path, config: Config, log: list[str]) -> None:
    pipeline.run_stages(config, tmp_path / "run", say=quiet)
    assert pipeline.open_config(tmp_path / "run") == config
    with pytest.raises(InputError, match="not a run folder"):
        pipeline.open_config(tmp_path)


def test_plan_touches_nothing(tmp_path: Path, config: Config) -> None:
    assert set(pipeline.plan(config, tmp_path / "run").values()) == {"run"}
    assert not (tmp_path / "run").exists()


def test_plan_tells_run_resume_and_skip(tmp_path: Path, config: Config, log: list[str]) -> None:
    pipeline.run_stages(config, tmp_path, ("ensemble", "train"), say=quiet)
    records = pipeline.read_records(tmp_path)
    records["train"]["complete"] = False
    (tmp_path / "stages.json").write_text(json.dumps(records))
    plan = pipeline.plan(config, tmp_path)
    assert plan["ensemble"].startswith("skip")
    assert plan["train"].startswith("resume")
    assert plan["sample"] == "run"
    assert pipeline.plan(config, tmp_path, restart="ensemble")["ensemble"] == "run"


def test_a_changed_key_is_refused_with_old_and_new(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run_stages(config, tmp_path, say=quiet)
    other = changed(settings, "sampling", n_samples=32)
    message = r"sample stage .* sampling\.n_samples \(was 24, now 32\).*--run.*--restart sample"
    with pytest.raises(InputError, match=message):
        pipeline.run_stages(other, tmp_path, say=quiet)
    assert "refuse" in pipeline.plan(other, tmp_path)["sample"]
    assert pipeline.open_config(tmp_path) == config, "a refused run must not replace the folder's config"
    assert log == list(pipeline.STAGES), "nothing may run before the refusal"


def test_restart_redoes_that_stage_and_the_later_ones(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run_stages(config, tmp_path, say=quiet)
    log.clear()
    pipeline.run_stages(changed(settings, "sampling", n_samples=32), tmp_path, restart="sample", say=quiet)
    assert log == ["sample", "measure", "report"]


def test_a_new_reference_only_measures_again(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run_stages(config, tmp_path, say=quiet)
    log.clear()
    reference = {"kappa": 0.25, "lam": 0.1, "shape": [8, 8], "values": {"binder": "0.53(1)"}}
    pipeline.run_stages(changed(settings, "reference", **reference), tmp_path, say=quiet)
    assert log[0] == "measure"
    assert "ensemble" not in log


@pytest.mark.parametrize("damage", ["edit", "delete"])
def test_a_damaged_result_is_named_not_used(
    tmp_path: Path, config: Config, log: list[str], damage: str
) -> None:
    pipeline.run_stages(config, tmp_path, say=quiet)
    target = tmp_path / "ensemble" / "data"
    if damage == "edit":
        target.write_text("something else")
    else:
        target.unlink()
    with pytest.raises(InputError, match=r"ensemble.data .*--restart ensemble"):
        pipeline.run_stages(config, tmp_path, say=quiet)


def test_a_stage_needs_its_input(tmp_path: Path, config: Config, log: list[str]) -> None:
    with pytest.raises(InputError, match="train needs a finished ensemble stage"):
        pipeline.run_stages(config, tmp_path, ("train",), say=quiet)
    assert log == []


def test_an_input_made_anew_elsewhere_is_noticed(tmp_path: Path, config: Config, log: list[str]) -> None:
    pipeline.run_stages(config, tmp_path, say=quiet)
    records = pipeline.read_records(tmp_path)
    records["ensemble"]["identity"] = "another ensemble"
    (tmp_path / "stages.json").write_text(json.dumps(records))
    with pytest.raises(InputError, match="its input ensemble"):
        pipeline.run_stages(config, tmp_path, ("train",), say=quiet)


def test_an_interrupted_stage_resumes_and_its_seconds_add_up(
    tmp_path: Path, config: Config, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = dict(pipeline._STAGE)

    def interrupted(run: pipeline.Run, progress: Progress) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_STAGE", {**stages, "train": interrupted})
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_stages(config, tmp_path, say=quiet)
    records = pipeline.read_records(tmp_path)
    assert records["train"]["complete"] is False
    records["train"]["seconds"] = 100.0  # as after a long first attempt
    (tmp_path / "stages.json").write_text(json.dumps(records))
    monkeypatch.setattr(pipeline, "_STAGE", stages)
    run = pipeline.run_stages(config, tmp_path, say=quiet)
    assert run.records["train"]["complete"]
    assert run.seconds()["train"] >= 100.0
    assert log.count("ensemble") == 1


def test_an_uncertified_ensemble_is_refused_unless_accepted(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(pipeline, "_STAGE", fake_stages(ran, certified=False))
    with pytest.raises(InputError, match=r"failed its certificate \(drift\).*--accept-uncertified"):
        pipeline.run_stages(config, tmp_path, say=quiet)
    assert ran == ["ensemble"]
    pipeline.run_stages(config, tmp_path, accept_uncertified=True, say=quiet)
    assert ran == list(pipeline.STAGES)


def test_a_second_process_on_the_same_folder_is_refused(
    tmp_path: Path, config: Config, log: list[str]
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lattice.files import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another"):
            pipeline.run_stages(config, tmp_path, say=quiet)
        holder.send_signal(signal.SIGKILL)
    pipeline.run_stages(config, tmp_path, say=quiet)  # the lock of a killed process is free
    assert log == list(pipeline.STAGES)


def test_damaged_records_are_named(tmp_path: Path, config: Config) -> None:
    (tmp_path / "stages.json").write_text('{"ensemble": 3}')
    with pytest.raises(InputError, match="damaged record"):
        pipeline.run_stages(config, tmp_path, say=quiet)
