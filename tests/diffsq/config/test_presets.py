"""Presets: found by name wherever the process stands, and never in the way of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import ROOT

from diffsq.config.config import load_config
from diffsq.config.presets import found, presets, summary
from diffsq.config.yaml_file import read_yaml
from lattice.errors import InputError


def test_every_config_of_the_project_is_a_preset() -> None:
    files = list((ROOT / "configs").rglob("*.yaml"))
    assert len(files) >= 20
    assert presets() == {path.stem: path for path in files}
    assert list(presets())[:2] == ["demo", "tiny"]


@pytest.mark.parametrize("name", presets())
def test_a_preset_says_what_it_is_in_one_line(name: str) -> None:
    path = presets()[name]
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert 20 < len(summary(path)) < 130
    assert read_yaml(path)["name"] == name


def test_a_preset_from_anywhere_but_a_file_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # a folder of that name is no config
    assert load_config("tiny").name == "tiny"
    (tmp_path / "tiny").rmdir()
    (tmp_path / "tiny").write_text(
        (ROOT / "configs/tiny.yaml").read_text().replace("name: tiny", "name: mine")
    )
    assert load_config("tiny").name == "mine"
    assert found(Path("configs/demo")) == Path("configs/demo")  # a path is a path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("demmo", "did you mean the preset demo?"),
        ("configs/cl_quartc.yaml", "did you mean the preset cl_quartic?"),
        ("nowhere", "`diffsq configs` lists the presets"),
    ],
)
def test_unknown_names_get_the_nearest(
    path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"no such config file: {path}; ")
    assert words in str(caught.value)
