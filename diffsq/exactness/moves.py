"""Markov chain moves with a diffusion model, exact for any score: independence; noise and denoise; others.

Levels 0 = sigma_0 < ... < sigma_N, forward chain F, reverse chain R and start law p as in
diffsq.sampling.lattice_path. Fields carry a noise path: the extended target is pi(x_0) prod_n F(x_{n+1} |
x_n), pi = e^{-S}/Z.

    independence    a whole path from p(x_N) prod R replaces the present one with probability min(1, w'/w),
                    w the weight of a path (Tierney, Ann. Stat. 22 (1994) 1701). A field that another move has
                    changed has lost its path; a new one, drawn forward from F, is a Gibbs step.
    noise_denoise   x_1 ... x_s drawn forward from x_0, x_{s-1}' ... x_0' backward by R from x_s' = x_s,
                    accepted with min(1, e^{l' - l}),  l = -S(x_0) + sum_{n<s} (log F - log R).

A kernel takes a state and the keys of its random numbers and returns a state and what it did:
`kernel(state, seed=, chains=, step=) -> (state, info)`. One list of them, cycled, is one chain: HMC, clusters
and overrelaxation are wrapped the same way. Accept steps are float64, their uniforms keyed by (seed, stream,
chain, step), and fields are handled `GROUP` at a time, whatever the number of chains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsq.models.protocol import ActionFunction, Frames, Noise
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.reverse_chain import rise
from diffsq.sampling.streams import noise_of
from lattice.actions.protocol import Action
from lattice.arrays import Floats, Integers, real_array, same_length
from lattice.errors import InputError
from lattice.rng import uniforms
from lattice.updates.cluster import wolff_update
from lattice.updates.hmc import hmc_trajectory
from lattice.updates.local import overrelaxation_sweep

VERSION = 3  # of a chain of moves: raise it with any change of what it draws
GROUP = 16  # fields evaluated together: with groups of fixed size, sums do not depend on the number of chains


@dataclass(frozen=True)
class State:
    """Fields phi (n, *shape) float64, and log w (n,) of the noise path that each carries; NaN: no path.

    latent (n, *shape): the white noise of which a flow made the fields, where it is known.
    """

    phi: Floats
    log_w: Floats
    latent: Floats | None = None

    @classmethod
    def of(cls, phi: Floats, log_w: Floats | None = None) -> State:
        """Fields without paths, unless their log-weights are given.

        >>> State.of(np.zeros((2, 4, 4))).log_w
        array([nan, nan])
        """
        phi = real_array(phi, "phi")
        log_w = np.full(len(phi), np.nan) if log_w is None else real_array(log_w, "log_w")
        same_length(phi=phi, log_w=log_w)
        return cls(phi, log_w)


@dataclass(frozen=True)
class MoveInfo:
    """What a move did, per chain: accepted (n,), the fraction of its proposals; log_ratio (n, n_proposals).

    Moves without an accept step have accepted 1 and a log_ratio without columns.
    """

    accepted: Floats
    log_ratio: Floats


Moved = tuple[State, MoveInfo]


class Keys(TypedDict):
    """Of a move's random numbers: the seed, the number of each chain (n,), the step."""

    seed: int
    chains: Integers
    step: int


class Move(Protocol):
    """One kernel of a chain, its parameters already given."""

    def __call__(self, state: State, **keys: Unpack[Keys]) -> Moved: ...


def independence(
    path: ReversePath, action: ActionFunction, frames: Frames, state: State, **keys: Unpack[Keys]
) -> Moved:
    """Independence Metropolis on whole paths. Raises `InputError` for a weight that is NaN or infinite."""
    lost, device, chains = np.isnan(state.log_w), path.levels.device, keys["chains"]
    log_w = state.log_w.copy()
    if lost.any():
        log_w[lost], _ = in_groups(
            lambda phi, index: path.weigh(phi, action, _keyed(path, "forward", index, keys), frames),
            device, state.phi[lost], chains[lost],
        )  # fmt: skip
    proposal, log_new = in_groups(
        lambda index: path.sample(action, _keyed(path, "reverse", index, keys), frames), device, chains
    )
    accepted, info = metropolis("independence", log_new - log_w, keys)
    return State(where(accepted, proposal, state.phi), np.where(accepted, log_new, log_w)), info


