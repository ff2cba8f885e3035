"""Block Gibbs of a Gaussian restricted Boltzmann machine: all hidden nodes, then all visible ones.

Exact, without rejections. A mode of K with eigenvalue lambda has rho(t) = (1 - lambda/mu^2)^t, tau_int =
mu^2/lambda - 1/2: critical slowing down with z = 2 (lattice.exact.gaussian_rbm).
"""

from __future__ import annotations

import numpy as np

from lattice.actions.gaussian_rbm import GaussianMachine
from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers
from lattice.errors import InputError
from lattice.rng import stream_id
from lattice.updates.batch import check_batch
from lattice.updates.kernels.gibbs import gibbs_rows

GIBBS = "gibbs/sweep"


def as_machine(action: Action) -> GaussianMachine:
    """The action as a machine with hidden nodes, or `InputError`."""
    if not isinstance(action, GaussianMachine):
        raise InputError(
            "ensemble.update: gibbs knows the hidden nodes of a GaussianMachine only, not "
            f"{type(action).__name__}; use ensemble.update: hmc"
        )
    return action


def gibbs_sweep(action: Action, phi: Floats, *, seed: int, chains: Integers, trajectory: int) -> Floats:
    """phi (n, *shape) after one sweep. Random numbers from (seed, "gibbs/sweep", chain, trajectory): batch
    and threads change no bit. Raises `InputError` for another action, bad shapes, dtypes or counters.

    >>> machine = GaussianMachine(np.eye(4), 2.0)
    >>> gibbs_sweep(machine, np.zeros((2, 4)), seed=1, chains=np.arange(2), trajectory=0).shape
    (2, 4)
    """
    machine = as_machine(action)
    fields, keys = check_batch(action, phi, seed, chains, trajectory)
    machine.check_normalisable(fields.shape[1:])
    found = fields.reshape(len(fields), -1).copy()
    source = np.zeros(len(machine.w)) if machine.source is None else machine.source
    gibbs_rows(
        found, machine.w, source, machine.mu2, machine.s, np.uint64(seed), np.uint64(stream_id(GIBBS)), keys,
        np.uint64(trajectory),
    )  # fmt: skip
    return found.reshape(fields.shape)
