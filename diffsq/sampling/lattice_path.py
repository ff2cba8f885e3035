"""The reverse chain of lattice fields: steps with momentum-space variance, exact weights of their paths.

With rho_n = Delta_n / sigma_{n+1}^2 in the notation of diffsq.sampling.reverse_chain

    reverse   R(x_n | x_{n+1}) = N(x_{n+1} + rho_n (D(x_{n+1}) - x_{n+1}),  e^{b h/2} c_n(k) e^{b h/2})
              but for the zero mode: c_n(0) f(x_{n+1}), or a mixture of two Gaussians, one per sign of M
    start     p(x_N)           = N(0, G(k) + sigma_N^2)

c_n(k) is diagonal in momentum space; e^{b h} is a local modulation of the variance, h an even bounded
function of the Wiener-filtered field with its mean removed: the posterior is narrower where |phi| is large.
The U-Net is evaluated in one lattice frame per step, drawn once for all paths, forward and reverse: part of
the definition of R.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from diffsq.models.blocks import Fields
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import Momenta
from diffsq.models.protocol import Frames, Noise
from diffsq.models.symmetry import Symmetry
from diffsq.models.zero_mode import log_gauss
from diffsq.sampling.kept import kept, read_tensors
from diffsq.sampling.lattice_kernel import Coupling, Kernel, calibrated
from diffsq.sampling.reverse_chain import Law, ReverseChain
from diffsq.sampling.zero_mode_step import ZeroModeLaw, zero_mode_law
from lattice.errors import InputError

VERSION = 4  # of the law R: raise it with any change, so that no folder mixes samples of two laws


class ReversePath(ReverseChain):
    """Forward and reverse chains of one score model; fields (n, *shape) float64."""

    def __init__(self, model: LatticeScore, kernel: Kernel) -> None:
        self.model, self.momenta = model, model.momenta
        self.kernel, self.levels = kernel, kernel.levels

    @classmethod
    def predicted(cls, model: LatticeScore, levels: Tensor) -> "ReversePath":
        """With the kernel of the model's own posterior variance."""
        return cls(model, Kernel.predicted(model, levels))

    def start(self, level: int = -1) -> "ModeGaussian":
        """N(0, G(k) + sigma^2)."""
        return ModeGaussian(self.momenta, self.model.base.g + self.levels[level] ** 2)

    def reverse(self, x: Tensor, n: int, frame: Symmetry) -> "ReverseStep":
        """R(x_n | x_{n+1} = x)."""
        kernel, low, high = self.kernel, self.levels[n], self.levels[n + 1]
        sigma = high.expand(len(x))
        rho = (high**2 - low**2) / high**2
        xk = self.momenta.modes(x)
        d, log_variance = self.model.denoise(xk, sigma, frame)
        h = log_variance - kernel.tilt_mean[n]
        posterior = self.model.base.zero_mode.posterior(xk[..., 0, 0].real, sigma)
        mixed = bool(kernel.two_peaks[n])
        shift, zero = zero_mode_law(posterior, d[..., 0, 0].real, rho, rho * low**2, mixed)
        zero.variance = kernel.variance[n, 0] * (
            1 + kernel.zero_slope[n] * (zero.variance - kernel.zero_mean[n])
        )
        mean = xk + rho * (d - xk)
        mean[..., 0, 0] += shift
        coupling = Coupling.of(self.model, high, kernel.coupling[n] * h, frame)
        return ReverseStep(mean, kernel.variance[n], kernel.tilt[n] * h, coupling, zero)

    def calibrate(
        self, phi: Fields, noise: Noise, frames: Frames, done: Callable[[], None] = lambda: None,
        chunk: int | None = None,
    ) -> None:  # fmt: skip
        """Measure the kernel on noised training fields phi (n, *shape), in place; see
        diffsq.sampling.lattice_kernel."""
        self.kernel = calibrated(self.model, self.levels, phi, noise, frames, done, chunk)


