"""ln Z by thermodynamic integration against quadrature, the free field, and a second rule."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from lattice.actions.phi4 import FreeScalar, ScalarPhi4
from lattice.arrays import Floats
from lattice.errors import InputError
from lattice.exact.scalar import free_propagator, ln_z_site, small_lattice
from lattice.rng import normals
from lattice.scans import thermodynamic_integration as integration
from lattice.scans.thermodynamic_integration import bond_energy, quadrature_rule, thermodynamic_integration

QUICK = {"n_nodes": 4, "n_coarse": 3, "n_chains": 32, "n_trajectories": 100, "n_therm": 60}
TWO = ScalarPhi4(0.2, 0.05)


@cache
def truth() -> float:
    return small_lattice(TWO, (2, 2), spacing=0.4).ln_z


def free_ln_z(kappa: float, shape: tuple[int, ...]) -> float:
    return float(0.5 * np.log(2 * np.pi * free_propagator(kappa, shape)).sum())


def test_two_by_two_against_quadrature() -> None:
    done = thermodynamic_integration(TWO, (2, 2), seed=1, **QUICK)
    assert done.error < 0.015
    assert abs(done.value - truth()) < 4 * done.error
    assert abs(done.coarse - truth()) < 4 * done.coarse_error
    assert done.ln_z_zero == pytest.approx(4 * ln_z_site(TWO), abs=1e-9)
    assert len(done.nodes) == 4
    assert all(node.acceptance > 0.8 for node in done.nodes)


def test_negative_kappa_is_the_same_by_symmetry() -> None:
    """On even extents phi_x -> (-1)^x phi_x changes the sign of kappa."""
    few = {**QUICK, "n_trajectories": 60}
    done = thermodynamic_integration(ScalarPhi4(-0.2, 0.05), (2, 2), seed=1, **few)
    assert abs(done.value - truth()) < 4 * done.error


def test_free_field_in_closed_form() -> None:
    done = thermodynamic_integration(FreeScalar(0.2), (6, 4), seed=2, **QUICK)
    assert done.error < 0.03
    assert abs(done.value - free_ln_z(0.2, (6, 4))) < 4 * done.error


def test_eight_by_eight_known_from_elsewhere() -> None:
    done = thermodynamic_integration(
        ScalarPhi4(0.26, 0.022), (8, 8), seed=3, n_nodes=6, n_chains=32, n_trajectories=150, n_therm=80
    )
    assert done.error < 0.07
    assert abs(done.value - 44.002) < 4 * np.hypot(done.error, 0.010)


def test_a_wrong_derivative_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the factor 2."""
    monkeypatch.setattr(integration, "bond_energy", lambda phi: 0.5 * bond_energy(phi))
    done = thermodynamic_integration(TWO, (2, 2), seed=1, **{**QUICK, "n_trajectories": 60})
    assert abs(done.value - truth()) > 10 * done.statistical_error


def test_the_derivative_of_the_action() -> None:
    phi: Floats = normals(1, "test/phi", np.arange(3), 0, 24).reshape(3, 4, 6)
    low, high = (ScalarPhi4(kappa, 0.1).action(torch.from_numpy(phi)).numpy() for kappa in (0.2, 0.3))
    assert bond_energy(phi) == pytest.approx((low - high) / 0.2, abs=1e-10)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_rule_is_exact_for_polynomials_and_converges_near_a_pole(n: int) -> None:
    x, w = quadrature_rule(n, 0.25)
    for power in range(n):
        assert (w * x**power).sum() == pytest.approx(0.25 ** (power + 1) / (power + 1), rel=1e-12)
    assert x.min() > 0
    assert x.max() < 0.25


def free_slope(kappa: float, shape: tuple[int, int]) -> float:
    """d ln Z/d kappa of the free field."""
    c = [2 * np.cos(2 * np.pi * np.arange(extent) / extent) for extent in shape]
    return float((free_propagator(kappa, shape) * (c[0][:, None] + c[1])).sum())


def test_rule_near_the_transition() -> None:
    shape, kappa = (16, 16), 0.985 * 0.25
    known = free_ln_z(kappa, shape) - free_ln_z(0.0, shape)

    def total(x: Floats, w: Floats) -> float:
        return float(sum(b * free_slope(a, shape) for a, b in zip(x.tolist(), w.tolist(), strict=True)))

    errors = [abs(total(*quadrature_rule(n, kappa)) - known) for n in (6, 8, 10)]
    assert errors[0] < 1e-2
    assert errors[1] < 1e-3
    assert errors[2] < 2e-4
    # negative control: the plain rule, without stretching the end of the interval
    node, weight = np.polynomial.legendre.leggauss(8)
    assert abs(total(0.5 * kappa * (node + 1), 0.5 * kappa * weight) - known) > 1e-2


def test_too_coarse_a_rule_is_seen_by_the_second() -> None:
    """Two nodes against 8 for a free field near its kappa_c."""
    done = thermodynamic_integration(
        FreeScalar(0.245), (8, 8), seed=5, n_nodes=8, n_coarse=2, n_chains=32, n_trajectories=100, n_therm=60
    )
    assert done.rule_error > 5 * done.statistical_error
    assert abs(done.value - free_ln_z(0.245, (8, 8))) < 4 * done.error


def test_a_function_of_its_arguments() -> None:
    few = {**QUICK, "n_trajectories": 50, "n_chains": 16, "n_nodes": 3, "n_coarse": 2}
    one, two = (thermodynamic_integration(TWO, (2, 2), seed=9, **few) for _ in range(2))
    assert one == two
    assert thermodynamic_integration(TWO, (2, 2), seed=10, **few).value != one.value


def test_settings_that_make_no_estimate_are_refused() -> None:
    for bad in ({"n_nodes": 2}, {"n_nodes": 100}, {"n_nodes": 5, "n_coarse": 5}):
        with pytest.raises(InputError, match="2 <= n_coarse < n_nodes <= 64"):
            thermodynamic_integration(TWO, (2, 2), seed=1, **bad)
    with pytest.raises(InputError, match="10 or more, got 3"):
        thermodynamic_integration(TWO, (2, 2), seed=1, n_trajectories=3)
