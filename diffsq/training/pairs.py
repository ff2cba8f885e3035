r"""Degenerate pairs of K under mini-batches: Dyson Brownian motion in the weights of a Gaussian machine.

At the end of learning a step of rate alpha with a batch of B fresh fields moves a pair of equal kappa as a
2 x 2 matrix, dX: variance 2 alpha x/B on the diagonal, half of that off it, relaxation 2 alpha x/kappa^2,
x = mu^2 - kappa, whether the data are sampled or, beside the exact C, persistent chains. To leading order in
alpha/B its levels repel as Wigner's,

    <S> = sqrt(2 pi alpha x/B) (1 - alpha x/kappa^2)^(-1/2),     <S^2>/<S>^2 = 4/pi,

and a mode of its own has the variance 2 alpha x/B (1 - alpha x/kappa^2)^(-1). Chains of k sweeps multiply
it by (1 + r^2)/(1 - r^2), r = (x/mu^2)^k, and where both are sampled the two variances add. (2407.16427,
2411.13512; amplitude and corrections: this project.) Rows of many machines at once; a pair is its own block
of K and, beside it, neighbours in the sorted spectrum, between which levels of other modes come where the
noise is large.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from diffsq.config.dynamics import PairRow, PairTraining
from diffsq.models.rbm import GaussianRBM
from diffsq.training.contrastive import Learning, State, from_gaussian, learn
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.gaussian_rbm import chain_kernel, relaxation_rate
from lattice.progress import Progress

BURN = 6.0  # slowest relaxation times before the first snapshot
BINS = np.linspace(0, 4, 33)  # of S/<S>
LEVELS = np.linspace(-4, 4, 65)  # of (lambda - mean)/(<S>/sqrt pi)


def pair_row(training: PairTraining, row: PairRow, seed: int, progress: Progress) -> dict[str, Any]:
    """The pairs of one rate and batch: numbers with errors over the machines, beside the formulas.

    Raises `InputError` where mu^2 is not above every kappa, and for rates above the limit.
    """
    kappa = chain_kernel(training.n_visible, training.mass)
    if training.mu2 <= kappa[-1]:
        raise InputError(
            f"training.mu2 must be above the largest kappa = {kappa[-1]:g}, got {training.mu2:g}"
        )
    blocks, refused = snapshots(kappa, training, row, seed, progress)
    groups = degenerate(kappa)
    spectra: Floats = np.linalg.eigvalsh(blocks).astype(np.float64)
    return {
        "rate": row.rate, "batch": row.batch, "noise": row.noise, "k": row.k, "refused": refused,
        "n_machines": blocks.shape[0], "n_snapshots": blocks.shape[1],
        "pairs": [
            _pair(kappa, group, blocks, spectra, training, row) for group in groups if len(group) == 2
        ],
        "singles": [_single(kappa, group[0], blocks, training, row) for group in groups if len(group) == 1],
        "strangers": _strangers(spectra, groups),
    }  # fmt: skip


def degenerate(kappa: Floats) -> list[list[int]]:
    """Places of equal kappa (rising), group by group."""
    groups: list[list[int]] = [[0]]
    for i in range(1, len(kappa)):
        if kappa[i] - kappa[i - 1] < 1e-9 * kappa[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def spacing_time(kappa: Floats, mu2: float, rate: float) -> float:
    """Steps of the slowest relaxation; 1 where nothing moves."""
    return 1.0 if rate == 0 else float(1 / (rate * relaxation_rate(kappa, mu2).min()))


def snapshots(
    kappa: Floats, training: PairTraining, row: PairRow, seed: int, progress: Progress
) -> tuple[Floats, int]:
    """K (n_machines, n_snapshots, n, n) in the basis of the target's modes; and how many steps of single
    machines were not taken, K not being positive after them."""
    n, n_machines = len(kappa), training.n_replicas
    w = torch.diag(torch.from_numpy(np.sqrt(training.mu2 - kappa))).repeat(n_machines, 1, 1)
    machine = GaussianRBM(w, torch.full((n_machines,), training.mu2, dtype=torch.float64))
    apart = max(1, round(training.n_apart * spacing_time(kappa, training.mu2, row.rate)))
    first = max(1, round(BURN * spacing_time(kappa, training.mu2, row.rate)))
    times = first + apart * np.arange(training.n_snapshots)
    root = torch.diag(torch.from_numpy(kappa**-0.5))
    draw = None if row.noise == "chains" else from_gaussian(root, row.batch, seed, n_machines)
    method = "exact" if row.noise == "data" else "pcd"
    how = Learning(row.rate, method, row.k, n_chains=row.batch)
    state, second = State(), torch.diag(torch.from_numpy(1 / kappa))
    found = np.empty((n_machines, training.n_snapshots, n, n))
    wanted = {int(time): k for k, time in enumerate(times)}
    progress.start(int(times[-1]), f"{n_machines} machines, rate {row.rate:g}, batch {row.batch}")
    steps = learn(
        machine, second, how, int(times[-1]), draw=draw, seed=seed, state=state, refuse_steps=True
    )  # fmt: skip
    for step, machine in steps:
        if step in wanted:
            found[:, wanted[step]] = machine.kernel.numpy()
        progress.update(1 if step else 0)
    progress.close()
    return found, state.refused


def amplitude(alpha: float, x: float, batch: int, kappa: float, noise: float = 1.0) -> float:
    """<S> of a pair, with its first correction; noise: as `noise_of`."""
    return math.sqrt(2 * math.pi * alpha * x * noise / (batch * (1 - alpha * x / kappa**2)))


def noise_of(row: PairRow, x: float, mu2: float) -> float:
    """The variance of the noise in units of that of mini-batches: 1 of data, (1 + r^2)/(1 - r^2) of chains, r
    = (x/mu^2)^k, the sum of both."""
    r = (x / mu2) ** row.k
    chains = (1 + r**2) / (1 - r**2)
    return {"data": 1.0, "chains": chains, "both": 1 + chains}[row.noise]


def _pair(
    kappa: Floats, group: list[int], blocks: Floats, spectra: Floats, training: PairTraining, row: PairRow
) -> dict[str, Any]:
    i, j = group
    diagonal = blocks[..., i, i], blocks[..., j, j]
    s = np.sqrt((diagonal[0] - diagonal[1]) ** 2 + 4 * blocks[..., i, j] ** 2)
    middle = (diagonal[0] + diagonal[1]) / 2
    x = training.mu2 - float(kappa[i])
    unit = math.sqrt(row.rate * x / row.batch)
    noise = noise_of(row, x, training.mu2)
    mean = float(s.mean())
    found: dict[str, Any] = {"kappa": float(kappa[i]), "x": x, "spacing": _mean(s)}
    found["over_kappa"] = _mean(middle / kappa[i])
    found["sorted"] = _mean(spectra[..., j] - spectra[..., i])
    if not unit > 0:
        return found  # nothing moves, and the two kappa of a pair differ by rounding
    levels = np.concatenate([middle - s / 2, middle + s / 2], axis=1) - middle.mean()
    ratio = s / mean
    found |= {
        "a": _scaled(found["spacing"], unit), "a_sorted": _scaled(found["sorted"], unit),
        "a_formula": amplitude(row.rate, x, row.batch, float(kappa[i]), noise) / unit, "noise": noise,
        "ratio": _ratio(s), "n": int(s.size),
        "histogram": np.histogram(ratio, BINS)[0].tolist(),
        "levels": np.histogram(levels / (mean / math.sqrt(math.pi)), LEVELS)[0].tolist(),
    }  # fmt: skip
    return found


def _single(kappa: Floats, i: int, blocks: Floats, training: PairTraining, row: PairRow) -> dict[str, Any]:
    """Variance of a mode of its own over 2 alpha x/B."""
    x, k = training.mu2 - float(kappa[i]), float(kappa[i])
    value = blocks[..., i, i]
    squares = (value - value.mean()) ** 2
    unit = 2 * row.rate * x / row.batch
    found = {"kappa": k, "x": x, "over_kappa": _mean(value / k)}
    if unit > 0:
        noise = noise_of(row, x, training.mu2)
        found["variance"] = _scaled(_mean(squares), unit)
        found["variance_formula"] = [noise / (1 - row.rate * x / k**2), 0.0]
    return found


def _strangers(spectra: Floats, groups: list[list[int]]) -> dict[str, Any]:
    """Neighbours that are not degenerate, the upper one of the first pair and the lower one of the next."""
    pairs = [group for group in groups if len(group) == 2]
    if len(pairs) < 2:
        return {}
    s = spectra[..., pairs[1][0]] - spectra[..., pairs[0][1]]
    return {"ratio": _ratio(s), "n": int(s.size)}


def _mean(x: Floats) -> list[float]:
    """Mean over machines (n, n_snapshots), with its error: machines are independent."""
    each = x.mean(1)
    return [float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))]


def _scaled(pair: list[float], unit: float) -> list[float]:
    return [pair[0] / unit, pair[1] / unit]


def _ratio(s: Floats) -> list[float]:
    """<S^2>/<S>^2 and its error."""
    one, two = s.mean(1), (s**2).mean(1)
    value = two.mean() / one.mean() ** 2
    slope = two / one.mean() ** 2 - 2 * value * one / one.mean()
    return [float(value), float(slope.std(ddof=1) / math.sqrt(len(s)))]
