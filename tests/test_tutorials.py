"""The tutorials run as they are, in a folder of their own, and what they print is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from lattice.statistics.notation import parse_value

NUMBER = r"-?[0-9.]+\([0-9.]+\)(?:e[-+]\d+)?"


def printed(name: str, folder: Path) -> str:
    """What scripts/tutorials/NAME prints when it is run in `folder`."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "tutorials" / name)],
        cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_an_action_of_ones_own(tmp_path: Path) -> None:
    """Certified; both columns of the table agree; the weights leave most of the samples."""
    text = printed("5_your_own_action.py", tmp_path)
    assert text.startswith("certificate: passed")
    rows = {row[0]: row[1:] for row in re.findall(rf"^(\w+) +({NUMBER}) +({NUMBER})$", text, re.M)}
    assert {"abs_magnetization", "action_density", "phi2", "phi4", "susceptibility_full"} <= set(rows)
    for name, cells in rows.items():
        (a, da), (b, db) = (parse_value(cell) for cell in cells)
        assert abs(a - b) < 4 * (da**2 + db**2) ** 0.5, name
    ess, error = parse_value(re.findall(rf"^ESS/N ({NUMBER})$", text, re.M)[0])
    assert ess > 0.5
    assert error < 0.1
    again = printed("5_your_own_action.py", tmp_path)  # reads what is there
    assert again == text
