"""Momentum space of a periodic lattice: classes of equivalent modes, and fields that are Gaussian per mode.

Fourier transforms are orthonormal, phi_k = V^(-1/2) sum_x e^(-ikx) phi_x, so that white noise has unit
variance in every mode and the propagator is G(k) = <|phi_k|^2>. Real fields keep the half spectrum of
`rfftn`; `weight` counts each stored mode together with its mirror image, and sum(weight) = V.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffsq.models.blocks import Fields, block_size, split


class Momenta(nn.Module):
    """Mode bookkeeping for one lattice shape.

    Modes related by a reflection, and by an exchange of axes of equal length, form one class: they share
    G(k) and every other symmetric function. Per-class quantities have shape (..., n_class), per-mode ones
    (..., *half).

    Attributes: `index` (*half) class of each mode, `weight` (*half) 1 or 2, `multiplicity` (n_class,)
    number of real degrees of freedom, `khat2`, `khat4` (n_class,) sums over mu of powers 1 and 2 of the
    lattice momentum squared, 4 sin^2(k_mu/2).

    >>> p = Momenta((4, 4))
    >>> int(p.multiplicity.sum()), p.n_class
    (16, 6)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.volume = math.prod(shape)
        self.dims = tuple(range(-len(shape), 0))
        half = (*shape[:-1], shape[-1] // 2 + 1)
        steps = torch.stack(torch.meshgrid(*[torch.arange(n) for n in half], indexing="ij"), -1)
        steps = torch.minimum(steps, torch.tensor(shape) - steps)  # |n_mu| of each mode
        khat2 = 4 * torch.sin(math.pi * steps.double() / torch.tensor(shape)) ** 2
        representative = steps.clone()
        for length in set(shape):
            axes = [mu for mu, extent in enumerate(shape) if extent == length]
            representative[..., axes] = steps[..., axes].sort(-1).values
        labels, index = torch.unique(representative.flatten(0, -2), dim=0, return_inverse=True)
        weight = torch.full(half, 2.0, dtype=torch.float64)
        weight[..., 0] = 1.0
        if shape[-1] % 2 == 0:
            weight[..., -1] = 1.0
        self.n_class = len(labels)
        self.index, self.weight = nn.Buffer(index.reshape(half)), nn.Buffer(weight)
        self.multiplicity = nn.Buffer(self.class_sum(weight))
        self.khat2, self.khat4 = (
            nn.Buffer(self.class_sum(weight * (khat2**n).sum(-1)) / self.multiplicity) for n in (1, 2)
        )

    def chebyshev(self, n: int) -> Tensor:
        """T_0 ... T_{n-1} of ln(1 + k^2), mapped to [-1, 1]: (n, n_class)."""
        top = torch.log1p(self.khat2.max()).clamp_min(1e-12)  # a single site has k = 0 only
        return chebyshev((2 * torch.log1p(self.khat2) / top - 1).clamp(-1, 1), n)

    def class_sum(self, q: Tensor) -> Tensor:
        """Sum of a per-mode quantity over the stored modes of each class: (..., *half) -> (..., n_class)."""
        out = q.new_zeros(*q.shape[: q.dim() - self.index.dim()], self.n_class)
        return out.index_add(-1, self.index.flatten(), q.flatten(-self.index.dim()))

    def modes(self, x: Tensor) -> Tensor:
        """Orthonormal half spectrum of real fields: (..., *shape) -> (..., *half), complex."""
        out: Tensor = torch.fft.rfftn(x, dim=self.dims, norm="ortho")
        return out

    def fields(self, xk: Tensor) -> Tensor:
        """Inverse of `modes`."""
        out: Tensor = torch.fft.irfftn(xk, s=self.shape, dim=self.dims, norm="ortho")
        return out

    def expand(self, q: Tensor) -> Tensor:
        """Per-class values to per-mode values: (..., n_class) -> (..., *half)."""
        return q[..., self.index]

    def class_mean(self, q: Tensor) -> Tensor:
        """Mean of a per-mode quantity over each class, mirrors counted: (..., *half) -> (..., n_class)."""
        weight = self.weight.to(q.dtype)
        return self.class_sum(weight * q) / self.multiplicity.to(q.dtype)

    def power(self, x: Tensor) -> Tensor:
        """|x_k|^2 averaged over each class: fields (n, *shape) -> (n, n_class)."""
        return self.class_mean(self.modes(x).abs() ** 2)

    def total(self, q: Tensor) -> Tensor:
        """Sum over all V modes of a per-mode quantity: (..., *half) -> (...)."""
        return (self.weight.to(q.dtype) * q).flatten(-self.index.dim()).sum(-1)

    def colour(self, noise: Tensor, variance: Tensor) -> Tensor:
        """White noise (n, *shape) to a Gaussian field with the given per-class variance (n_class,)."""
        return self.fields(self.modes(noise) * self.expand(variance).sqrt())

    def log_normal(self, residual_modes: Tensor, variance: Tensor) -> Tensor:
        """log N(residual; 0, variance per class), all V modes: (n, *half), (n_class,) -> (n,)."""
        chi2 = self.total(residual_modes.abs() ** 2 / self.expand(variance))
        log_det = (self.multiplicity * variance.log()).sum(-1)
        return -0.5 * (chi2 + log_det + self.volume * math.log(2 * math.pi))


def chebyshev(t: Tensor, n: int) -> Tensor:
    """T_0 ... T_{n-1} of t (...) in [-1, 1]: (n, ...)."""
    return torch.stack([torch.cos(order * torch.arccos(t)) for order in range(n)])


def propagator(momenta: Momenta, phi: Fields, chunk: int | None = None) -> Tensor:
    """Measured G(k) = <|phi_k|^2> per class, k = 0 included: (n, *shape) -> (n_class,).

    <phi> is not subtracted. Fields are transformed `chunk` at a time, a number that the lattice sets.

    >>> p = Momenta((4, 4))
    >>> propagator(p, torch.ones(1, 4, 4)).round()  # a constant field is all zero mode, |phi_0|^2 = V
    tensor([16.,  0.,  0.,  0.,  0.,  0.])
    """
    chunk = chunk or block_size(momenta.shape, 4096, 2**20)
    blocks = [momenta.power(part).sum(0) for part in split(phi, chunk)]
    return torch.stack(blocks).sum(0) / len(phi)


N_SMOOTH_G = 12  # polynomials in ln k^2


def smooth_propagator(momenta: Momenta, g: Tensor, halves: tuple[Tensor, Tensor]) -> Tensor:
    """A measured G(k) (n_class,) without most of its noise, which costs n_class/2n nats for n fields.

    halves: G of either half of the fields, independent of each other. The smooth form is taken if that of
    one half predicts the other half better than the half itself does, as Gaussians; else g is returned as
    it is. So it is, too, where there are fewer than twice as many classes as coefficients.
    """
    if momenta.n_class < 2 * (N_SMOOTH_G + 1) or not all((q > 0).all() for q in (g, *halves)):
        return g

    def surprise(known: Tensor, seen: Tensor) -> Tensor:
        return (momenta.multiplicity * (known.log() + seen / known))[1:].sum()

    smooth, own = (
        torch.stack([surprise(q, other) for q, other in zip(known, halves[::-1], strict=True)]).sum()
        for known in ([_smooth(momenta, q) for q in halves], halves)
    )
    return _smooth(momenta, g) if smooth < own else g


def _smooth(momenta: Momenta, g: Tensor) -> Tensor:
    """Away from k = 0, which stays, ln k^2 G is the least-squares polynomial in ln k^2 plus a multiple of
    sum_mu k_mu^4/k^2 (all in lattice momenta), classes weighted by their multiplicity."""
    k2, weight = momenta.khat2[1:], momenta.multiplicity[1:].sqrt()
    x = k2.log()
    rows = chebyshev((2 * (x - x.min()) / (x.max() - x.min()) - 1).clamp(-1, 1), N_SMOOTH_G)
    rows = torch.cat([rows, momenta.khat4[None, 1:] / k2])
    solution = torch.linalg.lstsq((rows * weight).T, ((g[1:] * k2).log() * weight)[:, None]).solution
    return torch.cat([g[:1], (rows.T @ solution)[:, 0].exp() / k2])


N_SHELLS = 6


def shells(momenta: Momenta) -> tuple[Tensor, list[dict[str, Any]]]:
    """Shells k = 0, the smallest |k| = sqrt(khat2), and equal bins above: shell of each class, and labels."""
    khat = momenta.khat2.sqrt()
    first = khat[khat > 1e-9].min() if momenta.n_class > 1 else khat.max()
    edges = torch.linspace(
        float(first) * 1.001, float(khat.max()) * 1.0001, N_SHELLS + 1, dtype=torch.float64
    )
    shell = torch.bucketize(khat, edges.to(khat.device)) + 1
    shell[khat < 1e-9] = 0
    names = {0: "k = 0", 1: f"|k| = {float(first):.2f}"}
    used = sorted(set(shell.tolist()))
    labels = []
    for s in used:
        inside = momenta.multiplicity[shell == s]
        label = names.get(s) or f"|k| < {float(edges[min(s - 1, N_SHELLS)]):.2f}"
        labels.append({"label": label, "multiplicity": int(inside.sum())})
    index = torch.tensor([used.index(s) for s in shell.tolist()], device=khat.device)
    return index, labels
