r"""The Gaussian restricted Boltzmann machine: a free field theory whose kernel is learned.

    E(phi, h) = (mu^2/2) phi^2 - J phi + h^2/(2 s^2) - phi^T W h,      K = mu^2 - s^2 W W^T,

    phi|h ~ N((J + W h)/mu^2, 1/mu^2),    h|phi ~ N(s^2 W^T phi, s^2),    phi ~ N(K^-1 J, K^-1)

(Park, Aarts, Lucini 2309.15002). Tensors float64; W (*batch, n_visible, n_hidden) holds any number of
machines at once, each with fields of its own. What it can learn, and how fast, is known:
lattice.exact.gaussian_rbm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lattice.errors import InputError

FLAT = 1e-12  # eigenvalues of second moments below this fraction of the largest: modes without variance


@dataclass
class GaussianRBM:
    """w (*batch, n_visible, n_hidden); mu2 (*batch) or (); source J (*batch, n_visible) or None; s."""

    w: Tensor
    mu2: Tensor
    source: Tensor | None = None
    s: float = 1.0

    @classmethod
    def initial(
        cls, n_visible: int, n_hidden: int, mu2: float, width: float, noise: Tensor, s: float = 1.0
    ) -> GaussianRBM:
        """Weights `width` times noise (*batch, n_visible, n_hidden), no source.

        Raises `InputError` for numbers that are not positive, and where K is not positive to begin with.
        """
        if not (mu2 > 0 and s > 0 and width >= 0):
            raise InputError(f"mu^2, s and the width must be positive, got {mu2:g}, {s:g} and {width:g}")
        if n_visible < 1 or n_hidden < 1:
            raise InputError(f"a machine has visible and hidden nodes, got {n_visible} and {n_hidden}")
        if tuple(noise.shape[-2:]) != (n_visible, n_hidden):
            raise InputError(f"noise for weights {[n_visible, n_hidden]} has shape {list(noise.shape)}")
        mass = torch.full(noise.shape[:-2], mu2, dtype=torch.float64, device=noise.device)
        machine = cls(width * noise.double(), mass, None, s)
        machine.require_positive("at the start; take a smaller width of the weights")
        return machine

    @property
    def kernel(self) -> Tensor:
        """K (*batch, n_visible, n_visible)."""
        n = self.w.shape[-2]
        eye = torch.eye(n, dtype=self.w.dtype, device=self.w.device)
        found: Tensor = self.mu2[..., None, None] * eye - self.s**2 * self.w @ self.w.mT
        return found

    @property
    def spectrum(self) -> Tensor:
        """Eigenvalues of K, rising: (*batch, n_visible)."""
        found: Tensor = torch.linalg.eigvalsh(self.kernel)
        return found

    @property
    def mean(self) -> Tensor:
        """<phi> (*batch, n_visible)."""
        if self.source is None:
            return torch.zeros_like(self.w[..., 0])
        found: Tensor = torch.linalg.solve(self.kernel, self.source[..., None])[..., 0]
        return found

    def require_positive(self, when: str = "") -> None:
        """Raise `InputError` unless K is positive, without which there is no machine."""
        if not bool(torch.isfinite(self.w).all() and torch.isfinite(self.mu2).all()):
            raise InputError(f"weights or mu^2 are NaN or infinite {when}".rstrip())
        if not bool(torch.linalg.cholesky_ex(self.kernel)[1].any()):
            return
        lowest = self.spectrum[..., 0]
        bad = int((~(lowest > 0)).sum())
        which = f" in {bad} of {lowest.numel()} machines" if lowest.numel() > 1 else ""
        raise InputError(
            f"K = mu^2 - s^2 W W^T is not positive{which} (lowest {float(lowest.min()):.4g}) {when}"
        )

    def hidden(self, phi: Tensor, noise: Tensor) -> Tensor:
        """h (*batch, m, n_hidden) given phi (*batch, m, n_visible), noise as h."""
        return self.s**2 * phi @ self.w + self.s * noise

    def visible(self, h: Tensor, noise: Tensor) -> Tensor:
        """phi (*batch, m, n_visible) given h (*batch, m, n_hidden), noise as phi."""
        mass = self.mu2[..., None, None]
        pull = h @ self.w.mT if self.source is None else h @ self.w.mT + self.source[..., None, :]
        return pull / mass + noise / mass.sqrt()

    def gibbs(self, phi: Tensor, for_hidden: Tensor, for_visible: Tensor) -> Tensor:
        """One sweep of block Gibbs, all hidden then all visible nodes: (*batch, m, n_visible)."""
        return self.visible(self.hidden(phi, for_hidden), for_visible)

    def sample(self, noise: Tensor) -> Tensor:
        """Independent phi (*batch, m, n_visible) from noise of that shape, exactly; K must be positive."""
        self.require_positive()
        upper = torch.linalg.cholesky(self.kernel).mT
        fields: Tensor = torch.linalg.solve_triangular(upper, noise.mT, upper=True).mT
        return fields + self.mean[..., None, :]

    def log_prob(self, phi: Tensor) -> Tensor:
        """ln p (*batch, m) of phi (*batch, m, n_visible); K must be positive."""
        self.require_positive()
        kernel, apart = self.kernel, phi - self.mean[..., None, :]
        quadratic = ((apart @ kernel) * apart).sum(-1)
        constant = torch.linalg.slogdet(kernel)[1][..., None] - phi.shape[-1] * math.log(2 * math.pi)
        found: Tensor = 0.5 * (constant - quadratic)
        return found

    def divergence(self, second: Tensor) -> Tensor:
        """KL (*batch) of the Gaussian of second moments (n_visible, n_visible), mean zero, from the machine.

        Raises `InputError` where it is singular or the machine has a source.
        """
        if self.source is not None:
            raise InputError("the divergence is for machines without source")
        self.require_positive()
        product, values = second @ self.kernel, torch.linalg.eigvalsh(second)
        log_det = torch.linalg.slogdet(product)[1]
        if bool((values[..., 0] <= FLAT * values[..., -1]).any()):
            raise InputError(
                "the second moments are singular: modes without variance have no KL; use log_prob"
            )
        trace = product.diagonal(dim1=-2, dim2=-1).sum(-1)
        found: Tensor = 0.5 * (trace - second.shape[-1] - log_det)
        return found
