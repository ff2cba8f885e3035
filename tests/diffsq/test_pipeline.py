"""The run folder: skip, resume, refuse, restart, lock.

The stages are replaced by small fakes that write files, so these tests are about the plumbing alone; the
end-to-end run of a tiny config (and kill -9 in each real stage) is the business of other tests.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import OWN, changed, fake_stages, quiet

from diffsq import pipeline, stages
from diffsq.config.config import Config, config_from_dict
from diffsq.run_folder.records import STAGES, Run, certificate_of, open_config, read_records
from lattice.errors import InputError
from lattice.progress import Progress


def test_stages_run_in_order_and_are_then_skipped(tmp_path: Path, config: Config, log: list[str]) -> None:
    run = pipeline.run(config, tmp_path / "run", say=quiet)
    assert log == list(STAGES)
    assert set(run.seconds()) == set(STAGES)
    said: list[str] = []
    pipeline.run(config, tmp_path / "run", say=said.append)
    assert log == list(STAGES)
    assert len(said) == 5
    assert all("unchanged" in line for line in said)


def test_the_resolved_config_is_in_the_folder(tmp_path: Path, config: Config, log: list[str]) -> None:
    pipeline.run(config, tmp_path / "run", say=quiet)
    assert open_config(tmp_path / "run") == config
    with pytest.raises(InputError, match="not a run folder"):
        open_config(tmp_path)


def test_plan_touches_nothing(tmp_path: Path, config: Config) -> None:
    assert set(pipeline.plan(config, tmp_path / "run").values()) == {"run"}
    assert not (tmp_path / "run").exists()


def test_plan_tells_run_resume_and_skip(tmp_path: Path, config: Config, log: list[str]) -> None:
    pipeline.run(config, tmp_path, ("ensemble", "train"), say=quiet)
    found = read_records(tmp_path)
    found["train"]["complete"] = False
    (tmp_path / "stages.json").write_text(json.dumps(found))
    plan = pipeline.plan(config, tmp_path)
    assert plan["ensemble"].startswith("skip")
    assert plan["train"].startswith("resume")
    assert plan["sample"] == "run"
    assert pipeline.plan(config, tmp_path, restart="ensemble")["ensemble"] == "run"


def test_a_changed_key_is_refused_with_old_and_new(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    other = changed(settings, "sampling", n_levels=5)
    message = r"sample stage .* sampling\.n_levels was 4, now 5.*--run.*--restart sample"
    with pytest.raises(InputError, match=message):
        pipeline.run(other, tmp_path, say=quiet)
    assert "refuse" in pipeline.plan(other, tmp_path)["sample"]
    assert open_config(tmp_path) == config, "a refused run must not replace the folder's config"
    assert log == list(STAGES), "nothing may run before the refusal"


@pytest.mark.parametrize(
    ("law", "what"),
    [("models.regression.VERSION", "train base"), ("sampling.lattice_path.VERSION", "sample law")],
)
def test_another_version_of_a_law_is_refused(
    law: str, what: str, tmp_path: Path, config: Config, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    monkeypatch.setattr(f"diffsq.{law}", 99)
    stage, name = what.split()
    with pytest.raises(InputError, match=rf"version\.{name} was \d, now 99.*--restart {stage}"):
        pipeline.run(config, tmp_path, say=quiet)
    assert log == list(STAGES), "nothing may run before the refusal"
    pipeline.run(config, tmp_path, restart=stage, say=quiet)


def test_what_the_run_would_refuse_the_plan_refuses(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    spins = changed(settings, "ensemble", update="heat-bath")
    assert pipeline.plan(spins, tmp_path)["ensemble"].startswith("refuse: ensemble.update: heat-bath is for")
    with pytest.raises(InputError, match="heat-bath is for spins only"):
        pipeline.run(spins, tmp_path, say=quiet)
    assert (log, list(tmp_path.iterdir())) == ([], [])
    few = changed(settings, "checks", gibbs={"n_chains": 2})
    for refuse in (pipeline.plan, pipeline.run):
        with pytest.raises(InputError, match="gibbs needs an even n_chains >= "):
            refuse(few, tmp_path)
    assert pipeline.plan(config, tmp_path)["measure"] == "run"


def test_restart_redoes_that_stage_and_the_later_ones(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    log.clear()
    pipeline.run(changed(settings, "sampling", n_levels=5), tmp_path, restart="sample", say=quiet)
    assert log == ["sample", "measure", "report"]


def test_a_new_reference_only_measures_again(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    log.clear()
    reference = {"kappa": 0.25, "lam": 0.1, "shape": [8, 8], "values": {"binder": "0.53(1)"}}
    pipeline.run(changed(settings, "reference", **reference), tmp_path, say=quiet)
    assert log[0] == "measure"
    assert "ensemble" not in log


@pytest.mark.parametrize("damage", ["edit", "delete"])
def test_a_damaged_result_is_named_not_used(
    tmp_path: Path, config: Config, log: list[str], damage: str
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    target = tmp_path / "ensemble" / OWN["ensemble"]
    if damage == "edit":
        target.write_text("something else")
    else:
        target.unlink()
    with pytest.raises(InputError, match=r"ensemble.shard-0000\.h5 .*--restart ensemble"):
        pipeline.run(config, tmp_path, say=quiet)


def test_a_stage_needs_its_input(tmp_path: Path, config: Config, log: list[str]) -> None:
    with pytest.raises(InputError, match="train needs a finished ensemble stage"):
        pipeline.run(config, tmp_path, ("train",), say=quiet)
    assert log == []


def test_an_input_made_anew_elsewhere_is_noticed(tmp_path: Path, config: Config, log: list[str]) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    found = read_records(tmp_path)
    found["ensemble"]["identity"] = "another ensemble"
    (tmp_path / "stages.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="its input ensemble"):
        pipeline.run(config, tmp_path, ("train",), say=quiet)


def test_an_interrupted_stage_resumes_and_its_seconds_add_up(
    tmp_path: Path, config: Config, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    working = dict(stages.STAGE)

    def interrupted(run: Run, progress: Progress) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "STAGE", {**working, "train": interrupted})
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, tmp_path, say=quiet)
    found = read_records(tmp_path)
    assert found["train"]["complete"] is False
    found["train"]["seconds"] = 100.0  # as after a long first attempt
    (tmp_path / "stages.json").write_text(json.dumps(found))
    monkeypatch.setattr(stages, "STAGE", working)
    run = pipeline.run(config, tmp_path, say=quiet)
    assert run.records["train"]["complete"]
    assert run.seconds()["train"] >= 100.0
    assert log.count("ensemble") == 1


def test_an_uncertified_ensemble_is_refused_unless_accepted(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(stages, "STAGE", fake_stages(ran, certified=False))
    with pytest.raises(InputError, match=r"failed its certificate \(drift\).*--accept-uncertified"):
        pipeline.run(config, tmp_path, say=quiet)
    assert ran == ["ensemble"]
    pipeline.run(config, tmp_path, accept_uncertified=True, say=quiet)
    assert ran == list(STAGES)


def test_a_refused_ensemble_is_made_longer_in_the_same_folder(
    tmp_path: Path, settings: dict[str, Any], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first advice of the refusal: the stage that it stopped has made nothing, so nothing is in the way.
    Once it has, it is."""
    ran: list[str] = []
    more = changed(settings, "ensemble", n_configs=128)
    monkeypatch.setattr(stages, "STAGE", fake_stages(ran, certified=False))
    with pytest.raises(InputError, match="larger ensemble.n_configs"):
        pipeline.run(config, tmp_path, say=quiet)
    assert pipeline.plan(more, tmp_path)["train"] == "run"
    monkeypatch.setattr(stages, "STAGE", fake_stages(ran))
    pipeline.run(more, tmp_path, ("ensemble",), say=quiet)
    pipeline.run(more, tmp_path, ("train",), say=quiet)  # of an ensemble made longer by itself
    pipeline.run(more, tmp_path, say=quiet)
    assert ran == ["ensemble", *STAGES]
    with pytest.raises(InputError, match="train stage was made from a shorter ensemble"):
        pipeline.run(changed(settings, "ensemble", n_configs=256), tmp_path, say=quiet)


