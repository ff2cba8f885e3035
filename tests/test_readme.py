"""The README: short, its Python runs as it stands there, its commands and wings are those there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from places import ROOT

from diffsq.commands.arguments import WORDS

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 120


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(block.strip().splitlines()) <= 15
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "abs_magnetization" in printed
    assert "self-normalised weights" in printed


def test_the_table_of_the_demo_is_marked() -> None:
    table = TEXT.partition("<!-- demo table -->\n")[2].partition("<!-- end of demo table -->")[0]
    assert "    abs_magnetization " in table
    assert "    verdict: passed" in table


def test_every_command_is_there() -> None:
    assert set(re.findall(r"`diffsq ([a-z]+)", TEXT)) == set(WORDS)


def test_every_wing_is_there_with_its_sentence() -> None:
    rows = dict(re.findall(r"^\| `((?:lattice|diffsq)\.\w+)` \| (.*) \|$", TEXT, flags=re.MULTILINE))
    folders = [
        path.parent for package in ("lattice", "diffsq") for path in (ROOT / package).glob("*/__init__.py")
    ]
    assert set(rows) == {f"{folder.parent.name}.{folder.name}" for folder in folders}
    for folder in folders:
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert (said or "").startswith(rows[f"{folder.parent.name}.{folder.name}"])
