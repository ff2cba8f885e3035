"""Only what diffsq made is ever removed or replaced; all else stays, and is named."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_run import OWN, changed, quiet
from killer import killed_at

from diffsq import pipeline, stages
from diffsq.commands.main import main
from diffsq.config.config import Config, config_from_dict, load_config
from diffsq.run_folder.own_files import own_name, removal
from diffsq.run_folder.records import STAGES, config_path, open_config, read_records
from lattice.errors import InputError


def everything(folder: Path) -> dict[str, str]:
    """Path -> content of all files but the lock and the temporary ones, links as what they point to."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or (path.is_file() and path.name != "lock")
    }


def write(folder: Path, name: str, text: str = "mine") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


FOREIGN = ("train/data.csv", "train/score/model.json", "samples/a/b.txt", "ensemble/shard-0000.h5")


def test_restart_in_a_folder_that_diffsq_did_not_make(
    tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    for name in FOREIGN:
        write(folder, name)
    before = everything(folder)
    words = ["ensemble", str(config_file), "--run", str(folder), "--quiet", "--restart", "ensemble"]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 2
        assert "nothing here was made by diffsq" in capsys.readouterr().err
    assert main(words[:-2]) == 2  # nor is it made into without
    assert "shard-0000.h5: is there already and not made by this run" in capsys.readouterr().err
    assert everything(folder) == before
    assert not (folder / "lock").exists()


@pytest.mark.parametrize(
    "name", ["ensemble/manifest.json", "train/score/model.json", "samples/score-ve/forward.json",
             "summary.json", "report.html", "overview.png"],
)  # fmt: skip
def test_a_file_in_the_way_is_refused_before_any_work(
    name: str, tmp_path: Path, config: Config, log: list[str]
) -> None:
    path = write(tmp_path, name)
    with pytest.raises(InputError, match=f"{path.name}: is there already and not made by this run") as caught:
        pipeline.run(config, tmp_path, say=quiet)
    assert "\n" not in str(caught.value)
    assert (log, path.read_text()) == ([], "mine")
    path.unlink()
    pipeline.run(config, tmp_path, say=quiet)
    assert log == list(STAGES)


def test_restart_keeps_what_is_not_recorded_and_names_it(
    tmp_path: Path, config: Config, log: list[str], capsys: pytest.CaptureFixture[str], config_file: Path
) -> None:
    folder = tmp_path / "run"
    pipeline.run(config, folder, say=quiet)
    mine = ("ensemble/notes.txt", "train/score/plot.pdf", "samples/mine/shard-0000.h5", "checks/mine.json")
    for name in mine:
        write(folder, name)
    write(folder, f"samples/{OWN['sample']}", "edited")
    write(folder, "ensemble/.shard-0007.h5.4711.diffsq.tmp", "torn")
    before = everything(folder)
    words = ["run", str(config_file), "--run", str(folder), "--quiet", "--restart", "ensemble"]
    assert main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "#   remove ensemble/shard-0000.h5", "#   remove ensemble/.shard-0007.h5.4711.diffsq.tmp",
        "#   remove train/score/model.json", "#   remove report.html",
        "#   keep ensemble/notes.txt (not recorded)",
        "#   set aside samples/score-ve/forward.json (changed since it was written)",
    ):  # fmt: skip
        assert line in printed
    assert everything(folder) == before

    said: list[str] = []
    log.clear()
    pipeline.run(config, folder, restart="ensemble", say=said.append)
    assert log == list(STAGES)
    after = everything(folder)
    assert {name: after[name] for name in mine} == dict.fromkeys(mine, "mine")
    assert after["samples/score-ve/forward.json.changed-1"] == "edited"
    assert "ensemble/.shard-0007.h5.4711.diffsq.tmp" not in after
    for name in mine:
        assert f"keep {name} (not recorded)" in said
    recorded = {name for stage in STAGES for name in read_records(folder)[stage]["files"]}
    assert not recorded & set(mine)


def test_an_interrupted_stage_is_discarded_by_its_names(
    tmp_path: Path, config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, ("ensemble",), say=quiet)
    kept = read_records(tmp_path)
    kept["ensemble"] |= {"complete": False, "files": {}}
    (tmp_path / "stages.json").write_text(json.dumps(kept))
    write(tmp_path, "ensemble/notes.txt")
    found = removal(tmp_path, kept, STAGES)
    assert found.remove == ["ensemble/certificate.json", "ensemble/shard-0000.h5"]
    assert found.keep == ["ensemble/notes.txt"]


