"""What every update asks of the batch of fields it is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lattice.actions.phi4 import ScalarPhi4
from lattice.actions.protocol import check_shape
from lattice.errors import InputError
from lattice.rng import check_counters


def check_fields(phi: NDArray[np.float64]) -> NDArray[np.float64]:
    """`phi` (n, *shape) as a contiguous float64 array, or `InputError`."""
    phi = np.asarray(phi)
    if phi.dtype != np.float64 or phi.ndim < 2 or len(phi) < 1:
        raise InputError(f"fields must be float64 (n, *shape) with n >= 1, got {phi.dtype} {phi.shape}")
    check_shape(phi.shape[1:])
    return np.ascontiguousarray(phi)


def check_batch(
    action: ScalarPhi4, phi: NDArray[np.float64], seed: int, chains: NDArray[np.int64], trajectory: int
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Contiguous fields (n, *shape) and their chain keys (n,), or `InputError`: what every update checks."""
    if not isinstance(action, ScalarPhi4):
        raise InputError(f"cluster and local updates know phi^4 only, got {type(action).__name__}")
    phi = check_fields(phi)
    keys = check_counters(seed, chains, trajectory)
    if len(keys) != len(phi):
        raise InputError(f"chains must name every field: {len(phi)} fields, {len(keys)} chains")
    return phi, keys
