"""Closed forms and quadratures against each other: independent routes to the same number."""

import math

import numpy as np
import pytest

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, ln_z_site, one_site_moments, small_lattice


def ring_truth(action, coupling, sites, n=400, cut=9.0):
    """ln Z, <phi^2>, <phi^4>, <M^2> of a ring, S = -coupling sum phi phi' + sites, by transfer matrix."""
    grid = np.linspace(-cut, cut, n)
    site = (1 - 2 * action.lam) * grid**2 + action.lam * grid**4
    t = np.exp(coupling * np.outer(grid, grid) - 0.5 * (site[:, None] + site)) * (grid[1] - grid[0])
    powers = [np.linalg.matrix_power(t, k) for k in range(sites + 1)]
    z = np.trace(powers[sites])
    phi2, phi4 = (np.sum(np.diag(powers[sites]) * grid**k) / z for k in (2, 4))
    pair = [np.einsum("i,ij,j,ji->", grid, powers[k], grid, powers[sites - k]) / z for k in range(1, sites)]
    return math.log(z), phi2, phi4, (phi2 + sum(pair)) / sites


COUPLINGS = [(0.27, 0.022), (-0.2, 0.1), (0.3, 1.0)]


@pytest.mark.parametrize(("kappa", "lam"), COUPLINGS)
def test_two_by_two_is_a_ring_of_double_bonds(kappa, lam):
    action = ScalarPhi4(kappa, lam)
    exact = small_lattice(action, (2, 2))
    ln_z, phi2, phi4, m2 = ring_truth(action, 4 * kappa, 4)
    assert exact.ln_z == pytest.approx(ln_z, abs=1e-8)
    assert (exact.phi2, exact.phi4, exact.m2) == pytest.approx((phi2, phi4, m2), rel=1e-8)
    # <phi dS/dphi> = 1 per site fixes s from <phi^4>: 2 s = 1 - 2 lam <phi^4>
    assert 2 * exact.action_density == pytest.approx(1 - 2 * lam * phi4, rel=1e-8)


@pytest.mark.parametrize(("kappa", "lam"), COUPLINGS)
def test_three_sites(kappa, lam):
    action = ScalarPhi4(kappa, lam)
    exact = small_lattice(action, (3,))
    ln_z, phi2, phi4, m2 = ring_truth(action, 2 * kappa, 3)
    assert exact.ln_z == pytest.approx(ln_z, abs=1e-8)
    assert (exact.phi2, exact.phi4, exact.m2) == pytest.approx((phi2, phi4, m2), rel=1e-8)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)])
def test_one_site_that_neighbours_itself(shape):
    action = ScalarPhi4(0.15, 0.3)
    exact, dim = small_lattice(action, shape), len(shape)
    assert (exact.m2, exact.m4) == pytest.approx(tuple(one_site_moments(action, (2, 4), dim)), rel=1e-9)
    assert exact.ln_z == pytest.approx(ln_z_site(action, dim), abs=1e-9)
    assert exact.phi2 == pytest.approx(exact.m2, rel=1e-12)


def test_abs_m_of_free_fields():
    """M is Gaussian with variance G(0)/V: <|M|> = sqrt(2 G(0) / (pi V))."""
    exact, g0 = small_lattice(FreeScalar(0.1), (2, 2)), free_propagator(0.1, (2, 2))[0, 0]
    assert exact.abs_m == pytest.approx(math.sqrt(2 * g0 / (4 * math.pi)), rel=1e-8)
    assert exact.m4 == pytest.approx(3 * (g0 / 4) ** 2, rel=1e-8)


def test_published_ln_z_per_site():
    assert ln_z_site(ScalarPhi4(0.0, 0.022)) == pytest.approx(0.57827798, abs=5e-9)


def test_one_site_gaussian_and_schwinger_dyson():
    moments = one_site_moments(ScalarPhi4(0.0, 0.0), (0, 1, 2, 4, 6))
    assert moments == pytest.approx([1, 0, 1 / 2, 3 / 4, 15 / 8], abs=1e-12)
    lam = 0.3
    m2, m4 = one_site_moments(ScalarPhi4(0.0, lam), (2, 4))
    assert 2 * (1 - 2 * lam) * m2 + 4 * lam * m4 == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", [(6,), (4, 3), (2, 3, 2), (1, 4), (2, 2, 1, 3)])
def test_free_propagator_inverts_the_quadratic_form(shape):
    """G is the inverse of the matrix of the action, column by column, in momentum space."""
    import torch

    action = FreeScalar(0.11)
    v = math.prod(shape)
    unit = torch.eye(v, dtype=torch.float64).reshape(v, *shape)
    hessian = action.grad(unit).reshape(v, v).numpy()
    column = np.linalg.inv(hessian)[0].reshape(shape)
    np.testing.assert_allclose(np.fft.fftn(column).real, free_propagator(0.11, shape), atol=1e-12)


def test_free_propagator_with_mass():
    np.testing.assert_allclose(free_propagator(0.4, (4, 4), mass=2.0), free_propagator(0.2, (4, 4)) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: free_propagator(0.25, (4, 4)), "flat mode"),
        (lambda: free_propagator(-0.3, (4, 4)), "flat mode"),
        (lambda: small_lattice(ScalarPhi4(0.2, 0.1), (3, 2)), "at most 4 sites"),
        (lambda: small_lattice(FreeScalar(0.3), (2, 2)), "not integrable"),
        (lambda: one_site_moments(ScalarPhi4(0.5, 0.0), (2,), dim=2), "not integrable"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
