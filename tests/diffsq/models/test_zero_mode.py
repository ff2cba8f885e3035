"""The zero mode alone: its denoiser against quadrature, its posterior of two sharp peaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fields import generator, grid, white
from small_models import noise_of
from torch import Tensor

from diffsq.models.zero_mode import ZeroModeDenoiser
from lattice.rng import normals

SIGMA = torch.tensor([2.0])


def test_posterior_of_two_sharp_peaks() -> None:
    one_mode = ZeroModeDenoiser()
    one_mode.fit(torch.full((1000,), 3.0, dtype=torch.float64))
    z = torch.tensor([0.4], dtype=torch.float64)
    posterior = one_mode.posterior(z, SIGMA.double())
    peak = float(one_mode.centre[one_mode.log_p.argmax()].abs())
    odds = math.exp(-2 * peak * 0.4 / (4.0 + float(one_mode.width2)))
    assert float(posterior.q) == pytest.approx(odds / (1 + odds), rel=2e-3)
    assert float(posterior.minor_mean) == pytest.approx(-peak, rel=2e-2)
    assert one_mode.two_peaks()


def test_gaussian_zero_mode_is_not_split() -> None:
    one_mode = ZeroModeDenoiser()
    one_mode.fit(torch.from_numpy(normals(2, "test/zero", np.arange(1), 0, 50000)[0]))
    assert not one_mode.two_peaks()


def log_density(z: Tensor) -> Tensor:
    """Two peaks that are no mixture of bins: e^{-V U} of a quartic potential."""
    return -2.5 * (z**2 - 1) ** 2


def quantiles(n: int) -> Tensor:
    """A sample without sampling error: quantiles of the quartic density."""
    z, _ = grid(2.5, 40_001)
    cdf = torch.cumsum(log_density(z).exp(), 0)
    levels = (np.arange(n) + 0.5) / n
    return torch.from_numpy(np.interp(levels, (cdf / cdf[-1]).numpy(), z.numpy()))


def by_quadrature(x: Tensor, sigma: float) -> Tensor:
    """E[z | z + sigma eps = x] of the quartic density."""
    z, _ = grid(2.5, 8001)
    p = torch.softmax(log_density(z) - (x[:, None] - z) ** 2 / (2 * sigma**2), 1)
    return (p * z).sum(1)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_zero_mode_denoiser_is_the_posterior_mean(sigma: float) -> None:
    """Closed form within the second-order error of the bins, which falls fourfold when they are halved."""
    x, _ = grid(2.0, 101)
    s = torch.full_like(x, sigma)
    errors = []
    for n_bins in (50, 100, 200):
        d = ZeroModeDenoiser(n_bins)
        d.fit(quantiles(1_000_000))
        errors.append(float((d(x, s) - by_quadrature(x, sigma)).abs().max()))
    assert errors[2] < 0.004
    assert 3.2 < errors[0] / errors[1] < 4.8
    assert 3.2 < errors[1] / errors[2] < 4.8
    assert (d(x, s) - by_quadrature(x, 1.1 * sigma)).abs().max() > 3 * errors[2]
    assert (d(x, s) + d(-x, s)).abs().max() < 1e-12


def test_law_of_few_fields_has_the_tails_of_many() -> None:
    """Where 500 fields have been seen once or never, ln P(z) is right: bins that are counted know nothing."""
    z = quantiles(1_000_000)
    few = z[torch.randperm(len(z), generator=generator(7))[:500]]
    law = ZeroModeDenoiser()
    law.fit(few)
    tail = (law.centre.abs() > few.abs().quantile(0.99)) & (law.centre.abs() < few.abs().max())
    assert tail.sum() >= 4
    off = law.log_p - log_density(law.centre)
    off = off - off[law.centre.abs() < 1].mean()
    assert off[tail].abs().max() < 1
    top = float(-law.centre[0] + law.width2.sqrt() / 2)
    counted = (torch.histc(few, 200, -top, top) + 0.01).log() - log_density(law.centre)
    assert (counted - counted[law.centre.abs() < 1].mean())[tail].abs().max() > 2


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_slope_and_variance_of_the_posterior(sigma: float, symmetric: bool) -> None:
    """Var[z|x] = sigma^2 dE[z|x]/dx (Tweedie, second order), an identity of any prior."""
    d = ZeroModeDenoiser(60, symmetric)
    d.fit(quantiles(10_000) + (0.0 if symmetric else 0.4))
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64, requires_grad=True)
    s = torch.full_like(x, sigma)
    (known,) = torch.autograd.grad(d(x, s).sum(), x)
    slope, variance = d.mean_and_slope(x, s)[1].detach(), d.posterior(x, s).variance.detach()
    torch.testing.assert_close(slope, known, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(variance, sigma**2 * known, rtol=1e-10, atol=1e-12)
    assert torch.equal(d.mean_and_slope(x, s)[0], d(x, s))
    assert (slope - d.mean_and_slope(x, 1.1 * s)[1]).abs().max() > 1e-2
    mirrored = (d.mean_and_slope(-x, s)[1] - slope).abs().max(), (d(-x, s) + d(x, s)).abs().max()
    assert all(q < 1e-12 if symmetric else q > 1e-3 for q in mirrored)


def test_zero_mode_of_a_sector() -> None:
    """A law of its own, not made symmetric: of a narrow peak the mean is where the peak is."""
    z = 5 + 0.3 * white((), 20_000, 1)
    one_sided, both = ZeroModeDenoiser(symmetric=False), ZeroModeDenoiser()
    one_sided.fit(z)
    both.fit(z)
    x, s = torch.zeros(1).double(), torch.full((1,), 2.0).double()
    assert float(one_sided(x, s)) == pytest.approx(5 * 4 / (4 + 0.09), rel=0.01)
    assert float(both(x, s)) == pytest.approx(0, abs=1e-9)


def test_between_is_what_the_smooth_law_says_without_the_floor() -> None:
    """Of two Gaussian peaks: their tails at half the mean, and nothing where they are far apart."""
    for mean, known in ((3.0, 0.0668), (4.0, 0.0228), (40.0, 0.0)):
        z = mean + noise_of("between", 40_000, (1,))(0)[:, 0]
        table = ZeroModeDenoiser()
        table.fit(torch.where(torch.arange(len(z)) % 2 == 0, z, -z))
        assert table.between() == pytest.approx(known, rel=0.1, abs=1e-7)
        floor = table.log_p.exp().min() * (table.centre.abs() < 0.5 * mean).sum()
        assert floor > 1e-7  # which alone would be taken for fields between the peaks
