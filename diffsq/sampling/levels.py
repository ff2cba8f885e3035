"""Where to put the noise levels: where the process has them, or adapted to the width of the posterior.

A reverse step misses the field dependence of the posterior covariance between modes, which costs path KL

    KL_n ~ rho_n^2 A(sigma),     A ~ Var(h) sum_k W(k)^2,

h the log-variance of the site posterior: its local part is in the kernel, the rest in proportion to it. At
fixed N the sum is smallest when the density of levels in ln sigma goes like sqrt(A).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffsq.config.config import LatticeRun
from diffsq.models.lattice import LatticeScore
from diffsq.process.sde import SDES
from diffsq.sampling.streams import noise_of
from lattice.ensembles.ensemble import Ensemble

N_PLACEMENT = 128  # fields that decide where adapted levels go


def levels_of(config: LatticeRun, model: LatticeScore, ensemble: Ensemble, sde: str) -> Tensor:
    """The noise levels (n_levels + 1,) of a process of a run, from zero to the model's sigma_max."""
    n, log_sigma = config.sampling.n_levels, model.base.log_sigma
    if config.sampling.placement == "adapted":
        train = ensemble.split_rows(config.training.validation_fraction)[0]
        rows = ensemble.spread(N_PLACEMENT, seed=config.seed, stream="sample", among=train)
        noise = noise_of(
            config.seed, f"sample/levels/{sde}", np.arange(len(rows)), model.shape, log_sigma.device
        )
        return adapted_levels(model, torch.from_numpy(ensemble.phi[rows]).to(log_sigma.device), noise, n)
    return SDES[sde](float(log_sigma[0].exp()), float(log_sigma[-1].exp())).levels(n)


UNIFORM = 0.5  # share of the levels that stays geometric: A knows nothing of zero mode and score
DIGITS = 6  # levels are rounded: they name the law of the samples


@torch.no_grad()
def adapted_levels(model: LatticeScore, phi: Tensor, noise: Callable[[int], Tensor], n_levels: int) -> Tensor:
    """0 and n_levels levels between the model's sigma_min and sigma_max: (n_levels + 1,) float64.

    phi (n, *shape) training fields, some hundred; noise(node) (n, *shape) standard normal.
    """
    p, nodes, cost = model.momenta, model.base.log_sigma, []
    for node, log_sigma in enumerate(nodes):
        sigma = log_sigma.exp().expand(len(phi))
        _, h = model.denoise(p.modes(phi + log_sigma.exp() * noise(node)), sigma)
        w, _ = model.base.wiener(sigma[:1])
        cost.append(float(h.var() * (p.multiplicity * w[0] ** 2).sum()))
    x, need = nodes.cpu().numpy(), np.sqrt(np.array(cost))
    width = x[-1] - x[0]
    area = np.trapezoid(need, x)
    density = np.full_like(need, 1 / width)
    if area > 0:  # a free field needs nothing
        density = UNIFORM / width + (1 - UNIFORM) * need / area
    filled = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(x))])
    levels = np.exp(np.interp(np.linspace(0, filled[-1], n_levels), filled, x))
    levels[[0, -1]] = np.exp(x[[0, -1]])
    rounded = [0.0, *(float(f"{level:.{DIGITS}g}") for level in levels)]
    return torch.tensor(rounded, dtype=torch.float64)
