"""Quadrature against the reference numbers, closed forms, and an independent integrator."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import torch

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic, RealQuartic, TwoPeak
from lattice.actions.phi4 import ComplexPhi4
from lattice.actions.u1 import OneLink
from lattice.errors import InputError
from lattice.exact.complex_phi4 import complex_propagator, phi4_exact
from lattice.exact.one_variable import gaussian_covariance, toy_cumulants, toy_moments
from lattice.exact.scalar import small_lattice

REFERENCE = ComplexQuartic(1 + 1j, 1.0)


def test_the_reference_numbers_of_the_complex_quartic() -> None:
    moments = [0.428142 - 0.148010j, 0.423848 - 0.280132j, 0.580445 - 0.587746j, 0.951050 - 1.393359j]
    cumulants = [-0.060347 + 0.100083j, -0.009340 - 0.192215j, 0.415779 + 0.592277j]
    assert np.round(toy_moments(REFERENCE, [2, 4, 6, 8]), 6).tolist() == moments
    assert np.round(toy_cumulants(REFERENCE, 8)[3::2], 6).tolist() == cumulants
    assert np.array_equal(toy_moments(Complexified(REFERENCE), [2]), toy_moments(REFERENCE, [2]))


def test_the_reference_numbers_of_the_real_models() -> None:
    double, single = RealQuartic(-1.0, 0.4), RealQuartic(1.0, 0.4)
    assert round(toy_moments(double, [2])[0].real, 6) == 13.673034
    assert round(toy_cumulants(double, 4)[3].real, 5) == -340.76005
    kappa = [0.862097, -0.161080, 0.238293, -0.867586]
    assert np.round(toy_cumulants(single, 8)[1::2].real, 6).tolist() == kappa
    assert toy_cumulants(TwoPeak(1.0, 0.25), 8)[1::2].real.tolist() == [1.0625, -2.0, 16.0, -272.0]
    assert np.allclose(toy_cumulants(single, 8)[::2], 0, atol=1e-12)


@pytest.mark.parametrize("sigma0", [1 + 1j, 1 + 0.5j, 0.3 - 2j])
def test_the_complex_gaussian_has_one_cumulant(sigma0: complex) -> None:
    moments = [math.prod(range(1, n, 2)) / sigma0 ** (n // 2) for n in (2, 4, 6, 8)]
    assert np.allclose(toy_moments(ComplexGaussian(sigma0), [2, 4, 6, 8]), moments, rtol=1e-11)
    kappa = toy_cumulants(ComplexGaussian(sigma0), 8)
    assert np.allclose(kappa[1], 1 / sigma0)
    assert np.allclose(np.delete(kappa, 1), 0, atol=1e-7 * abs(moments[-1]))


def test_the_quartic_against_another_integrator() -> None:
    def integral(n: int, part: str) -> float:
        def f(x: float) -> float:
            z = torch.tensor([x], dtype=torch.float64)
            return float(getattr(x**n * np.exp(-action.action(z).numpy()), part)[0])

        return float(scipy.integrate.quad(f, -6, 6, epsabs=1e-12, epsrel=1e-12, limit=400)[0])

    for action in (ComplexQuartic(0.2 + 3j, 1.0), ComplexQuartic(-1 + 0.5j, 0.5)):
        z = complex(integral(0, "real"), integral(0, "imag"))
        for n in (2, 8):
            expected = complex(integral(n, "real"), integral(n, "imag")) / z
            assert abs(toy_moments(action, [n])[0] - expected) < 1e-9 * abs(expected)
        sigma0, lam = action.sigma0, action.lam
        second, fourth = toy_moments(action, [2, 4])
        assert abs(sigma0 * second + lam * fourth - 1) < 1e-12  # Schwinger-Dyson


@pytest.mark.parametrize("beta", [0.5, 5 + 0.5j, 1j, 0.1 + 1j])
def test_one_link_against_the_trapezoid_on_the_circle(beta: complex) -> None:
    x = np.linspace(-np.pi, np.pi, 400, endpoint=False)
    w = np.exp(beta * np.cos(x))
    for n in (1, 2, 5, -1):
        expected = np.sum(w * np.exp(1j * n * x)) / np.sum(w)
        assert abs(toy_moments(OneLink(beta), [n])[0] - expected) < 1e-13


def test_the_stationary_covariance_solves_its_equation() -> None:
    assert np.allclose(gaussian_covariance(ComplexGaussian(1 + 1j)), [[0.75, -0.25], [-0.25, 0.25]])
    assert np.allclose(gaussian_covariance(ComplexGaussian(1 + 0.5j)), [[0.9, -0.2], [-0.2, 0.1]])
    for noise in (0.0, 0.7):
        c = gaussian_covariance(ComplexGaussian(0.8 - 1.3j), noise)
        # <z^2> = <x^2> - <y^2> + 2i <xy> is 1/sigma0 whatever the imaginary noise
        assert abs(c[0, 0] - c[1, 1] + 2j * c[0, 1] - 1 / (0.8 - 1.3j)) < 1e-12
    assert gaussian_covariance(ComplexGaussian(1 + 1j), 0.7)[1, 1] > 0.25


def brute_force(action: ComplexPhi4, shape: tuple[int, ...], n: int) -> tuple[complex, complex, complex]:
    """<phi^2>, <phi^4>, G(0) by a product grid over all sites."""
    grid = np.linspace(-3.6, 3.6, n)
    v = math.prod(shape)
    phi = torch.from_numpy(np.array(list(itertools.product(grid, repeat=v))).reshape(-1, *shape))
    w = np.exp(-action.action(phi.to(torch.complex128)).numpy())
    flat = phi.numpy().reshape(-1, v)
    z = w.sum()
    rows = ((flat**2).mean(1), (flat**4).mean(1), flat.sum(1) ** 2 / v)
    return tuple(complex((w * row).sum() / z) for row in rows)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("shape", "n"), [((1,), 400), ((1, 1), 400), ((2,), 200), ((3,), 60), ((2, 1), 200), ((2, 2), 31)]
)
def test_tiny_lattices_against_a_product_grid(shape: tuple[int, ...], n: int) -> None:
    action = ComplexPhi4(0.12, 0.3, 1 + 0.5j)
    found, expected = phi4_exact(action, shape), brute_force(action, shape, n)
    assert np.allclose([found.phi2, found.phi4, found.zero_mode], expected, rtol=1e-6)
    assert abs(found.two_point.reshape(-1)[0] - found.phi2) < 1e-12


def test_tiny_lattices_with_real_couplings_are_those_of_lattice_exact() -> None:
    lam = 0.3
    action = ComplexPhi4(0.15, lam, 1 - 2 * lam)
    from lattice.actions.phi4 import ScalarPhi4

    known = small_lattice(ScalarPhi4(0.15, lam), (2, 2))
    found = phi4_exact(action, (2, 2))
    assert abs(found.phi2 - known.phi2) < 1e-8
    assert abs(found.phi4 - known.phi4) < 1e-8
    assert abs(found.zero_mode - 4 * known.m2) < 1e-8


@pytest.mark.parametrize("shape", [(4,), (5,), (2, 2)])
def test_the_ring_without_coupling_is_the_free_field(shape: tuple[int, ...]) -> None:
    """lam -> 0 of the transfer matrix, which the code path of lam = 0 never uses."""
    free, nearly = ComplexPhi4(0.12, 0.0, 1 + 0.5j), ComplexPhi4(0.12, 1e-9, 1 + 0.5j)
    assert np.allclose(phi4_exact(free, shape).two_point, phi4_exact(nearly, shape).two_point, atol=1e-8)
    assert abs(complex_propagator(free, shape).mean() - phi4_exact(free, shape).phi2) < 1e-14


def test_refusals() -> None:
    with pytest.raises(InputError, match="angle"):
        toy_cumulants(OneLink(1.0), 4)
    with pytest.raises(InputError, match="phi4_exact"):
        toy_moments(ComplexPhi4(0.1, 0.3, 1.0), [2])
    with pytest.raises(InputError, match="one site, a ring"):
        phi4_exact(ComplexPhi4(0.1, 0.3, 1.0), (3, 3))
    with pytest.raises(InputError, match="flat mode"):
        phi4_exact(ComplexPhi4(0.6, 0.0, 1 + 1j), (4, 4))
    with pytest.raises(InputError, match="lam = 0 only"):
        complex_propagator(ComplexPhi4(0.1, 0.3, 1.0), (4,))
    with pytest.raises(InputError, match="vanishes"):
        toy_moments(OneLink(2.404825557695773j), [1])  # the first zero of J_0
