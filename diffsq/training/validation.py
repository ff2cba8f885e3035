"""What the model gains on held-out fields: path KL per noise level and shell, over Wiener and the base.

The path KL itself contains the unknown posterior mean; the *difference* of two predictors does not (loss.py),
so gains are measured and totals come from the sampler's forward weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from diffsq.models.blocks import Fields, KeyedNoise, Rows, block_size
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import shells
from diffsq.training.loss import Batch, gain_rate, prepare, spread_gain
from lattice.arrays import Floats, Integers
from lattice.ensembles.ensemble import Ensemble
from lattice.rng import uniforms
from lattice.statistics.blocks import chain_blocks, jackknife_errors, jackknife_of

N_VALIDATION = 2048
N_LEVELS, PER_LEVEL = 24, 256
N_GAIN = 512
EVALUATE = 64  # fields per network call
Gradient = Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class HeldOut:
    """Fields in an order any stretch of which is spread over chains and time, and the jackknife block (n,) of
    each."""

    fields: Fields
    block: Integers

    @classmethod
    def of(cls, ensemble: Ensemble, rows: Integers, seed: int, device: torch.device) -> HeldOut:
        """The configurations `rows` of an ensemble."""
        rows = ensemble.spread(len(rows), seed=seed, stream="validation", among=rows)
        block = chain_blocks(ensemble.chain[rows], ensemble.trajectory[rows])
        return cls(Rows.of(ensemble.phi, rows, device), block)

    def take(self, n: int, draw: int = 0) -> tuple[Tensor, Integers]:
        """The next n fields of the order, all if there are fewer, and their blocks."""
        size = len(self.block)
        index = (draw * n + np.arange(min(n, size))) % size
        return self.fields[torch.from_numpy(index)], self.block[index]


def _batches(
    model: LatticeScore, fields: Tensor, grad: Gradient, sigma: Tensor, seed: int, stream: str, step: int,
    size: int = 64,
) -> Iterator[Batch]:  # fmt: skip
    """Fields (n, *shape) noised to sigma (n,) or (), `size` of them at a time."""
    index = np.arange(len(fields))
    noise = KeyedNoise(seed, f"validation/{stream}", index, model.shape, fields.device)(step)
    parts = (torch.split(q, size) for q in (fields, sigma.expand(len(fields)), noise))
    for number, (phi, s, e) in enumerate(zip(*parts, strict=True)):
        bridge = None
        if model.learns_spread:
            rows = index[number * size : number * size + len(phi)]
            bridge = KeyedNoise(seed, f"validation/{stream}/bridge", rows, model.shape, fields.device)(step)
        yield prepare(model, phi, grad, s, e, bridge=bridge)


def _choose(phi: Fields, n: int, seed: int, draw: int = 0) -> Tensor:
    """n fields at random, without repeats (all of them if there are fewer)."""
    order = np.argsort(uniforms(seed, "validation/rows", np.array([0]), draw, len(phi))[0], kind="stable")
    return phi[torch.from_numpy(order[:n])]


def spread_levels(model: LatticeScore, n: int) -> Tensor:
    """n noise levels, evenly over the range of ln sigma."""
    low, high = model.base.log_sigma[0], model.base.log_sigma[-1]
    position = (torch.arange(n, dtype=torch.float64, device=low.device) + 0.5) / n
    return torch.exp(low + (high - low) * position)


def held_out_batch(
    model: LatticeScore, held_out: HeldOut, grad: Gradient, seed: int
) -> tuple[Batch, Integers]:
    """A fixed batch over the whole noise range, for the gain printed during training, and its blocks."""
    fields, block = held_out.take(block_size(model.shape, N_VALIDATION, 2**23))
    parts = list(_batches(model, fields, grad, spread_levels(model, len(fields)), seed, "batch", 0, 256))
    return Batch.joined(parts), block


def gain_of(model: LatticeScore, batch: Batch, block: Integers) -> dict[str, float]:
    """Path KL that the network gains over the base, nats per field, its error over the blocks, and what a
    learned spread adds to log R of a path."""
    parts = [batch.part(slice(i, i + EVALUATE)) for i in range(0, len(batch.x), EVALUATE)]
    rates = torch.cat([gain_rate(model, part)[0].sum((-1, -2)) for part in parts])
    of = {"val_gain": model.log_range * rates}
    if model.learns_spread:
        of["val_spread"] = torch.cat([spread_gain(model, part) for part in parts])
    found = dict[str, float]()
    for name, values in of.items():
        data = values.double().cpu().numpy()
        mean, error = jackknife_of(lambda x: float(x.mean()), data, chain=block)
        found |= {name: mean, f"{name}_error": error}
    return found


def measure_gain(model: LatticeScore, phi: Fields, grad: Gradient, seed: int) -> None:
    """Set `model.gain`: the posterior variance per class and noise node that the U-Net explains."""
    for node, log_sigma in enumerate(model.base.log_sigma):
        fields = _choose(phi, N_GAIN, seed, node)
        batches = _batches(model, fields, grad, log_sigma.exp(), seed, "gain", node)
        model.gain[node] = torch.cat([gain_rate(model, batch)[1] for batch in batches]).mean(0)


def validation_table(model: LatticeScore, held_out: HeldOut, grad: Gradient, seed: int) -> dict[str, Any]:
    """Gains per noise level and shell on held-out fields, nats per field; see the module.

    Every level has fields of its own. Errors are jackknife errors over the blocks of `held_out`, its chains,
    which levels share. The total of a learned spread is what it adds to log R of a path.
    """
    index, labels = shells(model.momenta)
    sigma, width = spread_levels(model, N_LEVELS), model.log_range / N_LEVELS
    sums = np.zeros((N_LEVELS, int(held_out.block.max()) + 1, 2, len(labels)))
    counts = np.zeros(sums.shape[:2])
    for level, s in enumerate(sigma):
        fields, block = held_out.take(PER_LEVEL, level)
        batches = _batches(model, fields, grad, s, seed, "table", level)
        rates = torch.cat([_rates(model, batch, index, len(labels)) for batch in batches], 1) * width
        np.add.at(sums[level], block, rearrange(rates, "gain n shell -> n gain shell").cpu().numpy())
        np.add.at(counts[level], block, 1.0)
    gains, left_out = left_out_means(sums, counts)
    error, total = jackknife_errors(left_out, axis=1), gains.sum((0, 2))
    level_error = jackknife_errors(left_out.sum(-1), axis=1)
    total_error = jackknife_errors(left_out.sum((0, 3)))
    table: dict[str, Any] = {"sigma": sigma.tolist(), "shells": labels, "total": {}}
    for i, name in enumerate(("base", "unet")):
        table |= {f"gain_{name}": gains[:, i].tolist(), f"gain_{name}_error": error[:, i].tolist()}
        table[f"gain_{name}_level_error"] = level_error[:, i].tolist()
        table["total"] |= {name: float(total[i]), f"{name}_error": float(total_error[i])}
    if model.learns_spread:
        found = gain_of(model, *held_out_batch(model, held_out, grad, seed))
        table["total"] |= {"spread": found["val_spread"], "spread_error": found["val_spread_error"]}
    return table


def left_out_means(sums: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Means (level, ...) from the sums (level, block, ...) of so many, and those without each block."""
    n = counts.reshape(*counts.shape, *[1] * (sums.ndim - 2))
    every, all_n = sums.sum(1, keepdims=True), n.sum(1, keepdims=True)
    mean = every / all_n
    rest = np.where(all_n > n, (every - sums) / np.maximum(all_n - n, 1.0), mean)
    return mean[:, 0], rest


def _rates(model: LatticeScore, batch: Batch, index: Tensor, n_shells: int) -> Tensor:
    """Gain of the base over Wiener and of the U-Net over the base, per field and shell: (2, n, n_shells)."""
    whole = batch.target + batch.base
    base = batch.weight * (2 * (batch.base.conj() * whole).real - batch.base.abs() ** 2)
    known = model.unet is not None or model.base.network is not None
    unet = gain_rate(model, batch)[0] if known else torch.zeros_like(base)
    classes = torch.stack([model.momenta.class_sum(gain.double()) for gain in (base, unet)])
    return classes.new_zeros(*classes.shape[:2], n_shells).index_add(2, index, classes).cpu()
