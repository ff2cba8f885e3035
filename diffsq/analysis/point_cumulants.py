"""kappa_n(t) of one real variable: data noised forward, samples watched backward, and the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.process.cumulants import Tally, exact_average, flow, forward, signal
from diffsq.process.sde import SDES
from diffsq.sampling.point_path import in_blocks
from diffsq.sampling.point_sets import PointDraws
from diffsq.sampling.streams import POINT_BLOCK
from lattice.arrays import Integers
from lattice.exact.one_variable import toy_cumulants

ORDERS = (2, 4, 6, 8)
FOLLOWED = 2**18  # samples, along both processes
PARTS = 16  # jackknife blocks in each block of random numbers


def flows(draws: PointDraws) -> list[dict[str, Any]]:
    """One entry per process of the run, for its last model: as `diffsq.plots.cumulants.draw_flows` takes
    them."""
    kind = list(draws.models)[-1]
    return [_flow(draws, kind, sde) for sde in draws.settings.sde]


def _flow(draws: PointDraws, kind: str, sde: str) -> dict[str, Any]:
    settings = draws.settings
    n_levels = settings.n_levels[sde]
    levels = draws.levels(sde, n_levels)
    n = min(settings.n_samples, len(draws.data), FOLLOWED)
    f, blocks = signal(SDES[sde](*draws.range), levels), -(-n // POINT_BLOCK)
    up, down = Tally(len(levels), PARTS * blocks), Tally(len(levels), PARTS * blocks)
    rows = torch.from_numpy(draws.data.phi[:n])
    for block, (x, noise) in enumerate(in_blocks(rows, draws.seed, f"toy/forward/{sde}")):
        label = labels(block, len(x), n)
        forward(x, levels, noise, lambda i, y: up.add(i, f[i] * y, label))  # noqa: B023
    seen = [0] * len(levels)

    def watch(level: int, x: Tensor) -> None:
        x = x[: n - seen[level] * POINT_BLOCK]
        down.add(level, f[level] * x, labels(seen[level], len(x), n))
        seen[level] += 1

    draws.points(kind, sde, settings.method, n_levels, n, watch=watch)
    sigma = levels.numpy()
    kappa = toy_cumulants(draws.data.action, max(ORDERS)).real
    return {
        "sde": sde, "model": kind, "sigma": sigma.tolist(), "orders": list(ORDERS),
        "analytic": flow(kappa, f, sigma)[:, [order - 1 for order in ORDERS]].tolist(),
        "forward": up.curve(sigma, ORDERS, z2=True).as_dict(),
        "exact_average": exact_average(up, f, sigma, ORDERS, z2=True).as_dict(),
        "backward": down.curve(sigma, ORDERS, z2=True).as_dict(),
    }  # fmt: skip


def labels(block: int, n: int, total: int) -> Integers:
    """The jackknife block of each of n samples of a block of random numbers, of `total` samples in all."""
    return np.asarray(PARTS * block + np.arange(n) * PARTS // min(POINT_BLOCK, total))
