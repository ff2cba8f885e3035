"""The ring of phi^4 by its transfer matrix: small lattices, the free field, one site, and its table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.errors import InputError
from lattice.exact.chain_phi4 import ring
from lattice.exact.scalar import free_propagator, one_site_moments, small_lattice


def test_eight_sites_to_the_digits_of_the_table() -> None:
    found = ring(ScalarPhi4(0.2, 0.1), 8)
    values = (found.phi2, found.phi4, found.correlations[1], found.kappa4)
    assert values == pytest.approx((0.50566091, 0.67432111, 0.09848238, -0.09275777), abs=1e-8)
    assert ring(ScalarPhi4(0.2, 0.11), 8).phi2 != pytest.approx(0.50566091, abs=1e-3)


@pytest.mark.parametrize(
    ("kappa", "lam", "n"), [(0.2, 0.1, 3), (0.4, 0.5, 4), (-0.3, 0.2, 2), (0.5, 0.05, 3), (0.3, 0.1, 1)]
)
def test_short_rings_are_small_lattices(kappa: float, lam: float, n: int) -> None:
    """Quadrature over all sites, with one or two sites too, and large kappa."""
    action = ScalarPhi4(kappa, lam)
    found, known = ring(action, n), small_lattice(action, (n,))
    assert (found.phi2, found.phi4) == pytest.approx((known.phi2, known.phi4), rel=1e-9)
    assert found.ln_z == pytest.approx(known.ln_z, abs=1e-8)
    assert found.propagator[0] / n == pytest.approx(known.m2, rel=1e-9)


def test_the_free_field() -> None:
    found = ring(FreeScalar(0.3), 6)
    np.testing.assert_allclose(found.propagator, free_propagator(0.3, (6,)), atol=1e-12)
    np.testing.assert_allclose(found.four_point, 0, atol=1e-12)
    known = 0.5 * np.log(2 * math.pi * free_propagator(0.3, (6,))).sum()
    assert found.ln_z == pytest.approx(known, abs=1e-12)


def test_sites_without_hopping() -> None:
    found, known = ring(ScalarPhi4(0.0, 0.4), 5), one_site_moments(ScalarPhi4(0.0, 0.4), (2, 4))
    assert (found.phi2, found.phi4) == pytest.approx(tuple(known), rel=1e-10)
    np.testing.assert_allclose(found.correlations[1:], 0, atol=1e-12)
    np.testing.assert_allclose(found.four_point[1:], 0, atol=1e-12)
    assert found.four_point[0] == pytest.approx(found.kappa4, rel=1e-12)


@pytest.mark.parametrize(("kappa", "lam"), [(0.2, 0.1), (0.45, 0.3), (-0.4, 1.0)])
def test_the_equation_of_motion(kappa: float, lam: float) -> None:
    """<phi dS/dphi> = 1 of a site, and r -> -r."""
    found = ring(ScalarPhi4(kappa, lam), 7)
    force = 2 * (1 - 2 * lam) * found.phi2 + 4 * lam * found.phi4 - 4 * kappa * found.correlations[1]
    assert force == pytest.approx(1, abs=1e-10)
    for values in (found.correlations, found.squares):
        np.testing.assert_allclose(values[1:], values[:0:-1], rtol=1e-10)


def test_more_points_change_nothing() -> None:
    for action in (ScalarPhi4(0.2, 0.1), ScalarPhi4(0.6, 0.02), FreeScalar(0.4)):
        a, b = ring(action, 8), ring(action, 8, 501)
        assert a.phi4 == pytest.approx(b.phi4, rel=1e-10)
        assert a.ln_z == pytest.approx(b.ln_z, abs=1e-9)


def test_rings_that_there_are_not() -> None:
    with pytest.raises(InputError, match="n >= 1 sites, got 0"):
        ring(ScalarPhi4(0.2, 0.1), 0)
    with pytest.raises(InputError, match="no integral on a ring"):
        ring(FreeScalar(0.5), 4)
