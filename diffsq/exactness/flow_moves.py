"""Markov chain moves with the probability flow: independence, and a step in its latent noise; exact weights.

The flow is a map phi(z) of white noise z, with weight w = e^{-S}/q. Fields with their z have the target
N(z; 0, 1) w(phi(z)), and both moves leave N(z; 0, 1) alone:

    independence    z' new                                 accepted with min(1, w'/w)
    latent          z' = rho z + sqrt(1 - rho^2) xi        accepted with min(1, w'/w)

(preconditioned Crank-Nicolson: Cotter, Roberts, Stuart, White, Stat. Sci. 28 (2013) 424). As w' - w shrinks
with 1 - rho, latent moves are accepted where independent proposals no longer are. A field that another move
has made has lost its z; the flow upwards gives it, up to the integrator's error, as at the start of a shard.
"""

from __future__ import annotations

import math
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from diffsq.exactness.moves import Keys, Moved, State, metropolis, where
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.models.protocol import ActionFunction
from diffsq.sampling.flow_sets import in_groups
from diffsq.sampling.streams import noise_of
from lattice.arrays import Floats
from lattice.rng import uniforms


def independence(flow: LatticeFlow, action: ActionFunction, state: State, **keys: Unpack[Keys]) -> Moved:
    """Independence Metropolis with proposals of the flow. Raises `InputError` where log q is not finite."""
    log_w = state.log_w
    if np.isnan(log_w).any():
        log_w = _of_fields(flow, action, state)[1]
    noise = _white(flow, "independence", keys)
    phi, log_new = _proposed(flow, action, "independence", noise, keys)
    accepted, info = metropolis("independence", log_new - log_w, keys)
    return State(where(accepted, phi, state.phi), np.where(accepted, log_new, log_w)), info


def latent(
    flow: LatticeFlow, action: ActionFunction, rho: float, state: State, **keys: Unpack[Keys]
) -> Moved:
    """One step in the noise, 0 <= rho < 1; rho = 0 is `independence`. Raises as that does."""
    z, log_w = state.latent, state.log_w
    if z is None:
        z, log_w = _of_fields(flow, action, state)
    fresh = _white(flow, "latent", keys).cpu().numpy()
    proposal = rho * z + math.sqrt(1 - rho**2) * fresh
    noise = torch.from_numpy(proposal).to(flow.base.g.device)
    phi, log_new = _proposed(flow, action, "latent", noise, keys)
    accepted, info = metropolis("latent", log_new - log_w, keys)
    kept = where(accepted, phi, state.phi), np.where(accepted, log_new, log_w)
    return State(*kept, where(accepted, proposal, z)), info


def _of_fields(flow: LatticeFlow, action: ActionFunction, state: State) -> tuple[Floats, Floats]:
    """z and log w of the state's fields."""
    phi = torch.from_numpy(state.phi).to(flow.base.g.device)
    z, log_w = in_groups(lambda part: flow.latent(part, action), phi)
    return z.cpu().numpy(), log_w.cpu().numpy()


def _white(flow: LatticeFlow, name: str, keys: Keys) -> Tensor:
    shape, device = flow.momenta.shape, flow.base.g.device
    return noise_of(keys["seed"], f"chain/flow/{name}", keys["chains"], shape, device)(keys["step"])


def _proposed(
    flow: LatticeFlow, action: ActionFunction, name: str, noise: Tensor, keys: Keys
) -> tuple[Floats, Floats]:
    drawn = uniforms(keys["seed"], f"chain/flow/{name}/sign", keys["chains"], keys["step"], 1)[:, 0]
    sign = torch.from_numpy(np.where(drawn < 0.5, -1.0, 1.0)).to(noise.device)
    phi, log_w = in_groups(lambda z, s: flow.sample(action, z, s), noise, sign)
    return phi.cpu().numpy(), log_w.cpu().numpy()
