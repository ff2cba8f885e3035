"""One run of our own for each point, whatever the number of files compared with it."""

from __future__ import annotations

from typing import Any

import pytest
from foreign import own

import lattice.interchange.importing as foreign
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble


@pytest.fixture(autouse=True)
def _one_guard_per_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(action: ScalarPhi4, shape: tuple[int, ...], seed: int, progress: Any) -> Ensemble:
        return own(action, shape, seed, None)

    monkeypatch.setattr(foreign, "own_run", kept)
