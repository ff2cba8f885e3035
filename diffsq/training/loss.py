"""Denoising score matching with the path KL itself as the loss, and a target of reduced variance.

The KL between the forward and the model's reverse process is, for N -> infinity (Song et al. 2101.09258,
theorem 1),

    KL = 1/2 int d(ln sigma^2) sum_k |D(k) - E[phi|x](k)|^2 / sigma^2
       = 1/2 int d(ln sigma^2) sum_k W(k) |net(k) - E[t|x](k)|^2,        t = (phi - D_base)/sqrt(C),

nats per field, here from sigma_min to sigma_max. The regression target t - beta sqrt(C) z has the same
conditional mean as t and a fraction of its variance (base.py); averaged over the posterior of x
(posterior_fields) it has less again. The loss is this integral plus the variance that is left.

A U-Net that says how the posterior spreads (model.covariance) learns that from -log R of the `PATH_LEVELS`
steps of a path, r = rho (phi - D) + noise of the bridge with D held fixed, less what the same residual costs
without a spread. Noise levels of the lowest 1/PATH_LEVELS of ln sigma stand for the last step, to sigma = 0,
whose residual is all of phi - D. C(k) is that of the base: what the network explains of it comes later. It
enters the loss per site, and only its head learns from it: its noise would else rule the clipped gradient.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from diffsq.config.sections import PATH_LEVELS
from diffsq.models.lattice import LatticeScore
from diffsq.models.spread import Spread, share_of
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.training.posterior_fields import PosteriorMeans


@dataclass
class Batch:
    """Noised fields x (n, *shape) float64 at sigma (n,), with the base's and the U-Net's target modes.

    residual (n, *half): of a reverse step by the base alone; None where no spread is learned.
    """

    x: Tensor
    u: Tensor
    sigma: Tensor
    base: Tensor
    target: Tensor
    weight: Tensor
    residual: Tensor | None = None

    def part(self, rows: slice) -> "Batch":
        """The samples `rows`."""
        own: list[Any] = [getattr(self, name) for name in self.__dataclass_fields__]
        cut: list[Any] = [q if q is None else q[rows] for q in own]
        return Batch(*cut)

    @staticmethod
    def joined(parts: list["Batch"]) -> "Batch":
        """One after the other."""
        columns = [[getattr(part, name) for part in parts] for name in Batch.__dataclass_fields__]
        whole: list[Any] = [None if q[0] is None else torch.cat(q) for q in columns]
        return Batch(*whole)


@torch.no_grad()
def prepare(
    model: LatticeScore, phi: Tensor, grad: Callable[[Tensor], Tensor] | None, sigma: Tensor, eps: Tensor,
    averaged: Callable[[Tensor, Tensor, Tensor], PosteriorMeans] | None = None, bridge: Tensor | None = None,
) -> Batch:  # fmt: skip
    """x = phi + sigma eps for phi (n, *shape), sigma (n,); base, target and path-KL weight per mode: what the
    regression alone says, and what a network, of either kind, has to add.

    grad: dS/dphi; None where S is not known: the target then has all its variance. averaged: of (phi, x,
    sigma) what phi and dS/dphi are averaged over, instead of one draw. bridge: noise like eps of a reverse
    step, where a spread is learned.
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
    w, c = (p.expand(q) for q in base.wiener(sigma))
    residual = None
    if bridge is not None:
        rho, width = step_of(model, sigma)
        missed = p.modes(phi) - w * xk - c.sqrt() * correction
        residual = rho[:, None, None] * missed + width[:, None, None].sqrt() * p.modes(bridge)
    return Batch(x, u, sigma, correction, target.to(torch.complex64), (0.5 * w * p.weight).float(), residual)


def step_of(model: LatticeScore, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """rho and the variance of the bridge, (n,) each, of the step of a path of `PATH_LEVELS` that begins at
    sigma (n,); in the lowest part of the range it is the last one, rho = 1 and no bridge."""
    left = math.exp(-model.log_range / (PATH_LEVELS - 1))  # of sigma^2
    last = 2 * (sigma.log() - model.base.log_sigma[0]) < model.log_range / PATH_LEVELS
    rho = torch.where(last, 1.0, 1 - left).to(sigma.dtype)
    return rho, torch.where(last, 0.0, (1 - left) * left * sigma**2)


def learned(model: LatticeScore, batch: Batch, frame: Symmetry = IDENTITY) -> tuple[Tensor, Spread | None]:
    """What the network adds to the regression, of either kind, in units of sqrt(C): (n, *half); and what it
    says of the spread."""
    p = model.momenta
    term = model.base.term(batch.sigma[:1] if batch.sigma.stride(0) == 0 else batch.sigma)
    if term is not None:
        return term(p.modes(batch.x)), None
    out, spread = model.network(batch.x, batch.u, batch.base, batch.sigma, frame)
    return p.modes(out), spread


def path_kl_rate(model: LatticeScore, batch: Batch, frame: Symmetry = IDENTITY) -> Tensor:
    """Integrand of the loss, nats per field and unit of ln sigma^2: (n,)."""
    net, spread = learned(model, batch, frame)
    rate = (batch.weight * (net - batch.target).abs() ** 2).sum((-1, -2))
    if spread is None or batch.residual is None:
        return rate
    return rate - spread_rate(model, batch, net.detach(), spread) / model.momenta.volume


def spread_rate(model: LatticeScore, batch: Batch, net: Tensor, spread: Spread) -> Tensor:
    """What the spread adds to log R of the steps, nats per field and unit of ln sigma^2: (n,)."""
    assert batch.residual is not None
    p, sigma = model.momenta, batch.sigma
    rho, bridge = step_of(model, sigma)
    _, wiener = model.base.wiener(sigma)
    known = rho[:, None] ** 2 * model.posterior_variance(sigma)
    c = known + bridge[:, None]
    r = batch.residual - rho[:, None, None] * p.expand(wiener).sqrt() * net
    z, log_det = spread.of_step(share_of(p, known, c)).gather(p.fields(r))
    chi2 = p.total((p.modes(z).abs() ** 2 - r.abs() ** 2) / p.expand(c))
    return (PATH_LEVELS / model.log_range) * (-0.5 * chi2 - log_det)


@torch.no_grad()
def spread_gain(model: LatticeScore, batch: Batch) -> Tensor:
    """What a learned spread adds to log R of a path of `PATH_LEVELS` steps, nats (n,): over that of the sites
    in closed form where the action is known, else over none."""
    net, spread = learned(model, batch)
    assert spread is not None
    gain = spread_rate(model, batch, net, spread)
    closed = model.closed_spread(model.momenta.modes(batch.x), batch.sigma)
    if closed is not None:
        gain = gain - spread_rate(model, batch, net, closed)
    return model.log_range * gain


@torch.no_grad()
def gain_rate(model: LatticeScore, batch: Batch, frame: Symmetry = IDENTITY) -> tuple[Tensor, Tensor]:
    """Path KL per mode (n, *half) that a network gains over the base, and the explained variance per class.

    |t|^2 - |t - net|^2 averages to the gain in |net - E[t|x]|^2 whatever the noise of the target.
    """
    net, _ = learned(model, batch, frame)
    gain = 2 * (net.conj() * batch.target).real - net.abs() ** 2
    return batch.weight * gain, model.momenta.class_mean(gain.double())
