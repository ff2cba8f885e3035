"""The path KL as a loss: identities, unbiased variance reduction, and the KL of solvable cases in nats."""

from __future__ import annotations

import math

import pytest
import torch
from fields import (
    MU,
    WIDTH,
    generator,
    grid,
    significance,
    two_peak,
    two_peak_denoiser,
    two_peak_density,
    white,
)
from small_models import equilibrium
from torch import Tensor

from diffsq.models.lattice import N_CHANNEL, N_CONDITION, LatticeScore
from diffsq.models.momentum import Momenta, propagator
from diffsq.models.regression import RegressionBase
from diffsq.models.spread import Spread
from diffsq.models.symmetry import IDENTITY, Symmetry
from diffsq.models.unet import UNet
from diffsq.training.loss import Batch, gain_rate, path_kl_rate, prepare
from lattice.actions.phi4 import ScalarPhi4

VARIANCE = MU**2 + WIDTH**2  # of the two-peak density
ACTION = ScalarPhi4(0.27, 0.022)


class LocalTruth(LatticeScore):
    """The exact denoiser of independent two-peak sites, times `scale`, in place of the U-Net."""

    scale = 1.0

    def network(
        self, x: Tensor, u: Tensor, base: Tensor, sigma: Tensor, symmetry: Symmetry
    ) -> tuple[Tensor, Spread | None]:
        w, c = (q[:, 0, None, None] for q in self.base.wiener(sigma))  # G is the same in every class
        return self.scale * (two_peak_denoiser(x, sigma[:, None, None]) - w * x) / c.sqrt(), None


class ZeroModeTruth(LatticeScore):
    """The exact denoiser of a theory whose zero mode alone has two peaks."""

    scale = 1.0

    def network(
        self, x: Tensor, u: Tensor, base: Tensor, sigma: Tensor, symmetry: Symmetry
    ) -> tuple[Tensor, Spread | None]:
        w, c = (q[:, 0] for q in self.base.wiener(sigma))
        z = self.momenta.modes(x)[..., 0, 0].real
        net = self.scale * (two_peak_denoiser(z, sigma) - w * z) / c.sqrt()
        return net[:, None, None].expand_as(x) / self.momenta.volume**0.5, None


def base_of(
    g: Tensor, shape: tuple[int, ...], sigma_min: float = 0.1, sigma_max: float = 10.0, n_sigma: int = 2
) -> RegressionBase:
    base = RegressionBase(Momenta(shape), n_sigma)
    base.set_gaussian(g.expand(base.momenta.n_class), sigma_min, sigma_max)
    return base


def log_sigmas(low: float, high: float, n: int, seed: int) -> Tensor:
    """n stratified values of sigma, uniform in ln sigma, in random order."""
    u = torch.rand(n, generator=generator(seed), dtype=torch.float64)
    position = (torch.arange(n) + u)[torch.randperm(n, generator=generator(seed + 1))] / n
    return low * (high / low) ** position


def two_peak_force(phi: Tensor) -> Tensor:
    """-d ln p/dphi of the two-peak density."""
    return (phi - MU * torch.tanh(MU * phi / WIDTH**2)) / WIDTH**2


def excess(sigma: float) -> float:
    """E |D - W x|^2/sigma^2 of the two-peak density, D exact, by quadrature: twice the KL rate of Wiener."""
    x, step = grid(MU + 12 * math.hypot(WIDTH, sigma))
    linear = VARIANCE / (VARIANCE + sigma**2) * x
    d2 = (two_peak_denoiser(x, sigma) - linear) ** 2
    return float((two_peak_density(x, sigma) * d2).sum() * step) / sigma**2


def entropy_gap(sigma: float) -> float:
    """KL of the noised two-peak density from the Gaussian of the same variance, by quadrature."""
    s2 = VARIANCE + sigma**2
    x, step = grid(MU + 10 * math.hypot(WIDTH, sigma))
    p = two_peak_density(x, sigma)
    return float((p * (p.log() + x**2 / (2 * s2) + 0.5 * math.log(2 * math.pi * s2))).sum() * step)


def network_model(phi: Tensor, seed: int = 1, n_sigma: int = 2) -> LatticeScore:
    """Regression base without fit, U-Net with random weights in all but its heads."""
    shape = tuple(phi.shape[1:])
    base = base_of(propagator(Momenta(shape), phi), shape, n_sigma=n_sigma)
    model = LatticeScore(base, UNet(N_CHANNEL, N_CONDITION, 4, 2))
    gen = generator(seed)
    assert model.unet is not None
    for weight in model.unet.parameters():
        if weight.abs().max() > 0:
            weight.data = torch.randn(weight.shape, generator=gen) / (weight[0].numel() or 1) ** 0.5
    return model


