"""The Python of the README is run as it stands there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].strip().splitlines()) <= 15
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "abs_magnetization" in printed
    assert "ESS" in printed or "weighted" in printed


def test_every_room_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [p.stem for folder in ("lattice", "diffsq") for p in (ROOT / folder).glob("[a-z]*.py")]
    named = set(re.findall(r"`([a-z_0-9]+)/?`", text))
    assert [room for room in rooms if room not in named | {"errors"}] == []
