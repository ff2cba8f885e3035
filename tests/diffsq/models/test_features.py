"""Parts of the closed-form denoiser: zero mode, features, interpolation, lattice symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fields import MU, WIDTH, grid, two_peak_denoiser, white
from torch import Tensor

from diffsq.models.momentum import Momenta
from diffsq.models.regression import SATURATION, RegressionBase, local_features
from diffsq.models.zero_mode import ZeroModeDenoiser
from lattice.actions.phi4 import ScalarPhi4

# zero mode -------------------------------------------------------------------------------------------------


def two_peak_quantiles(n: int) -> Tensor:
    """A sample without sampling error: quantiles of the two-peak density."""
    z, _ = grid(MU + 8 * WIDTH, 40_001)
    cdf = torch.special.ndtr((z - MU) / WIDTH) + torch.special.ndtr((z + MU) / WIDTH)
    levels = (np.arange(n) + 0.5) / n
    return torch.from_numpy(np.interp(levels, 0.5 * cdf.numpy(), z.numpy()))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_zero_mode_denoiser_is_the_two_peak_posterior_mean(sigma: float) -> None:
    """Closed form within the second-order error of the bins, which falls fourfold when they are halved."""
    x, _ = grid(2.0, 101)
    s = torch.full_like(x, sigma)
    errors = []
    for n_bins in (50, 100, 200):
        d = ZeroModeDenoiser(n_bins)
        d.fit(two_peak_quantiles(1_000_000))
        errors.append(float((d(x, s) - two_peak_denoiser(x, s)).abs().max()))
    assert errors[2] < 0.01
    assert 3.2 < errors[0] / errors[1] < 4.8
    assert 3.2 < errors[1] / errors[2] < 4.8
    assert (d(x, s) - two_peak_denoiser(x, 1.1 * s)).abs().max() > 3 * errors[2]
    assert (d(x, s) + d(-x, s)).abs().max() < 1e-12


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_zero_mode_variance_is_the_slope_of_the_mean(sigma: float) -> None:
    """Var[z|x] = sigma^2 dE[z|x]/dx (Tweedie, second order), an identity of any prior."""
    d = ZeroModeDenoiser(60)
    d.fit(two_peak_quantiles(10_000))
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    s, h = torch.full_like(x, sigma), 1e-4
    slope = (d(x + h, s) - d(x - h, s)) / (2 * h)
    torch.testing.assert_close(d.posterior(x, s).variance, sigma**2 * slope, rtol=1e-6, atol=1e-8)
    assert (d.posterior(x, s).variance - d.posterior(x, 1.1 * s).variance).abs().max() > 1e-3
    torch.testing.assert_close(d.posterior(-x, s).variance, d.posterior(x, s).variance, rtol=1e-9, atol=1e-12)


# features and interpolation --------------------------------------------------------------------------------


def test_features_are_odd_and_bounded() -> None:
    u = 3 * white((6, 8), 16, 31).float()
    f = local_features(u)
    assert f.shape == (16, 12, 6, 8)
    assert RegressionBase.n_feature == 12 + 3 + 1  # three of the site posterior, one of the zero mode
    torch.testing.assert_close(local_features(-u), -f, rtol=0, atol=0)
    assert f.abs().amax((0, 2, 3)).min() > 0.1
    for size in (1e2, 1e6):
        assert local_features(size * u).abs().max() <= 1.001 * SATURATION**5
    assert (1e2 * u).pow(3).abs().max() > 1e6  # a bare cubic is not


def test_interpolation_hits_the_nodes_and_is_linear_between() -> None:
    base = RegressionBase(Momenta((4, 4)), 5)
    base.set_gaussian(torch.ones(base.momenta.n_class, dtype=torch.float64), 0.1, 10.0)
    table = white((3, 2), 5, 41)
    nodes = base.log_sigma.exp()
    torch.testing.assert_close(base.at(table, nodes), table, rtol=1e-12, atol=1e-12)
    ends = base.at(table, torch.tensor([1e-4, 0.1, 10.0, 1e5], dtype=torch.float64))
    torch.testing.assert_close(ends, table[[0, 0, 4, 4]], rtol=1e-12, atol=1e-12)
    middle = (nodes[1:] * nodes[:-1]).sqrt()
    torch.testing.assert_close(base.at(table, middle), (table[1:] + table[:-1]) / 2, rtol=1e-12, atol=1e-12)
    flat = base.at(table[:, 0, 0], nodes)
    assert flat.shape == (5,)


# symmetries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (12, 6)])
def test_base_commutes_with_the_lattice_symmetries(shape: tuple[int, int]) -> None:
    base = RegressionBase(Momenta(shape), 3)
    p = base.momenta
    base.set_gaussian(1 / (0.3 + p.khat2), 0.1, 10.0)
    base.set_action(ScalarPhi4(0.3, 0.4), 3.0)
    base.coefficients.copy_(white((p.n_class, base.n_feature), 3, 51) / 10)
    base.zero_mode.fit(white((), 1000, 52))
    x, sigma = white(shape, 16, 53), torch.logspace(-1, 1, 16, dtype=torch.float64)

    def denoised(x: Tensor) -> Tensor:
        xk = p.modes(x)
        correction, log_variance = base(xk, base.normalised(xk, sigma), sigma)
        return torch.stack([p.fields(correction), log_variance])

    out = denoised(x)
    moves = {
        "translation": lambda q: q.roll((3, 1), (1, 2)),
        "reflection 0": lambda q: q.flip(1),
        "reflection 1": lambda q: q.flip(2),
    }
    if shape[0] == shape[1]:
        moves["exchange"] = lambda q: q.transpose(1, 2)
    for name, move in moves.items():
        for there, here in zip(denoised(move(x)), out, strict=True):
            assert (there - move(here)).abs().max() < 3e-5 * here.abs().max(), name
            assert (there - here).abs().max() > 0.1 * here.abs().max(), name
