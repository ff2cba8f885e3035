"""The variances of the reverse steps, measured on noised training fields.

With bridge = rho_n sigma_n^2 the noise of the Brownian bridge and C(k) what the denoiser leaves open,

    c_n(k) = (bridge + rho_n^2 C) e^{share delta},      share_n(k) = rho_n^2 C / (bridge + rho_n^2 C).

Measured in every step are the mode variances (log c_n(k) exceeds its prediction by share delta), the strength
b of the local modulation (proportional to the share too), and the law of the zero mode. All of them are then
fitted, over all steps together, by functions smooth in k and ln sigma: every number fitted to n fields costs
1/(2 n) nats of path KL per step, which for free numbers in every step was a third of the total.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffsq.models.blocks import Fields, block_size, drawn, slices
from diffsq.models.lattice import LatticeScore
from diffsq.models.momentum import Momenta, chebyshev
from diffsq.models.protocol import Frames, Noise
from diffsq.models.symmetry import Symmetry
from diffsq.sampling.zero_mode_step import ZeroModeLaw, fit_variance, zero_mode_law
from lattice.errors import InputError

CHUNK = 256, 2**17  # fields, and sites, of a block at most
N_K, N_SIGMA = 4, 7  # polynomials in ln(1 + k^2) and in ln sigma
WIDER = 0.005  # posterior part of c_n(k), relative: a proposal too narrow has an unbounded weight


@dataclass
class Kernel:
    """Variances of the N reverse steps, float64.

    levels (N+1,); variance c_n(k) (N, n_class); tilt b and tilt_mean <h> (N,); zero_slope, zero_mean,
    two_peaks (N,): law of the zero mode, see diffsq.models.zero_mode.
    """

    levels: Tensor
    variance: Tensor
    tilt: Tensor
    tilt_mean: Tensor
    coupling: Tensor
    zero_slope: Tensor
    zero_mean: Tensor
    two_peaks: Tensor

    @property
    def n_levels(self) -> int:
        """N."""
        return len(self.tilt)

    @classmethod
    def predicted(cls, model: LatticeScore, levels: Tensor) -> "Kernel":
        """From the model's own posterior variance C(k), without modulation."""
        bridge, posterior = parts(model, levels)
        return cls(levels, bridge[:, None] + posterior, *torch.zeros(6, len(bridge)).to(bridge))


@dataclass
class Coupling:
    """Noise of one sublattice fed to the other: field-dependent covariance between sites, at first order.

    A local excess delta of the curvature changes C(k) to C - C delta C; a local modulation of the variance
    gives only its diagonal. The part between even and odd sites is a triangular map of white noise,
    eps_odd += (Q h Q eps_even)_odd with Q = sqrt(C(k)/mean C): its determinant is one, its inverse a
    subtraction.
    """

    momenta: Momenta
    filter: Tensor
    h: Tensor
    even: Tensor

    @classmethod
    def of(cls, model: LatticeScore, sigma: Tensor, h: Tensor, frame: Symmetry) -> "Coupling":
        """At noise sigma (scalar), h (n, *shape) with its strength, sublattices as seen in `frame`."""
        p = model.momenta
        _, c = model.base.wiener(sigma[None])
        q = (c[0] / ((p.multiplicity * c[0]).sum() / p.volume)).sqrt()
        rows, columns = (torch.arange(n, device=h.device) for n in p.shape)
        even = frame.inverse(((rows[:, None] + columns) % 2 == 0).to(h.dtype)[None])[0]
        return cls(p, p.expand(q), h, even)

    def __call__(self, eps: Tensor) -> Tensor:
        """(n, *shape) -> what the even sites of eps add to the odd ones."""
        p = self.momenta
        inner = p.fields(self.filter * p.modes(self.even * eps))
        return (1 - self.even) * p.fields(self.filter * p.modes(self.h * inner))


