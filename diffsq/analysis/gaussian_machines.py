"""What machines of other sizes and masses would say of the same data, in closed form and by draws.

All machines here are those of the largest likelihood, in the basis of the data's modes
(lattice.exact.gaussian_rbm); the data enter by their second moments only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.models.rbm import GaussianRBM
from diffsq.models.second_moments import circulant, data_second, power_of
from diffsq.training.contrastive import kernel_of
from lattice.arrays import Floats
from lattice.exact.gaussian_rbm import action_density, best_mass, divergence, learned, phi2
from lattice.rng import normals

ROUNDING = 1e-12  # of eigenvalues: modes this near to mu^2 are there by rounding


def cut_row(kappa: Floats, mu2: float, n_hidden: int, n_draws: int, seed: int, index: int) -> dict[str, Any]:
    """One machine of mass mu2 with n_hidden nodes: modes learned, KL, phi^2 and (1/2V) sum kappa phi^2, both
    also of n_draws of its fields."""
    lam = learned(kappa, mu2, n_hidden)
    white = normals(seed, "machine/cut", np.arange(n_draws), index, len(kappa))
    modes = white**2 / lam
    return {
        "mu2": mu2, "n_hidden": n_hidden, "n_modes": int((lam < mu2 * (1 - ROUNDING)).sum()),
        "kl": divergence(kappa, lam),
        "phi2": phi2(lam), "phi2_drawn": mean_of(modes.mean(1)),
        "action_density": action_density(kappa, lam),
        "action_density_drawn": mean_of(0.5 * (kappa * modes).mean(1)),
    }  # fmt: skip


def mean_of(x: Floats) -> list[float]:
    """Mean of independent numbers and its error."""
    return [float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))]


def by_nodes(kappa: Floats, mu2: float) -> dict[str, list[float]]:
    """KL with n_hidden = 0, ..., n nodes, at the mass mu2 and at the best mass of each, and that mass."""
    nodes = range(len(kappa) + 1)
    masses = [best_mass(kappa, n) if n < len(kappa) else mu2 for n in nodes]
    return {
        "kl": [divergence(kappa, learned(kappa, mu2, n)) for n in nodes],
        "best_mass": masses,
        "kl_best": [divergence(kappa, learned(kappa, m, n)) for n, m in zip(nodes, masses, strict=True)],
    }


def by_mass(kappa: Floats, masses: Sequence[float]) -> list[float]:
    """KL at each mass, with as many nodes as modes."""
    return [divergence(kappa, learned(kappa, mu2, len(kappa))) for mu2 in masses]


def finite_data(
    phi: Floats, second: Tensor, mu2: float, n_hidden: int, sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """KL of `second` from the machines of the first so many fields phi (n, *shape), of their second moments
    as they are and averaged over the lattice's symmetries; kappa of the stiffest mode they see."""
    found = []
    for size in (size for size in sizes if size <= len(phi)):
        row: dict[str, Any] = {"n": size, "rank": min(size, len(second))}
        for name, moments in (
            ("data", data_second(phi[:size])),
            ("symmetric", circulant(power_of(phi[:size]))),
        ):
            machine = most_likely(moments, mu2, n_hidden)
            row[name] = float(machine.divergence(second))
            row[f"{name}_kappa"] = float(kernel_of(moments).max())
        found.append(row)
    return found


def most_likely(second: Tensor, mu2: float, n_hidden: int, s: float = 1.0) -> GaussianRBM:
    """The machine of the largest likelihood of data with these second moments (n, n)."""
    values, basis = torch.linalg.eigh(second)
    kappa = 1 / values.flip(0).clamp_min(1e-300)  # rising
    kept = kappa[:n_hidden].clamp_max(mu2)
    w = basis.flip(1)[:, :n_hidden] * ((mu2 - kept).sqrt() / s)
    return GaussianRBM(w, torch.tensor(mu2, dtype=torch.float64), None, s)
