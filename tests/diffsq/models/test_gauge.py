"""The closed-form score of links: against quadrature on four plaquettes, its symmetries, its limit of large
beta."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffsq.models.gauge import GaugeScore, curl_of
from lattice.actions.u1 import circulation


def score_of(beta: float, shape: tuple[int, int]) -> GaugeScore:
    return GaugeScore(shape, torch.tensor([beta], dtype=torch.float64))


def some_flux(shape: tuple[int, int], n: int = 3, charge: float = 1.0) -> Tensor:
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return x - x.mean((-1, -2), keepdim=True) + 2 * math.pi * charge / math.prod(shape)


def exact_mean(score: GaugeScore, flux: Tensor, sigma: float) -> Tensor:
    """E[F_0|F] of four plaquettes by a sum over a grid of the three modes."""
    p = score.momenta
    points = torch.linspace(-6, 6, 41, dtype=torch.float64) * math.sqrt(score.s)
    a, b, c = torch.meshgrid(points, points, points, indexing="ij")
    modes = torch.stack([a, b, c], -1).reshape(-1, 3)
    basis = torch.tensor([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
    clean = (modes @ basis).reshape(-1, 2, 2) + flux.mean((-1, -2))
    k2 = p.expand(p.khat2)
    rest = p.modes(flux - clean).abs() ** 2 / (2 * sigma**2 * k2.clamp_min(1e-9))
    log_p = score.law.log_w(clean).sum((-1, -2)) - p.total(torch.where(k2 > 1e-9, rest, 0.0))
    return (torch.softmax(log_p, 0)[:, None, None] * clean).sum(0)


@pytest.mark.parametrize(("beta", "sigma"), [(1.0, 0.5), (3.0, 0.3)])
def test_the_posterior_mean_is_nearly_that_of_quadrature(beta: float, sigma: float) -> None:
    score = score_of(beta, (2, 2))
    off = wiener_off = 0.0
    for flux in some_flux((2, 2), 4) * math.sqrt(score.s):
        exact = exact_mean(score, flux[None], sigma)
        off += float(((score.posterior_mean(flux[None], sigma)[0] - exact) ** 2).sum())
        level, fk = score.level(sigma), score.momenta.modes(flux)
        wiener_off += float(((score.momenta.fields(fk * level.wiener) - exact) ** 2).sum())
    assert off < 0.03 * wiener_off


def test_weak_coupling_is_gaussian_and_scales_as_its_propagator() -> None:
    """The factor between two couplings; beta/beta_0 alone is wrong by far at sigma^2 beta of order one."""
    shape, sigma = (4, 6), 0.02
    strong, weak = score_of(400.0, shape), score_of(2800.0, shape)
    flux = some_flux(shape, charge=0) * 0.02
    p = strong.momenta
    s0, s1 = (p.modes(model.flux_score(flux, sigma)) for model in (strong, weak))
    noise = sigma**2 * p.expand(p.khat2)
    factor = 7 * (1 + 400 * noise) / (1 + 2800 * noise)
    assert (s1 - factor * s0).abs().max() < 1e-2 * s1.abs().max()
    assert (s1 - 7 * s0).abs().max() > s1.abs().max()


def test_the_score_of_links_knows_no_gauge_and_no_holonomy() -> None:
    score, g = score_of(2.0, (4, 6)), torch.Generator().manual_seed(2)
    links = torch.randn(3, 2, 4, 6, generator=g, dtype=torch.float64)
    lift = torch.zeros(3, 4, 6, dtype=torch.float64)
    found = score.score(links, 0.4, lift)
    turn = torch.randn(3, 4, 6, generator=g, dtype=torch.float64)
    turned = links + torch.stack([turn - turn.roll(-1, -2), turn - turn.roll(-1, -1)], 1)
    turned[:, 1, :, 0] += 0.7  # a holonomy
    assert (score.score(turned, 0.4, lift) - found).abs().max() < 1e-12
    divergence = found[:, 0] - found[:, 0].roll(1, -2) + found[:, 1] - found[:, 1].roll(1, -1)
    assert divergence.abs().max() < 1e-12
    assert found.sum((-1, -2)).abs().max() < 1e-11
    assert found.abs().max() > 0.1


def test_all_lattice_symmetries_and_charge_conjugation() -> None:
    score, flux = score_of(1.5, (4, 4)), some_flux((4, 4))
    mean = score.posterior_mean(flux, 0.5)
    assert torch.allclose(score.posterior_mean(-flux, 0.5), -mean, atol=1e-12)
    for turned, same in (
        (flux.roll((1, 2), (-1, -2)), mean.roll((1, 2), (-1, -2))),
        (flux.transpose(-1, -2), mean.transpose(-1, -2)), (flux.flip(-1), mean.flip(-1)),
    ):  # fmt: skip
        assert torch.allclose(score.posterior_mean(turned, 0.5), same, atol=1e-12)


def test_the_curl_is_the_adjoint_of_the_circulation() -> None:
    g = torch.Generator().manual_seed(1)
    links, u = (torch.randn(2, *shape, generator=g).double() for shape in ((2, 4, 6), (4, 6)))
    assert torch.allclose((circulation(links) * u).sum(), (links * curl_of(u)).sum())
