"""The stiffness of a drift, and the steps that it allows, are those of the linear case in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.actions.complexified import Complexified
from lattice.actions.one_variable import ComplexGaussian, ComplexQuartic
from lattice.actions.phi4 import ComplexPhi4, FreeScalar
from lattice.actions.u1 import U1
from lattice.updates.complex_langevin import complex_langevin_update
from lattice.updates.stiffness import growth, largest_step, stiffness, two_digits, typical, unstable

SIGMA = 1000 + 1000j


def test_second_derivatives() -> None:
    z = np.array([0.5 + 0.1j, -2.0 + 0j])
    assert stiffness(ComplexGaussian(SIGMA), z) == pytest.approx([SIGMA, SIGMA], rel=1e-5)
    assert stiffness(ComplexQuartic(1 + 1j, 2.0), z) == pytest.approx(1 + 1j + 6 * z * z, rel=1e-4)
    for kappa in (0.2, -0.2):  # the stiffest wave alternates, or is smooth
        assert stiffness(FreeScalar(kappa), np.zeros((1, 4, 4))) == pytest.approx(3.6, rel=1e-5)
    found = stiffness(ComplexPhi4(0.1, 0.0, SIGMA), np.zeros((1, 2, 2), complex))
    assert found == pytest.approx(2 * SIGMA + 0.8, rel=1e-5)
    assert stiffness(Complexified(ComplexGaussian(2.0)), np.zeros((3, 2))).shape == (3, 2)
    for beta in (3.0, 3.0 + 1j):  # 8 beta: alternating links that are no pure gauge
        assert stiffness(U1(beta), np.zeros((1, 2, 4, 6), complex)) == pytest.approx(8 * beta, rel=1e-4)


@pytest.mark.parametrize(
    ("lam", "heun", "limit"), [(4.0, False, 0.5), (4.0, True, 0.5), (3 + 4j, False, 0.24)]
)
def test_the_largest_stable_step(lam: complex, heun: bool, limit: float) -> None:
    """|1 - h lambda| < 1 for h < 2 Re lambda/|lambda|^2; heun has the same limit for real lambda."""
    one = np.array([lam])
    assert unstable(one, 1.02 * limit, heun)
    assert not unstable(one, 0.98 * limit, heun)
    assert largest_step(one, 3.0, heun) == pytest.approx(limit, rel=0.05)
    assert growth(limit * lam, heun) == pytest.approx(1.0)
    assert not unstable(-one, 1.0, heun)  # it is the drift that leads away, not the step
    assert typical(one) == pytest.approx(abs(lam))


@pytest.mark.parametrize(("factor", "grows"), [(0.95, False), (1.05, True)])
def test_it_is_the_limit_of_the_update(factor: float, grows: bool) -> None:
    action, z = ComplexGaussian(SIGMA), np.full(4, 1e3 + 0j)
    step = factor * largest_step(np.array([SIGMA]), 1.0, heun=True) / 1.0
    moved, _ = complex_langevin_update(
        action, z, seed=1, chains=np.arange(4), trajectory=0, tau=100 * step, step=step
    )
    assert (np.abs(moved).min() > 1e3) == grows


def test_two_digits() -> None:
    assert [two_digits(x) for x in (2.19e-5, 0.3, 129.0, 0.0999)] == [2.1e-5, 0.3, 120.0, 0.099]
