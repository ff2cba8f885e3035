"""Ensembles that were made longer, against those made at once."""

from __future__ import annotations

import numpy as np

from lattice.ensembles.ensemble import Ensemble


def same_numbers(a: Ensemble, b: Ensemble) -> bool:
    """Whether all arrays of two ensembles are the same, bit by bit."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("phi", "chain", "trajectory", "log_weight")]
    pairs += [(a.series[name], b.series.get(name)) for name in a.series]
    return a.series.keys() == b.series.keys() and all(np.array_equal(x, y) for x, y in pairs)
