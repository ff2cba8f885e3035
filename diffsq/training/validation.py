"""What the model gains on held-out fields: path KL per noise level and shell, over Wiener and the base.

The path KL itself contains the unknown posterior mean; the *difference* of two predictors does not (loss.py),
so gains are measured and totals come from the sampler's forward weights.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.models.blocks import Fields, block_size
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import shells
from diffsq.training.loss import Batch, gain_rate, prepare
from lattice.rng import normals, uniforms

N_VALIDATION = 2048
N_LEVELS, PER_LEVEL = 24, 256
N_GAIN = 512
Gradient = Callable[[Tensor], Tensor]


def _batches(
    model: LatticeScore, fields: Tensor, grad: Gradient, sigma: Tensor, seed: int, stream: str, step: int,
    size: int = 64,
) -> Iterator[Batch]:  # fmt: skip
    """Fields (n, *shape) noised to sigma (n,) or (), `size` of them at a time."""
    eps = normals(seed, f"validation/{stream}", np.arange(len(fields)), step, model.momenta.volume)
    noise = torch.from_numpy(eps).reshape(fields.shape).to(fields.device)
    parts = (torch.split(q, size) for q in (fields, sigma.expand(len(fields)), noise))
    for phi, s, e in zip(*parts, strict=True):
        yield prepare(model, phi, grad, s, e)


def _choose(phi: Fields, n: int, seed: int, draw: int = 0) -> Tensor:
    """n fields at random, without repeats (all of them if there are fewer): nearly independent ones."""
    order = np.argsort(uniforms(seed, "validation/rows", np.array([0]), draw, len(phi))[0], kind="stable")
    return phi[torch.from_numpy(order[:n])]


def _spread(model: LatticeScore, n: int) -> Tensor:
    """n noise levels, evenly over the range of ln sigma."""
    low, high = model.base.log_sigma[0], model.base.log_sigma[-1]
    position = (torch.arange(n, dtype=torch.float64, device=low.device) + 0.5) / n
    return torch.exp(low + (high - low) * position)


def held_out_batch(model: LatticeScore, phi: Fields, grad: Gradient, seed: int) -> Batch:
    """A fixed batch over the whole noise range, for the gain printed during training."""
    fields = _choose(phi, block_size(model.shape, N_VALIDATION, 2**23), seed)
    parts = list(_batches(model, fields, grad, _spread(model, len(fields)), seed, "batch", 0, 256))
    return Batch(*(torch.cat([getattr(p, name) for p in parts]) for name in Batch.__dataclass_fields__))


def measure_gain(model: LatticeScore, phi: Fields, grad: Gradient, seed: int) -> None:
    """Set `model.gain`: the posterior variance per class and noise node that the U-Net explains."""
    for node, log_sigma in enumerate(model.base.log_sigma):
        fields = _choose(phi, N_GAIN, seed, node)
        batches = _batches(model, fields, grad, log_sigma.exp(), seed, "gain", node)
        model.gain[node] = torch.cat([gain_rate(model, batch)[1] for batch in batches]).mean(0)


def validation_table(model: LatticeScore, phi: Fields, grad: Gradient, seed: int) -> dict[str, Any]:
    """Gains per noise level and shell on held-out fields phi (n, *shape), nats per field; see the module.

    Errors take the fields, a random choice from the held-out chains for each level, as independent.
    """
    index, labels = shells(model.momenta)
    sigma, width = _spread(model, N_LEVELS), model.log_range / N_LEVELS
    means, errors = [], []
    for level, s in enumerate(sigma):
        batches = _batches(model, _choose(phi, PER_LEVEL, seed, level), grad, s, seed, "table", level)
        rates = torch.cat([_rates(model, batch, index, len(labels)) for batch in batches], 1) * width
        means.append(rates.mean(1))
        errors.append(rates.sum(2).std(1) / math.sqrt(rates.shape[1]))
    gains, error = torch.stack(means), torch.stack(errors)
    total, total_error = gains.sum((0, 2)), (error**2).sum(0).sqrt()
    table: dict[str, Any] = {"sigma": sigma.tolist(), "shells": labels, "total": {}}
    for i, name in enumerate(("base", "unet")):
        table |= {f"gain_{name}": gains[:, i].tolist(), f"gain_{name}_error": error[:, i].tolist()}
        table["total"] |= {name: float(total[i]), f"{name}_error": float(total_error[i])}
    return table


def _rates(model: LatticeScore, batch: Batch, index: Tensor, n_shells: int) -> Tensor:
    """Gain of the base over Wiener and of the U-Net over the base, per field and shell: (2, n, n_shells)."""
    whole = batch.target + batch.base
    base = batch.weight * (2 * (batch.base.conj() * whole).real - batch.base.abs() ** 2)
    unet = gain_rate(model, batch)[0] if model.unet is not None else torch.zeros_like(base)
    classes = torch.stack([model.momenta.class_sum(gain.double()) for gain in (base, unet)])
    return classes.new_zeros(*classes.shape[:2], n_shells).index_add(2, index, classes).cpu()
