"""A config that this diffsq cannot read is told with its file and the version that wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffsq import __version__
from diffsq.commands.main import main
from diffsq.config.config import config_from_dict, load_config, resolved_yaml
from diffsq.config.presets import preset
from diffsq.config.version import stamped, version_of
from diffsq.run_folder.records import open_config, read_records
from lattice.errors import InputError

GOOD = resolved_yaml(load_config("tiny"))


def run_folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(text, encoding="utf-8")
    (path / "stages.json").write_text("{}", encoding="utf-8")
    return path


def test_a_stamped_config_is_read_back(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", stamped(GOOD))
    assert open_config(folder) == load_config("tiny")
    assert version_of((folder / "config.yaml").read_text()) == __version__
    assert version_of(GOOD) is None
    other = run_folder(tmp_path / "other", f"# written by diffsq 0.1.9\n{GOOD}")
    assert open_config(other) == load_config("tiny")  # another version is no fault in itself


@pytest.mark.parametrize("fault", ["bogus: 1\n", "training: {learning: 1}\n"])
@pytest.mark.parametrize("written", ["0.1.9", "0.9.0"])
def test_a_config_of_another_version(written: str, fault: str, tmp_path: Path) -> None:
    text = GOOD if "training" not in fault else GOOD.replace("training:", "unused:")
    folder = run_folder(tmp_path / "run", f"# written by diffsq {written}\n{text}{fault}")
    with pytest.raises(InputError) as refused:
        open_config(folder)
    line = str(refused.value)
    assert line.startswith(f"{folder / 'config.yaml'}: written by diffsq {written}, this is {__version__}: ")
    assert "unknown key" in line
    assert "\n" not in line


def test_a_run_folder_without_a_version(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", GOOD.replace("seed:", "sead:"))
    with pytest.raises(
        InputError, match="written by an older diffsq, which named no version, this is "
    ) as refused:
        open_config(folder)
    assert str(folder / "config.yaml") in str(refused.value)
    missing = run_folder(tmp_path / "missing", stamped("name: x\n"))
    with pytest.raises(InputError, match=r"missing/config\.yaml: action is missing"):
        open_config(missing)


def test_a_file_is_named_and_an_override_is_not_blamed_on_it(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(preset("tiny").read_text() + "\nbogus_key: 1\n")
    with pytest.raises(InputError, match=rf"my\.yaml: unknown key bogus_key.*this is diffsq {__version__}"):
        load_config(path)
    with pytest.raises(InputError, match=r"my\.yaml: unknown key bogus_key"):
        load_config(path, ["seed=3"])
    with pytest.raises(InputError) as refused:
        load_config("tiny", ["seed=1.5"])
    assert str(refused.value).startswith("seed must be an integer")
    with pytest.raises(InputError) as refused:
        config_from_dict({"name": "x"})
    assert "diffsq" not in str(refused.value)


def test_a_run_folder_of_a_newer_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "run", f"# written by diffsq 9.0.0\n{GOOD}")
    (folder / "stages.json").write_text(json.dumps({"ensemble": {"schema": 7}}), encoding="utf-8")
    with pytest.raises(InputError, match=rf"of a newer diffsq \(9\.0\.0\), this is {__version__}"):
        read_records(folder)
    assert main(["report", str(folder), "--quiet"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
