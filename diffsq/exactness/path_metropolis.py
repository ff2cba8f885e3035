"""The learned energy made exact: Metropolis over whole paths whose target is e^{-E(x, sigma_1)}.

Paths of the reverse chain are proposals with exact weights (diffsq.sampling.point_path); accepted with
min(1, w'/w), their ends are distributed as the learned law at the lowest noise level, whatever the errors of
the sampler: what is left is the error of the energy alone. That law is the data's with noise sigma_1 added.
Isotropic noise leaves every holomorphic moment of z = x + iy as it is, <(eps_x + i eps_y)^n> = 0; of a real
variable it adds sigma_1^2 to kappa_2 and nothing to the other cumulants.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsq.config.sections import METROPOLIS_SIGMA
from diffsq.exactness.weights import (
    acceptance_of,
    forward_ess,
    forward_spread,
    independence_metropolis,
    ln_z,
)
from diffsq.models.points import PointModel
from diffsq.models.protocol import PointScore
from diffsq.models.tabulated import WORTH, fast
from diffsq.process.sde import SDES
from diffsq.sampling.point_path import PointKernel, PointPath, forward_weights, sample_paths
from diffsq.sampling.point_sets import PointDraws
from lattice.actions.one_variable import RealQuartic, TwoPeak
from lattice.ensembles.ensemble import Ensemble, read_ensemble
from lattice.ensembles.writer import EnsembleWriter
from lattice.errors import InputError
from lattice.progress import Progress
from lattice.rng import stream_id
from lattice.simulation.exact_draws import draw_toy
from lattice.statistics.weights import distrusted, effective_sample_size, spread_of

PROPOSED = "proposal_log_weight"
WIDER = 0.01  # of the variances of weighted steps


@dataclass(frozen=True)
class PointChain:
    """One Markov chain: points (n, d) at noise `sigma`, accepted (n,), log-weights (n,) of the proposals.

    forward: log-weights (m,) of noised data, of these chains (m,) where they are correlated.
    """

    points: Tensor
    sigma: float
    accepted: NDArray[np.bool_]
    log_weight: NDArray[np.float64]
    forward: NDArray[np.float64]
    forward_chain: NDArray[np.int64] | None = None

    @property
    def acceptance(self) -> tuple[float, float]:
        """Fraction of the proposals accepted, the first not counted, and its error."""
        return acceptance_of(self.accepted)

    @property
    def ess(self) -> tuple[float, float]:
        """ESS/N = (sum w)^2/(N sum w^2) of the proposals, and its error."""
        return effective_sample_size(self.log_weight)

    @property
    def ess_forward(self) -> tuple[float, float]:
        """The forward ESS/N, on noised data, and its error: thin tails show here first.

        Data stand in for the learned law: where that is wrong, so is this, and it sees no well of the energy
        where there are no data.
        """
        return forward_ess(self.forward, self.forward_chain)

    @property
    def ln_z(self) -> tuple[float, float]:
        """ln int e^{-E} and its error: zero for a normalised energy."""
        return ln_z(self.log_weight)

    def as_dict(self) -> dict[str, Any]:
        """The numbers with their errors, for JSON; of each ESS what `spread_of` says beside it, and where the
        weights are not to be trusted, `distrusted`."""
        numbers = {
            "acceptance": self.acceptance, "ess": self.ess, "ess_forward": self.ess_forward,
            "ln_z": self.ln_z,
        }  # fmt: skip
        pairs = {f"{name}{end}": x for name, pair in numbers.items() for end, x in zip(("", "_error"), pair)}
        spread = {"reverse": spread_of(self.log_weight)}
        spread["forward"] = forward_spread(self.forward, self.forward_chain)
        return {"sigma": self.sigma, **pairs, "spread": spread, "distrusted": distrusted(self.log_weight)}


def metropolis_points(
    model: PointModel, kernel: PointKernel, n: int, seed: int, data: Tensor, progress: Progress | None = None,
    proposer: PointScore | None = None, chain: NDArray[np.int64] | None = None,
    before: tuple[Tensor, NDArray[np.float64]] | None = None,
) -> PointChain:  # fmt: skip
    """A chain of n points distributed as e^{-E(x, sigma_1)}, sigma_1 the kernel's lowest level above zero.

    data (m, d): points whose noised paths give the forward weights; chain (m,): their chains, if correlated.
    before: points (m, d) and log-weights of the proposals (m,) of a shorter chain, which is gone on from.
    proposer: what the reverse steps take the score from, where that is not the model itself; the answer is
    exact for any. Raises `InputError` for a model without an energy or for non-finite weights.
    """
    if model.kind != "energy":
        raise InputError("Metropolis needs an energy model; a score model has no density to accept with")
    sigma, path = kernel.levels[1:2], PointPath(proposer or model, kernel)

    def energy(x: Tensor) -> Tensor:
        return model.energy(x, sigma)

    known, weights = before or (torch.empty(0, path.model.dim, dtype=torch.float64), np.empty(0))
    proposals, log_weight = known, weights
    if len(known) < n:
        x, log_w = sample_paths(path, n, seed, energy, progress, len(known))
        # where a proposal was accepted the chain is there: what is asked for of the old ones is in its points
        proposals, log_weight = torch.cat([known, x]), np.concatenate([weights, log_w.numpy()])
    forward = forward_weights(path, data, seed, energy)
    indices, accepted = independence_metropolis(log_weight, seed)
    return PointChain(proposals[indices], float(sigma), accepted, log_weight, forward.numpy(), chain)


def correct(draws: PointDraws, out: Path) -> Ensemble:
    """The learned energy at a small noise level, sampled exactly: a sample set in the folder `out`, gone on
    from what it holds. Raises `InputError` for a noise level beyond the range learned, and as
    `PointDraws.open`.

    Series: proposal_log_weight, of the path offered at each step.
    """
    model, (low, high) = draws.models["energy"], draws.range
    at = draws.settings.metropolis_sigma or min(METROPOLIS_SIGMA * low, (low * high) ** 0.5)
    if at >= high:
        raise InputError(f"sampling.metropolis_sigma = {at:g} must be below sigma_max = {high:.4g}")
    n, about = draws.settings.n_metropolis, {"model": "energy", "set": "metropolis"}
    writer, request, made = draws.open(about, out, {"n_metropolis": n})
    if made is not None:
        return made
    levels = SDES["ve"](at, high).levels(draws.settings.metropolis_levels)
    draws.kernels = out
    kernel = draws.kernel("energy", model, levels, WIDER)
    data, labels = unseen_points(draws)
    before = _kept(writer, n)
    proposer = fast(model, WORTH)  # one function, whatever n: the chain may be made longer
    chain = metropolis_points(model, kernel, n, draws.seed, data, draws.progress, proposer, labels, before)
    points = chain.points.numpy()
    writer.write(Ensemble.from_fields(points, draws.data.action, series={PROPOSED: chain.log_weight}))
    found = {"noise2": chain.sigma**2, **chain.as_dict()}
    writer.finish({"request": request, "attrs": {"about": {**about, **found}}})
    return read_ensemble(out, draws.data.action)


def _kept(writer: EnsembleWriter, n: int) -> tuple[Tensor, NDArray[np.float64]] | None:
    """The points and the log-weights of the proposals of the shards that are there, up to the first gap."""
    shards = []
    for _, _, shard in writer.spans(n, n):
        if shard is None:
            break
        shards.append(shard)
    if not shards:
        return None
    weights = np.concatenate([shard.series[PROPOSED] for shard in shards])
    return torch.from_numpy(np.concatenate([shard.phi for shard in shards])), weights


def unseen_points(draws: PointDraws) -> tuple[Tensor, NDArray[np.int64] | None]:
    """Points for the forward weights, and their chains: fresh draws, or data not used to calibrate."""
    data, law = draws.data, draws.data.action
    n = min(len(data), draws.settings.n_calibration)
    if isinstance(law, RealQuartic | TwoPeak):
        seed = (draws.seed + stream_id("toy/forward weights")) % 2**64
        return torch.from_numpy(draw_toy(law, n, seed)), None
    rows = data.in_time(draws.rows(2 * n)[-n:])  # those after the ones that calibrate, in order of time
    return torch.from_numpy(data.phi[rows]), data.chain[rows]