# identities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (4, 6)])
def test_loss_is_the_silent_loss_minus_the_gain(shape: tuple[int, int]) -> None:
    model = LocalTruth(base_of(torch.tensor(VARIANCE), shape), None)
    phi, sigma = two_peak(shape, 64, 1), log_sigmas(0.1, 10.0, 64, 2)
    batch = prepare(model, phi, two_peak_force, sigma, white(shape, 64, 3))
    loss, (per_mode, _) = path_kl_rate(model, batch), gain_rate(model, batch)
    model.scale = 0.0
    silent = path_kl_rate(model, batch)
    torch.testing.assert_close(
        loss, silent - per_mode.sum((-1, -2)), rtol=1e-4, atol=1e-4 * float(silent.max())
    )
    assert gain_rate(model, batch)[0].abs().max() == 0
    assert (loss - silent).abs().max() > 0.1
    # written out over the full spectrum in double precision, with W and |target|^2 alone
    p = model.momenta
    w, _ = model.base.wiener(sigma)
    position = p.fields(batch.target.to(torch.complex128))
    full = torch.fft.fft2(position, norm="ortho").abs() ** 2
    torch.testing.assert_close(silent.double(), 0.5 * w[:, 0] * full.sum((1, 2)), rtol=1e-5, atol=1e-6)


def test_batch_parts_are_the_batch() -> None:
    model = LocalTruth(base_of(torch.tensor(VARIANCE), (4, 4)), None)
    phi, sigma = two_peak((4, 4), 10, 4), log_sigmas(0.1, 10.0, 10, 5)
    batch = prepare(model, phi, two_peak_force, sigma, white((4, 4), 10, 6))
    parts = [batch.part(slice(i, i + 4)) for i in range(0, 10, 4)]
    assert all(isinstance(part, Batch) for part in parts)
    torch.testing.assert_close(torch.cat([path_kl_rate(model, b) for b in parts]), path_kl_rate(model, batch))


# the KL in nats --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.5])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_scaled_denoiser_loses_the_predicted_amount(sigma: float, beta: float) -> None:
    """Two-peak zero mode: 10 % off costs 0.01 * half the Wiener excess, whatever noise the target carries."""
    shape, n = (2, 2), 120_000
    model = ZeroModeTruth(base_of(torch.tensor(VARIANCE), shape), None)
    model.base.beta.fill_(beta)
    p = model.momenta

    def force(phi: Tensor) -> Tensor:
        modes = p.modes(phi) / VARIANCE
        modes[..., 0, 0] = two_peak_force(p.modes(phi)[..., 0, 0].real).to(modes.dtype)
        return p.fields(modes)

    modes = p.modes(math.sqrt(VARIANCE) * white(shape, n, 7))
    modes[..., 0, 0] = two_peak((), n, 8).to(modes.dtype)
    batch = prepare(
        model, p.fields(modes), force, torch.tensor(sigma, dtype=torch.float64).expand(n), white(shape, n, 9)
    )
    losses = []
    for scale in (1.0, 0.9, 1.1, 0.0):
        model.scale = scale
        losses.append(path_kl_rate(model, batch).double())
    predicted = 0.5 * excess(sigma)
    assert abs(significance(losses[3] - losses[0] - predicted)) < 4.5
    for worse in losses[1:3]:
        difference = worse - losses[0]
        assert abs(significance(difference - 0.01 * predicted)) < 4.5
        if beta == 1:  # sharp enough to see that 10 % off is worse, and by no more than that
            assert significance(difference) > 4
            assert significance(difference - 0.1 * predicted) < -10
    assert significance(losses[3] - losses[0] - 1.5 * predicted) < -10


