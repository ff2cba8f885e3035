"""Ensembles that can be drawn independently, and the names of what is measured on them."""

import math
from dataclasses import dataclass, field

import numpy as np

from lattice.actions.phi4 import FreeScalar, ScalarPhi4

NAMES = {
    "abs_magnetization",
    "magnetization",
    "susceptibility",
    "susceptibility_full",
    "binder",
    "action_density",
    "phi2",
    "phi4",
    "xi_2nd",
}
LAWS = ("", "_m", "_k1", "_k2")
NAMES |= {f"kappa{n}{law}" for n in range(1, 9) for law in LAWS}
NAMES |= {f"kappa{n}{law}_ratio" for n in range(3, 9) for law in LAWS}
NAMES |= {f"kappa{n}{law}_ratio_z2" for n in (4, 6, 8) for law in LAWS}


@dataclass
class Fields:
    """The part of an Ensemble that measure reads."""

    phi: np.ndarray
    chain: np.ndarray
    trajectory: np.ndarray
    action: ScalarPhi4
    log_weight: np.ndarray | None = None
    attrs: dict = field(default_factory=dict)
    identity: str = "0" * 64

    def replicas(self):
        return [np.flatnonzero(self.chain == c) for c in np.unique(self.chain)]


def one_chain_each(phi, n_chains, action, **more):
    n = len(phi) // n_chains
    return Fields(phi, np.repeat(np.arange(n_chains), n), np.tile(np.arange(n), n_chains), action, **more)


def propagator(shape, kappa):
    k = np.meshgrid(*(2 * np.pi * np.arange(e) / e for e in shape), indexing="ij")
    return 1 / (2 * (1 - 2 * kappa * sum(np.cos(x) for x in k)))


def free_ensemble(seed, n=2000, shape=(6, 6), kappa=0.22, n_chains=4):
    """Independent exact samples of the free theory."""
    g = propagator(shape, kappa)
    noise = np.fft.fft2(np.random.default_rng([31, seed]).normal(size=(n, *shape)))
    return one_chain_each(np.fft.ifft2(noise * np.sqrt(g)).real, n_chains, FreeScalar(kappa))


def white_ensemble(seed, n=2000, shape=(4, 4), kappa=0.05):
    """Independent sites drawn at kappa = 0, weighted to the free theory at kappa: log w = S_0 - S."""
    phi = np.random.default_rng([32, seed]).normal(size=(n, *shape)) * math.sqrt(0.5)
    log_weight = 2 * kappa * sum(np.sum(phi * np.roll(phi, 1, axis), axis=(1, 2)) for axis in (1, 2))
    return one_chain_each(phi, 1, FreeScalar(kappa), log_weight=log_weight)
