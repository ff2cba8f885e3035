"""Moves in the noise of the flow leave the target where it is, for a bad score too; wrong weights do not."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from small_flows import flow_base, spoilt
from small_models import equilibrium
from small_paths import SHAPE, TWO, truth

from diffsq.exactness.flow_moves import independence, latent
from diffsq.exactness.moves import State
from diffsq.models.lattice_flow import LatticeFlow

N = 2048
CHAINS = np.arange(N)


@lru_cache(maxsize=1)
def flow() -> LatticeFlow:
    return LatticeFlow(spoilt(flow_base(SHAPE, TWO), 0.1), 16)


def start() -> State:
    return State.of(equilibrium(TWO, SHAPE, N, 21).numpy())


def pulls(phi: np.ndarray) -> np.ndarray:
    known, m = truth(), phi.mean((1, 2))
    found = (np.abs(m), m**2, m**4, (phi**2).mean((1, 2)), (phi**4).mean((1, 2)))
    exact = (known.abs_m, known.m2, known.m4, known.phi2, known.phi4)
    return np.array([(x.mean() - t) / (x.std() / math.sqrt(N)) for x, t in zip(found, exact, strict=True)])


@pytest.mark.parametrize("rho", [None, 0.0, 0.8])
def test_equilibrium_is_left_where_it_is(rho: float | None) -> None:
    """Two steps of independence (None) or latent moves; the second latent one has its noise at hand."""
    state = start()
    for step in range(2):
        keys = {"seed": 3, "chains": CHAINS, "step": step}
        if rho is None:
            state, info = independence(flow(), TWO.action, state, **keys)  # type: ignore[arg-type]
        else:
            state, info = latent(flow(), TWO.action, rho, state, **keys)  # type: ignore[arg-type]
            assert state.latent is not None
        assert 0.1 < info.accepted.mean() < 1
    assert np.abs(pulls(state.phi)).max() < 4.5


def test_latent_without_memory_is_accepted_like_independence_and_small_steps_more() -> None:
    rates = [independence(flow(), TWO.action, start(), seed=3, chains=CHAINS, step=0)[1].accepted.mean()]
    for rho in (0.0, 0.95):
        _, info = latent(flow(), TWO.action, rho, start(), seed=3, chains=CHAINS, step=0)
        rates.append(info.accepted.mean())
    error = math.sqrt(0.5 / N)
    assert abs(rates[0] - rates[1]) < 4 * error
    assert rates[2] - rates[1] > 4 * error


def test_a_wrong_weight_loses_equilibrium() -> None:
    def wrong(x: torch.Tensor) -> torch.Tensor:
        return TWO.action(x) + 0.3 * (x**2).sum((1, 2))

    state = start()
    for step in range(4):
        state, _ = latent(flow(), wrong, 0.5, state, seed=3, chains=CHAINS, step=step)
    assert np.abs(pulls(state.phi)).max() > 10
