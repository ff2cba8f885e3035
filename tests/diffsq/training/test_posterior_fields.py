"""Means over the posterior: exact for free fields, unbiased against quadrature, less noise with length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fields import free_fields, significance, white
from posteriors import free_posterior, site_draws, site_posterior
from small_models import free_model
from torch import Tensor

from diffsq.models.momentum import Momenta
from diffsq.models.regression import RegressionBase
from diffsq.training import posterior_fields
from diffsq.training.posterior_fields import PosteriorMeans, posterior_means
from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import one_site_moments

SITES = ScalarPhi4(0.0, 0.5)
SHAPE = (4, 4)


@dataclass(frozen=True)
class Signed(ScalarPhi4):
    """Phi^4 whose symmetry nobody has been told of."""

    even = False


def of_sites(n: int) -> tuple[RegressionBase, Tensor]:
    """The base of independent sites, and exact draws of them (n, *SHAPE)."""
    base = RegressionBase(Momenta(SHAPE), 8)
    g = float(one_site_moments(SITES, (2,))[0])
    base.set_gaussian(torch.full((base.momenta.n_class,), g, dtype=torch.float64), 0.05, 8.0)
    return base, site_draws(SITES, SHAPE, n, 1)


def noised(phi: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """x and sigma (n,)."""
    return phi + sigma * white(tuple(phi.shape[1:]), len(phi), 3), phi.new_full((len(phi),), sigma)


def means(
    base: RegressionBase, action: ScalarPhi4, phi: Tensor, x: Tensor, sigma: Tensor, n_traj: int,
    first: int = 0,
) -> PosteriorMeans:  # fmt: skip
    chains = np.arange(len(phi))
    return posterior_means(base, action, phi, x, sigma, n_traj, seed=2, chains=chains, first=first)


def bias(error: Tensor, x: Tensor) -> Tensor:
    """Of an error (n, *shape) with odd functions of x its products, in units of their own errors."""
    probes = (x, x**3, torch.tanh(2 * x), x.mean((1, 2), keepdim=True))
    return significance(torch.stack([(error * probe).mean((1, 2)) for probe in probes], 1))


# free fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 6), (5, 3)])
@pytest.mark.parametrize(
    ("even", "sigma"), [(True, 0.1), (True, 0.3), (False, 0.1), (False, 1.0), (False, 6.0)]
)
def test_pairs_of_free_fields_average_to_the_mean(
    shape: tuple[int, ...], even: bool, sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n_traj odd: W x and (x - W x)/sigma^2 up to the integrator's error, of second order in the step. Where
    sums over the sign change nothing: the other one is out of question, or not known to be allowed."""
    action: ScalarPhi4 = FreeScalar(0.15) if even else Signed(0.15, 0.0)
    base, phi = free_model(shape, 0.15).base, free_fields(action, shape, 128, 1)
    x, s = noised(phi, sigma)
    mean, c = free_posterior(action, x, s)
    for n_traj in (1, 3, 7):
        size = []
        for step in (0.4, 0.2):
            monkeypatch.setattr(posterior_fields, "STEP", step)
            found = means(base, action, phi, x, s, n_traj)
            all_of = torch.from_numpy(found.acceptance == found.acceptance.max())
            assert all_of.double().mean() > 0.9  # a trajectory that is refused is no half of a pair
            assert found.acceptance.max() == pytest.approx(1)
            size.append(float((found.phi - mean)[all_of].square().mean() / c.mean()) ** 0.5)
            force = float((found.grad - (x - mean) / sigma**2)[all_of].square().mean()) ** 0.5
            assert force < 0.03 / sigma
        assert size[0] < 0.02
        assert size[0] / size[1] == pytest.approx(4, rel=0.1)
    for n_traj in (0, 2):  # controls: what has no partner is as wrong as a draw
        alone = means(base, action, phi, x, s, n_traj)
        assert float((alone.phi - mean).square().mean() / c.mean()) ** 0.5 > 0.25


