"""`diffsq configs`."""

from __future__ import annotations

import pytest
import yaml

from diffsq.commands.main import main
from diffsq.config.presets import presets


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(presets())
    assert lines[0].startswith("demo")
    assert "an exactly corrected sample" in lines[0]


def test_one_preset_as_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "demo"]) == 0
    text = capsys.readouterr().out
    assert text == presets()["demo"].read_text()
    assert yaml.safe_load(text)["name"] == "demo"


def test_an_unknown_preset_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "dmeo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no such preset: dmeo (did you mean 'demo'?)" in line