def test_a_second_process_on_the_same_folder_is_refused(
    tmp_path: Path, config: Config, log: list[str]
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lattice.files import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another"):
            pipeline.run(config, tmp_path, say=quiet)
        holder.send_signal(signal.SIGKILL)
    pipeline.run(config, tmp_path, say=quiet)  # the lock of a killed process is free
    assert log == list(STAGES)


def test_a_run_folder_of_version_0_1_is_refused_in_one_line(tmp_path: Path, config: Config) -> None:
    old = {"schema": 1, "config": {}, "input": {}, "key": "", "seconds": 1.0, "complete": False}
    (tmp_path / "stages.json").write_text(json.dumps({"ensemble": old}))
    with pytest.raises(InputError, match=r"run folder of diffsq 0\.1.*--run") as refused:
        pipeline.run(config, tmp_path, say=quiet)
    assert "\n" not in str(refused.value)


def test_damaged_records_are_named(tmp_path: Path, config: Config) -> None:
    (tmp_path / "stages.json").write_text('{"ensemble": 3}')
    with pytest.raises(InputError, match="damaged record"):
        pipeline.run(config, tmp_path, say=quiet)


# --- an ensemble made elsewhere -----------------------------------------------------------------------------


def write_foreign(folder: Path, *, seed: int = 1, passed: bool | None = True, n: int = 1024) -> None:
    """Exact draws of the free field in an ensemble folder, with a certificate that says `passed`."""
    from lattice.actions.phi4 import FreeScalar
    from lattice.certificates.monte_carlo import certify
    from lattice.ensembles.ensemble import Ensemble
    from lattice.ensembles.writer import write_ensemble

    rng = np.random.default_rng(seed)
    cos = np.cos(2 * np.pi * np.arange(8) / 8)
    width = np.sqrt(0.5 / (1 - 0.4 * (cos[:, None] + cos[None, :])))
    phi = np.fft.ifft2(width * np.fft.fft2(rng.normal(size=(n, 8, 8)))).real
    e = Ensemble.from_fields(phi, FreeScalar(0.2), np.repeat(np.arange(16), n // 16))
    if passed is not None:
        e.attrs["certificate"] = {**certify(e), "passed": passed, "reason": "" if passed else "failed: |M|"}
    write_ensemble(e, folder)


def taking(source: Path, **sections: Any) -> Config:
    """A config of seconds that takes its ensemble from `source`."""
    return config_from_dict({
        "name": "taken", "seed": 3, "action": {"kind": "free", "kappa": 0.2, "lam": 0.0},
        "lattice": {"shape": [8, 8]}, "ensemble": {"source": str(source)},
        "model": {"channels": 0, "n_sigma": 8, "n_fit": 512},
        "training": {"n_steps": 4, "batch_size": 16, "warmup": 1, "validate_every": 4, "checkpoint_every": 4},
        "sampling": {"n_samples": 64, "n_levels": 4, "n_forward": 64}, **sections,
    })  # fmt: skip


def test_a_run_from_an_ensemble_made_elsewhere(tmp_path: Path) -> None:
    """Up to the final table, on fields that keep their bits, with the certificate they came with."""
    from lattice.ensembles.ensemble import read_ensemble

    write_foreign(tmp_path / "theirs")
    wanted = ("ensemble", "train", "sample", "measure")
    run = pipeline.run(taking(tmp_path / "theirs"), tmp_path / "run", wanted, say=quiet)
    assert set(run.seconds()) == set(wanted)
    theirs, ours = read_ensemble(tmp_path / "theirs"), read_ensemble(tmp_path / "run" / "ensemble")
    np.testing.assert_array_equal(ours.phi, theirs.phi)
    np.testing.assert_array_equal(ours.chain, theirs.chain)
    assert ours.attrs["certificate"] == theirs.attrs["certificate"]
    assert certificate_of(tmp_path / "run") == theirs.attrs["certificate"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["columns"]["training"]["ensemble"]["n"] == 1024

    said: list[str] = []
    shutil.rmtree(tmp_path / "theirs")  # the run has its own copy
    pipeline.run(taking(tmp_path / "theirs"), tmp_path / "run", wanted, say=said.append)
    assert len([line for line in said if "unchanged" in line]) == 4

    write_foreign(tmp_path / "theirs", seed=2)
    with pytest.raises(InputError, match=r"ensemble stage .*its input source .*theirs"):
        pipeline.run(taking(tmp_path / "theirs"), tmp_path / "run", say=quiet)
    plan = pipeline.plan(taking(tmp_path / "theirs"), tmp_path / "run")
    assert not plan["ensemble"].startswith("skip")


@pytest.mark.parametrize("passed", [False, None])
def test_an_uncertified_source_is_refused_before_anything_is_written(
    tmp_path: Path, passed: bool | None
) -> None:
    write_foreign(tmp_path / "theirs", passed=passed, n=256)
    why = "no thermalisation history" if passed is None else r"failed: \|M\|"
    with pytest.raises(InputError, match=rf"theirs: not certified \(.*{why}.*--accept-uncertified"):
        pipeline.run(taking(tmp_path / "theirs"), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run" / "ensemble").exists()
    pipeline.run(
        taking(tmp_path / "theirs"), tmp_path / "run", ("ensemble",), accept_uncertified=True, say=quiet
    )
    assert certificate_of(tmp_path / "run")["passed"] is False
    with pytest.raises(InputError, match="failed its certificate"):  # accepted once is not accepted for ever
        pipeline.run(taking(tmp_path / "theirs"), tmp_path / "run", say=quiet)


def test_a_source_that_does_not_fit(tmp_path: Path) -> None:
    write_foreign(tmp_path / "theirs", n=256)
    cases = [
        (taking(tmp_path / "nowhere"), "nowhere: cannot be read"),
        (taking(tmp_path / "theirs", lattice={"shape": [8, 16]}), r"fields on \[8, 8\], .* is \[8, 16\]"),
        (taking(tmp_path / "theirs", action={"kind": "free", "kappa": 0.21, "lam": 0.0}), "action is .*0.21"),
    ]  # fmt: skip
    for config, message in cases:
        with pytest.raises(InputError, match=message):
            pipeline.run(config, tmp_path / "run", say=quiet)
        (tmp_path / "run" / "stages.json").unlink(missing_ok=True)
    shard = tmp_path / "theirs" / "shard-0000.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"shard-0000\.h5: changed since it was written"):
        pipeline.run(taking(tmp_path / "theirs"), tmp_path / "run", say=quiet)
