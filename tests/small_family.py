"""A family of free theories, drawn exactly: everything about them is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from diffsq.models.family import Family
from diffsq.training.family import fit_family
from lattice.actions.phi4 import ScalarPhi4
from lattice.ensembles.ensemble import Ensemble
from lattice.exact.scalar import free_propagator

LAM = 1e-6  # as good as none
KAPPAS, SIZES = (0.1, 0.14, 0.18, 0.2, 0.22), (4, 8)


def free_fields(kappa: float, size: int, n: int = 4096, n_chains: int = 16) -> Ensemble:
    """Independent fields of the free theory."""
    shape = (size, size)
    g = free_propagator(kappa, shape).real
    noise = np.fft.fft2(np.random.default_rng([7, size, round(1e6 * kappa)]).normal(size=(n, *shape)))
    phi = np.fft.ifft2(noise * np.sqrt(g)).real
    chain = np.repeat(np.arange(n_chains), n // n_chains)
    return Ensemble.from_fields(phi, ScalarPhi4(kappa, LAM), chain=chain)


def free_ln_z(kappa: float, size: int) -> float:
    """ln of the integral of e^{-S}."""
    return float(0.5 * np.log(2 * np.pi * free_propagator(kappa, (size, size)).real).sum())


@lru_cache(maxsize=2)
def free_family(n_fit: int = 256) -> Family:
    """Fitted to KAPPAS at SIZES."""
    reads: list[Callable[[], Ensemble]] = [partial(free_fields, k, size) for size in SIZES for k in KAPPAS]
    return fit_family(reads, sigma_min=0.2, n_sigma=16, n_fit=n_fit, seed=3)
