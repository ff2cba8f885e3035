"""Probability-flow likelihood: log q(phi) of the deterministic sampler.

The differential equation of diffsq.models.lattice_flow, its normal coordinates and angles, its density and
its extension below the smallest sigma are used here for any score, U-Net included, and from any level
sigma_0 >= 0 on: the density of noised fields, with ln(G + sigma_0^2) in place of ln G. The divergence is not
closed-form but exact by differentiation (V products of a vector with the Jacobian) or Hutchinson's,
E[eps^T J eps] = tr J (Commun. Stat. Simul. 19 (1990) 433), with probes eps drawn once per solve: the estimate
is then the solution of a differential equation again, with a limit for small steps. The probes see the
correction c only.

Integrated by Heun's method on the levels, in theta, the divergence by the trapezoidal sum over the points
reached: weights are unbiased only up to the square of the step (compare two numbers of levels).
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.sampling.reverse_chain import finite
from lattice.arrays import Integers
from lattice.errors import InputError
from lattice.rng import normals, uniforms

MAX_EXACT = 400  # sites; beyond, exact divergences take V^2 numbers per field and evaluation


class ProbabilityFlow:
    """The flow of one score model through levels sigma_0 < ... < sigma_N, sigma_0 >= 0; fields float64.

    levels (N+1,); `frame` is the lattice frame of the U-Net, one for the whole flow. The divergence is exact,
    or Hutchinson's with probes (n_probes, n, *shape). Raises `InputError` for levels that do not increase
    from 0 or above, and for fields and densities that are not finite.
    """

    def __init__(self, model: LatticeScore, levels: Tensor, frame: Symmetry = IDENTITY) -> None:
        ordered = levels.dim() == 1 and len(levels) >= 2 and bool((levels.diff() > 0).all())
        if not (ordered and bool(torch.isfinite(levels).all()) and float(levels[0]) >= 0):
            raise InputError(
                f"levels of a flow must increase from sigma_0 >= 0, two or more, got {levels.tolist()[:6]}"
            )
        self.model, self.frame, self.momenta = model, frame, model.momenta
        self.levels = levels.double()

    def angle(self, sigma: Tensor) -> Tensor:
        """theta_k = arctan(sigma/sqrt(G)) per class: (n_class,)."""
        return torch.atan(sigma / self.model.base.g.sqrt())

    def to_fields(self, y: Tensor, sigma: Tensor) -> Tensor:
        """x from y at noise sigma: (n, *shape) -> (n, *shape)."""
        return self.momenta.colour(y, self.model.base.g + sigma**2)

    def to_normal(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Inverse of `to_fields`."""
        return self.momenta.colour(x, 1 / (self.model.base.g + sigma**2))

    def log_volume(self, sigma: Tensor) -> Tensor:
        """sum_k (1/2) ln(G + sigma^2), ln of the volume that `to_fields` makes of a unit: ()."""
        return 0.5 * (self.momenta.multiplicity * torch.log(self.model.base.g + sigma**2)).sum()

    def correction(self, y: Tensor, sigma: Tensor) -> Tensor:
        """c(y, sigma) as a real field, (n, *shape)."""
        smallest = self.model.base.log_sigma[0].exp()
        if sigma == 0:
            return torch.zeros_like(y)
        inside = torch.maximum(sigma, smallest).expand(len(y))
        w, c = (self.momenta.expand(q) for q in self.model.base.wiener(inside))
        xk = self.momenta.modes(self.to_fields(y, inside[0]))
        d = self.model.denoise(xk, inside, self.frame)
        return (sigma / inside[0]) * self.momenta.fields((d - w * xk) / c.sqrt())

    def divergence(
        self, y: Tensor, sigma: Tensor, dtheta: Tensor, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """c(y, sigma) as in `correction`, and sum_k dtheta_k dc(k)/dy(k), (n,).

        dtheta (n_class,); probes (n_probes, n, *shape), None for the exact trace.
        """
        if sigma == 0:
            return torch.zeros_like(y), y.new_zeros(len(y))
        eps = self._unit_vectors(y) if probes is None else probes
        trace = y.new_zeros(len(y))
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            c = self.correction(y, sigma)
            for e in eps:
                (pulled,) = torch.autograd.grad(c, y, self._times(dtheta, e), retain_graph=True)
                trace += (e * pulled).flatten(1).sum(1)
        return c.detach(), trace if probes is None else trace / len(probes)

    def _unit_vectors(self, y: Tensor) -> Tensor:
        volume = self.momenta.volume
        if volume > MAX_EXACT:
            raise InputError(
                f"an exact divergence on {volume} sites is too much (at most {MAX_EXACT}); give probes"
            )
        unit = torch.eye(volume, dtype=y.dtype, device=y.device).reshape(volume, 1, *self.model.shape)
        return unit.expand(volume, len(y), *self.model.shape)

    def sample(
        self, noise: Tensor, probes: Tensor | None = None, done: Callable[[], None] = lambda: None
    ) -> tuple[Tensor, Tensor]:
        """Fields at sigma_0 (n, *shape) from white noise (n, *shape) at sigma_N, and log q of each, (n,).

        Weights of an action are log w = -S(phi) - log q.
        """
        y, trace = self.transport(finite(noise, "fields"), up=False, probes=probes, done=done)
        low = self.levels[0]
        log_q = log_normal(noise) - self.log_volume(low) - trace
        return self.to_fields(y, low), finite(log_q, "densities of the flow", "; retrain the model")

    def log_density(
        self, phi: Tensor, probes: Tensor | None = None, done: Callable[[], None] = lambda: None
    ) -> Tensor:
        """log q (n,) of given fields at sigma_0 (n, *shape)."""
        low, phi = self.levels[0], finite(phi, "fields")
        y, trace = self.transport(self.to_normal(phi, low), up=True, probes=probes, done=done)
        log_q = log_normal(y) - self.log_volume(low) - trace
        return finite(log_q, "densities of the flow", "; retrain the model")

    @torch.no_grad()
    def transport(
        self, y: Tensor, *, up: bool, probes: Tensor | None = None, done: Callable[[], None] = lambda: None
    ) -> tuple[Tensor, Tensor]:
        """Carry y (n, *shape) from sigma_0 to sigma_N (`up`) or back: y at the other end, and the integral
        of sum_k dtheta_k dc(k)/dy(k) (n,), taken upwards in both directions. `done` after each step.
        """
        n, sign = len(self.levels) - 1, -1.0 if up else 1.0
        theta = torch.stack([self.angle(sigma) for sigma in self.levels])
        trace = y.new_zeros(len(y))
        for step in range(n):
            here, there = (step, step + 1) if up else (n - step, n - step - 1)
            c, divergence = self.divergence(y, self.levels[here], self._share(theta, here), probes)
            dtheta = (theta[there] - theta[here]).abs()
            moved = y + sign * self._times(dtheta, c)
            c_there = self.correction(moved, self.levels[there])
            y = y + 0.5 * sign * self._times(dtheta, c + c_there)
            trace = trace + divergence
            done()
        last = n if up else 0
        return y, trace + self.divergence(y, self.levels[last], self._share(theta, last), probes)[1]

    def _times(self, q: Tensor, c: Tensor) -> Tensor:
        return self.momenta.fields(self.momenta.expand(q) * self.momenta.modes(c))

    @staticmethod
    def _share(theta: Tensor, level: int) -> Tensor:
        """Weight of a level in the trapezoidal sum over theta (N+1, n_class): (n_class,)."""
        return 0.5 * (theta[min(level + 1, len(theta) - 1)] - theta[max(level - 1, 0)])


def log_normal(y: Tensor) -> Tensor:
    """log N(y; 0, 1) of fields (n, *shape): (n,)."""
    return -0.5 * (y.flatten(1) ** 2 + math.log(2 * math.pi)).sum(1)


def hutchinson_probes(
    seed: int, stream: str, index: Integers, n_probes: int, shape: tuple[int, ...],
    kind: Literal["rademacher", "gaussian"] = "rademacher",
) -> Tensor:  # fmt: skip
    """Probes (n_probes, n, *shape) of the fields `index` (n,), a function of (seed, stream, index).

    Signs have the smaller variance: 2 sum_{i != j} J_ij^2 against 2 sum_ij J_ij^2 (J symmetrised).

    >>> hutchinson_probes(1, "doc", np.arange(2), 1, (2, 2)).abs().sum()
    tensor(8., dtype=torch.float64)
    """
    if n_probes < 1 or kind not in ("rademacher", "gaussian"):
        raise InputError(f"need 1 or more probes, rademacher or gaussian, got {n_probes} and {kind!r}")
    size = math.prod(shape)
    draws = [
        np.where(uniforms(seed, stream, index, probe, size) < 0.5, -1.0, 1.0)
        if kind == "rademacher"
        else normals(seed, stream, index, probe, size)
        for probe in range(n_probes)
    ]
    return torch.from_numpy(np.stack(draws)).reshape(n_probes, len(index), *shape)
