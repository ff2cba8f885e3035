"""The two-peak law with its exact score, through every sampler: sampler error without that of learning.

    p_0 = 1/2 [N(mu0, sigma0^2) + N(-mu0, sigma0^2)],  s^2 = sigma0^2 + sigma^2
    score      -x/s^2 + (mu0/s^2) tanh(mu0 x/s^2)
    posterior  <x_0>_x = [sigma0^2 x + sigma^2 mu0 tanh(mu0 x/s^2)]/s^2,
               C(x) = sigma0^2 sigma^2/s^2 + (sigma^2 mu0/s^2)^2/cosh^2(mu0 x/s^2)
    cumulants  kappa_2 = mu0^2 + sigma0^2,  kappa_4 = -2 mu0^4,  kappa_6 = 16 mu0^6,  kappa_8 = -272 mu0^8

(Aarts, Habibi, Wang, Zhou 2410.21212, sec. 5). Two more steps, for laws whose posterior variance is known:

    ancestral  x + rho (D - x) + sqrt(rho low^2) eps,               rho = (high^2 - low^2)/high^2
    path       the same with variance rho low^2 + rho^2 C(x), the kernel of `diffsq.sampling.lattice_path` in
    one variable:
               mean and variance of every reverse step exact

The last step, from sigma_1 = epsilon to 0, leaves in kappa_2 of a peak, a Gaussian of variance v = sigma0^2,

    none, x = x_1                       + epsilon^2
    mean, x = D(x_1)                    - epsilon^2 v/(v + epsilon^2)             (ancestral)
    reverse SDE, D(x_1) + epsilon eps   + epsilon^4/(v + epsilon^2)               (euler, pc)
    flow, 1/2 (x_1 + D(x_1))            + epsilon^4/(4 (v + epsilon^2))           (heun)
    posterior draw                      0                                         (path)
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special
import torch
from einops import rearrange
from scipy.interpolate import CubicSpline
from torch import Tensor

from diffsq.models.protocol import Noise
from diffsq.models.two_peak import TwoPeakScore
from diffsq.process.cumulants import Tally, Watch, watch_into
from diffsq.process.sde import SDES
from diffsq.sampling.steps import STEPS
from lattice.arrays import Floats, Integers, batches
from lattice.errors import InputError
from lattice.rng import normals, uniforms
from lattice.statistics.cumulants import cumulants_from_moments
from lattice.statistics.extrapolation import Extrapolation, extrapolate_step
from lattice.statistics.notation import aligned, with_pull
from lattice.statistics.pulls import pull

BLOCK = 1000  # samples: a jackknife block, and one index of the random streams
CHUNK = 32  # blocks at a time: the fields of a step stay in the cache
LAST = ("step", "mean", "none")


def ancestral(model: Any, x: Tensor, high: Tensor, low: Tensor, noise: Noise, frame: Any) -> Tensor:
    """Bridge to the denoised mean (DDPM of Ho, Jain, Abbeel 2006.11239 with its smaller variance)."""
    delta = high**2 - low**2
    mean: Tensor = x + delta * model.score(x, high.expand(len(x)), frame)
    return mean + delta.sqrt() * low / high * noise(0)


def path_kernel(model: Any, x: Tensor, high: Tensor, low: Tensor, noise: Noise, frame: Any) -> Tensor:
    """Gaussian with the exact mean and variance of x_low given x_high."""
    delta, sigma = high**2 - low**2, high.expand(len(x))
    rho = delta / high**2
    variance = rho * low**2 + rho**2 * model.posterior_variance(x, sigma)
    out: Tensor = x + delta * model.score(x, sigma, frame) + variance.sqrt() * noise(0)
    return out


SAMPLERS: dict[str, Any] = {**STEPS, "ancestral": ancestral, "path": path_kernel}
ORDER_OF = {"heun": 2, "path": 2}  # power of 1/N in which the error of a sampler begins; 1 for the others
GRID, REACH, NODES = 1601, 8.0, 8  # of `sampler_cumulants`


def sampler_cumulants(
    model: TwoPeakScore, step: Any, levels: Tensor, last: str = "step", n_max: int = 8, n_draws: int = 1
) -> Floats:
    """kappa_1..kappa_n_max (n_max,) of a sampler's output at finite N and epsilon, no statistical error.

    Carries u_n(x) = E[x_0^p | x_n = x] upwards: u_{n+1}(x) = E u_n(step(x, eps)), Gauss-Hermite in eps, cubic
    splines in x; then the mean over the start law. n_draws: of a step, 2 for "pc". Relative accuracy 1e-5
    from 50 levels on.
    """
    y = np.linspace(-REACH, REACH, GRID)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights /= weights.sum()
    width = np.sqrt(float(model.cumulants[1]) + levels.numpy() ** 2)
    powers = np.arange(1, n_max + 1)
    u = np.power.outer(width[0] * y, powers)
    for n in range(len(levels) - 1):
        below = CubicSpline(width[n] * y, u)
        x = torch.from_numpy(width[n + 1] * y)[:, None]
        if n == 0 and last != "step":
            end = x if last == "none" else model.denoise(x, levels[1].expand(len(x)))
            u = end.numpy() ** powers
            continue
        u = np.zeros_like(u)
        for draw in itertools.product(range(NODES), repeat=n_draws):
            eps = [torch.full_like(x, nodes[i]) for i in draw]
            end = step(model, x, levels[n + 1], levels[n], eps.__getitem__, None)
            u += weights[list(draw)].prod() * below(end.numpy()[:, 0])
    density = np.exp(-0.5 * y**2)
    return np.asarray(cumulants_from_moments(density @ u / density.sum()).real)


def reverse(
    model: Any, step: Any, x: Tensor, levels: Tensor, noise: Noise, last: str = "step",
    watch: Watch = lambda level, x: None,
) -> Tensor:  # fmt: skip
    """Points x (n, 1) at the top level down to 0; last: what is done from levels[1] to 0, see LAST."""
    if last not in LAST:
        raise InputError(f"last must be one of {', '.join(LAST)}, got {last!r}")
    for n in reversed(range(len(levels) - 1)):
        watch(n + 1, x)
        if n > 0 or last == "step":
            x = step(model, x, levels[n + 1], levels[n], lambda i, n=n: noise(2 * n + i), None)
        elif last == "mean":
            x = model.denoise(x, levels[1].expand(len(x)))
    watch(0, x)
    return x


def sample_points(
    model: Any, step: Any, levels: Tensor, n: int, *, seed: int, stream: str, last: str = "step",
    stratified: bool = False, every_level: bool = False, f: Floats | None = None,
) -> Tally:  # fmt: skip
    """Cumulants of n points from N(0, kappa_2 + sigma_N^2) through the levels (N+1,): level 0, or every one.

    Sample i is number i % 1000 of index i // 1000 in the stream: nothing depends on the split. stratified:
    the 1000 starts of a block lie one in each of as many equally probable intervals, which lowers the errors
    of the probability flow (blocks stay independent, the jackknife is right). f (N+1,): the points are
    counted as f x. Raises `InputError` unless n is a multiple of 1000 and 10000 or more.
    """
    if n % BLOCK or n < 10 * BLOCK:
        raise InputError(f"the number of points must be a multiple of {BLOCK} from {10 * BLOCK} on, got {n}")
    n_levels, n_blocks = len(levels) - 1, n // BLOCK
    tally = Tally(n_levels + 1 if every_level else 1, n_blocks)
    width = math.sqrt(float(model.cumulants[1]) + float(levels[-1]) ** 2)
    signal = np.ones(n_levels + 1) if f is None or not every_level else f
    for index in batches(n_blocks, CHUNK):
        noise, count = point_noise(seed, stream, index), watch_into(tally, signal, np.repeat(index, BLOCK))
        start = strata(seed, stream, index) if stratified else noise(2 * n_levels)

        def watch(level: int, x: Tensor, count: Watch = count) -> None:
            if every_level or level == 0:
                count(level, x)

        reverse(model, step, width * start, levels, noise, last, watch)
    return tally


def point_noise(seed: int, stream: str, index: Integers) -> Noise:
    """noise(i) -> standard normal (1000 len(index), 1)."""
    return lambda i: _points(normals(seed, stream, index, i, BLOCK))


def _points(numbers: Floats) -> Tensor:
    return torch.from_numpy(rearrange(numbers, "index i -> (index i) 1"))


def strata(seed: int, stream: str, index: Integers) -> Tensor:
    """Standard normal (1000 len(index), 1), each thousand stratified."""
    u = (np.arange(BLOCK) + uniforms(seed, f"{stream}/strata", index, 0, BLOCK)) / BLOCK
    return _points(scipy.special.ndtri(u))


def noise_levels(kind: str, n_steps: int, epsilon: float, sigma_max: float) -> Tensor:
    """0 and n_steps levels from epsilon to sigma_max, placed as in the process ("ve": geometric, "vp")."""
    if kind not in SDES:
        raise InputError(f"sde must be one of {', '.join(SDES)}, got {kind!r}")
    return SDES[kind](epsilon, sigma_max).levels(n_steps)


def sampler_table(
    model: TwoPeakScore | None = None, *,
    kinds: Sequence[str] = ("ve", "vp"), samplers: Sequence[str] = tuple(SAMPLERS),
    n_steps: Sequence[int] = (250, 500, 1000), epsilons: Sequence[float] = (0.01,), n: int = 1_000_000,
    sigma_max: float = 10.0, orders: Sequence[int] = (2, 4, 6, 8), last: str = "step", seed: int = 1,
    stratified: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row per process, sampler, epsilon and number of steps: kappa_n, errors, pulls against the truth.

    The estimator is that of a law symmetric under x -> -x. Independent random numbers in every row.
    """
    law, rows = model or TwoPeakScore(), []
    exact = law.cumulants[[k - 1 for k in orders]]
    for kind, name, epsilon, steps in itertools.product(kinds, samplers, epsilons, n_steps):
        levels = noise_levels(kind, steps, epsilon, sigma_max)
        stream = f"analytic/{kind}/{name}/{steps}/{epsilon:g}/{last}"
        tally = sample_points(
            law, SAMPLERS[name], levels, n, seed=seed, stream=stream, last=last, stratified=stratified
        )
        found = tally.curve(np.zeros(1), orders, z2=True)
        value, error = found.value[0], found.error[0]
        rows.append({
            "sde": kind, "sampler": name, "n_steps": steps, "epsilon": epsilon, "last": last, "n": n,
            "orders": list(orders), "exact": exact.tolist(), "value": value.tolist(),
            "error": error.tolist(), "pull": [pull(v, e, x, 0.0) for v, e, x in zip(value, error, exact)],
        })  # fmt: skip
    return rows


