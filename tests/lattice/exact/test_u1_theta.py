"""Two-dimensional U(1) with a smooth theta term: Bessel functions, quadrature on 2 x 2, the real case."""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import iv

from lattice.errors import InputError
from lattice.exact import u1
from lattice.exact.u1_theta import averages, coefficients, ln_z, wilson_loop

COUPLINGS = [(0.5, 0.5), (2.0, math.pi), (0.3, 4 * math.pi), (1 + 0.7j, 0.0), (0.8 - 1.5j, 2.0), (-1.0, 1.0)]


@pytest.mark.parametrize(("beta", "theta"), COUPLINGS)
def test_coefficients_are_bessel_functions(beta: complex, theta: float) -> None:
    """Also beyond t = beta, where the root is imaginary: c_{n}/c_{-n} = (a/b)^n whatever its branch."""
    a, b = beta + theta / (2 * math.pi), beta - theta / (2 * math.pi)
    c = coefficients(beta, theta) * math.exp(abs(complex(beta).real))
    middle = len(c) // 2
    for n in range(6):
        root = cmath.sqrt(a * b)
        power = (a / root) ** n  # (a/b)^{n/2} on the branch of the root
        assert c[middle + n] == pytest.approx(power * iv(n, root), abs=1e-12)
        assert c[middle - n] == pytest.approx(iv(n, root) / power, abs=1e-12)
    if theta:  # negative control: the sign of theta
        assert abs(c[middle + 1] - c[middle - 1]) > 0.01


def quadrature(beta: complex, theta: float) -> dict[str, complex]:
    """2 x 2 sites: three plaquettes are free, the fourth is what is missing to nothing."""
    grid = 2 * math.pi * np.arange(48) / 48
    p = np.meshgrid(grid, grid, grid, indexing="ij", sparse=True)
    p = [*p, -(p[0] + p[1] + p[2])]
    sines = sum(np.sin(x) for x in p)
    weight = np.exp(beta * sum(np.cos(x) for x in p) + 1j * theta / (2 * math.pi) * sines)
    z, q = weight.mean(), sines / (2 * math.pi)
    return {
        "z": z, "cosine": (weight * np.cos(p[0])).mean() / z, "sine": (weight * np.sin(p[3])).mean() / z,
        "charge": (weight * q).mean() / z, "charge2": (weight * q**2).mean() / z,
        "two": (weight * np.exp(1j * (p[0] + p[1]))).mean() / z,
        "three": (weight * np.exp(-1j * (p[0] + p[1] + p[2]))).mean() / z,
    }  # fmt: skip


@pytest.mark.parametrize(("beta", "theta"), COUPLINGS)
def test_two_by_two_by_quadrature(beta: complex, theta: float) -> None:
    wanted, found = quadrature(beta, theta), averages(beta, theta, 4)
    assert cmath.exp(ln_z(beta, theta, 4)) == pytest.approx(wanted["z"], rel=1e-10)
    for name in ("cosine", "sine", "charge", "charge2"):
        assert getattr(found, name) == pytest.approx(wanted[name], abs=1e-10)
    assert wilson_loop(beta, theta, 4, 2) == pytest.approx(wanted["two"], abs=1e-10)
    assert wilson_loop(beta, theta, 4, 3, sign=-1) == pytest.approx(wanted["three"], abs=1e-10)
    if theta:  # negative controls
        assert abs(wilson_loop(beta, theta, 4, 3, sign=1) - wanted["three"]) > 1e-3
        assert abs(averages(beta, -theta, 4).sine - wanted["sine"]) > 1e-3


@pytest.mark.parametrize(("beta", "theta"), COUPLINGS)
@pytest.mark.parametrize("volume", [4, 16, 64])
def test_averages_are_derivatives_of_ln_z(beta: complex, theta: float, volume: int) -> None:
    found, h = averages(beta, theta, volume), 1e-3
    low, now, high = (ln_z(beta, theta + x, volume) for x in (-h, 0, h))
    assert 1j * found.charge == pytest.approx((high - low) / (2 * h), abs=1e-5 * volume)
    assert found.susceptibility * volume == pytest.approx(-(high - 2 * now + low) / h**2, abs=1e-4 * volume)
    slope = (ln_z(beta + h, theta, volume) - ln_z(beta - h, theta, volume)) / (2 * h)
    assert found.cosine * volume == pytest.approx(slope, abs=1e-4 * volume)


@pytest.mark.parametrize(("beta", "volume"), [(0.5, 4), (2.0, 64), (7.0, 256), (96.0, 1024)])
def test_without_theta_it_is_the_real_theory(beta: float, volume: int) -> None:
    assert ln_z(beta, 0.0, volume).real == pytest.approx(u1.ln_z(beta, volume), rel=1e-13)
    for area in (0, 1, 4):
        for sign in (1, -1):
            found = wilson_loop(beta, 0.0, volume, area, sign)
            assert found == pytest.approx(u1.wilson_loop(beta, volume, area), rel=1e-12)
    assert abs(averages(beta, 0.0, volume).sine) < 1e-13


def test_the_smooth_theta_is_not_the_geometric_one_but_becomes_it() -> None:
    """<Q_s> = i theta <Q_s^2>: of V = 64 half of <Q^2> at beta = 5, and the same in the continuum."""
    ratios = []
    for beta, volume in ((5.0, 64), (80.0, 1024)):
        smooth = math.exp((ln_z(beta, 1.0, volume) - ln_z(beta, 0.0, volume)).real)
        geometric = u1.z_of_theta(beta, volume, 1.0)
        ratios.append((1 - smooth) / (1 - geometric))
    assert ratios[0] == pytest.approx(0.78, abs=0.12)
    assert ratios[1] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ln_z(1.0, 1.0, 3), "at least 4 plaquettes"),
        (lambda: ln_z(math.nan, 1.0, 4), "beta must be a finite number"),
        (lambda: averages(1.0, math.inf, 4), "theta must be a finite number"),
        (lambda: averages(1e6, 1.0, 4), "are known up to"),
        (lambda: wilson_loop(1.0, 1.0, 4, 5), "0 to 4 plaquettes"),
        (lambda: wilson_loop(1.0, 1.0, 4, 2, sign=0), "sign 1 or -1"),
    ],
)
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        call()


def test_a_partition_function_that_vanishes_is_said() -> None:
    """beta = ib has c_n = i^n J_n(b): Z of six plaquettes is J_0^6 - 2 J_1^6 + ..., zero near b = 1.36."""

    def z(b: float) -> float:
        return float((coefficients(1j * b, 0.0) ** 6).sum().real)

    low, high = 1.0, 2.0
    assert z(low) > 0 > z(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if z(middle) > 0 else (low, middle)
    with pytest.raises(InputError, match="vanishes to working precision"):
        averages(1j * low, 0.0, 6)
    assert cmath.isfinite(averages(1j * low + 0.01, 0.0, 6).cosine)
