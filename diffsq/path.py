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
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsq.base import ZeroModePosterior, bounded
from diffsq.score import ScoreModel, Symmetry
from diffsq.zero_mode import ZeroModeLaw, fit_variance, log_gauss, zero_mode_law
from lattice.errors import InputError

Noise = Callable[[int], Tensor]
"""noise(step) -> standard normal (n, *shape), float64; one step number per level, N for the start."""
Frames = Callable[[int], Symmetry]
"""frames(step) -> the lattice frame in which the U-Net sees that step."""
ActionFunction = Callable[[Tensor], Tensor]

VERSION = 1  # of the law R: raise it with any change, so that no folder mixes samples of two laws
N_SMOOTH = 4  # Chebyshev terms in log(1 + k^2) for the measured over the predicted variance
WIDER = 0.005  # posterior part of c_n(k), relative: a proposal too narrow has an unbounded weight


@dataclass
class Kernel:
    """Variances of the N reverse steps, float64.

    levels (N+1,); variance c_n(k) (N, n_class); tilt b and tilt_mean <h> (N,); zero_slope, zero_mean,
    two_peaks (N,): law of the zero mode, see diffsq.zero_mode.
    """

    levels: Tensor
    variance: Tensor
    tilt: Tensor
    tilt_mean: Tensor
    zero_slope: Tensor
    zero_mean: Tensor
    two_peaks: Tensor

    @property
    def n_levels(self) -> int:
        """N."""
        return len(self.tilt)