@pytest.mark.parametrize("restart", ["ensemble", "sample"])
def test_a_discard_killed_at_any_file_goes_on(
    restart: str, tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path / "run", say=quiet)
    write(tmp_path / "run", "samples/notes.txt")
    other = changed(settings, "sampling", n_levels=5)
    for count in range(1, 5):
        folder = tmp_path / str(count)
        shutil.copytree(tmp_path / "run", folder)
        killed_at("unlink", count, pipeline.run, other, folder, restart=restart)
        pipeline.plan(other, folder, restart=restart)
        pipeline.run(other, folder, restart=restart, say=quiet)
        assert read_records(folder)["sample"]["complete"]
        assert everything(folder)["samples/notes.txt"] == "mine"


def test_everything_is_checked_before_anything_is_removed(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    """Other settings of a stage that stays, and a check that does not exist, cost nothing."""
    pipeline.run(config, tmp_path, say=quiet)
    before = everything(tmp_path)
    with pytest.raises(InputError, match="ensemble.n_chains was 8, now 16"):
        pipeline.run(changed(settings, "ensemble", n_chains=16), tmp_path, restart="sample", say=quiet)
    with pytest.raises(InputError, match="no option nonsense"):
        pipeline.run(
            changed(settings, "checks", levels={"nonsense": 1}), tmp_path, restart="sample", say=quiet
        )
    assert everything(tmp_path) == before


# --- the config of a run folder -----------------------------------------------------------------------------


@pytest.mark.parametrize("link", [False, True])
def test_a_users_config_in_the_run_folder_keeps_its_comments(
    link: bool, tmp_path: Path, settings: dict[str, Any], log: list[str]
) -> None:
    """As a file and as a link; the command of every later day reads the resolved one beside it."""
    folder, text = tmp_path / "p", "# of Tuesday\n" + yaml.safe_dump(settings)
    folder.mkdir()
    if link:
        write(tmp_path, "elsewhere.yaml", text)
        (folder / "config.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    else:
        write(folder, "config.yaml", text)
    for more in ((), ("reference=null",)):
        pipeline.run(load_config(folder / "config.yaml", more), folder, say=quiet)
        assert (folder / "config.yaml").read_text() == text
        assert (folder / "config.yaml").is_symlink() == link
        assert config_path(folder) == folder / "resolved.yaml"
        assert open_config(folder) == config_from_dict(settings)
    assert log[:5] == list(STAGES)


def test_a_config_of_ours_that_was_edited_is_the_users(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    ours = (tmp_path / "config.yaml").read_text()
    pipeline.run(changed(settings, "checks", levels={}), tmp_path, ("ensemble",), say=quiet)
    assert (tmp_path / "config.yaml").read_text() != ours  # the control: what is ours is replaced
    assert not (tmp_path / "resolved.yaml").exists()
    edited = write(tmp_path, "config.yaml", f"# mine\n{ours}")
    write(tmp_path, "resolved.yaml")
    pipeline.run(config, tmp_path, say=quiet)
    assert edited.read_text() == f"# mine\n{ours}"
    assert (tmp_path / "resolved.yaml").read_text() == "mine"
    assert config_path(tmp_path).name == "resolved-2.yaml"
    assert open_config(tmp_path) == config


def test_a_lock_of_somebody_else(tmp_path: Path, config: Config, log: list[str]) -> None:
    write(tmp_path, "lock")
    with pytest.raises(InputError, match="not diffsq's lock"):
        pipeline.run(config, tmp_path, say=quiet)
    assert everything(tmp_path) == {}
    assert (tmp_path / "lock").read_text() == "mine"


# --- what is cheap is made again ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.html", "summary.json"])
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_cheap_products_are_made_again(
    name: str, how: str, tmp_path: Path, config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    log.clear()
    pipeline.run(config, tmp_path, ("measure", "report"), say=quiet)
    assert log == [], "the control: nothing is made again where nothing was lost"
    made = (tmp_path / name).read_text()
    (tmp_path / name).unlink()
    if how == "changed":
        write(tmp_path, name)
    stage = "report" if name == "report.html" else "measure"
    assert pipeline.plan(config, tmp_path)[stage] == "run (a file is gone or changed)"
    pipeline.run(config, tmp_path, ("measure", "report"), say=quiet)
    assert log[0] == stage
    assert (tmp_path / name).read_text() == made
    kept = [path.read_text() for path in tmp_path.glob("*.changed-1")]
    assert kept == (["mine"] if how == "changed" else [])


# --- runs that grow -----------------------------------------------------------------------------------------


def test_more_samples_continue_and_the_table_is_made_again(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    log.clear()
    more = changed(settings, "sampling", n_samples=32)
    assert pipeline.plan(more, tmp_path)["sample"] == "continue (sampling.n_samples was 24, now 32)"
    pipeline.run(more, tmp_path, say=quiet)
    assert log == ["sample", "measure", "report"]
    with pytest.raises(InputError, match=r"n_samples was 32, now 24\. It holds more .*n_samples=32 or more"):
        pipeline.run(config, tmp_path, say=quiet)
    with pytest.raises(InputError, match="sample stage is shorter than asked for .*`diffsq sample`"):
        pipeline.run(changed(settings, "sampling", n_samples=64), tmp_path, ("measure",), say=quiet)


def interrupted(*args: Any) -> str:
    raise KeyboardInterrupt


def test_a_longer_ensemble_and_what_was_learned_from_the_shorter_one(
    tmp_path: Path, settings: dict[str, Any], config: Config, log: list[str]
) -> None:
    pipeline.run(config, tmp_path, say=quiet)
    log.clear()
    more = changed(settings, "ensemble", n_configs=128)
    words = r"train stage was made from a shorter ensemble .*n_configs was 64, now 128.*--restart train"
    before = everything(tmp_path)
    with pytest.raises(InputError, match=words):
        pipeline.run(more, tmp_path, say=quiet)
    assert (log, everything(tmp_path)) == ([], before)
    assert "--restart train" in pipeline.plan(more, tmp_path)["train"]
    with pytest.raises(InputError, match="ensemble stage is shorter than asked for .*`diffsq ensemble`"):
        pipeline.run(more, tmp_path, ("sample",), say=quiet)
    genuine = stages.STAGE["ensemble"]
    stages.STAGE["ensemble"] = interrupted
    with pytest.raises(KeyboardInterrupt):  # `diffsq ensemble`, in the middle
        pipeline.run(more, tmp_path, ("ensemble",), say=quiet)
    stages.STAGE["ensemble"] = genuine
    with pytest.raises(InputError, match="from a shorter ensemble .being made longer.*--restart train"):
        pipeline.run(more, tmp_path, say=quiet)
    assert log == []
    pipeline.run(more, tmp_path, restart="train", say=quiet)
    assert log == list(STAGES)
    records = read_records(tmp_path)
    assert records["train"]["input"]["ensemble"] == records["ensemble"]["identity"]


def test_a_longer_ensemble_alone_says_what_is_out_of_date(
    tmp_path: Path, config_file: Path, log: list[str], capsys: pytest.CaptureFixture[str], config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With advice that works, as it stands."""
    monkeypatch.setattr(pipeline, "final_text", lambda folder: "the table")
    words = [str(config_file), "--run", str(tmp_path / "run"), "--quiet"]
    pipeline.run(config, tmp_path / "run", say=quiet)
    log.clear()
    assert main(["ensemble", *words, "--set", "ensemble.n_configs=128"]) == 0
    warning = capsys.readouterr().err
    assert "train, sample, measure, report in" in warning
    assert "--restart train" in warning
    for command in ("run", "sample"):  # before any work, with advice
        assert main([command, *words, "--set", "ensemble.n_configs=128"]) == 2
        assert "--restart train` keeps the ensemble" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "--restart train" in capsys.readouterr().err
    assert log == ["ensemble"]
    advice = shlex.split(warning.split("`")[1])
    assert advice[0] == "diffsq"
    assert main([*advice[1:], "--quiet"]) == 0
    assert log == ["ensemble", "train", "sample", "measure", "report"]
    assert main(["report", str(tmp_path / "run")]) == 0


def test_names_of_files() -> None:
    for stage, name in (
        ("train", "train/part-0/checkpoint-00000012.safetensors"), ("report", "overview.png"),
        ("sample", "samples/metropolis/shard-0000.h5"), ("measure", "checks/fokker-planck.png"),
        ("ensemble", "ensemble/therm.h5"),
    ):  # fmt: skip
        assert own_name(stage, name)
        assert not own_name(stage, f"{name}.bak")
        assert not own_name(stage, f"other/{name}")
