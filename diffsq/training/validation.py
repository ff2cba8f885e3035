"""What the model gains on held-out fields: path KL per noise level and shell, over Wiener and the base.

The path KL itself contains the unknown posterior mean; the *difference* of two predictors does not (loss.py),
so gains are measured and totals come from the sampler's forward weights.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import shells
from diffsq.training.loss import Batch, gain_rate, prepare
from lattice.rng import normals, uniforms

N_VALIDATION = 2048
N_LEVELS, PER_LEVEL = 24, 256
N_GAIN = 512
Gradient = Callable[[Tensor], Tensor]


def _noise(model: LatticeScore, seed: int, stream: str, step: int, n: int) -> Tensor:
    eps = normals(seed, f"validation/{stream}", np.arange(n), step, model.momenta.volume)
    return torch.from_numpy(eps).reshape(n, *model.shape).to(model.base.g.device)


def _choose(phi: Tensor, n: int, seed: int, draw: int = 0) -> Tensor:
    """n fields at random, without repeats (all of them if there are fewer): nearly independent ones."""
    order = np.argsort(uniforms(seed, "validation/rows", np.array([0]), draw, len(phi))[0], kind="stable")
    return phi[torch.from_numpy(order[:n]).to(phi.device)]


def held_out_batch(model: LatticeScore, phi: Tensor, grad: Gradient, seed: int) -> Batch:
    """A fixed batch over the whole noise range, for the gain printed during training."""
    low, high = model.base.log_sigma[0], model.base.log_sigma[-1]
    fields = _choose(phi, N_VALIDATION, seed)
    n = len(fields)
    position = (torch.arange(n, dtype=torch.float64, device=phi.device) + 0.5) / n
    sigma = torch.exp(low + (high - low) * position)
    parts = [
        prepare(model, f, grad, s, e)
        for f, s, e in zip(
            torch.split(fields, 256),
            torch.split(sigma, 256),
            torch.split(_noise(model, seed, "batch", 0, n), 256),
            strict=True,
        )
    ]
    return Batch(*(torch.cat([getattr(p, name) for p in parts]) for name in Batch.__dataclass_fields__))


def measure_gain(model: LatticeScore, phi: Tensor, grad: Gradient, seed: int) -> None:
    """Set `model.gain`: the posterior variance per class and noise node that the U-Net explains."""
    for node, log_sigma in enumerate(model.base.log_sigma):
        fields = _choose(phi, N_GAIN, seed, node)
        eps = _noise(model, seed, "gain", node, len(fields))
        explained = [
            gain_rate(model, prepare(model, f, grad, log_sigma.exp().expand(len(f)), e))[1]
            for f, e in zip(torch.split(fields, 64), torch.split(eps, 64), strict=True)
        ]
        model.gain[node] = torch.cat(explained).mean(0)


def validation_table(model: LatticeScore, phi: Tensor, grad: Gradient, seed: int) -> dict[str, Any]:
    """Gains per noise level and shell on held-out fields phi (n, *shape), nats per field; see the module.

    Errors take the fields, a random choice from the held-out chains for each level, as independent.
    """
    index, labels = shells(model.momenta)
    low, high = float(model.base.log_sigma[0]), float(model.base.log_sigma[-1])
    position = (torch.arange(N_LEVELS, dtype=torch.float64) + 0.5) / N_LEVELS
    sigma = torch.exp(low + (high - low) * position).to(phi.device)
    width = model.log_range / N_LEVELS
    means, errors = [], []
    for level, s in enumerate(sigma):
        fields = _choose(phi, PER_LEVEL, seed, level)
        eps = _noise(model, seed, "table", level, len(fields))
        batches = [
            prepare(model, f, grad, s.expand(len(f)), e)
            for f, e in zip(torch.split(fields, 64), torch.split(eps, 64), strict=True)
        ]
        rates = torch.cat([_rates(model, batch, index, len(labels)) for batch in batches], 1) * width
        means.append(rates.mean(1))
        errors.append(rates.sum(2).std(1) / math.sqrt(rates.shape[1]))
    gains, error = torch.stack(means), torch.stack(errors)
    total, total_error = gains.sum((0, 2)), (error**2).sum(0).sqrt()
    return {
        "sigma": sigma.tolist(),
        "shells": labels,
        "gain_base": gains[:, 0].tolist(),
        "gain_unet": gains[:, 1].tolist(),
        "gain_base_error": error[:, 0].tolist(),
        "gain_unet_error": error[:, 1].tolist(),
        "total": {
            "base": float(total[0]),
            "base_error": float(total_error[0]),
            "unet": float(total[1]),
            "unet_error": float(total_error[1]),
        },
    }


def _rates(model: LatticeScore, batch: Batch, index: Tensor, n_shells: int) -> Tensor:
    """Gain of the base over Wiener and of the U-Net over the base, per field and shell: (2, n, n_shells)."""
    whole = batch.target + batch.base
    base = batch.weight * (2 * (batch.base.conj() * whole).real - batch.base.abs() ** 2)
    unet = gain_rate(model, batch)[0] if model.unet is not None else torch.zeros_like(base)
    classes = torch.stack([model.momenta.class_sum(gain.double()) for gain in (base, unet)])
    return classes.new_zeros(*classes.shape[:2], n_shells).index_add(2, index, classes).cpu()
