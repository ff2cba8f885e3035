"""Points of small scans: three couplings on two lattices, one without a law and one that is too short."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.scans.scan import ScanPoint, run_scan
from lattice.simulation.parameters import MonteCarlo

SHORT = MonteCarlo(n_configs=1600, n_chains=16, n_therm=100, shard_configs=400, stride=2)


def point(kappa: float, lam: float = 0.1, length: int = 4, params: MonteCarlo = SHORT) -> ScanPoint:
    action = ScalarPhi4(kappa, lam) if lam else FreeScalar(kappa)
    return ScanPoint(f"L{length}_kappa{kappa:g}", action, (length, length), params)


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """A result without times and provenance."""
    return {key: value for key, value in result.items() if key not in ("seconds", "cpu_seconds", "code")}


FILE: dict[str, Any] = {
    "name": "few", "seed": 7, "ensemble": SHORT.model_dump(),
    "points": [
        {"name": f"k{kappa:g}", "shape": [4, 4], "action": {"kappa": kappa, "lam": 0.1}}
        for kappa in (0.15, 0.2, 0.25)
    ],
}  # fmt: skip


def eight_points(folder: Path) -> dict[str, Any]:
    """Three kappas on 4x4 and on 6x6, one point without a normalisable law, one that is too short."""
    short = SHORT.model_copy(update={"n_configs": 32})
    points = [point(kappa, length=n) for n in (4, 6) for kappa in (0.15, 0.2, 0.25)]
    points += [point(0.26, lam=0.0), point(0.3, params=short)]
    return run_scan(points, folder, 7)


KAPPA_C, U_STAR = 0.27088, 0.61


def step(length: int, kappa: np.ndarray, at: float = KAPPA_C, value: float = U_STAR) -> np.ndarray:
    """A smooth step from 0 to 2/3 that passes through `value` at `at`, steeper for larger L."""
    start = math.log(value / (2 / 3 - value))
    return (2 / 3) / (1 + np.exp(-(start + 14 * length * (kappa - at))))
