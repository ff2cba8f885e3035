"""Two-dimensional U(1) in closed form: tables, quadrature on 2 x 2, limits and identities."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy.special import ive

from lattice.errors import InputError
from lattice.exact.u1 import charge_law, coefficients, fitting, known, ln_z, wilson_loop, z_of_theta

TABLE = [  # L, beta, ln Z/V, <Q^2>, P(0), P(1), P(2), W of 1, 2 x 2, 3 x 3; found before, by other code
    (8, 2, 0.823993541, 1.239299, 0.358991, 0.239219, 0.071116, 0.697775, 0.237061, 0.039214),
    (16, 4, 2.424972796, 1.933879, 0.286973, 0.221522, 0.101930, 0.863523, 0.556026, 0.266971),
    (16, 7, 5.127492915, 1.006414, 0.397711, 0.241951, 0.054499, 0.925532, 0.733780, 0.498338),
    (32, 96, 92.800205437, 0.244524, 0.758362, 0.120338, 0.000481, 0.994778, 0.979283, 0.954011),
]


@pytest.mark.parametrize("row", TABLE)
def test_known_numbers(row: tuple[float, ...]) -> None:
    size, beta, free, q2, *rest = row
    v, law = int(size) ** 2, charge_law(float(beta), int(size) ** 2)
    assert ln_z(beta, v) / v == pytest.approx(free, abs=1e-9)
    assert law.moment(2) == pytest.approx(q2, abs=1e-6)
    assert [law.probability[law.charge == q][0] for q in (0, 1, 2)] == pytest.approx(rest[:3], abs=1e-6)
    assert [wilson_loop(beta, v, a) for a in (1, 4, 9)] == pytest.approx(rest[3:], abs=1e-6)


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_two_by_two_by_quadrature(beta: float) -> None:
    """Three plaquettes are free, the fourth is what is missing to a multiple of 2 pi."""
    n = 96
    grid = -math.pi + 2 * math.pi * (np.arange(n) + 0.5) / n
    a, b, c = np.meshgrid(grid, grid, grid, indexing="ij", sparse=True)
    s = a + b + c
    last = -s - 2 * math.pi * np.ceil((-s - math.pi) / (2 * math.pi))
    weight = np.exp(beta * (np.cos(a) + np.cos(b) + np.cos(c) + np.cos(last)))
    z = weight.mean()
    assert ln_z(beta, 4) == pytest.approx(math.log(z), abs=1e-10)
    assert wilson_loop(beta, 4, 1) == pytest.approx((weight * np.cos(a)).mean() / z, abs=1e-10)
    assert wilson_loop(beta, 4, 2) == pytest.approx((weight * np.cos(a + b)).mean() / z, abs=1e-10)
    law, q = charge_law(beta, 4), np.round((s + last) / (2 * math.pi))
    for charge in (0, 1):  # the sectors have edges: errors of the order of 1/n^2 times their weight
        found = float((weight * (q == charge)).mean() / z)
        assert law.probability[law.charge == charge][0] == pytest.approx(found, abs=3e-3)
    assert abs(law.probability[law.charge == 0][0] - law.probability[law.charge == 1][0]) > 0.1


@pytest.mark.parametrize(("beta", "volume"), [(0.05, 4), (0.5, 12), (2.0, 64), (7.0, 256), (200.0, 1024)])
def test_charges_are_the_transform_of_theta(beta: float, volume: int) -> None:
    law = charge_law(beta, volume)
    assert law.probability.sum() == pytest.approx(1, abs=1e-12)
    assert law.probability == pytest.approx(law.probability[::-1], abs=1e-12)
    for theta in (0.3, 1.7, math.pi):
        own = float(law.probability @ np.cos(theta * law.charge))
        assert z_of_theta(beta, volume, theta) == pytest.approx(own, abs=1e-9)
        assert z_of_theta(beta, volume, theta + 2 * math.pi) == pytest.approx(own, abs=1e-9)
    assert z_of_theta(beta, volume, 0.3) < 1 - 1e-6


def test_limits() -> None:
    assert wilson_loop(3.0, 10**4, 1) == pytest.approx(ive(1, 3.0) / ive(0, 3.0), abs=1e-12)
    assert [wilson_loop(2.0, 16, a) for a in (0, 16)] == pytest.approx([1, 1])
    assert wilson_loop(2.0, 16, 5) == pytest.approx(wilson_loop(2.0, 16, 11), abs=1e-14)  # seen from outside
    h = 1e-3  # <Q^2>/V of a large torus is -c''/(4 pi^2 c) at nu = 0
    c = coefficients(4.0, np.array([-h, 0.0, h]))
    chi = -(c[0] - 2 * c[1] + c[2]) / h**2 / (4 * math.pi**2 * c[1])
    assert charge_law(4.0, 900).moment(2) / 900 == pytest.approx(chi, rel=1e-5)
    c = coefficients(0.5, np.array([-h, 0.0, h]))  # and of one with some 35 charges each way
    chi = -(c[0] - 2 * c[1] + c[2]) / h**2 / (4 * math.pi**2 * c[1])
    assert charge_law(0.5, 128**2).moment(2) / 128**2 == pytest.approx(chi, rel=1e-5)
    assert math.sqrt(chi) * 128 > 30
    beta, v = 1000.0, 100  # a Villain torus of 1/beta: P(Q) ~ e^{-2 pi^2 beta Q^2/V}
    law = charge_law(beta, v)
    assert law.probability[law.charge == 0][0] == pytest.approx(1, abs=1e-12)
    weak = [ln_z(b, 16) for b in (1e-3, 2e-3)]
    assert weak == pytest.approx([16 * b**2 / 4 for b in (1e-3, 2e-3)], rel=1e-5)


def test_whole_orders_are_bessel_functions() -> None:
    n = np.arange(-5, 6)
    np.testing.assert_allclose(coefficients(7.0, n.astype(float)), ive(n, 7.0), atol=1e-16)
    phi = -math.pi + 2 * math.pi * (np.arange(20000) + 0.5) / 20000
    for nu in (0.3, 1.5, 2.71):
        exact = (np.exp(7.0 * (np.cos(phi) - 1)) * np.cos(nu * phi)).mean()
        assert coefficients(7.0, np.array([nu]))[0] == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize(("beta", "volume"), [(0.5, 2**14), (64.0, 2**18), (65.0, 2**18), (1e4, 2**22)])
def test_charges_of_large_tori_are_those_of_free_plaquettes(beta: float, volume: int) -> None:
    """<Q^2> = V <theta_p^2>/4 pi^2 where many charges are there, to rounding."""
    x, weight = np.polynomial.legendre.leggauss(400)
    reach = min(math.pi, 9.5 / math.sqrt(beta))
    theta = reach * x
    weight = weight * np.exp(beta * (np.cos(theta) - 1))
    exact = volume * float(weight @ theta**2 / weight.sum()) / (4 * math.pi**2)
    assert exact > 10
    assert charge_law(beta, volume).moment(2) == pytest.approx(exact, rel=1e-10)
    assert charge_law(1.001 * beta, volume).moment(2) != pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("beta", [1e-6, 64.0, 3e4, 1e6])
@pytest.mark.parametrize("volume", [4, 5, 64, 4096, 2**18])
def test_the_ends_of_the_range(beta: float, volume: int) -> None:
    charge_law.cache_clear()
    tracemalloc.start()
    law, mean = charge_law(beta, volume), z_of_theta(beta, volume, 1.0)
    loop = wilson_loop(beta, volume, 1)
    free = ln_z(beta, volume) / volume
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1e8
    assert float(law.probability @ np.cos(law.charge)) == pytest.approx(mean, abs=1e-12)
    if beta >= 3e4:
        assert 1 - loop == pytest.approx((1 - 1 / volume) / (2 * beta), rel=3 / beta + 1e-9)
        # P(0) of all 2 pi Q spread evenly: a Villain torus
        villain = np.exp(-2 * math.pi**2 * beta * np.arange(-9, 10) ** 2 / volume)
        p = law.probability[law.charge == 0][0]
        assert p == pytest.approx(1 / villain.sum(), abs=3 / beta + 1e-12)
    if beta < 1e-3:
        assert loop == pytest.approx(beta / 2, rel=1e-5)
        assert free == pytest.approx(beta**2 / 4, abs=1e-16)
        # all plaquettes are even, but for their sum
        assert law.moment(2) == pytest.approx(volume / 12, rel=1e-4 if volume > 5 else 0.01)


def test_bad_input() -> None:
    for beta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="beta must be > 0"):
            ln_z(beta, 64)
    for beta in (9e-7, 1.1e6):
        with pytest.raises(InputError, match=r"beta must be between 1e-06 and 1e\+06, got"):
            charge_law(beta, 64)
    for volume in (1, 3):
        with pytest.raises(InputError, match="at least 4 plaquettes"):
            charge_law(1.0, volume)
    with pytest.raises(InputError, match="0 to 64 plaquettes, got 65"):
        wilson_loop(1.0, 64, 65)


def test_known_by_name() -> None:
    """Loops by area, those that fit; Creutz ratios of a large torus, and lines by strips, are -ln I1/I0."""
    found = known(7.0, (16, 16))
    assert found["wilson_2x2"] == wilson_loop(7.0, 256, 4)
    assert found["wilson_1x3"] == wilson_loop(7.0, 256, 3)
    assert found["action_density"] == -7 * found["plaquette"]
    assert found["chi_top"] * 256 == found["charge2"] == charge_law(7.0, 256).moment(2)
    tension = -math.log(ive(1, 1.0) / ive(0, 1.0))
    large = known(1.0, (12, 8))
    for r in (2, 3):
        assert large[f"creutz_{r}x{r}"] == pytest.approx(tension, abs=1e-9)
    # lines along axis 0 are 12 plaquettes apart, a torus of 8 of them
    apart = 1 + 2 * math.exp(-12 * tension) / (1 - math.exp(-12 * tension))
    assert large["polyakov2_0"] == pytest.approx(apart / 8, rel=1e-6)
    assert "wilson_2x3" not in known(1.0, (2, 2))
    assert "wilson_2x3" in known(1.0, (2, 4))
    assert known(1.0, (4, 6))["polyakov2_0"] == known(1.0, (6, 4))["polyakov2_1"]
    # around all of the torus: 1
    assert fitting((2, 2)) == [(1, 2)]
    assert {"wilson_2x3", "creutz_3x3"}.isdisjoint(known(1.0, (2, 3)))
    assert {"wilson_3x3", "creutz_3x3"}.isdisjoint(known(1.0, (3, 3)))
    assert {"wilson_2x3", "creutz_2x2"} <= known(1.0, (3, 3)).keys()
    assert all(math.isfinite(x) for x in known(96.0, (32, 32)).values())
