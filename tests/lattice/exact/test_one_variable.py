"""Quadrature against the reference numbers, closed forms, and an independent integrator."""

from __future__ import annotations

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
from lattice.exact.one_variable import gaussian_covariance, toy_cumulants, toy_moments

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


def test_refusals() -> None:
    with pytest.raises(InputError, match="angle"):
        toy_cumulants(OneLink(1.0), 4)
    with pytest.raises(InputError, match="phi4_exact"):
        toy_moments(ComplexPhi4(0.1, 0.3, 1.0), [2])
    with pytest.raises(InputError, match="vanishes"):
        toy_moments(OneLink(2.404825557695773j), [1])  # the first zero of J_0