def noise_denoise(
    path: ReversePath, action: ActionFunction, frames: Frames, depth: int, state: State, **keys: Unpack[Keys]
) -> Moved:
    """Noise up to level `depth` (1 ... N) and back, on the whole lattice; the path is lost.

    Raises `InputError` for a ratio that is NaN or infinite, or a depth outside 1 ... N.
    """
    check_depth(depth, path.n_levels)

    def propose(phi: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        up, down = (_keyed(path, name, index, keys) for name in ("up", "down"))
        trail = [phi, *(high for _, _, high in rise(path.levels, phi, up, range(depth)))]
        ratio, new = action(phi), trail[depth]
        for n in reversed(range(depth)):
            law = path.reverse(trail[n + 1], n, frames(n))
            ratio = ratio - path.log_forward(trail[n], trail[n + 1], n) + law.log_density(trail[n])
            law = path.reverse(new, n, frames(n))
            low = law.draw(down(n))
            ratio = ratio + path.log_forward(low, new, n) - law.log_density(low)
            new = low
        return new, ratio - action(new)

    proposal, ratio = in_groups(propose, path.levels.device, state.phi, keys["chains"])
    accepted, info = metropolis("denoise", ratio, keys)
    return State.of(where(accepted, proposal, state.phi)), info


def hmc(
    action: Action, length: float, n_steps: int, integrator: str, state: State, **keys: Unpack[Keys]
) -> Moved:
    """One HMC trajectory (lattice.updates.hmc), its length jittered by 20 %: log_ratio is -dH."""
    u = float(uniforms(keys["seed"], "chain/length", np.zeros(1, dtype=np.int64), keys["step"], 1)[0, 0])
    tau = length * (0.8 + 0.4 * u)
    phi, info = _update(
        hmc_trajectory, action, state, keys, length=tau, n_steps=n_steps, integrator=integrator
    )
    return State.of(phi), MoveInfo(info.accepted.astype(np.float64), -info.dH[:, None])


def wolff(action: Action, n_clusters: int, state: State, **keys: Unpack[Keys]) -> Moved:
    """Wolff clusters, then a random global sign (lattice.simulation.trajectory says why)."""
    phi, _ = _update(wolff_update, action, state, keys, n_clusters=n_clusters)
    flip = uniforms(keys["seed"], "chain/flip", keys["chains"], keys["step"], 1)[:, 0] < 0.5
    return State.of(where(flip, -phi, phi)), always(np.ones(len(phi)))


def overrelaxation(action: Action, n_sweeps: int, state: State, **keys: Unpack[Keys]) -> Moved:
    """Overrelaxation sweeps (lattice.updates.local)."""
    phi, info = _update(overrelaxation_sweep, action, state, keys, n_sweeps=n_sweeps)
    return State.of(phi), always(info.acceptance)


def _update(update: Callable[..., Any], action: Action, state: State, keys: Keys, **settings: Any) -> Any:
    """One of `lattice.updates`, whose trajectory is the move's step."""
    seed, chains, step = keys["seed"], keys["chains"], keys["step"]
    return update(action, state.phi, seed=seed, chains=chains, trajectory=step, **settings)


def always(accepted: Floats) -> MoveInfo:
    """The info of a move without an accept step."""
    return MoveInfo(accepted, np.empty((len(accepted), 0)))


def where(accepted: NDArray[np.bool_], new: Floats, old: Floats) -> Floats:
    """Fields (n, ...) new where accepted (n,), else old."""
    return np.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def metropolis(name: str, log_ratio: Floats, keys: Keys) -> tuple[NDArray[np.bool_], MoveInfo]:
    """Accept each proposal with min(1, e^{log_ratio}): log_ratio (n,) or (n, n_proposals), one row per chain.

    The uniforms belong to (seed, "chain/NAME/accept", chain, step). Raises `InputError` for NaN or infinity.
    """
    if not np.isfinite(log_ratio).all():
        bad = int((~np.isfinite(log_ratio)).sum())
        raise InputError(
            f"{name} move, step {keys['step']}: {bad} proposal weights are NaN or infinite; retrain the model"
        )
    rows = log_ratio.reshape(len(log_ratio), -1)
    u = uniforms(keys["seed"], f"chain/{name}/accept", keys["chains"], keys["step"], rows.shape[1])
    accepted = np.log(u) < rows
    return accepted.reshape(log_ratio.shape), MoveInfo(accepted.mean(axis=1), rows)


def in_groups(
    function: Callable[..., Sequence[Tensor]], device: torch.device, *arrays: Floats | Integers
) -> tuple[Floats, ...]:
    """`function` of tensors cut from `arrays` (n, ...) `GROUP` rows at a time, results joined: (n, ...).

    The last group is filled up with copies of its last row. Tensors are on `device`.
    """
    n, parts = len(arrays[0]), []
    with torch.no_grad():
        for start in range(0, n, GROUP):
            rows = np.minimum(np.arange(start, start + GROUP), n - 1)
            parts.append(function(*(torch.from_numpy(array[rows]).to(device) for array in arrays)))
    return tuple(torch.cat(list(column))[:n].cpu().numpy() for column in zip(*parts))


def nearest_level(levels: Tensor, sigma: float | None) -> int:
    """The level 1 ... N whose noise is nearest to `sigma` (as a ratio), N for None.

    Raises `InputError` for a sigma beyond the levels.

    >>> levels = torch.tensor([0.0, 0.2, 0.4, 0.8, 1.6])
    >>> nearest_level(levels, 0.5), nearest_level(levels, None)
    (2, 4)
    """
    if sigma is None:
        return len(levels) - 1
    low, high = float(levels[1]), float(levels[-1])
    if not 0.99 * low <= sigma <= 1.01 * high:
        raise InputError(f"depth must be a noise width sigma from {low:.4g} to {high:.4g}, got {sigma:g}")
    return 1 + int((levels[1:].log() - np.log(sigma)).abs().argmin())


def check_depth(depth: int, n_levels: int) -> None:
    """`InputError` unless depth is a level above 0."""
    if not 1 <= depth <= n_levels:
        raise InputError(f"depth must be a level from 1 to {n_levels}, got {depth}")


def _keyed(path: ReversePath, name: str, index: Tensor, keys: Keys) -> Noise:
    """Noise of the chains `index` at a step, a function of the level: its counter is step (N + 1) + level."""
    stream, device = f"chain/path/{name}", path.levels.device
    noise = noise_of(keys["seed"], stream, index.cpu().numpy(), path.model.shape, device)
    return lambda level: noise(keys["step"] * (path.n_levels + 1) + level)
