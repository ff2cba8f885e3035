"""What a U-Net learns of the spread of the posterior: its loss is log R of the steps of a path, in nats."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from fields import MU, WIDTH, generator, two_peak, white
from posteriors import site_draws
from small_models import geometric, noise_of, phi4_model
from torch import Tensor

from diffsq.config.sections import PATH_LEVELS
from diffsq.models.lattice import LatticeScore, fresh_unet
from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.models.symmetry import IDENTITY
from diffsq.models.unet import initialise
from diffsq.sampling.lattice_path import ReversePath
from diffsq.sampling.reverse_chain import rise
from diffsq.training.loss import Batch, path_kl_rate, prepare, spread_gain, step_of
from lattice.actions.phi4 import ScalarPhi4

VARIANCE = MU**2 + WIDTH**2  # of the two-peak density


def base_of(g: float, shape: tuple[int, ...]) -> RegressionBase:
    base = RegressionBase(Momenta(shape), 2)
    base.set_gaussian(torch.tensor(g, dtype=torch.float64).expand(base.momenta.n_class), 0.1, 10.0)
    return base


def log_sigmas(low: float, high: float, n: int, seed: int) -> Tensor:
    """n values of sigma, uniform in ln sigma."""
    u = torch.rand(n, generator=generator(seed), dtype=torch.float64)
    return low * (high / low) ** u


def learned_spread(shuffled: bool) -> tuple[float, float]:
    """nats that a spread learned from two-peak sites adds to log R of fresh fields, and the error.

    shuffled: the residuals are those of other fields.
    """
    shape, n = (4, 4), 256
    model = LatticeScore(base_of(VARIANCE, shape), fresh_unet(4, 1, covariance=1))
    assert model.unet is not None
    initialise(model.unet, generator(5))

    def batch(seed: int, n: int) -> Batch:
        phi, sigma = two_peak(shape, n, seed), log_sigmas(0.3, 1.5, n, seed + 1)
        bridge = white(shape, n, seed + 2)
        found = prepare(model, phi, None, sigma, white(shape, n, seed + 3), bridge=bridge)
        if not shuffled:
            return found
        assert found.residual is not None
        scale = model.posterior_variance(sigma)[:, :1, None].sqrt() + 0.2 * sigma[:, None, None]
        return replace(found, residual=scale * (found.residual / scale).roll(1, 0))

    optimizer = torch.optim.Adam(model.unet.parameters(), 0.02)
    for step in range(200):
        optimizer.zero_grad()
        path_kl_rate(model, batch(10 * step, n)).mean().backward()
        optimizer.step()
    gain = spread_gain(model, batch(9999, 65536))
    return float(gain.mean()), float(gain.std() / len(gain) ** 0.5)


def test_where_the_posterior_is_wide_is_learned_and_not_from_shuffled_fields() -> None:
    gain, error = learned_spread(shuffled=False)
    assert gain > 8 * error
    gain, error = learned_spread(shuffled=True)
    assert gain < 3 * error


@torch.no_grad()
def test_the_gain_is_that_of_the_steps_of_a_path() -> None:
    """log R with a spread less log R without, along forward paths of equilibrium fields, the last step too;
    the action unknown, and known: there the closed form is no gain of the network's."""
    action, shape, n = ScalarPhi4(0.0, 0.5), (4, 4), 4096
    phi = site_draws(action, shape, n, 7)
    model = phi4_model(action, phi, 4, covariance=1)
    assert model.unet is not None
    assert model.unet.spread is not None
    weight = model.unet.spread.last.weight
    weight.data = 0.3 * white(tuple(weight.shape), 1, 8)[0].float()
    low, high = model.base.log_sigma[[0, -1]].exp().tolist()
    path = ReversePath(model, geometric(PATH_LEVELS, low, high))
    noise, moved, closed_too = noise_of("test/gain", n, shape), torch.zeros(n), torch.zeros(n)
    for step, below, above in rise(path.levels, phi, noise, range(path.n_levels)):
        law, sigma = path.reverse(above, step, IDENTITY), path.levels[step + 1].expand(n)
        none = replace(law, spread=None).log_density(below)
        closed = model.closed_spread(model.momenta.modes(above), sigma)
        assert closed is not None
        own = replace(law, spread=closed.of_step(path.share[step])).log_density(below)
        moved, closed_too = moved + law.log_density(below) - own, closed_too + own - none
    m = 16 * n
    sigma = low * (high / low) ** ((torch.arange(m, dtype=torch.float64) + 0.5) / m)
    eps, bridge = white(shape, m, 11), white(shape, m, 12)
    batch = prepare(model, site_draws(action, shape, m, 13), None, sigma, eps, bridge=bridge)
    gain = spread_gain(model, batch)
    error = math.hypot(float(moved.std()) / n**0.5, float(gain.std()) / m**0.5)
    assert abs(float(gain.mean() - moved.mean())) < 4 * error + 0.02 * abs(float(moved.mean()))
    assert abs(float(gain.mean())) > 6 * error
    assert float(closed_too.mean()) > 6 * float(closed_too.std()) / n**0.5


def test_the_residual_of_a_step_has_the_stated_variance() -> None:
    """Independent Gaussian sites: rho (phi - W x) + bridge has c_n; a spread that is none adds nothing."""
    shape, n = (4, 4), 4096
    model = LatticeScore(base_of(1.0, shape), fresh_unet(4, 1, covariance=1))
    phi, sigma = white(shape, n, 1), torch.full((n,), 0.8, dtype=torch.float64)
    made = prepare(model, phi, None, sigma, white(shape, n, 2), bridge=white(shape, n, 3))
    rho, bridge = (float(q[0]) for q in step_of(model, sigma))
    exact = rho**2 * 0.64 / 1.64 + bridge
    assert made.residual is not None
    power = (model.momenta.weight * made.residual.abs() ** 2).sum((1, 2)) / model.momenta.volume
    assert abs(float(power.mean()) / exact - 1) < 4 * math.sqrt(2 / (16 * n))
    assert abs(float(power.mean()) / (exact + rho**2 * 0.3) - 1) > 10 * math.sqrt(2 / (16 * n))
    assert spread_gain(model, made).abs().max() < 1e-10
    rho, bridge = (float(q[0]) for q in step_of(model, torch.tensor([0.105], dtype=torch.float64)))
    assert (rho, bridge) == (1.0, 0.0)  # the last step
    low, high = made.part(slice(0, 9)), made.part(slice(9, n))
    again = Batch.joined([low, high])
    assert again.residual is not None
    assert torch.equal(again.residual, made.residual)
    assert prepare(model, phi, None, sigma, white(shape, n, 2)).residual is None