@pytest.mark.parametrize("kind", [LocalTruth, ZeroModeTruth])
def test_integrated_gain_is_a_difference_of_relative_entropies(kind: type[LatticeScore]) -> None:
    """The reverse process with the Wiener filter is that of a Gaussian, so its path KL is

    KL(p || N) at sigma_min minus the same at sigma_max: the factor 1/2, the weight W(k), ln sigma^2 and nats.
    """
    shape, n, low, high = (4, 6), 30_000, 0.2, 5.0
    model = kind(base_of(torch.tensor(VARIANCE), shape, low, high), None)
    p = model.momenta
    if kind is LocalTruth:
        phi, n_site = two_peak(shape, n, 10), p.volume
    else:
        modes = p.modes(math.sqrt(VARIANCE) * white(shape, n, 11))
        modes[..., 0, 0] = two_peak((), n, 12).to(modes.dtype)
        phi, n_site = p.fields(modes), 1
    batch = prepare(model, phi, torch.zeros_like, log_sigmas(low, high, n, 13), white(shape, n, 14))
    gain, explained = gain_rate(model, batch)
    gain = model.log_range * gain.sum((-1, -2)).double()
    truth = n_site * (entropy_gap(low) - entropy_gap(high))
    assert abs(significance(gain - truth)) < 4.5
    for wrong in (0.5, 2.0):
        assert abs(significance(gain - wrong * truth)) > 8, wrong
    # the explained variance per class is the same thing in units of C
    w, _ = model.base.wiener(batch.sigma)
    again = model.log_range * 0.5 * (p.multiplicity * w * explained).sum(1)
    torch.testing.assert_close(again, gain, rtol=1e-3, atol=1e-3 * float(gain.abs().max()))


def test_quadrature_agrees_with_itself() -> None:
    """d KL/d ln sigma^2 = -excess/2 (de Bruijn): the two truths above are one."""
    for sigma in (0.3, 1.0, 3.0):
        h = 1e-3
        slope = (entropy_gap(sigma * math.exp(h)) - entropy_gap(sigma * math.exp(-h))) / (4 * h)
        assert -slope == pytest.approx(0.5 * excess(sigma), rel=1e-4)


# variance reduction ----------------------------------------------------------------------------------------


def head_gradients(model: LatticeScore, batch: Batch, n_block: int, frame: Symmetry) -> Tensor:
    """Gradient of the loss with respect to both heads, one row per block of independent fields."""
    assert model.unet is not None
    weights = [model.unet.head.conv.weight, model.unet.zero_mode.weight]
    rows = []
    for start in range(0, len(batch.x), n_block):
        rate = path_kl_rate(model, batch.part(slice(start, start + n_block)), frame).mean()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(rate, weights)]).double())
    return torch.stack(rows)


def test_variance_reduced_target_has_the_same_gradient_and_less_noise() -> None:
    shape, n = (8, 8), 8192
    phi = equilibrium(ACTION, shape, 16_384, 11)
    model = network_model(phi, n_sigma=16)  # noise levels near enough to share their data
    model.base.fit(phi[n:], ACTION.grad, lambda node: white(shape, 2048, 120 + node))
    model.base.coefficients.zero_()  # leave the network something to learn
    sigma, eps = log_sigmas(0.1, 10.0, n, 21), white(shape, n, 22)
    frame = Symmetry((3, 2), (-1,), True)
    beta = model.base.beta.clone()
    biased = ScalarPhi4(0.27, 0.033)
    gradients = []
    for factor, action in ((1.0, ACTION), (0.0, ACTION), (1.0, biased)):
        model.base.beta.copy_(factor * beta)
        gradients.append(head_gradients(model, prepare(model, phi[:n], action.grad, sigma, eps), 64, frame))
    reduced, plain, wrong = gradients
    assert significance(reduced - plain).abs().max() < 4.5
    assert significance(reduced).abs().max() > 10  # there is a gradient
    assert significance(wrong - plain).abs().max() > 10
    assert reduced.var(0).sum() < 0.7 * plain.var(0).sum()


def test_prepared_target_is_what_the_base_leaves() -> None:
    """beta = 0: W x + sqrt(C) (base + target) = phi exactly; a silent network has every symmetry."""
    shape, n = (8, 8), 32
    phi = equilibrium(ACTION, shape, 16_384, 11)[:n]
    model = network_model(phi)
    model.base.coefficients.copy_(white((model.momenta.n_class, model.base.n_feature), 2, 30) / 10)
    model.base.zero_mode.fit(white((), 1000, 31))
    sigma, eps = log_sigmas(0.1, 10.0, n, 32), white(shape, n, 33)
    batch, p = prepare(model, phi, ACTION.grad, sigma, eps), model.momenta
    assert torch.equal(batch.x, phi + sigma[:, None, None] * eps)
    w, c = (p.expand(q) for q in model.base.wiener(sigma))
    back = p.fields(w * p.modes(batch.x) + c.sqrt() * (batch.base + batch.target))
    torch.testing.assert_close(back, phi, rtol=0, atol=1e-5)
    assert not batch.target.requires_grad
    frames = [path_kl_rate(model, batch, f) for f in (IDENTITY, Symmetry((1, 0), (-2,), True))]
    torch.testing.assert_close(frames[0], frames[1], rtol=0, atol=0)