def test_a_soft_mode_moves_as_a_stiffer_one() -> None:
    """SOFT: near kappa_c the zero mode is softer than its cap, still unbiased, and no longer exact."""
    action, sigma = Signed(0.2495, 0.0), 60.0
    base, phi = free_model(SHAPE, 0.2495).base, free_fields(action, SHAPE, 512, 1)
    x, s = noised(phi, sigma)
    mean, c = free_posterior(action, x, s)
    p = base.momenta
    phi2 = float((p.multiplicity * base.g).sum()) / p.volume
    assert float(c.max()) > 1.5 * posterior_fields.SOFT * phi2
    error = p.modes(means(base, action, phi, x, s, 3).phi - mean)
    assert abs(significance((error[:, 0, 0] * p.modes(x)[:, 0, 0]).real)) < 4.5
    assert abs(significance(error[:, 0, 0].real)) < 4.5
    rest = error.abs()
    assert rest[:, 0, 0].max() > 30 * rest[:, 1:].max()


# independent sites -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.2, 0.6, 1.5, 4.0])
def test_unbiased_whatever_the_length(sigma: float) -> None:
    """Against quadrature; E[dS/dphi|x] = (x - E[phi|x])/sigma^2. Controls: chains that begin at 1.4 phi."""
    base, phi = of_sites(1024)
    x, s = noised(phi, sigma)
    mean, _, force = site_posterior(SITES, x, torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(force, (x - mean) / sigma**2)
    for n_traj in (0, 1, 2, 5):
        found = means(base, SITES, phi, x, s, n_traj)
        assert bias(found.phi - mean, x).abs().max() < 4.5
        assert bias(found.grad - force, x).abs().max() < 4.5
        assert bias(found.grad + (found.phi - x) / sigma**2, x).abs().max() < 4.5
        wrong = means(base, SITES, 1.4 * phi, x, s, n_traj)
        assert bias(wrong.grad - force, x).abs().max() > 10
        if n_traj == 0:
            assert bias(wrong.phi - mean, x).abs().max() > 10
    assert (found.acceptance > 0.9).mean() > 0.9


def test_a_wrong_action_is_seen() -> None:
    """Controls: chains of another coupling, and forces that are 10 % off."""
    base, phi = of_sites(1024)
    x, s = noised(phi, 0.6)
    mean, _, force = site_posterior(SITES, x, torch.tensor(0.6, dtype=torch.float64))
    other = ScalarPhi4(0.0, 0.8)
    found = means(base, other, phi, x, s, 15)
    assert bias(found.phi - mean, x).abs().max() > 10
    assert bias(found.grad - force, x).abs().max() > 10
    right = means(base, SITES, phi, x, s, 15)
    for factor in (0.9, 1.1):
        assert bias(factor * right.grad + (right.phi - x) / 0.6**2, x).abs().max() > 10


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_noise_falls_with_the_length(sigma: float) -> None:
    """As 1/n from one pair on; of the force as of the field."""
    base, phi = of_sites(512)
    x, s = noised(phi, sigma)
    mean, _, force = site_posterior(SITES, x, torch.tensor(sigma, dtype=torch.float64))
    n_traj = (0, 1, 7, 31)
    runs = [means(base, SITES, phi, x, s, n) for n in n_traj]
    for errors in ([run.phi - mean for run in runs], [run.grad - force for run in runs]):
        noise = torch.stack([error.square().mean((1, 2)) for error in errors], 1)
        for longer in range(1, len(n_traj)):
            assert significance(noise[:, longer - 1] - noise[:, longer]) > 4.5
        for few, many in ((1, 2), (2, 3)):  # quarters forget: pairs are nearly independent of each other
            ratio = (n_traj[many] + 1) / (n_traj[few] + 1)
            assert float(noise[:, few].mean() / noise[:, many].mean()) == pytest.approx(ratio, rel=0.3)
    if sigma < 0.5:  # nearly Gaussian: two fields are worth many
        first = (runs[0].phi - mean).square().mean()
        assert first > 20 * (runs[1].phi - mean).square().mean()


@pytest.mark.parametrize("sigma", [0.2, 3.0])
def test_without_trajectories_the_start_summed_over_its_sign(sigma: float) -> None:
    base, phi = of_sites(64)
    x, s = noised(phi, sigma)
    found = means(base, SITES, phi, x, s, 0)
    weight = torch.tanh((phi * x).sum((1, 2)) / sigma**2).reshape(-1, 1, 1)
    torch.testing.assert_close(found.phi, weight * phi)
    torch.testing.assert_close(found.grad, weight * SITES.grad(phi))
    sign = found.last[:, :1, :1] / phi[:, :1, :1]
    assert torch.equal(found.last, sign * phi)
    assert found.acceptance.tolist() == [0.0] * 64
    plain = means(base, Signed(0.0, 0.5), phi, x, s, 0)
    for a, b in ((plain.phi, phi), (plain.last, phi), (plain.grad, SITES.grad(phi))):
        assert torch.equal(a, b)


def test_the_sum_over_the_sign_leaves_the_noise_of_one_well() -> None:
    """Two sites in a double well that no chain leaves: unbiased against quadrature, with less noise than
    where the sign is not summed over."""
    couplings, shape, sigma, n = (0.6, 1.5), (1, 2), 3.0, 1000
    action, base = ScalarPhi4(*couplings), free_model(shape, 0.1).base
    axis = torch.linspace(-3, 3, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    s = action.action(grid.reshape(-1, *shape))
    rng = np.random.default_rng(4)
    cell = torch.searchsorted(torch.softmax(-s, 0).cumsum(0), torch.from_numpy(rng.random(n)))
    phi = (grid[cell] + 0.075 * torch.from_numpy(rng.random((n, 2)) - 0.5)).reshape(-1, *shape)
    x, width = noised(phi, sigma)
    distance = (x.reshape(-1, 1, 2) - grid).square().sum(-1)
    mean = (torch.softmax(-s - distance / (2 * sigma**2), 1) @ grid).reshape(-1, *shape)
    noise = []
    for known in (action, Signed(*couplings)):
        for n_traj in (0, 5):
            found = means(base, known, phi, x, width, n_traj)
            assert bias(found.phi - mean, x).abs().max() < 4.5
            noise.append((found.phi - mean).square().mean((1, 2)))
    for summed, plain in zip(noise[:2], noise[2:], strict=True):
        assert significance(plain - summed) > 10
    kept = (means(base, Signed(*couplings), phi, x, width, 5).last * phi).sum((1, 2)) > 0
    assert kept.double().mean() > 0.9


# streams and input -----------------------------------------------------------------------------------------


def test_a_chain_has_the_same_means_whatever_its_company() -> None:
    base, phi = of_sites(12)
    x, s = noised(phi, 1.0)
    s = s * torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    before, chains = phi.clone(), np.arange(12) + 1000
    whole = posterior_means(base, SITES, phi, x, s, 6, seed=2**63, chains=chains, first=5)
    assert torch.equal(phi, before)
    for rows in ([4], [0, 11], [7, 3, 9]):
        part = posterior_means(
            base, SITES, phi[rows], x[rows], s[rows], 6, seed=2**63, chains=chains[rows], first=5
        )
        for name in ("phi", "grad", "last"):
            one, all_of_them = getattr(part, name), getattr(whole, name)[rows]
            torch.testing.assert_close(one, all_of_them, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(part.acceptance, whole.acceptance[rows])
    for change in ({"seed": 1}, {"first": 4}, {"chains": np.arange(12)}):
        args = {"seed": 2**63, "chains": chains, "first": 5, **change}
        other = posterior_means(base, SITES, phi, x, s, 6, **args)  # type: ignore[arg-type]
        assert (other.last - whole.last).abs().max() > 0.1


def test_chains_go_on_where_they_ended() -> None:
    """`first` counts trajectories: two chains of one quarter in a row are not one twice."""
    base, phi = of_sites(4)
    x, s = noised(phi, 1.0)
    whole = means(base, Signed(0.0, 0.5), phi, x, s, 1)
    again = means(base, Signed(0.0, 0.5), whole.last, x, s, 1, first=2)
    assert torch.equal(again.phi * 2, whole.last + again.last)
    assert not torch.equal(again.last, phi)


def test_a_negative_number_of_trajectories_is_refused() -> None:
    base, phi = of_sites(2)
    x, s = noised(phi, math.pi)
    with pytest.raises(InputError, match="n_traj must be >= 0, got -1"):
        means(base, SITES, phi, x, s, -1)
