"""The reverse chain as an exact path sampler: steps with momentum-space variance, and path weights.

Levels 0 = sigma_0 < ... < sigma_N, Delta_n = sigma_{n+1}^2 - sigma_n^2, rho_n = Delta_n / sigma_{n+1}^2.

    forward   F(x_{n+1} | x_n) = N(x_n, Delta_n)
    reverse   R(x_n | x_{n+1}) = N(x_{n+1} + rho_n (D(x_{n+1}) - x_{n+1}),  e^{b h/2} c_n(k) e^{b h/2})
              but for the zero mode: c_n(0) f(x_{n+1}), or a mixture of two Gaussians, one per sign of M
    start     p(x_N)           = N(0, G(k) + sigma_N^2)
    weight    log w = -S(x_0) + sum_n log F - log p(x_N) - sum_n log R,      E_R[w] = Z for any D, c, b and N.

c_n(k) is diagonal in momentum space; e^{b h} is a local modulation of the variance, h an even bounded
function of the Wiener-filtered field with its mean removed: the posterior is narrower where |phi| is large.
The U-Net is evaluated in one lattice frame per step, drawn once for all paths, forward and reverse: part of
the definition of R.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.protocol import Frames, Noise
from diffsq.models.symmetry import Symmetry
from diffsq.models.zero_mode import log_gauss
from diffsq.sampling.lattice_kernel import Coupling, Kernel, calibrated
from diffsq.sampling.zero_mode_step import ZeroModeLaw, zero_mode_law
from lattice.errors import InputError
from lattice.files import read_json, sha256_file, write_atomic, write_json

ActionFunction = Callable[[Tensor], Tensor]
VERSION = 3  # of the law R: raise it with any change, so that no folder mixes samples of two laws


class ReversePath:
    """Forward and reverse chains of one score model; see the module's formulas. All fields float64."""

    def __init__(self, model: LatticeScore, kernel: Kernel) -> None:
        self.model = model
        self.kernel = kernel
        self.momenta = model.momenta

    @classmethod
    def predicted(cls, model: LatticeScore, levels: Tensor) -> "ReversePath":
        """With the kernel of the model's own posterior variance."""
        return cls(model, Kernel.predicted(model, levels))

    def reverse(self, x: Tensor, step: int, frame: Symmetry) -> "ReverseStep":
        """R(x_n | x_{n+1} = x) for n = `step`."""
        kernel = self.kernel
        high, low = kernel.levels[step + 1], kernel.levels[step]
        sigma = high.expand(len(x))
        rho = (high**2 - low**2) / high**2
        xk = self.momenta.modes(x)
        d, log_variance = self.model.denoise(xk, sigma, frame)
        h = log_variance - kernel.tilt_mean[step]
        posterior = self.model.base.zero_mode.posterior(xk[..., 0, 0].real, sigma)
        bridge = rho * low**2
        mixed = bool(kernel.two_peaks[step])
        shift, zero = zero_mode_law(posterior, d[..., 0, 0].real, rho, bridge, mixed)
        zero.variance = kernel.variance[step, 0] * (
            1 + kernel.zero_slope[step] * (zero.variance - kernel.zero_mean[step])
        )
        mean = xk + rho * (d - xk)
        mean[..., 0, 0] += shift
        coupling = Coupling.of(self.model, high, kernel.coupling[step] * h, frame)
        return ReverseStep(mean, kernel.tilt[step] * h, coupling, zero)

    def draw(self, law: "ReverseStep", noise: Tensor, step: int) -> Tensor:
        """A field from R(x_n | x_{n+1}), from white noise (n, *shape)."""
        p, c = self.momenta, self.kernel.variance[step]
        white = p.modes(noise)
        white[..., 0, 0] = (law.zero.draw(white[..., 0, 0].real) / c[0].sqrt()).to(white.dtype)
        eps = p.fields(white)
        coloured = p.colour(eps + law.coupling(eps), c)
        return p.fields(law.mean) + torch.exp(0.5 * law.tilt) * coloured

    def whitened(self, x_low: Tensor, law: "ReverseStep", step: int) -> Tensor:
        """Modes of the residual with modulation and coupling undone; N(0, c_n(k)) but for the zero mode."""
        p, c = self.momenta, self.kernel.variance[step]
        residual = (x_low - p.fields(law.mean)) * torch.exp(-0.5 * law.tilt)
        coupled = p.colour(residual, 1 / c)
        return p.modes(coupled - law.coupling(coupled)) * p.expand(c).sqrt()

    def log_reverse(self, x_low: Tensor, law: "ReverseStep", step: int) -> Tensor:
        """log R(x_n | x_{n+1}): (n,)."""
        white, c = self.whitened(x_low, law, step), self.kernel.variance[step]
        z = white[..., 0, 0].real
        own = law.zero.log_density(z) - log_gauss(z, c[0])
        return self.momenta.log_normal(white, c) + own - 0.5 * law.tilt.flatten(1).sum(1)

    def log_forward(self, x_low: Tensor, x_high: Tensor, step: int) -> Tensor:
        """log F(x_{n+1} | x_n): (n,)."""
        delta = self.kernel.levels[step + 1] ** 2 - self.kernel.levels[step] ** 2
        chi2 = ((x_high - x_low) ** 2).flatten(1).sum(1) / delta
        return -0.5 * (chi2 + self.momenta.volume * torch.log(2 * math.pi * delta))

    def log_start(self, x: Tensor) -> Tensor:
        """log p(x_N): (n,)."""
        return self.momenta.log_normal(self.momenta.modes(x), self._start_variance())

    def _start_variance(self) -> Tensor:
        return self.model.base.g + self.kernel.levels[-1] ** 2

    @torch.no_grad()
    def sample(
        self,
        action: ActionFunction,
        noise: Noise,
        frames: Frames,
        watch: Callable[[int, Tensor], None] = lambda step, x: None,
    ) -> tuple[Tensor, Tensor]:
        """Draw fields x_0 (n, *shape) with exact log-weights (n,).

        `watch(n, x_n)` sees every level, n = N first.
        """
        n_levels = self.kernel.n_levels
        x = self.momenta.colour(noise(n_levels), self._start_variance())
        log_w = -self.log_start(x)
        watch(n_levels, x)
        for step in reversed(range(n_levels)):
            law = self.reverse(x, step, frames(step))
            x_low = self.draw(law, noise(step), step)
            log_w += self.log_forward(x_low, x, step) - self.log_reverse(x_low, law, step)
            x = x_low
            watch(step, x)
        return x, log_w - action(x)

    @torch.no_grad()
    def weigh(
        self, phi: Tensor, action: ActionFunction, noise: Noise, frames: Frames
    ) -> tuple[Tensor, Tensor]:
        """Forward weights: noise given fields phi (n, *shape) up to sigma_N and weigh the path backwards.

        Returns log w (n,) and the increments log F - log R of each step (n, N), from which the same
        difference for the Gaussian process with propagator G(k) is subtracted. For fields drawn from
        e^{-S}/Z, E[1/w] = 1/Z.
        """
        log_w, x, steps = -action(phi), phi, []
        for step in range(self.kernel.n_levels):
            delta = self.kernel.levels[step + 1] ** 2 - self.kernel.levels[step] ** 2
            x_high = x + delta.sqrt() * noise(step)
            law = self.reverse(x_high, step, frames(step))
            increment = self.log_forward(x, x_high, step) - self.log_reverse(x, law, step)
            steps.append(increment + self._log_marginal(x, step) - self._log_marginal(x_high, step + 1))
            log_w, x = log_w + increment, x_high
        return log_w - self.log_start(x), torch.stack(steps, 1)

    def _log_marginal(self, x: Tensor, level: int) -> Tensor:
        variance = self.model.base.g + self.kernel.levels[level] ** 2
        return self.momenta.log_normal(self.momenta.modes(x), variance)

    def calibrate(
        self, phi: Tensor, noise: Noise, frames: Frames, done: Callable[[], None] = lambda: None,
        chunk: int = 256,
    ) -> None:  # fmt: skip
        """Measure the kernel on noised training fields phi (n, *shape), in place; see
        diffsq.sampling.lattice_kernel."""
        self.kernel = calibrated(self.model, self.kernel.levels, phi, noise, frames, done, chunk)


