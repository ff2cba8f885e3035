"""The tutorials run as they stand, in an empty folder, and what they print at the end is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

FOLDER = ROOT / "scripts" / "tutorials"
EXACT = ("1_ensemble", "2_train_and_sample", "3_exactness", "4_complex_langevin")


def run(name: str, folder: Path) -> str:
    """What the script prints; its pages for the site are kept (scripts/site/tutorials.py)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/site/tutorials.py"), str(FOLDER / f"{name}.py")],
        capture_output=True, text=True, cwd=folder, timeout=500, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_it_ends_with_a_number_that_is_right(name: str, tmp_path: Path) -> None:
    last = run(name, tmp_path).splitlines()[-1]
    assert re.search(r"\d\(\d+(\.\d+)?\)", last), last  # value(error)
    pull = re.search(r"pull ([+-]\d+\.\d)$", last)
    assert pull is not None, last
    assert abs(float(pull.group(1))) <= 4
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_they_are_short_and_public(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert text.startswith("# %% [markdown]\n# # ")
    private = re.findall(r"^(?:import|from) (?:lattice|diffsq).*\b_\w+|\._\w+", text, flags=re.MULTILINE)
    assert private == []
