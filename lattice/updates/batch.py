"""What every update asks of its batch of fields, and of the chains that name its random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lattice.actions.protocol import Action, Phi4Form, as_phi4, check_shape
from lattice.arrays import Floats, Integers, real_array
from lattice.errors import InputError
from lattice.rng import check_counters


def check_chains(seed: int, chains: Integers, trajectory: int, n: int) -> NDArray[np.uint64]:
    """The chains of n fields as the compiled loops take them, (n,), or `InputError`."""
    keys = check_counters(seed, chains, trajectory)
    if len(keys) != n:
        raise InputError(f"chains must name every field: {n} fields, {len(keys)} chains")
    return keys


def check_fields(action: Action, shape: tuple[int, ...]) -> None:
    """`InputError` unless fields (n, *shape) are those of this action on a lattice."""
    if not isinstance(action, Action):
        raise InputError(f"an action is a lattice.Action, got {type(action).__name__}")
    check_shape(action.lattice_of(shape))


def check_batch(
    action: Action, phi: Floats, seed: int, chains: Integers, trajectory: int
) -> tuple[Floats, NDArray[np.uint64]]:
    """Contiguous fields (n, *components, *shape) and their chain keys (n,), or `InputError`."""
    fields, given = real_array(phi, "phi"), getattr(phi, "dtype", None)
    if given != np.float64 or fields.ndim < 2 or len(fields) < 1:
        raise InputError(f"fields must be float64 (n, *shape) with n >= 1, got {given} {fields.shape}")
    check_fields(action, fields.shape[1:])
    return fields, check_chains(seed, chains, trajectory, len(fields))


def check_phi4(
    action: Action, phi: Floats, seed: int, chains: Integers, trajectory: int
) -> tuple[Phi4Form, Floats, NDArray[np.uint64]]:
    """The same for cluster and local updates, with the couplings."""
    phi, keys = check_batch(action, phi, seed, chains, trajectory)
    return as_phi4(action, "cluster and local updates know", "use HMC or Langevin"), phi, keys