@dataclass
class ReverseStep:
    """R( . | x_{n+1}): mean (n, *half), local log-variance (n, *shape), coupling, law of the zero mode."""

    mean: Tensor
    tilt: Tensor
    coupling: Coupling
    zero: ZeroModeLaw


def load_path(folder: Path, model: LatticeScore) -> ReversePath:
    """The calibrated path of a samples folder; `model` must be the one that it was made with.

    Raises `InputError` when there is none (no samples yet, or another method than "path").
    """
    path, key_path = folder / "kernel.safetensors", folder / "kernel.json"
    if not path.is_file() or not key_path.is_file():
        raise InputError(f"{folder}: no calibrated path here; `diffsq sample` makes it (method path)")
    if read_json(key_path).get("sha256") != sha256_file(path):
        raise InputError(f"{path}: changed since it was written (sha256 is not that of kernel.json)")
    return with_unet(read_kernel(path, model), model)


def read_kernel(path: Path, model: LatticeScore) -> ReversePath:
    """The path of the regression base alone, with the kernel of a file."""
    tensors, device = load(path.read_bytes()), model.base.g.device
    kernel = Kernel(*(tensors[name].to(device) for name in Kernel.__dataclass_fields__))
    return ReversePath(LatticeScore(model.base, None), kernel)


def with_unet(base_path: ReversePath, model: LatticeScore) -> ReversePath:
    """The path of the whole model: what the U-Net explains narrows the variances measured with the base."""
    kernel = base_path.kernel
    ours, theirs = (ReversePath.predicted(m, kernel.levels).kernel.variance for m in (model, base_path.model))
    return ReversePath(model, replace(kernel, variance=kernel.variance * ours / theirs))


def save_kernel(folder: Path, kernel: Kernel, key: str) -> None:
    """Write kernel.safetensors and, last, kernel.json with its hash and the `key` of the computation."""
    tensors = {name: getattr(kernel, name).cpu().contiguous() for name in Kernel.__dataclass_fields__}
    write_atomic(folder / "kernel.safetensors", save(tensors))
    write_json(folder / "kernel.json", {"key": key, "sha256": sha256_file(folder / "kernel.safetensors")})


def has_kernel(folder: Path, key: str) -> bool:
    """Whether a sound kernel of this key is in the folder."""
    path, key_path = folder / "kernel.safetensors", folder / "kernel.json"
    about: dict[str, Any] = read_json(key_path) if path.exists() and key_path.exists() else {}
    return about.get("key") == key and about.get("sha256") == sha256_file(path)
