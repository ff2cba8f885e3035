"""A small ensemble on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stored import ensemble

from lattice.ensembles.writer import write_ensemble


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_ensemble(ensemble(series={"dH": np.linspace(-1, 1, 12)}), tmp_path / "e")
    return tmp_path / "e"


@pytest.fixture
def shard(folder: Path) -> Path:
    return folder / "shard-0000.h5"