class ReversePath:
    """Forward and reverse chains of one score model; see the module's formulas. All fields float64."""

    def __init__(self, model: ScoreModel, kernel: Kernel) -> None:
        self.model = model
        self.kernel = kernel
        self.momenta = model.momenta

    @classmethod
    def predicted(cls, model: ScoreModel, levels: Tensor) -> "ReversePath":
        """Kernel from the model's own posterior variance C(k).

        c_n = Delta_n sigma_n^2/sigma_{n+1}^2 + rho_n^2 C(k): noise of the Brownian bridge, and what D leaves
        open.
        """
        delta = levels[1:] ** 2 - levels[:-1] ** 2
        rho = (delta / levels[1:] ** 2)[:, None]
        posterior = model.posterior_variance(levels[1:])
        variance = rho * levels[:-1, None] ** 2 + rho**2 * posterior
        return cls(model, Kernel(levels, variance, *torch.zeros(5, len(delta)).to(delta)))

    def reverse(self, x: Tensor, step: int, frame: Symmetry) -> "ReverseStep":
        """R(x_n | x_{n+1} = x) for n = `step`."""
        kernel = self.kernel
        high, low = kernel.levels[step + 1], kernel.levels[step]
        sigma = high.expand(len(x))
        rho = (high**2 - low**2) / high**2
        xk = self.momenta.modes(x)
        d, u = self.model.denoise(xk, sigma, frame)
        tilt = kernel.tilt[step] * (modulation(u) - kernel.tilt_mean[step])
        posterior = self.model.base.zero_mode.posterior(xk[..., 0, 0].real, sigma)
        bridge = rho * low**2
        mixed = bool(kernel.two_peaks[step])
        shift, zero = zero_mode_law(posterior, d[..., 0, 0].real, rho, bridge, mixed)
        zero.variance = kernel.variance[step, 0] * (
            1 + kernel.zero_slope[step] * (zero.variance - kernel.zero_mean[step])
        )
        mean = xk + rho * (d - xk)
        mean[..., 0, 0] += shift
        return ReverseStep(mean, tilt, zero)

    def draw(self, law: "ReverseStep", noise: Tensor, step: int) -> Tensor:
        """A field from R(x_n | x_{n+1}), from white noise (n, *shape)."""
        white = self.momenta.modes(noise)
        modes = white * self.momenta.expand(self.kernel.variance[step]).sqrt()
        modes[..., 0, 0] = law.zero.draw(white[..., 0, 0].real).to(modes.dtype)
        return self.momenta.fields(law.mean) + torch.exp(0.5 * law.tilt) * self.momenta.fields(modes)

    def log_reverse(self, x_low: Tensor, law: "ReverseStep", step: int) -> Tensor:
        """log R(x_n | x_{n+1}): (n,)."""
        residual = x_low - self.momenta.fields(law.mean)
        white = self.momenta.modes(residual * torch.exp(-0.5 * law.tilt))
        z, c = white[..., 0, 0].real, self.kernel.variance[step]
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

    @torch.no_grad()
    def calibrate(
        self,
        phi: Tensor,
        noise: Noise,
        frames: Frames,
        done: Callable[[], None] = lambda: None,
        chunk: int = 256,
    ) -> None:
        """Measure b, f and c_n(k) of every step on noised training fields phi (n, *shape), in place.

        b and f maximise the likelihood; c_n(k) is the predicted variance times a smooth function of k fitted
        to the residuals, c_n(0) the measured one, their posterior part widened by `WIDER`. `done` is called
        after each step. Raises `InputError` when the model gives NaN or infinity.
        """
        levels, x = self.kernel.levels, phi
        predicted = ReversePath.predicted(self.model, levels).kernel.variance
        for step in range(self.kernel.n_levels):
            delta = levels[step + 1] ** 2 - levels[step] ** 2
            x_high = x + delta.sqrt() * noise(step)
            residual, h, z, d0 = [], [], [], []
            for low, high in zip(torch.split(x, chunk), torch.split(x_high, chunk), strict=True):
                xk = self.momenta.modes(high)
                d, u = self.model.denoise(xk, levels[step + 1].expand(len(high)), frames(step))
                mean = self.momenta.fields(xk + delta / levels[step + 1] ** 2 * (d - xk))
                residual.append(low - mean)
                h.append(modulation(u))
                z.append(xk[..., 0, 0].real)
                d0.append(d[..., 0, 0].real)
            bridge = delta * levels[step] ** 2 / levels[step + 1] ** 2
            missed = torch.cat(residual)
            if not torch.isfinite(missed).all():
                raise InputError(
                    f"the denoiser is not finite at sigma = {float(levels[step + 1]):.4g}; retrain the model"
                )
            posterior = self.model.base.zero_mode.posterior(torch.cat(z), levels[step + 1].expand(len(x)))
            white = self._fit_tilt(step, missed, torch.cat(h))
            self._fit_variance(step, white, predicted[step], bridge)
            self._fit_zero_mode(step, white[..., 0, 0].real, posterior, torch.cat(d0))
            x = x_high
            done()

    def _fit_tilt(self, step: int, residual: Tensor, h: Tensor) -> Tensor:
        """Two Newton steps on the likelihood of b, mode variances refitted at each; returns white modes."""
        p, h_mean = self.momenta, h.mean()
        h = h - h_mean
        b = h.new_zeros(())
        for _ in range(2):
            white = residual * torch.exp(-0.5 * b * h)
            c = p.expand(p.power(white).mean(0))
            pull, hw = p.fields(p.modes(white) / c), h * white
            gradient = 0.5 * (hw * pull).sum() - 0.5 * h.sum()
            curvature = 0.5 * (h * hw * pull).sum() + 0.5 * (hw * p.fields(p.modes(hw) / c)).sum()
            b = b + 2 * gradient / curvature
        b = shrink(b, 2 / curvature)
        self.kernel.tilt[step], self.kernel.tilt_mean[step] = b, h_mean
        return p.modes(residual * torch.exp(-0.5 * b * h))

    def _fit_variance(self, step: int, white: Tensor, predicted: Tensor, bridge: Tensor) -> None:
        measured = self.momenta.class_mean(white.abs() ** 2).mean(0)
        smooth = predicted * self._smooth(measured / predicted, len(white))
        self.kernel.variance[step] = smooth + WIDER * (smooth - bridge).clamp_min(0)

    def _fit_zero_mode(self, step: int, z: Tensor, posterior: ZeroModePosterior, d0: Tensor) -> None:
        """Fit the variance of the zero mode, by likelihood on residuals z (n,)."""
        kernel = self.kernel
        high, low = kernel.levels[step + 1], kernel.levels[step]
        rho = (high**2 - low**2) / high**2
        bridge = rho * low**2
        mixed = self.model.base.zero_mode.two_peaks()
        shift, law = zero_mode_law(posterior, d0, rho, bridge, mixed)
        slope, mean, variance = fit_variance(z - shift, law, bridge)
        predicted = kernel.variance[step, 0]
        variance = predicted * torch.exp(shrink(torch.log(variance / predicted), 2 / len(z)))
        kernel.zero_slope[step], kernel.zero_mean[step], kernel.two_peaks[step] = slope, mean, float(mixed)
        kernel.variance[step, 0] = variance + WIDER * (variance - bridge).clamp_min(0)

    def _smooth(self, ratio: Tensor, n: int) -> Tensor:
        """Positive smooth function of k fitted to `ratio` (n_class,) of n samples, weighted by multiplicity.

        Gram-Schmidt by sums: library least squares differ in the last bit from call to call, and a resumed
        run must not.
        """
        p, y = self.momenta, ratio.log()
        t = (2 * torch.log1p(p.khat2) / torch.log1p(p.khat2.max()) - 1).clamp(-1, 1)
        fit = torch.zeros_like(y)
        found: list[Tensor] = []
        for order in range(min(N_SMOOTH, p.n_class)):
            q = torch.cos(order * torch.arccos(t))
            for other in found:
                q = q - (p.multiplicity * q * other).sum() * other
            found.append(q / (p.multiplicity * q**2).sum().sqrt())
            fit = fit + shrink((p.multiplicity * y * found[-1]).sum(), 2 / n) * found[-1]
        return torch.exp(fit)


def shrink(value: Tensor, variance: Tensor | float) -> Tensor:
    """An estimate pulled towards zero by its own noise (James and Stein), to zero if not significant.

    Every parameter of the kernel costs 1/(2 n) nats of path KL per step when fitted to n samples.
    """
    return value * (1 - variance / value**2).clamp_min(0)


def modulation(u: Tensor) -> Tensor:
    """h(u): squared normalised field, bounded, float64."""
    return bounded(u.double() ** 2, 4.0)



@dataclass
class ReverseStep:
    """R( . | x_{n+1}): mean (n, *half), local log-variance (n, *shape), law of the zero mode."""

    mean: Tensor
    tilt: Tensor
    zero: ZeroModeLaw
