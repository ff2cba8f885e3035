"""What cannot fit is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lattice.memory
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import write_ensemble
from lattice.errors import InputError
from lattice.memory import machine_memory, require_memory


def test_this_machine_has_memory() -> None:
    assert 2**28 < machine_memory() < 2**60
    require_memory(1.0, "nothing", "")


def test_a_container_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(lattice.memory, "_CGROUP", (limit,))
    without = machine_memory()
    limit.write_text("1000000000\n")
    assert machine_memory() == min(without, 10**9)
    limit.write_text("max\n")
    assert machine_memory() == without
    limit.write_text("1000000000\n")
    with pytest.raises(InputError, match=r"^x needs about 2 GB of memory, this machine has 1 GB: do y$"):
        require_memory(2e9, "x", "do y")


def test_an_ensemble_that_does_not_fit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phi = np.random.default_rng(1).normal(size=(20, 4, 4))
    write_ensemble(Ensemble.from_fields(phi, ScalarPhi4(0.2, 0.1)), tmp_path / "e")
    assert np.array_equal(read_ensemble(tmp_path / "e").phi, phi)
    limit = tmp_path / "memory.max"
    limit.write_text("1000")
    monkeypatch.setattr(lattice.memory, "_CGROUP", (limit,))
    with pytest.raises(InputError, match="this ensemble of 1 shards needs about"):
        read_ensemble(tmp_path / "e")