def limit(rows: Sequence[dict[str, Any]], of: str = "n_steps") -> list[Extrapolation]:
    """kappa_n at N -> infinity or epsilon -> 0, one per order, from rows that differ in `of` only.

    A straight line in 1/N, in 1/N^2 for "heun" and "path"; in epsilon^4 where the last step is done with
    noise or by the flow, else in epsilon^2. Raises `InputError` for rows of several samplers, and as
    `extrapolate_step` for fewer than three.
    """
    if of not in ("n_steps", "epsilon"):
        raise InputError(f"a limit is taken of n_steps or epsilon, not of {of}")
    same = ("sde", "sampler", "last", "epsilon" if of == "n_steps" else "n_steps")
    keys = {tuple(row[k] for k in same) for row in rows}
    if len(keys) != 1:
        raise InputError(f"a limit needs rows of one process and sampler that differ in {of}, got {keys}")
    name, last = rows[0]["sampler"], rows[0]["last"]
    power = -ORDER_OF.get(name, 1) if of == "n_steps" else 2 if last != "step" or name == "ancestral" else 4
    steps = [float(row[of]) ** power for row in rows]
    return [
        extrapolate_step(steps, [row["value"][k] for row in rows], [row["error"][k] for row in rows])
        for k in range(len(rows[0]["orders"]))
    ]


def text(rows: Sequence[dict[str, Any]]) -> str:
    """The table: kappa_n(error) [pull] per process, sampler, epsilon and N; N -> infinity from three N on."""
    orders = rows[0]["orders"]
    cells = [["process", "sampler", "epsilon", "N", *(f"kappa_{k}" for k in orders)]]
    exact = [f"{e:g}" for e in rows[0]["exact"]]
    cells.append(["exact", "", "", "", *exact])
    for row in rows:
        numbers = [with_pull(*found) for found in zip(row["value"], row["error"], row["pull"])]
        cells.append([row["sde"], row["sampler"], f"{row['epsilon']:g}", str(row["n_steps"]), *numbers])
        group = [r for r in rows if all(r[k] == row[k] for k in ("sde", "sampler", "epsilon", "last"))]
        if row is group[-1] and len(group) > 2:
            numbers = [
                with_pull(x.value, x.error, pull(x.value, x.error, e, 0.0))
                + ("" if x.trusted else " not linear")
                for x, e in zip(limit(group), row["exact"])
            ]
            cells.append([*cells[-1][:3], "infinity", *numbers])
    return "\n".join(aligned(cells))
