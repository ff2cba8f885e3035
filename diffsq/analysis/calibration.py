"""Rank calibration: is a reverse process's p(x_0 | x_n) the posterior of the equilibrium fields?

Simulation-based calibration (Talts et al. 1804.06788). Noise an equilibrium field x_0 to level n,
x_n = x_0 + sigma_n eps, run the reverse process K times from this same x_n, and rank a statistic T of the
truth among those of the draws x_0^1 ... x_0^K. If the draws come from p(x_0 | x_n), truth and draws are K + 1
independent draws from one law, and

    u = #{k: T(x_0^k) < T(x_0)},    uniform on {0, ..., K}, for every T.

Draws that are too narrow leave the truth at both ends, too wide ones in the middle; a bias tilts the ranks.

Corrected ranks. Given x_n, the path sampler draws whole paths z = (x_0, ..., x_{n-1}) with density prod R,
while the noised truth has density ~ e^{-S(x_0)} prod F: the weight of diffsq/path.py from level n on,

    log w(z) = -S(x_0) + sum_{m<n} [log F(x_{m+1} | x_m) - log R(x_m | x_{m+1})].

Given the set of all K + 1 paths, the truth z_0 is any one of them with probability w_i/sum_j w_j (weighted
exchangeability, Tibshirani et al. 1904.06019), so with v uniform on (0, 1)

    U = [sum_{k>=1} w_k 1(T_k < T_0) + v w_0] / sum_{k>=0} w_k

is uniform for any score, N and K, and floor((K+1) U) is the corrected rank. Equal weights give back u, and v
breaks ties. Raw ranks judge the sampler as it is; corrected ones judge weights and fields, whatever the
sampler: with few effective draws they lose power, never validity.

One field gives one rank per statistic. chi^2 of the K + 1 counts needs independent fields: of one Markov
chain take fields several tau_int apart (`independent_rows`). Several tests are corrected by Holm's method,
which holds for any dependence between them (the same fields serve all statistics and levels).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import pack, rearrange, repeat
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import ActionFunction, Frames, Noise
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.reverse_chain import end_of
from diffsq.sampling.steps import Step
from diffsq.sampling.streams import noise_of
from lattice.arrays import Floats, Integers, batches
from lattice.ensembles.ensemble import Ensemble
from lattice.errors import InputError
from lattice.rng import uniforms
from lattice.statistics.gamma import gamma_method
from lattice.statistics.pulls import mean_and_error
from lattice.statistics.uniformity import weighted_rank

Statistic = Callable[[Tensor, Integers], Tensor]
"""T(phi, index) -> (n,), fields phi (n, *shape); `index` (n,): the equilibrium field that each belongs to."""
Draw = Callable[[Tensor, Integers], Tensor]
"""draw(x_n, index) -> x_0, one reverse draw per row of x_n (n, *shape), random numbers keyed by `index`."""
SPACING = 4  # tau_int between two fields of one chain: an exponential correlation is then below 2 %
ROW_SITES = 2**17  # lattice sites in one batch of reverse draws


@dataclass(frozen=True)
class Stream:
    """The random numbers of one calibration: functions of (seed, name, index, step)."""

    seed: int
    name: str

    def noise(self, part: str, index: Integers, like: Tensor) -> Noise:
        """noise(step) -> standard normal (len(index), *shape), shape and device of `like` (n, *shape)."""
        return noise_of(self.seed, f"{self.name}/{part}", index, like.shape[1:], like.device)

    def uniform(self, part: str, index: Integers) -> Floats:
        """One uniform number per index."""
        return uniforms(self.seed, f"{self.name}/{part}", index, 0, 1)[:, 0]


def field_statistics(action: ActionFunction, stream: Stream) -> dict[str, Statistic]:
    """M, |M|, s = S/V, and phi_x at a site drawn at random for each field.

    One site per field: two sites of one field are not independent, and chi^2 counts independent ranks.
    """

    def site(phi: Tensor, index: Integers) -> Tensor:
        x = (stream.uniform("site", index) * phi[0].numel()).astype(np.int64)
        return phi.flatten(1)[torch.arange(len(phi)), torch.from_numpy(x).to(phi.device)]

    return {
        "M": lambda phi, index: phi.flatten(1).mean(1),
        "|M|": lambda phi, index: phi.flatten(1).mean(1).abs(),
        "s": lambda phi, index: action(phi) / phi[0].numel(), "phi_x": site,
    }  # fmt: skip


def ranks(
    draw: Draw, phi: Tensor, sigma: float, statistics: Mapping[str, Statistic], n_draws: int, stream: Stream,
    done: Callable[[int], None] = lambda n: None,
) -> dict[str, Integers]:  # fmt: skip
    """Raw ranks (n,) in 0 ... n_draws of each statistic, for equilibrium fields phi (n, *shape), any sampler.

    `draw` goes from noise sigma down to 0. `done(n)` is called as n more fields are finished. Raises
    `InputError` when a draw is not finite, or when the sampler is deterministic: draws that are all equal
    have no ranks.
    """

    def block(fields: Tensor, index: Integers, sub: Integers) -> tuple[Tensor, None]:
        x = fields + sigma * stream.noise("up", index, fields)(0)
        return draw(repeat(x, "n ... -> (n draw) ...", draw=n_draws), sub), None

    return _collect(block, phi, statistics, n_draws, stream, done)[0]


@dataclass(frozen=True)
class PathRanks:
    """Ranks of the path sampler from one level; means over the fields, of each field's draws.

    ess, ess_error: the effective fraction; spread: what `lattice.statistics.weights` says beside it.
    """

    raw: dict[str, Integers]
    corrected: dict[str, Integers]
    ess: float
    ess_error: float = 0.0
    spread: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def path_ranks(
    path: ReversePath, level: int, phi: Tensor, action: ActionFunction, statistics: Mapping[str, Statistic],
    n_draws: int, stream: Stream, frames: Frames, done: Callable[[int], None] = lambda n: None,
) -> PathRanks:  # fmt: skip
    """Raw and corrected ranks of the path sampler's reverse chain from level n = `level` (1 ... N).

    Raises `InputError` for a level outside 1 ... N, and for weights or draws that are not finite.
    """
    if not 1 <= level <= path.n_levels:
        raise InputError(f"level must be in 1 ... {path.n_levels}, levels of this path; got {level}")

    def block(fields: Tensor, index: Integers, sub: Integers) -> tuple[Tensor, Tensor]:
        x, log_w = end_of(path.up(fields, stream.noise("up", index, fields), frames, level))
        x = repeat(x, "n ... -> (n draw) ...", draw=n_draws)
        low, log_r = end_of(path.down(x, stream.noise("down", sub, x), frames, level))
        drawn = rearrange(log_r - action(low), "(n draw) -> n draw", draw=n_draws)
        return low, pack([log_w - action(fields), drawn], "n *")[0]

    raw, corrected, weights = _collect(block, phi, statistics, n_draws, stream, done)
    share = weights / weights.sum(1, keepdims=True)
    ess, ess_error = mean_and_error(1 / (share**2).sum(1) / n_draws)
    gauss, gauss_error = mean_and_error(np.exp(-np.log(np.maximum(share, 1e-300)).var(1)))
    spread = {"exp_minus_var": gauss, "exp_minus_var_error": gauss_error}
    spread["largest_weight"] = float(share.max(1).mean())
    return PathRanks(raw, corrected, ess, ess_error, spread)


Block = Callable[[Tensor, Integers, Integers], tuple[Tensor, Tensor | None]]


def plain_draw(
    step: Step, model: LatticeScore, levels: Tensor, level: int, stream: Stream, frames: Frames
) -> Draw:
    """A sampler without weights (diffsq/sampler.py) from levels[level] down to 0.

    Heun's is deterministic, so that `ranks` refuses it.
    """

    @torch.no_grad()
    def draw(x: Tensor, index: Integers) -> Tensor:
        noise = stream.noise("down", index, x)
        for n in reversed(range(level)):

            def numbered(i: int, n: int = n) -> Tensor:
                return noise(2 * n + i)

            x = step(model, x, levels[n + 1], levels[n], numbered, frames(n))
        return x

    return draw


def _collect(
    block: Block, phi: Tensor, statistics: Mapping[str, Statistic], n_draws: int, stream: Stream,
    done: Callable[[int], None],
) -> tuple[dict[str, Integers], dict[str, Integers], Floats]:  # fmt: skip
    """Ranks, raw and corrected, and the weights of the draws (n, n_draws)."""
    if n_draws < 2:
        raise InputError(f"n_draws must be at least 2, got {n_draws}; 15 is usual")
    raw: dict[str, list[Integers]] = {name: [] for name in statistics}
    corrected: dict[str, list[Integers]] = {name: [] for name in statistics}
    kept = []
    for index in batches(len(phi), max(1, ROW_SITES // (phi[0].numel() * n_draws))):
        fields = phi[index]
        drawn, log_w = block(fields, index, np.add.outer(index * n_draws, np.arange(n_draws)).ravel())
        _check_draws(drawn, n_draws)
        weights = np.ones((len(fields), n_draws + 1)) if log_w is None else _weights(log_w)
        kept.append(weights[:, 1:])
        ties = stream.uniform("ties", index)
        for name, statistic in statistics.items():
            truth = statistic(fields, index).cpu().numpy()
            values = statistic(drawn, index.repeat(n_draws)).cpu().numpy().reshape(len(fields), n_draws)
            raw[name].append(weighted_rank(truth, values, np.ones_like(weights), ties))
            corrected[name].append(weighted_rank(truth, values, weights, ties))
        done(len(fields))
    joined = [{name: np.concatenate(found) for name, found in each.items()} for each in (raw, corrected)]
    return joined[0], joined[1], np.concatenate(kept)


def _check_draws(drawn: Tensor, n_draws: int) -> None:
    if not torch.isfinite(drawn).all():
        raise InputError("the reverse process gave fields that are NaN or infinite; retrain the model")
    each = rearrange(drawn, "(n draw) ... -> draw n ...", draw=n_draws)
    if bool((each == each[0]).all()):
        raise InputError(
            "the sampler is deterministic: all draws from one noisy field are equal, and have no ranks; "
            "rank calibration needs a stochastic sampler (path, euler, pc)"
        )


def _weights(log_w: Tensor) -> Floats:
    """exp(log w) (n, K+1), each row normalised to a largest weight of 1."""
    values = log_w.cpu().numpy()
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{bad} of {values.size} log-weights are NaN or infinite; retrain the model")
    return np.asarray(np.exp(values - values.max(1, keepdims=True)))


def independent_rows(ensemble: Ensemble, n: int) -> tuple[Integers, int]:
    """Rows of at most n fields, nearly independent: those of one chain at least `SPACING` tau_int apart.

    tau_int is the largest of M, |M| and S, by the Gamma method over all chains. Returns the rows, spread
    over the chains and what is eligible of them, and the spacing in saved configurations.
    """
    replicas, m = ensemble.replicas(), ensemble.series["magnetization"]
    series = (m, np.abs(m), ensemble.series["action"])
    tau = max(gamma_method([each[rows] for rows in replicas]).tau_int for each in series)
    spacing = math.ceil(SPACING * tau)
    eligible = np.concatenate([rows[::spacing] for rows in replicas])
    return np.sort(ensemble.spread(n, seed=0, stream="independent", among=eligible)), spacing
