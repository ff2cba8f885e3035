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

from diffsq.loss import Batch, gain_rate, prepare
from diffsq.momentum import Momenta
from diffsq.score import ScoreModel
from lattice.rng import normals

N_VALIDATION = 2048
N_LEVELS, PER_LEVEL = 24, 256
N_GAIN = 512
N_SHELLS = 6
Gradient = Callable[[Tensor], Tensor]


def _noise(model: ScoreModel, seed: int, stream: str, step: int, n: int) -> Tensor:
    eps = normals(seed, f"validation/{stream}", np.arange(n), step, model.momenta.volume)
    return torch.from_numpy(eps).reshape(n, *model.shape).to(model.base.g.device)


def _spread(phi: Tensor, n: int, offset: int = 0) -> Tensor:
    """n fields spread evenly over the ensemble, starting at `offset` of them."""
    rows = (torch.arange(n) * max(1, len(phi) // n) + offset) % len(phi)
    return phi[rows.to(phi.device)]


def held_out_batch(model: ScoreModel, phi: Tensor, grad: Gradient, seed: int) -> Batch:
    """A fixed batch over the whole noise range, for the gain printed during training."""
    low, high = model.base.log_sigma[0], model.base.log_sigma[-1]
    position = (torch.arange(N_VALIDATION, dtype=torch.float64, device=phi.device) + 0.5) / N_VALIDATION
    sigma = torch.exp(low + (high - low) * position)
    parts = [
        prepare(model, f, grad, s, e)
        for f, s, e in zip(
            torch.split(_spread(phi, N_VALIDATION), 256),
            torch.split(sigma, 256),
            torch.split(_noise(model, seed, "batch", 0, N_VALIDATION), 256),
            strict=True,
        )
    ]
    return Batch(*(torch.cat([getattr(p, name) for p in parts]) for name in Batch.__dataclass_fields__))


def measure_gain(model: ScoreModel, phi: Tensor, grad: Gradient, seed: int) -> None:
    """Set `model.gain`: the posterior variance per class and noise node that the U-Net explains."""
    for node, log_sigma in enumerate(model.base.log_sigma):
        eps = _noise(model, seed, "gain", node, N_GAIN)
        fields = _spread(phi, N_GAIN, node)
        explained = [
            gain_rate(model, prepare(model, f, grad, log_sigma.exp().expand(len(f)), e))[1]
            for f, e in zip(torch.split(fields, 64), torch.split(eps, 64), strict=True)
        ]
        model.gain[node] = torch.cat(explained).mean(0)


def shells(momenta: Momenta) -> tuple[Tensor, list[dict[str, Any]]]:
    """Shells k = 0, the smallest momentum, and equal bins of |k^| above: shell of each class, and labels."""
    khat = momenta.khat2.sqrt()
    first = khat[khat > 1e-9].min() if momenta.n_class > 1 else khat.max()
    edges = torch.linspace(
        float(first) * 1.001, float(khat.max()) * 1.0001, N_SHELLS + 1, dtype=torch.float64
    )
    shell = torch.bucketize(khat, edges.to(khat.device)) + 1
    shell[khat < 1e-9] = 0
    names = {0: "k = 0", 1: f"|k̂| = {float(first):.2f}"}
    used = sorted(set(shell.tolist()))
    labels = []
    for s in used:
        inside = momenta.multiplicity[shell == s]
        label = names.get(s) or f"|k̂| < {float(edges[min(s - 1, N_SHELLS)]):.2f}"
        labels.append({"label": label, "multiplicity": int(inside.sum())})
    index = torch.tensor([used.index(s) for s in shell.tolist()], device=khat.device)
    return index, labels


def validation_table(model: ScoreModel, phi: Tensor, grad: Gradient, seed: int) -> dict[str, Any]:
    """Gains per noise level and shell on held-out fields phi (n, *shape), nats per field; see the module."""
    p, base = model.momenta, model.base
    index, labels = shells(p)
    low, high = float(base.log_sigma[0]), float(base.log_sigma[-1])
    position = (torch.arange(N_LEVELS, dtype=torch.float64) + 0.5) / N_LEVELS
    sigma = torch.exp(low + (high - low) * position).to(phi.device)
    width = model.log_range / N_LEVELS
    gain_base, gain_unet, errors = [], [], []
    w, _ = base.wiener(sigma)
    explained = 0.5 * p.multiplicity * w * base.at(base.explained, sigma) * width
    for level, s in enumerate(sigma):
        gain_base.append(
            torch.zeros(len(labels), dtype=torch.float64).index_add(0, index.cpu(), explained[level].cpu())
        )
        rates = torch.zeros(PER_LEVEL, p.n_class, dtype=torch.float64)
        if model.unet is not None:
            fields, eps = _spread(phi, PER_LEVEL, level), _noise(model, seed, "table", level, PER_LEVEL)
            batches = [
                prepare(model, f, grad, s.expand(len(f)), e)
                for f, e in zip(torch.split(fields, 64), torch.split(eps, 64), strict=True)
            ]
            rates = torch.cat([p.class_sum(gain_rate(model, b)[0].double()) for b in batches]).cpu() * width
        gain_unet.append(
            torch.zeros(len(labels), dtype=torch.float64).index_add(0, index.cpu(), rates.mean(0))
        )
        errors.append(float(rates.sum(1).std() / math.sqrt(PER_LEVEL)))
    unet = torch.stack(gain_unet)
    return {
        "sigma": sigma.tolist(),
        "shells": labels,
        "gain_base": torch.stack(gain_base).tolist(),
        "gain_unet": unet.tolist(),
        "gain_unet_error": errors,
        "total": {
            "base": float(torch.stack(gain_base).sum()),
            "base_error": None,
            "unet": float(unet.sum()),
            "unet_error": math.sqrt(sum(e**2 for e in errors)),
        },
    }
