"""Denoising score matching with the path KL itself as the loss, and a target of reduced variance.

The KL between the forward and the model's reverse process is, for N -> infinity (Song et al. 2101.09258,
theorem 1),

    KL = 1/2 int d(ln sigma^2) sum_k |D(k) - E[phi|x](k)|^2 / sigma^2
       = 1/2 int d(ln sigma^2) sum_k W(k) |net(k) - E[t|x](k)|^2,        t = (phi - D_base)/sqrt(C),

nats per field, here from sigma_min to sigma_max. The regression target t - beta sqrt(C) z has the same
conditional mean as t and a fraction of its variance (base.py); averaged over the posterior of x
(posterior_fields) it has less again. The loss is this integral plus the variance that is left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.training.posterior_fields import PosteriorMeans


@dataclass
class Batch:
    """Noised fields x (n, *shape) float64 at sigma (n,), with the base's and the U-Net's target modes."""

    x: Tensor
    u: Tensor
    sigma: Tensor
    base: Tensor
    target: Tensor
    weight: Tensor

    def part(self, rows: slice) -> "Batch":
        """The samples `rows`."""
        return Batch(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@torch.no_grad()
def prepare(
    model: LatticeScore, phi: Tensor, grad: Callable[[Tensor], Tensor] | None, sigma: Tensor, eps: Tensor,
    averaged: Callable[[Tensor, Tensor, Tensor], PosteriorMeans] | None = None,
) -> Batch:  # fmt: skip
    """x = phi + sigma eps for phi (n, *shape), sigma (n,); base, target and path-KL weight per mode: what the
    regression alone says, and what a network, of either kind, has to add.

    grad: dS/dphi; None where S is not known: the target then has all its variance. averaged: of (phi, x,
    sigma) what phi and dS/dphi are averaged over, instead of one draw.
    """
    p, base = model.momenta, model.base
    x = phi + rearrange(sigma, "n -> n 1 1") * eps
    xk = p.modes(x)
    u = base.normalised(xk, sigma)
    one = sigma[:1] if sigma.stride(0) == 0 else sigma  # one level for all: its tables are made once
    correction = base.regression(xk, one)
    if averaged is not None:
        means = averaged(phi, x, sigma)
        target, z = base.target(p.modes(means.phi), p.modes(means.grad), xk, sigma)
    else:
        gradk = None if grad is None else p.modes(grad(phi))
        target, z = base.target(p.modes(phi), gradk, xk, sigma)
    target = target - p.expand(base.at(base.beta, sigma)) * z - correction
    w, _ = base.wiener(sigma)
    weight = 0.5 * p.expand(w) * p.weight
    return Batch(x, u, sigma, correction, target.to(torch.complex64), weight.float())


def learned(model: LatticeScore, batch: Batch, frame: Symmetry = IDENTITY) -> Tensor:
    """What the network adds to the regression, of either kind, in units of sqrt(C): (n, *half)."""
    p = model.momenta
    term = model.base.term(batch.sigma[:1] if batch.sigma.stride(0) == 0 else batch.sigma)
    if term is not None:
        return term(p.modes(batch.x))
    return p.modes(model.network(batch.x, batch.u, batch.base, batch.sigma, frame))


def path_kl_rate(model: LatticeScore, batch: Batch, frame: Symmetry = IDENTITY) -> Tensor:
    """Integrand of the loss, nats per field and unit of ln sigma^2: (n,)."""
    net = learned(model, batch, frame)
    return (batch.weight * (net - batch.target).abs() ** 2).sum((-1, -2))


@torch.no_grad()
def gain_rate(model: LatticeScore, batch: Batch, frame: Symmetry = IDENTITY) -> tuple[Tensor, Tensor]:
    """Path KL per mode (n, *half) that a network gains over the base, and the explained variance per class.

    |t|^2 - |t - net|^2 averages to the gain in |net - E[t|x]|^2 whatever the noise of the target.
    """
    net = learned(model, batch, frame)
    gain = 2 * (net.conj() * batch.target).real - net.abs() ** 2
    return batch.weight * gain, model.momenta.class_mean(gain.double())