def parts(model: LatticeScore, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of c_n(k): the bridge's (N,) and the posterior's, rho_n^2 C(k), (N, n_class)."""
    rho = (levels[1:] ** 2 - levels[:-1] ** 2) / levels[1:] ** 2
    return rho * levels[:-1] ** 2, rho[:, None] ** 2 * model.posterior_variance(levels[1:])


@dataclass
class _Step:
    """What one step of the calibration measured."""

    ratio: Tensor  # log of measured over predicted c_n(k) (n_class,)
    b: Tensor
    curvature: Tensor
    coupling: Tensor
    coupling_weight: Tensor
    h_mean: Tensor
    zero_fraction: Tensor
    zero_mean: Tensor
    zero_ratio: Tensor


@torch.no_grad()
def calibrated(
    model: LatticeScore,
    levels: Tensor,
    phi: Fields,
    noise: Noise,
    frames: Frames,
    done: Callable[[], None] = lambda: None,
    chunk: int | None = None,
) -> Kernel:
    """The kernel of levels (N+1,), measured on training fields phi (n, *shape).

    `done` is called after each step. Sums run over blocks of `chunk` fields in order, by default a number
    that depends on the lattice alone; three arrays like phi are held. Raises `InputError` when the model
    gives NaN or infinity.
    """
    kernel, measured = Kernel.predicted(model, levels), []
    bridge, _ = parts(model, levels)
    mixed = model.base.zero_mode.two_peaks()
    low: Fields = phi
    x, residual, h = (levels.new_empty(len(phi), *model.shape) for _ in range(3))
    seen = _Residuals(model.momenta, residual, h, chunk or block_size(model.shape, *CHUNK))
    for step in range(kernel.n_levels):
        z, d0 = seen.fill(model, levels, step, low, x, noise, frames(step))
        low, sigma = x, levels[step + 1]
        posterior = model.base.zero_mode.posterior(z, sigma.expand(len(x)))
        couple = Coupling.of(model, sigma, seen.h[:1], frames(step))
        law = zero_mode_law(posterior, d0, 1 - levels[step] ** 2 / sigma**2, bridge[step], mixed)
        measured.append(_measure(seen, kernel.variance[step], bridge[step], couple, *law))
        done()
    return _smoothed(model, kernel, measured, len(phi), mixed)


@dataclass
class _Residuals:
    """Of one step: x_n minus the mean of the step, and h minus its own mean h_mean, (n, *shape) each."""

    momenta: Momenta
    residual: Tensor
    h: Tensor
    chunk: int
    h_mean: Tensor = field(default_factory=lambda: torch.zeros(()))

    def fill(
        self, model: LatticeScore, levels: Tensor, step: int, low: Fields, x: Tensor, noise: Noise,
        frame: Symmetry,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Noise x_n = low to x_{n+1}, written to x (which low may be), and denoise it.

        Returns the zero modes of x_{n+1} and the denoiser's, (n,) each.
        """
        p, rho = self.momenta, 1 - levels[step] ** 2 / levels[step + 1] ** 2
        width, z, d0 = (levels[step + 1] ** 2 - levels[step] ** 2).sqrt(), [], []
        white = drawn(noise, step)
        for rows in slices(len(low), self.chunk):
            high = low[rows] + width * white[rows]
            xk = p.modes(high)
            d, self.h[rows] = model.denoise(xk, levels[step + 1].expand(len(high)), frame)
            missed = self.residual[rows] = low[rows] - p.fields(xk + rho * (d - xk))
            if not torch.isfinite(missed).all():
                raise InputError(
                    f"the denoiser is not finite at sigma = {float(levels[step + 1]):.4g}; retrain the model"
                )
            x[rows] = high
            z.append(xk[..., 0, 0].real.clone())  # a view would keep the whole block
            d0.append(d[..., 0, 0].real.clone())
        (total,) = self.sums(lambda white, h: (h.sum(),), self.h.new_zeros(()))
        self.h_mean = total / self.h.numel()
        self.h -= self.h_mean
        return torch.cat(z), torch.cat(d0)

    def whites(self, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Residuals with the modulation e^{b h} undone, and h, a block at a time."""
        for residual, h in zip(torch.split(self.residual, self.chunk), torch.split(self.h, self.chunk)):
            yield residual * torch.exp(-0.5 * b * h), h

    def sums(self, terms: Callable[[Tensor, Tensor], tuple[Tensor, ...]], b: Tensor) -> tuple[Tensor, ...]:
        """The sums over the blocks of `terms` of what `whites` gives."""
        columns = zip(*(terms(white, h) for white, h in self.whites(b)), strict=True)
        return tuple(torch.stack(column).sum(0) for column in columns)

    def power(self, b: Tensor) -> Tensor:
        """Variance of the modes with the modulation undone: (n_class,)."""
        (total,) = self.sums(lambda white, h: (self.momenta.power(white).sum(0),), b)
        return total / len(self.h)


def _measure(
    seen: _Residuals, predicted: Tensor, bridge: Tensor, couple: Coupling, shift: Tensor, law: ZeroModeLaw
) -> _Step:
    p = seen.momenta
    b, curvature = _fit_tilt(seen)
    ratio = (seen.power(b) / predicted).log()
    norm, zero_mode = p.expand(predicted * ratio.exp()).sqrt(), []

    def response_of(white: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        modes = p.modes(white)
        zero_mode.append(modes[..., 0, 0].real.clone())
        eps = p.fields(modes / norm)
        response = replace(couple, h=h)(eps)
        return (eps * response).sum(), (response**2).sum()

    product, weight = seen.sums(response_of, b)
    fraction, mean, variance = fit_variance(torch.cat(zero_mode) - shift, law, bridge)
    zero = weight.new_tensor(fraction), weight.new_tensor(mean), (variance / predicted[0]).log()
    return _Step(ratio, b, curvature, product / weight.clamp_min(1e-12), weight, seen.h_mean, *zero)


def _fit_tilt(seen: _Residuals) -> tuple[Tensor, Tensor]:
    """Two Newton steps on the likelihood of b, mode variances refitted at each: b and the curvature."""
    p, b = seen.momenta, seen.h.new_zeros(())
    curvature = b
    for _ in range(2):
        c = p.expand(seen.power(b))

        def slopes(white: Tensor, h: Tensor, c: Tensor = c) -> tuple[Tensor, ...]:
            pull, hw = p.fields(p.modes(white) / c), h * white
            second = (h * hw * pull).sum() + (hw * p.fields(p.modes(hw) / c)).sum()
            return 0.5 * (hw * pull).sum() - 0.5 * h.sum(), 0.25 * second

        gradient, curvature = seen.sums(slopes, b)
        b = b + gradient / curvature.clamp_min(1e-12)
    return b, curvature


def _smoothed(model: LatticeScore, kernel: Kernel, steps: list[_Step], n: int, mixed: bool) -> Kernel:
    """The kernel from smooth functions fitted to all steps."""
    p, levels = model.momenta, kernel.levels
    bridge, posterior = parts(model, levels)
    share = posterior / kernel.variance
    mean_share = (p.multiplicity * share).sum(1) / p.volume
    low, high = model.base.log_sigma[0], model.base.log_sigma[-1]
    t = (2 * (levels[1:].log() - low) / (high - low) - 1).clamp(-1, 1)
    in_sigma, in_k = list(chebyshev(t, min(N_SIGMA, len(t)))), p.chebyshev(min(N_K, p.n_class))

    def measured(name: str) -> Tensor:
        return torch.stack([getattr(step, name) for step in steps])

    def in_proportion(name: str, weight: str) -> Tensor:
        """Fitted in proportion to the share; weight: inverse variance."""
        fit = smooth_fit(measured(name) / mean_share, measured(weight) * mean_share**2, in_sigma)
        return mean_share * fit

    weight = 0.5 * n * p.multiplicity * share**2
    weight[:, 0] = 0  # the zero mode has its own
    delta = smooth_fit(measured("ratio") / share, weight, [q[:, None] * k for q in in_sigma for k in in_k])
    own = measured("zero_ratio") / share[:, 0]
    delta[:, 0] = smooth_fit(own, 0.5 * n * share[:, 0] ** 2, in_sigma)
    kernel.variance = kernel.variance * torch.exp(share * delta) + WIDER * posterior
    kernel.tilt, kernel.tilt_mean = in_proportion("b", "curvature"), measured("h_mean")
    kernel.coupling = in_proportion("coupling", "coupling_weight")
    fraction = smooth_fit(measured("zero_fraction"), n * share[:, 0] ** 2, in_sigma).clamp(0, 1)
    kernel.zero_mean = measured("zero_mean")
    own_share = (1 - bridge / kernel.variance[:, 0]).clamp(0, 0.999)
    kernel.zero_slope = fraction * own_share / kernel.zero_mean
    kernel.two_peaks = torch.full_like(fraction, float(mixed))
    return kernel


def smooth_fit(y: Tensor, weight: Tensor, basis: list[Tensor]) -> Tensor:
    """Weighted least squares of y on the functions `basis`, `weight` the inverse variance of y (all alike).

    Each coefficient is shrunk by its own noise. Gram-Schmidt by sums: library least squares differ in the
    last bit from call to call, and a resumed run must not.
    """
    fit, found = torch.zeros_like(y), list[Tensor]()
    y = torch.where(weight > 0, y, 0)
    for q in basis:
        for _ in range(2):  # twice is enough to stay orthogonal
            for other in found:
                q = q - (weight * q * other).sum() * other
        norm = (weight * q**2).sum()
        if float(norm) <= 1e-12 * float(weight.sum()):
            continue
        q = q / norm.sqrt()
        found.append(q)
        fit = fit + shrink((weight * y * q).sum(), 1.0) * q
    return fit


def shrink(value: Tensor, variance: Tensor | float) -> Tensor:
    """An estimate pulled towards zero by its own noise (James and Stein), to zero if not significant."""
    return value * (1 - variance / value**2).clamp_min(0)