@dataclass(frozen=True)
class ModeGaussian(Law):
    """N(0, variance (n_class,) of each mode)."""

    momenta: Momenta
    variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        return self.momenta.colour(noise, self.variance)

    def log_density(self, x: Tensor) -> Tensor:
        return self.momenta.log_normal(self.momenta.modes(x), self.variance)


@dataclass
class ReverseStep(Law):
    """R( . | x_{n+1}): mean (n, *half), c_n (n_class,), local log-variance (n, *shape), coupling of the
    sublattices, law of the zero mode."""

    mean: Tensor
    variance: Tensor
    tilt: Tensor
    coupling: Coupling
    zero: ZeroModeLaw

    def draw(self, noise: Tensor) -> Tensor:
        """A field from white noise (n, *shape)."""
        p, c = self.coupling.momenta, self.variance
        white = p.modes(noise)
        white[..., 0, 0] = (self.zero.draw(white[..., 0, 0].real) / c[0].sqrt()).to(white.dtype)
        eps = p.fields(white)
        return p.fields(self.mean) + torch.exp(0.5 * self.tilt) * p.colour(eps + self.coupling(eps), c)

    def whitened(self, x: Tensor) -> Tensor:
        """Modes of the residual with modulation and coupling undone; N(0, c_n(k)) but for the zero mode."""
        p, c = self.coupling.momenta, self.variance
        coupled = p.colour((x - p.fields(self.mean)) * torch.exp(-0.5 * self.tilt), 1 / c)
        return p.modes(coupled - self.coupling(coupled)) * p.expand(c).sqrt()

    def log_density(self, x: Tensor) -> Tensor:
        """log R(x | x_{n+1}): (n,)."""
        white, c = self.whitened(x), self.variance
        z = white[..., 0, 0].real
        own = self.zero.log_density(z) - log_gauss(z, c[0])
        return self.coupling.momenta.log_normal(white, c) + own - 0.5 * self.tilt.flatten(1).sum(1)


def with_unet(kernel: Kernel, model: LatticeScore) -> ReversePath:
    """The path of the whole model: what the U-Net explains narrows variances measured with the base alone."""
    base = LatticeScore(model.base, None)
    ours, theirs = (Kernel.predicted(m, kernel.levels).variance for m in (model, base))
    return ReversePath(model, replace(kernel, variance=kernel.variance * ours / theirs))


def load_path(folder: Path, model: LatticeScore) -> ReversePath:
    """The calibrated path of a samples folder; `model` must be the one that it was made with.

    Raises `InputError` when there is none (no samples yet, or another method than "path").
    """
    return with_unet(load_kernel(folder, model.base.g.device), model)


def kept_kernel(
    folder: Path, name: str, key: str, device: torch.device, make: Callable[[], Kernel]
) -> Kernel:
    """The kernel `name` of a folder, read back if it is sound and of this key, else made and kept there."""
    tensors = kept(folder, name, key, lambda: vars(make()))
    return Kernel(**{label: t.to(device) for label, t in tensors.items()})


def load_kernel(folder: Path, device: torch.device) -> Kernel:
    """The kernel of a samples folder. Raises `InputError` when there is none, or it is damaged."""
    if not (folder / "kernel.json").is_file():
        raise InputError(f"{folder}: no calibrated path here; `diffsq sample` makes it (method path)")
    path = folder / "kernel.safetensors"
    try:
        kernel = Kernel(**{label: t.to(device) for label, t in read_tensors(folder, "kernel").items()})
    except TypeError as error:
        raise InputError(f"{path}: not a reverse kernel: {error}") from None
    steps = {name: t.shape[:1] for name, t in vars(kernel).items()}
    n = (kernel.levels.numel() - 1,)
    if kernel.levels.dim() != 1 or any(found != n for name, found in steps.items() if name != "levels"):
        raise InputError(f"{path}: not a reverse kernel: its tables are of {n[0]} steps and of others")
    return kernel
