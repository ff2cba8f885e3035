"""The provenance that every file carries."""

from __future__ import annotations

import os
from pathlib import Path

from lattice.provenance import code_version


def test_code_version_names_no_machine() -> None:
    text = str(code_version())
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text
    assert "numpy" in code_version()["packages"]
