"""Ensembles of other programs, and one run of our own for each point that they are compared with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.interchange.comparison import own_run
from lattice.simulation.starts import start_fields
from lattice.updates.hmc import hmc_trajectory

Array = np.ndarray[Any, np.dtype[np.float64]]
ACTION, SHAPE = ScalarPhi4(0.27, 0.022), (16, 16)
SLOW = ScalarPhi4(0.26, 0.022)
FREE, SMALL = FreeScalar(0.2), (4, 4)
own = cache(own_run)  # one run of our own for each point, whatever the number of files compared with it


def free_draws(n: int, seed: int) -> Array:
    """Exact independent draws of FREE on SMALL."""
    cos = np.cos(2 * np.pi * np.arange(4) / 4)
    width = np.sqrt(0.5 / (1 - 2 * FREE.kappa * (cos[:, None] + cos[None, :])))
    noise = np.random.default_rng(seed).normal(size=(n, *SMALL))
    fields: Array = np.fft.ifft2(width * np.fft.fft2(noise)).real
    return fields


def saved(folder: Path, phi: Any, name: str = "fields.npy") -> Path:
    np.save(folder / name, phi)
    return folder / name


def failed(result: dict[str, Any]) -> set[str]:
    return {check["name"] for check in result["checks"] if not check["passed"]}


def find(result: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(check for check in result["checks"] if check["name"] == name)
    return found


def sigmas_found(result: dict[str, Any]) -> float:
    return float(find(result, "order of chains")["detail"].split(" sigma")[0])


def protocol(action: ScalarPhi4, length: int, n: int) -> Array:
    phi: Array = start_fields(action, (length, length), 2 * n, seed=7)[::2]
    for t in range(128):
        phi, _ = hmc_trajectory(
            action, phi, seed=7, chains=np.arange(n), trajectory=t, length=1.0, n_steps=5, n_threads=1
        )
    return phi
