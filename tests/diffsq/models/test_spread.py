"""The map of residuals: its matrix, inverse and determinant; the variance of sites against quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fields import white
from posteriors import site_draws
from small_models import equilibrium, phi4_model, spoil
from torch import Tensor

from diffsq.models.lattice import LatticeScore
from diffsq.models.spread import MAX_COUPLING, MAX_LOG, Spread
from diffsq.models.symmetry import IDENTITY, Symmetry
from lattice.actions.phi4 import ScalarPhi4
from lattice.errors import InputError

FRAMES = [IDENTITY, Symmetry((1, 2), (-1,), False), Symmetry((3, 1), (-2, -1), True)]


def some(shape: tuple[int, int], n: int = 3, couplings: bool = True, frame: Symmetry = IDENTITY) -> Spread:
    """A spread as wide as may be."""
    own = frame(torch.zeros(1, *shape)).shape[1:]
    q = 1.5 * white(tuple(own), n, 1)
    return Spread.of(q, 0.2 * white((4, *own), n, 2) if couplings else None, frame)


def matrix(spread: Spread, shape: tuple[int, int], i: int) -> Tensor:
    """Of the map of the sample i, column by column."""
    v = math.prod(shape)
    unit = torch.eye(v, dtype=torch.float64).reshape(v, *shape)
    a = None if spread.couplings is None else spread.couplings[i : i + 1].expand(v, -1, -1, -1)
    one = Spread(spread.log_ratio[i : i + 1].expand(v, -1, -1), a, spread.frame)
    return one.spread(unit).reshape(v, v).T


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("shape", "couplings"), [((4, 4), True), ((4, 6), True), ((3, 5), False)])
def test_inverse_and_determinant_are_those_of_the_matrix(
    shape: tuple[int, int], couplings: bool, frame: Symmetry
) -> None:
    spread, z = some(shape, couplings=couplings, frame=frame), white(shape, 3, 3)
    x = spread.spread(z)
    back, log_det = spread.gather(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-12)
    for i in range(3):
        m = matrix(spread, shape, i)
        torch.testing.assert_close(m @ z[i].flatten(), x[i].flatten(), rtol=0, atol=1e-12)
        sign, exact = torch.linalg.slogdet(m)
        assert sign > 0
        assert float(log_det[i]) == pytest.approx(float(exact), abs=1e-10)
        assert (
            abs(float(spread.log_ratio[i].sum() / 2 - exact)) > 1e-3
        )  # control: Schur's complement forgotten


@pytest.mark.parametrize("couplings", [False, True])
def test_the_zero_mode_is_left_alone(couplings: bool) -> None:
    spread, z = some((4, 6), couplings=couplings), white((4, 6), 3, 4)
    torch.testing.assert_close(spread.spread(z).mean((1, 2)), z.mean((1, 2)), rtol=0, atol=1e-14)
    flat = torch.full_like(z, 0.7)
    torch.testing.assert_close(spread.spread(flat), flat, rtol=0, atol=1e-14)


def test_widest_couplings_keep_the_determinant_positive() -> None:
    for sign in (-1.0, 1.0):
        a = torch.full((1, 4, 4, 4), sign * 1e3)
        spread = Spread.of(white((4, 4), 1, 5) * 1e3, a)
        assert spread.couplings is not None
        assert spread.couplings.abs().max() <= MAX_COUPLING
        assert torch.linalg.slogdet(matrix(spread, (4, 4), 0))[0] > 0
        assert torch.isfinite(spread.gather(white((4, 4), 1, 6))[1]).all()


def test_the_mean_variance_is_that_of_the_average() -> None:
    q = Spread.of(torch.cat([white((6, 6), 4, 7), torch.full((1, 6, 6), -math.inf)])).log_ratio
    torch.testing.assert_close(q.exp().mean((1, 2)), torch.ones(5, dtype=torch.float64))
    assert (q[-1] == 0).all()
    assert float((q.amax((1, 2)) - q.amin((1, 2))).max()) <= 2 * MAX_LOG


def test_a_step_has_its_share() -> None:
    spread = some((4, 4))
    none, half, whole = (spread.of_step(torch.tensor(s, dtype=torch.float64)) for s in (0.0, 0.5, 1.0))
    z = white((4, 4), 3, 8)
    torch.testing.assert_close(none.spread(z), z)
    torch.testing.assert_close(whole.spread(z), spread.spread(z))
    torch.testing.assert_close(half.log_ratio.exp(), 0.5 + 0.5 * spread.log_ratio.exp())
    assert spread.couplings is not None
    assert half.couplings is not None
    torch.testing.assert_close(half.couplings, 0.5 * spread.couplings)
    each = spread.of_step(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(each.spread(z)[1], half.spread(z)[1])


def test_white_noise_has_the_variances_it_is_given() -> None:
    n, shape = 20000, (6, 6)
    q = some(shape, 1, couplings=False).log_ratio
    x = Spread(q.expand(n, *shape)).spread(white(shape, n, 9))
    v, r = 36, (q[0] / 2).exp().flatten()
    p = torch.eye(v, dtype=torch.float64) - 1 / v
    exact = (p @ torch.diag(r) @ p @ torch.diag(r) @ p + 1 / v).diagonal()
    pull = ((x**2).mean(0).flatten() / exact - 1) / math.sqrt(2 / n)
    assert pull.abs().max() < 4.5
    assert ((x**2).mean(0).flatten() - 1).abs().max() > 20 * math.sqrt(2 / n)


@pytest.mark.parametrize(("lam", "least"), [(0.022, 0.015), (0.5, 0.15)])
def test_independent_sites_have_their_own_posterior(lam: float, least: float) -> None:
    """kappa = 0: mean and variance of a site by quadrature, and ln of the variance over the mean of all."""
    action, shape = ScalarPhi4(0.0, lam), (12, 12)
    phi = site_draws(action, shape, 1024, 3)
    model = phi4_model(action, phi)
    base, p = model.base, model.momenta
    grid, known = np.linspace(-8, 8, 2001), 0.0
    for level in (2, 8, 14):
        sigma = base.log_sigma[level].exp()[None]
        x = phi[:16] + sigma * white(shape, 16, level)
        mean, variance = base.site_posterior(p.modes(x), sigma)
        s = float(sigma)
        exponent = -(1 - 2 * lam) * grid**2 - lam * grid**4 - (x.numpy()[..., None] - grid) ** 2 / (2 * s**2)
        weight = np.exp(exponent - exponent.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        first = (weight * grid).sum(-1)
        exact = (weight * grid**2).sum(-1) - first**2
        scale = float(base.scale(sigma)[0])
        assert np.abs(mean.numpy() * scale - first).max() < 2e-3 * np.sqrt(exact.mean())
        assert np.abs(variance.numpy() / exact - 1).max() < 0.02
        found = model.log_variance(variance, sigma).numpy()
        own = np.log(exact / exact.mean((1, 2), keepdims=True))
        # nothing here is collective, but what the regression leaves is a little more than the posterior has
        assert np.sqrt(((found - own) ** 2).mean()) < 0.15 * np.sqrt((own**2).mean()) + 1e-3
        known = max(known, float(own.std()))
    assert known > least


def covariant(channels: int = 4, size: float = 0.5) -> LatticeScore:
    """A model whose U-Net says something at random of mean and spread."""
    action, shape = ScalarPhi4(0.22, 0.2), (4, 4)
    model = phi4_model(action, equilibrium(action, shape, 1024), channels, covariance=1)
    spoil(model, 0.3)
    assert model.unet is not None
    assert model.unet.spread is not None
    for weight in model.unet.spread.last.parameters():
        weight.data = size * white(tuple(weight.shape), 1, 10)[0].float()
    return model.eval().requires_grad_(False)


def test_the_spread_is_even_and_seen_in_its_frame() -> None:
    model = covariant()
    p, x = model.momenta, 0.5 * white((4, 4), 5, 11)
    sigma = torch.tensor([0.7], dtype=torch.float64).expand(5)
    (d, spread), (minus, same) = (model.posterior(p.modes(q), sigma) for q in (x, -x))
    assert spread is not None
    assert same is not None
    assert spread.couplings is not None
    assert same.couplings is not None
    assert spread.log_ratio.std() > 0.1
    assert spread.couplings.std() > 0.01
    torch.testing.assert_close(d, -minus, rtol=0, atol=1e-5)
    torch.testing.assert_close(spread.log_ratio, same.log_ratio, rtol=0, atol=1e-5)
    torch.testing.assert_close(spread.couplings, same.couplings, rtol=0, atol=1e-6)
    z = white((4, 4), 5, 12)
    for frame in FRAMES[1:]:
        seen = model.posterior(p.modes(frame.inverse(x)), sigma, frame)[1]
        assert seen is not None
        there = seen.spread(frame.inverse(z))
        torch.testing.assert_close(there, frame.inverse(spread.spread(z)), rtol=0, atol=1e-5)
        assert (there - spread.spread(frame.inverse(z))).abs().max() > 1e-2


def test_couplings_need_even_extents() -> None:
    with pytest.raises(InputError, match=r"need even extents, got \[5, 4\]"):
        LatticeScore.unfitted((5, 4), 4, channels=4, covariance=1)


def test_sizes_rebuild_it() -> None:
    model = covariant()
    again = LatticeScore.unfitted(**model.sizes)
    assert model.sizes["site"] == model.sizes["covariance"] == 1
    again.load_state_dict(model.state_dict())
    plain = LatticeScore.unfitted((4, 4), 4, channels=4, n_levels=2)
    assert not {"site", "covariance"} & set(plain.sizes)
    assert LatticeScore.unfitted(**plain.sizes).sizes == plain.sizes
