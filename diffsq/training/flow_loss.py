r"""Losses of a network whose trace is closed-form, through the flow and its density.

    variance     Var log w of training fields, log w = -S - log q, as of training fields: 2 KL where Gaussian
    likelihood   -<log q> of training fields, the KL from the data but for its entropy
    reverse      -<log w> of samples, the KL to e^{-S} but for ln Z

Log q comes with its gradient by the trace itself; nothing here is as noisy as the targets of score matching
(diffsq.training.loss): a batch says of every field by how much its density is wrong. Of Var log w the
gradient vanishes at the right answer batch by batch, of the other two on average only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.lattice_flow import LatticeFlow
from diffsq.models.protocol import ActionFunction
from diffsq.training.loop import Loss
from diffsq.training.loss import Batch, learned, path_kl_rate
from lattice.arrays import Floats


def flow_loss(kind: str, flow: LatticeFlow, phi: Tensor, noise: Tensor, action: ActionFunction) -> Loss:
    """Of a batch of training fields, or of white noise, (n, *shape) float64."""
    sigma = flow.levels[-1:].expand(len(phi))
    if kind == "reverse":
        x, log_q = flow.draw(noise)
        rate = log_q + action(x)
        return Loss(rate.mean(), rate, sigma)
    log_q = flow.log_density(phi)
    if kind == "likelihood":
        return Loss(-log_q.mean(), -log_q, sigma)
    log_w = -action(phi) - log_q
    rate = (log_w - log_w.mean()) ** 2
    return Loss(rate.sum() / (len(rate) - 1), rate, sigma)


def network_size(model: LatticeScore, batch: Batch) -> Tensor:
    """Path KL () between the base with the network and without: its cost if it is for nothing.

    The density at sigma = 0 does not know by which way it was reached: through the flow alone a network
    learns velocities that are right in the end and no score on the way.
    """
    return model.log_range * (batch.weight * learned(model, batch)[0].abs() ** 2).sum((-1, -2)).mean()


def log_weights(flow: LatticeFlow, phi: Tensor, action: ActionFunction, size: int) -> Tensor:
    """log w (n,) of fields (n, *shape), `size` at a time."""
    parts = [-action(part) - flow.log_density(part) for part in torch.split(phi, size)]
    return torch.cat(parts)


def score_loss(model: LatticeScore, batch: Batch) -> Loss:
    """Path KL of a batch (diffsq.training.loss)."""
    rate = path_kl_rate(model, batch)
    return Loss(model.log_range * rate.mean(), rate, batch.sigma)


def half_of_the_variance(log_w: Floats) -> float:
    """KL that the first of two samplers gains over the second, of Gaussian log w (n, 2) of equal fields."""
    new, before = log_w.var(axis=0, ddof=1)
    return float(before - new) / 2
