"""A small ensemble, as it is written to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.errors import InputError

ACTION = ScalarPhi4(0.27, 0.022)


def fields(n: int = 12, shape: tuple[int, ...] = (4, 6)) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(3).normal(size=(n, *shape))


def ensemble(**more: Any) -> Ensemble:
    return Ensemble.from_fields(fields(), ACTION, chain=np.tile(np.arange(3), 4), **more)


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_ensemble(path, ACTION)
    assert "\n" not in str(caught.value)
