"""The assembled score model: preconditioning, symmetries, dtypes."""

from __future__ import annotations

import pytest
import torch
from fields import all_symmetries, generator, white
from torch import Tensor, nn

from diffsq.models.lattice import N_CHANNEL, N_CONDITION, LatticeScore
from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.models.symmetry import IDENTITY
from diffsq.models.unet import UNet
from lattice.exact.scalar import free_propagator

SHAPES = [(8, 8), (8, 12)]


def base_of(shape: tuple[int, int], *, regression: bool = True) -> RegressionBase:
    base = RegressionBase(Momenta(shape), 3)
    truth = torch.from_numpy(free_propagator(0.23, shape))[..., : shape[-1] // 2 + 1]
    base.set_gaussian(base.momenta.class_mean(truth), 0.1, 10.0)
    if regression:
        base.coefficients.copy_(white((base.momenta.n_class, base.n_feature), 3, 1) / 10)
        base.zero_mode.fit(2 * white((), 1000, 2))
    return base


def model_of(shape: tuple[int, int], *, trained: bool = True) -> LatticeScore:
    """`trained`: random weights in the heads too, a U-Net that says something."""
    unet = UNet(N_CHANNEL, N_CONDITION, 8, 2)
    gen = generator(3)
    for weight in unet.parameters():
        fan_in = weight[0].numel() if weight.dim() > 1 else 8
        if trained or weight.abs().max() > 0:
            weight.data = torch.randn(weight.shape, generator=gen) / fan_in**0.5
    return LatticeScore(base_of(shape), unet)


def fields_and_noise(shape: tuple[int, int], n: int = 12) -> tuple[Tensor, Tensor]:
    sigma = torch.logspace(-1.3, 1.3, n, dtype=torch.float64)
    return (1 + sigma[:, None, None]) * white(shape, n, 4), sigma


@pytest.mark.parametrize("shape", SHAPES)
def test_untrained_model_is_the_base(shape: tuple[int, int]) -> None:
    x, sigma = fields_and_noise(shape)
    bare = LatticeScore(base_of(shape), None).score(x, sigma)
    assert torch.equal(model_of(shape, trained=False).score(x, sigma), bare)
    assert (model_of(shape).score(x, sigma) - bare).abs().max() > 0.01 * bare.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_score_is_the_denoiser(shape: tuple[int, int]) -> None:
    model, (x, sigma) = model_of(shape), fields_and_noise(shape)
    d = model.denoise(model.momenta.modes(x), sigma)
    expected = (model.momenta.fields(d) - x) / sigma[:, None, None] ** 2
    torch.testing.assert_close(model.score(x, sigma), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_theory_is_exact_before_any_training(shape: tuple[int, int]) -> None:
    """-x_k/(G + sigma^2) at every sigma, also beyond the noise levels; and the gradient of ln p."""
    unet = UNet(N_CHANNEL, N_CONDITION, 8, 2)
    model, p = LatticeScore(base_of(shape, regression=False), unet), Momenta(shape)
    sigma = torch.logspace(-3, 2, 11, dtype=torch.float64)
    x = white(shape, 11, 5).requires_grad_()
    variance = p.expand(model.base.g + sigma[:, None] ** 2)
    score = model.score(x, sigma)
    torch.testing.assert_close(score, p.fields(-p.modes(x) / variance), rtol=1e-9, atol=1e-9)
    log_p = torch.stack(
        [p.log_normal(p.modes(q)[None], model.base.g + s**2)[0] for q, s in zip(x, sigma, strict=True)]
    )
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-9)
    assert (score - p.fields(-p.modes(x) / (1.05 * variance))).abs().amax((1, 2)).min() > 1e-6
    torch.testing.assert_close(
        model.posterior_variance(sigma),
        model.base.g * sigma[:, None] ** 2 / (model.base.g + sigma[:, None] ** 2),
    )


def test_posterior_variance_counts_what_is_explained() -> None:
    model, sigma = model_of((8, 8)), torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    _, c = model.base.wiener(sigma)
    model.base.explained.fill_(0.3)
    model.gain.fill_(0.2)
    torch.testing.assert_close(model.posterior_variance(sigma), 0.5 * c)
    model.gain.fill_(0.9)  # noise in the measured gain can never make a variance negative
    assert (model.posterior_variance(sigma) > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_score_is_odd(shape: tuple[int, int]) -> None:
    model, (x, sigma) = model_of(shape), fields_and_noise(shape)
    there, back = model.score(x, sigma), model.score(-x, sigma)
    size = there.abs().amax((1, 2))
    assert ((there + back).abs().amax((1, 2)) / size).max() < 1e-4
    assert ((there - back).abs().amax((1, 2)) / size).min() > 1


def test_condition_is_even_and_finite() -> None:
    model, (x, sigma) = model_of((8, 8)), fields_and_noise((8, 8))
    u = model.base.normalised(model.momenta.modes(x), sigma)
    c = model.condition(u, sigma)
    assert c.shape == (len(x), N_CONDITION)
    assert torch.equal(c, model.condition(-u, sigma))
    assert model.condition(1e6 * u, sigma).abs().max() < 10
    torch.testing.assert_close(c, model.condition(u.roll((3, 1), (1, 2)).flip(1), sigma), rtol=0, atol=1e-5)


def test_normalised_field_has_unit_variance() -> None:
    """u = W x / std(W x): of order one at every sigma, with the right mixture of modes."""
    shape, n = (8, 8), 4000
    base = base_of(shape, regression=False)
    p = base.momenta
    for sigma in (0.1, 1.0, 10.0):
        s = torch.full((n,), sigma, dtype=torch.float64)
        x = p.colour(white(shape, n, 6), base.g + sigma**2)
        u2 = (base.normalised(p.modes(x), s).double() ** 2).mean((1, 2))
        assert abs(float(u2.mean()) - 1) < 4.5 * float(u2.std()) / n**0.5
        raw = (x**2).mean((1, 2))
        assert abs(float(raw.mean()) - 1) > 10 * float(raw.std()) / n**0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_transforming_the_field_is_transforming_the_frame(shape: tuple[int, int]) -> None:
    """score(g x) = g score(x) evaluated in the frame g: a random frame per call restores the whole group."""
    model, (x, sigma) = model_of(shape), fields_and_noise(shape)
    plain = model.score(x, sigma).detach()
    scale = plain.abs().amax((1, 2))
    differences = []
    for g in all_symmetries(shape)[1:]:
        moved = model.score(g(x), sigma).detach()
        assert ((moved - g(model.score(x, sigma, g).detach())).abs().amax((1, 2)) / scale).max() < 1e-4, g
        differences.append(float(((moved - g(plain)).abs().amax((1, 2)) / scale).max()))
    assert min(differences) > 1e-3  # the bare network has none of these symmetries


def test_state_is_double_and_network_single() -> None:
    model, (x, sigma) = model_of((8, 8)), fields_and_noise((8, 8))
    xk = model.momenta.modes(x)
    assert model.denoise(xk, sigma).dtype == torch.complex128
    assert model.score(x, sigma).dtype == torch.float64
    u = model.base.normalised(xk, sigma)
    assert u.dtype == torch.float32
    base = model.base(xk, sigma)
    assert base.dtype == torch.complex128
    assert model.network(x, u, base, sigma, IDENTITY)[0].dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    floating = [b for b in model.buffers() if b.is_floating_point()]
    assert len(floating) > 5
    assert all(b.dtype == torch.float64 and b.device == x.device for b in floating)
    # a field that is large against its signal keeps its last digits: D - x is not formed in float32
    offset = torch.full_like(x, 1e-9)
    assert (model.score(x + offset, sigma) - model.score(x, sigma)).abs().max() > 0


def test_buffers_are_saved_with_the_model() -> None:
    model, other = (
        model_of((8, 8)),
        LatticeScore(RegressionBase(Momenta((8, 8)), 3), UNet(N_CHANNEL, N_CONDITION, 8, 2)),
    )
    other.load_state_dict(model.state_dict())
    x, sigma = fields_and_noise((8, 8))
    assert torch.equal(model.score(x, sigma), other.score(x, sigma))
    assert isinstance(other, nn.Module)


def test_scales() -> None:
    model = LatticeScore(base_of((8, 8), regression=False), None)
    phi2 = free_propagator(0.23, (8, 8)).mean()
    torch.testing.assert_close(model.sigma_data**2, torch.tensor(phi2, dtype=torch.float64))
    assert model.log_range == pytest.approx(2 * torch.log(torch.tensor(100.0)).item(), rel=1e-6)
    assert model.shape == (8, 8)
